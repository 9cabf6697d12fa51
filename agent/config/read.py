"""From files to a configuration: the user's own, over what the cloud ordered, over what the enrolment told."""

import tomllib
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from agent.config.sections import STATE_DIR, Config, nearest
from agent.errors import Rejected

IDENTITY = "identity"
"""Folder in the state folder: who this device is since it was enrolled."""
ENROLLED = "enrolled.toml"
"""Configuration in that folder, below the user's own."""

ORDERED = Path("settings") / "ordered.toml"
"""Where the ordered settings in force lie in `state_dir`."""
NOT_ORDERED = ("device",)
TRUST_KEYS = ("root_file", "repository")
"""What the cloud may not order: who a device is, where its files lie, and what it trusts."""

IN_TOML = {
    "string_type": "text in quotes",
    "bool_type": "true or false, without quotes",
    "bool_parsing": "true or false, without quotes",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number, without quotes"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number, without quotes"),
}
"""What a value must be, as one writes it, by pydantic's name for the error that it is something else."""


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """Names allowed beside the last element of an error's location."""
    model: type[BaseModel] = Config
    for part in location[:-1]:
        if isinstance(part, int):
            continue
        field = model.model_fields.get(part)
        if field is None:
            return []
        candidates = [field.annotation, *typing.get_args(field.annotation)]
        inner = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not inner:
            return []
        model = inner[0]
    return list(model.model_fields)


def _sentence(error: Any) -> str:
    where = ""
    for part in error["loc"]:
        where += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if where else str(part)
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key; {nearest(str(error['loc'][-1]), _keys_at(error['loc']))}"
    if error["type"] == "missing":
        return f"{where}: missing"
    if error["type"] in ("model_type", "dict_type"):
        return f"{where}: this is a section; write [{where}], with one bracket, and its keys below"
    if error["type"] == "tuple_type":
        tables = len(error["loc"]) == 1
        return f"{where}: " + (
            f"there may be several of these; write [[{where}]], with two brackets, and the keys of one below"
            if tables
            else f"must be a list: {where.rpartition('.')[2]} = [...]"
        )
    if error["type"] in IN_TOML:
        return f"{where}: must be {IN_TOML[error['type']]}"
    text = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be", 1)
    return f"{where}: {text}" if where else text


def parse(text: str, name: str = "configuration", below: typing.Mapping[str, Any] | None = None) -> Config:
    """Read a configuration from TOML text, over what `below` says where the text says nothing.

    Raises `Rejected` (code ``config``), which lists every mistake, each with its place and its cure.
    """
    said = _toml(text, name)
    try:
        return Config.model_validate(_over(said, below or {}))
    except ValidationError as error:
        lines = [_sentence(e) for e in error.errors()]
        raise Rejected(
            "config",
            f"{name}:\n  " + "\n  ".join(lines),
            "mend these lines; `shelfwire-agent config example` shows every key"
            + ("" if below else "; [device] id comes by itself with `shelfwire-agent enroll`" * _lacks_id(error)),
        ) from None


def _lacks_id(error: ValidationError) -> bool:
    return any(e["type"] == "missing" and e["loc"][0] == "device" for e in error.errors())


def _toml(text: str, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Rejected("config-syntax", f"{name}: {error}", "mend the line named; TOML text stands in quotes") from None


def _over(said: typing.Mapping[str, Any], below: typing.Mapping[str, Any]) -> dict[str, Any]:
    """Lay one configuration over another, section by section and key by key; a list, as of cameras, as a whole."""
    merged = dict(below)
    for section, own in said.items():
        under = below.get(section)
        merged[section] = {**under, **own} if isinstance(under, dict) and isinstance(own, dict) else own
    return merged


def load(path: Path, state_dir: Path = STATE_DIR, ordered: str | None = None) -> Config:
    """Read the configuration file at `path`, over what the cloud has ordered, over what the enrolment has told.

    An enrolled device works without a file, from `state_dir`. `ordered` is tried in the place of the settings that are
    in force. Those of the device never keep it from its work: when they fit no more, it goes without them. Raises
    `Rejected` with the place and the cure of every mistake.
    """
    text = _read(path)
    where = _state_dir(text or "", str(path), state_dir)
    if ordered is not None:
        return _layered(path, text, where, ordered)
    in_force = _read(where / ORDERED) or ""
    try:
        return _layered(path, text, where, in_force)
    except Rejected as error:
        if not in_force:
            raise
        config = _layered(path, text, where, "")
        config._ordered, config._ordered_trouble = in_force, str(error)  # noqa: SLF001 - its own loader
        return config


def _layered(path: Path, text: str | None, where: Path, ordered: str) -> Config:
    enrolled = _enrolled(where)
    if text is None and enrolled is None:
        raise Rejected(
            "config-missing",
            f"there is no configuration at {path}",
            "write one with `shelfwire-agent config example > shelfwire.toml` and name it with --config",
        )
    below = _over(read_ordered(ordered), enrolled or {}) if ordered else enrolled
    if below is not None and enrolled is not None:
        below = {**below, "device": {**enrolled["device"], "state_dir": str(where)}}
    config = parse(text or "", str(path), below)
    config._ordered = ordered  # noqa: SLF001 - its own loader
    if enrolled is None:
        return config
    who = enrolled["device"]["id"]
    if config.device.id != who and config.cloud.cert_file == where / IDENTITY / "device.crt":
        raise Rejected(
            "config",
            f'{path}: [device] id is "{config.device.id}", but this device is enrolled as "{who}"',
            "leave id out, or have the operator make a code for that name and enrol the device anew",
        )
    return config


def read_ordered(text: str) -> dict[str, Any]:
    """Read settings that the cloud orders. Raises `Rejected` for a device's name and its trust."""
    said = _toml(text, "the ordered settings")
    strange = [f"[{section}]" for section in said if section in NOT_ORDERED]
    update = said.get("update")
    strange += [f"[update] {key}" for key in TRUST_KEYS if isinstance(update, dict) and key in update]
    if strange:
        raise Rejected(
            "config", f"the ordered settings: {strange[0]} cannot be ordered", "set it in the device's own file"
        )
    return said


def state_dir_of(path: Path) -> Path:
    """Tell where a device keeps its files, from a configuration that may lack everything else, or not be there."""
    return _state_dir(_read(path) or "", str(path), STATE_DIR)


def own_id(path: Path) -> str | None:
    """Tell which device a user's own configuration speaks of; None where it leaves that to the enrolment."""
    device = _toml(_read(path) or "", str(path)).get("device", {})
    said = device.get("id") if isinstance(device, dict) else None
    return said if isinstance(said, str) else None


def _state_dir(text: str, name: str, default: Path) -> Path:
    device = _toml(text, name).get("device", {})
    said = device.get("state_dir", default) if isinstance(device, dict) else default
    return Path(said).expanduser() if isinstance(said, str | Path) else default


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from None


def _enrolled(state_dir: Path) -> dict[str, Any] | None:
    """Read what the device was told when it was enrolled; None before that."""
    path = state_dir / IDENTITY / ENROLLED
    text = _read(path)
    if text is None:
        return None
    said = _toml(text, str(path))
    if not isinstance(said.get("device"), dict) or "id" not in said["device"]:
        raise Rejected("config", f"{path}: there is no [device] id", "enrol the device anew: shelfwire-agent enroll")
    return said


def _unreadable(path: Path, error: Exception) -> Rejected:
    if isinstance(error, PermissionError):
        hint = "run this as the agent's user: sudo -u shelfwire shelfwire-agent ..."
        return Rejected("config-unreadable", f"this user may not read {path}", hint)
    return Rejected(
        "config-unreadable", f"{path} cannot be read: {error}", "give it to this user and save it as UTF-8 text"
    )
