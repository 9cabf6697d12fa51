"""The models of this device: what answers, what was tried and how it ended; try one, go back, hold, bring one by hand.

Works while vision and sync run and while they are dead. Exit code 1 when a model that was tried did not pass.
"""

import argparse
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from agent.cli import model_import, model_quantize
from agent.cli.common import add_config, add_json, load_config, table
from agent.config import Config
from agent.core.lifecycle import CODES
from agent.core.updates import Entry, When
from agent.errors import Rejected, ShelfwireError
from agent.host.clock import SystemClock, boot_id
from agent.store.models import Models, key_of

TROUBLE = 1
"""Exit code: the model that was tried did not pass."""
_WITHOUT_CONFIG: dict[str, Any] = {"import": model_import, "quantize": model_quantize}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments: one parser for each thing to do."""
    verbs = parser.add_subparsers(dest="verb", metavar="DO", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        add_config(sub)
        add_json(sub)
        return sub

    verb("list", "which model answers, which are kept beside it, and how the last update went")
    test = verb("test", "try a bundle as an update would be tried, but for live pictures; changes nothing")
    test.add_argument("bundle", metavar="BUNDLE", help="bundle name or folder")
    verb("rollback", "have the model before answer again")
    verb("pin", "hold the model as it is: orders wait")
    verb("unpin", "let orders change the model again")
    update = verb("update", "take a model from a folder, as a stick; it is verified and tried as any other")
    update.add_argument(
        "--from", dest="folder", type=Path, required=True, metavar="DIR", help="the repository's folder"
    )
    update.add_argument("--name", metavar="NAME", help="the model's name (default: that of the model that answers)")
    update.add_argument("--release", type=int, metavar="N", help="its release (default: the highest)")
    texts = {"import": "make a bundle of somebody's classifier, and try it", "quantize": "give a bundle an INT8 model"}
    for name, module in _WITHOUT_CONFIG.items():
        module.add_arguments(verbs.add_parser(name, help=texts[name], description=texts[name]))
    parser.epilog = (
        "Every verb takes --json, those about this device also -c FILE; see `shelfwire-agent model VERB --help`."
    )


def run(options: argparse.Namespace) -> int:
    """Do what the verb says; gives the exit code."""
    if options.verb in _WITHOUT_CONFIG:
        return int(_WITHOUT_CONFIG[options.verb].run(options))
    config = load_config(options)
    models = Models(config.device.state_dir / "models", config.update.keep_free)
    verbs = {"list": _list, "test": _test, "rollback": _rollback, "pin": _pin, "unpin": _pin, "update": _update}
    return verbs[options.verb](options, config, models)


def _now() -> When:
    stamp = SystemClock().now()
    return When(wall_ns=stamp.wall_ns, boot_ns=stamp.boot_ns, boot=boot_id())


def _tell(options: argparse.Namespace, told: dict[str, Any], sentence: str) -> None:
    print(json.dumps(told, indent=2) if options.json else sentence)


# list


def _list(options: argparse.Namespace, config: Config, models: Models) -> int:
    told = listing(config, models)
    _tell(options, told, "" if options.json else _listing_text(told))
    return 0


def listing(config: Config, models: Models) -> dict[str, Any]:
    """Put together what `list` shows."""
    from models import Bundle, BundleError, resolve

    links = models.links()
    rows: list[dict[str, Any]] = []
    for key in models.held():
        bundle = models.bundle(key)
        role = "answers" if key == links.current else "previous" if key == links.previous else ""
        rows.append({"key": key, "role": role, "whole": bundle is not None, **_named(bundle)})
    try:
        configured = Bundle.load(resolve(config.model.bundle))
        whole = links.current is not None and models.bundle(links.current) is not None
        role = "configured" if whole else "answers"
        rows.append({"key": None, "role": role, "whole": True, **_named(configured)})
    except (BundleError, OSError) as error:
        rows.append({"key": None, "role": "configured", "whole": False, "error": str(error)})
    entries = [models.journal.read("model"), models.journal.read("config")]
    return {
        "models": rows,
        "pinned": models.journal.pinned,
        "updates": [_update_told(entry) for entry in entries if entry is not None],
        "failed": sorted(path.name for path in models.folder.glob("failed-*")),
    }


def _named(bundle: Any) -> dict[str, Any]:
    if bundle is None:
        return {}
    ref = bundle.ref
    return {"name": ref.name, "version": ref.version, "release": ref.release, "digest": ref.digest}


def _update_told(entry: Entry) -> dict[str, Any]:
    code = CODES.get(entry.code or "")
    return {
        "what": entry.what,
        "revision": entry.revision,
        "model": entry.model.model_dump() if entry.model is not None else None,
        "state": entry.state,
        "since": datetime.fromtimestamp(entry.since.wall_ns / 1e9, UTC).isoformat(timespec="seconds"),
        "code": entry.code,
        "text": entry.text,
        "cure": code.cure if code is not None else "",
        "numbers": entry.numbers,
        "disagreements": [part.model_dump() for part in entry.disagreements],
        "progress": entry.progress,
    }


def _listing_text(told: dict[str, Any]) -> str:
    rows = [("model", "version", "release", "", "digest")]
    for row in told["models"]:
        name = row.get("name", "not whole")
        rows.append(
            (name, row.get("version", ""), str(row.get("release", "")), row["role"], (row.get("digest") or "")[:12])
        )
    lines = [table(rows)]
    if told["pinned"]:
        lines += ["", "held as it is: orders wait until `shelfwire-agent model unpin`"]
    for update in told["updates"]:
        lines += ["", _update_text(update)]
    if told["failed"]:
        lines += ["", f"what is known of models that failed: {', '.join(told['failed'])} (in state_dir/models)"]
    return "\n".join(lines)


def _update_text(update: dict[str, Any]) -> str:
    model = update["model"]
    named = f"{model['name']} {model['version']}" if model is not None else "settings"
    order = f"order {update['revision']}" if update["revision"] else "by hand"
    lines = [f"last update: {named} ({order}): {update['state']} since {update['since']}"]
    if update["code"]:
        lines += [f"  {update['text']} [{update['code']}]", f"  cure: {update['cure']}"]
    lines += [f"  {name:<22} {value:g}" for name, value in update["numbers"].items()]
    lines += [f"  {d['label']}: named otherwise in {d['differ']} of {d['frames']}" for d in update["disagreements"][:5]]
    return "\n".join(lines)


# test


def _test(options: argparse.Namespace, config: Config, _models: Models) -> int:
    from agent.app.fitting import fits, terms_of
    from agent.app.using import bundle_in_use
    from agent.host.processor import workers_for
    from agent.proof.bench import Bench, Trying
    from agent.store.models import refused
    from models import Bundle, BundleError, resolve

    numbers: dict[str, float] = {}
    bench: Bench | None = None
    try:
        bundle = Bundle.load(resolve(options.bundle))
        fits(config, bundle)
        running = bundle_in_use(config).folder
        cache = config.device.state_dir / "compiled"
        trying = Trying(bundle.folder, running, config.model.setup, max(1, workers_for(config)), cache,
                        bundle.manifest.limits.memory_bytes)  # fmt: skip
        bench = Bench(trying, terms_of(config), threading.Event())
        numbers = bench.numbers
        for gate in (bench.compiled, bench.golden, bench.fast):
            gate()
    except BundleError as error:
        return _test_failed(options, refused(error), numbers)
    except Rejected as error:
        return _test_failed(options, error, {**numbers, **getattr(error, "numbers", {})})
    finally:
        if bench is not None:
            bench.close()
    ref = bundle.ref
    lines = [f"{ref.name} {ref.version}, release {ref.release}: passes every gate"]
    lines += [f"  {name:<22} {value:g}" for name, value in numbers.items()]
    _tell(options, {"ok": True, **_named(bundle), "numbers": numbers}, "\n".join(lines))
    return 0


def _test_failed(options: argparse.Namespace, error: ShelfwireError, numbers: dict[str, float]) -> int:
    cure = error.hint or (CODES[error.code].cure if error.code in CODES else "")
    told = {"ok": False, "code": error.code, "text": str(error), "cure": cure, "numbers": numbers}
    lines = [f"{options.bundle}: would be refused: {error} [{error.code}]", f"  cure: {cure}"]
    lines += [f"  {name:<22} {value:g}" for name, value in numbers.items()]
    _tell(options, told, "\n".join(lines))
    return TROUBLE


# rollback, pin, unpin


def _rollback(options: argparse.Namespace, config: Config, models: Models) -> int:
    from agent.proving import go_back_by_hand

    links = go_back_by_hand(models, _now())
    bundle = models.bundle(links.current)
    named = f"{bundle.ref.name} {bundle.ref.version}" if bundle is not None else f"{config.model.bundle} (configured)"
    _tell(options, {"answers": links.current, **_named(bundle)},
          f"{named} answers: within a second where vision runs, else from its next start")  # fmt: skip
    return 0


def _pin(options: argparse.Namespace, _config: Config, models: Models) -> int:
    hold = options.verb == "pin"
    models.journal.pin(hold=hold)
    sentence = "the model is held as it is: orders wait" if hold else "orders may change the model again"
    _tell(options, {"pinned": hold}, sentence)
    return 0


# update --from


def _update(options: argparse.Namespace, config: Config, models: Models) -> int:
    from agent.app.fetching import configured_ref
    from agent.link.repository import TRUST, open_repository
    from agent.update import bring_by_hand, running_of

    if not options.folder.is_dir():
        hint = "name the folder that holds metadata/ and blobs/"
        raise Rejected("update-folder-missing", f"there is no folder {options.folder}", hint)
    models.folder.mkdir(parents=True, exist_ok=True)
    repository = open_repository(config, SystemClock(), folder=options.folder)
    repository.refresh()
    configured = configured_ref(config)
    running = running_of(models, configured)
    name = options.name or (running.name if running is not None else "")
    order = newest_offer(models.folder / TRUST / "targets.json", name, options.release)
    entry = bring_by_hand(models, repository, order, configured, _now())
    told = {"state": entry.state, "model": order.model_dump(), "key": key_of(order.digest)}
    _tell(options, told, f"{order.name} {order.version}, release {order.release}: verified; vision tries it now,"
          " or at its next start: see `shelfwire-agent model list`")  # fmt: skip
    return 0


def newest_offer(targets: Path, name: str, release: int | None) -> Any:
    """Give the order for a model that the metadata in `targets`, verified and kept by this device, offers.

    Raises `Rejected` (``update-unlisted``).
    """
    from wire.orders import ModelOrder

    try:
        listed = json.loads(targets.read_bytes())["signed"]["targets"]
    except (OSError, ValueError, KeyError):
        listed = {}
    offers = []
    for path, told in listed.items():
        parts = path.split("/")
        if len(parts) == 4 and parts[0] == "models" and parts[1] == name and parts[2].isdigit():
            version = told.get("custom", {}).get("version", parts[2])
            offers.append(
                ModelOrder(name=name, version=version, release=int(parts[2]), digest=told["hashes"]["sha256"])
            )
    fitting = [offer for offer in offers if release in (None, offer.release)]
    if not fitting:
        wanted = f"{name} release {release}" if release is not None else f"a model named {name!r}"
        there = ", ".join(sorted(path.split("/")[1] + " " + path.split("/")[2] for path in listed if "/" in path))
        raise Rejected("update-unlisted", f"the folder does not offer {wanted}", f"it offers: {there or 'nothing'}")
    return max(fitting, key=lambda offer: offer.release)
