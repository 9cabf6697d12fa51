"""Check the configuration, show what is in force, or print an example with every key explained.

With --json, `example` prints the JSON Schema of the configuration; with --commented it sets nothing.
"""

import argparse
import json
import typing
from datetime import time
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from agent.camera.address import redact
from agent.cli.common import add_config, add_json, load_config
from agent.config import Bytes, Config, Hours, Seconds, parse
from agent.core import zones
from agent.errors import Broken, Rejected

EXAMPLES: dict[str, str] = {
    "device.id": '"till-3"',
    "device.store": '"store-12"',
    "camera.name": '"shelf-1"',
    "camera.url": '"rtsp://10.0.0.21/stream1"',
    "model.threshold": "0.6",
    "camera.kind": '"snapshot"',
    "camera.username": '"viewer"',
    "camera.password_file": '"/etc/shelfwire/shelf-1.password"',
    "alert.name": '"bananas-on-shelf-1"',
    "alert.label": '"Banana"',
    "alert.cameras": '["shelf-1"]',
    "alert.quiet_hours": '["22:00-06:00"]',
    "cloud.broker": '"mqtts://broker.example:8883"',
    "cloud.api": '"https://cloud.example"',
    "camera.deadline": '"500 ms"',
    "camera.mask": zones.EXAMPLE,
    "cloud.username": '"till-3"',
    "cloud.password_file": '"/etc/shelfwire/broker.password"',
    "cloud.ca_file": '"/etc/shelfwire/ca.pem"',
    "cloud.cert_file": '"/etc/shelfwire/device.pem"',
    "cloud.key_file": '"/etc/shelfwire/device.key"',
    "update.repository": '"https://cloud.example/repository"',
    "update.root_file": '"/etc/shelfwire/root.json"',
    "update.window": '"22:00-06:00"',
    "local.names": '["till-3.local"]',
    "local.password_file": '"/etc/shelfwire/local.password"',
    "local.cert_file": '"/etc/shelfwire/local.pem"',
    "local.key_file": '"/etc/shelfwire/local.key"',
}
SET = {"device.id", "device.store", "camera.name", "camera.url"}
"""Keys that the example sets; all others stand commented out, with their default or a sample."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", choices=["check", "show", "example"])
    add_config(parser)
    parser.add_argument("--commented", action="store_true", help="example: comment every key out")
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    """Do what `action` says."""
    if options.action == "example":
        print(
            json.dumps(Config.model_json_schema(), indent=2) if options.json else example(commented=options.commented)
        )
        return 0
    config = load_config(options)
    if options.action == "show":
        print(json.dumps(as_json(config), indent=2) if options.json else as_toml(config))
        return 0
    _check_alert_labels(config)
    shut = shut_ways(config)
    if options.json:
        print(json.dumps({"ok": True, "config": str(options.config), "shut": shut}))
    else:
        cameras = len(config.camera)
        print(f"{options.config}: fine, {cameras} camera{'' if cameras == 1 else 's'}")
        print(ways_line(shut))
    return 0


def shut_ways(config: Config) -> dict[str, str]:
    """Say for each way to an answer of the cloud which setting shuts it; empty when it is open."""
    place, paid, again, batch = config.placement, config.serverless, config.review, config.batch
    if not config.frames_may_leave:
        pictures = config.privacy.pictures
        why = "[cloud] api is not set" if config.cloud.api is None else f'[privacy] pictures = "{pictures}"'
        return {"function": why, "review": why, "night": why}
    function = night = review = ""
    if config.cloud.broker is None:
        function = "[cloud] broker is not set, and answers come that way"
    elif place.overflow != "auto":
        function = f'[placement] overflow = "{place.overflow}"'
    elif paid.per_hour == 0 or paid.per_day_usd < paid.usd_per_call:
        function = "[serverless] allows no call: see per_hour and per_day_usd"
    if again.per_hour == 0 or (again.below == 0 and again.audit == 0):
        review = "[review] asks for none: see per_hour, below and audit"
    if place.overflow == "drop" and batch.keep_every == 0:
        night = '[placement] overflow = "drop" and [batch] keep_every = "0 s"'
    return {"function": function, "review": review, "night": night}


def ways_line(shut: dict[str, str]) -> str:
    """Write in one line who of the cloud may answer frames, and why the others may not."""
    reasons = set(shut.values())
    if reasons == {""}:
        return "the cloud answers too: the function at once, review, and the night"
    if len(reasons) == 1:
        return f"the cloud answers no frames: {reasons.pop()}"
    named = {"function": "the function at once", "review": "review", "night": "the night"}
    may = [named[way] for way, why in shut.items() if not why] or ["nobody"]
    closed = [f"not {named[way]} ({why})" for way, why in shut.items() if why]
    return f"the cloud answers too: {', '.join(may)}; {'; '.join(closed)}"


def _check_alert_labels(config: Config) -> None:
    """Say now what vision would refuse at its start."""
    from agent.app.using import bundle_in_use, make_rules

    try:
        bundle = bundle_in_use(config)
    except Broken as error:
        raise Rejected(error.code, str(error), error.hint) from None
    make_rules(config, bundle.manifest.labels)


def as_json(config: Config) -> dict[str, Any]:
    """Give the configuration in force, passwords in addresses left out."""
    shown: dict[str, Any] = config.model_dump(mode="json")
    for camera in shown["camera"]:
        camera["url"] = redact(camera["url"])
    return shown


def as_toml(config: Config) -> str:
    """Write the configuration in force as TOML; keys without a value are left out."""
    lines: list[str] = []
    for name in Config.model_fields:
        value = getattr(config, name)
        sections = value if isinstance(value, tuple) else (value,)
        for section in sections:
            lines += ["", f"[[{name}]]" if isinstance(value, tuple) else f"[{name}]"]
            for key, inner in type(section).model_fields.items():
                item = getattr(section, key)
                if item is not None:
                    item = redact(item) if (name, key) == ("camera", "url") else item
                    lines.append(f"{key} = {_toml(item, inner)}")
    return "\n".join(lines[1:])


HEAD = [
    "# Shelfwire, configuration of a device. Every key is listed; what is commented out shows its default,",
    "# or a sample where there is none. Times and sizes carry their unit.",
]


def example(*, commented: bool = False) -> str:
    """Write a configuration with every key, its meaning and its default; it loads as it stands.

    With `commented` it sets nothing: the file of a device that is still to get its name (by enrolment) and its cameras.
    """
    lines = list(HEAD)
    if commented:
        lines.append("# Take the # away from what you set; a camera needs its [[camera]] line, too. Then check it:")
        lines.append("# shelfwire-agent config check && systemctl reload shelfwire-vision shelfwire-sync")
    for name, field in Config.model_fields.items():
        model, many = _section(field)
        mute = "# " if name == "alert" or (many and commented) else ""
        text = (model.__doc__ or "").strip().splitlines()[0]
        lines += ["", f"# {text}", f"{mute}[[{name}]]" if many else f"[{name}]"]
        for key, inner in model.model_fields.items():
            place = f"{name}.{key}"
            default = None if inner.default in (None, PydanticUndefined, ()) else inner.default
            value = EXAMPLES[place] if default is None or place in EXAMPLES else _toml(default, inner)
            lines.append(f"# {inner.description}" if inner.description else "#")
            lines.append(f"{'' if place in SET and not commented else '# '}{key} = {value}")
    text = "\n".join(lines)
    if not commented:
        parse(text, "the example")
    return text


def _section(field: FieldInfo) -> tuple[type[BaseModel], bool]:
    inner = [a for a in typing.get_args(field.annotation) if isinstance(a, type) and issubclass(a, BaseModel)]
    if inner:
        return inner[0], True
    annotation = field.annotation
    assert isinstance(annotation, type)
    assert issubclass(annotation, BaseModel)
    return annotation, False


def _has(field: FieldInfo, kind: Any) -> bool:
    """Whether a field carries the marker of `Seconds`, `Bytes` or `Hours`: the first metadata of the annotated type."""
    marker = typing.get_args(kind)[1]
    return any(m == marker for m in field.metadata)


def _toml(value: Any, field: FieldInfo) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if _has(field, Seconds):
        return f'"{value * 1000:g} ms"' if value < 1 else f'"{value:g} s"'
    if _has(field, Bytes):
        units = ((30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B"))
        size, unit = next((value >> bits, unit) for bits, unit in units if value % (1 << bits) == 0)
        return f'"{size} {unit}"'
    if isinstance(value, int | float):
        return repr(value)
    if _has(field, Hours):
        return _toml_item(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml_item(item) for item in value) + "]"
    return json.dumps(str(value), ensure_ascii=False)


def _toml_item(item: Any) -> str:
    if isinstance(item, tuple) and isinstance(item[0], time):
        return f'"{item[0]:%H:%M}-{item[1]:%H:%M}"'
    if isinstance(item, tuple):
        return "[" + ", ".join(_toml_item(inner) for inner in item) + "]"
    return json.dumps(item, ensure_ascii=False)
