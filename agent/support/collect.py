"""What goes into a support bundle: each part from a collector with a limit of time and of bytes, all in parallel.

Most parts are what our own commands and the system's print, in processes of their own: one that hangs is killed, and
one that crashes takes nothing along.
"""

import contextlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from importlib.metadata import distributions
from pathlib import Path
from typing import IO

MIB = 1 << 20
JOURNAL_BYTES = 4 * MIB
PART_BYTES = 512 << 10
LOG_BYTES = MIB
PICTURE_BYTES = MIB
MOST_PICTURES = 64

OURS_S = 20.0
"""What our own commands may take: a small device takes seconds to import them."""

SYSTEM_S = 8.0

UNITS = ("shelfwire-vision.service", "shelfwire-vision.socket", "shelfwire-sync.service", "shelfwire-nightly.service",
         "shelfwire-nightly.timer")  # fmt: skip
UNIT_FACTS = (
    "Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainStatus,ExecMainCode,ActiveEnterTimestamp,"
    "InactiveEnterTimestamp,WatchdogTimestamp,MemoryCurrent,CPUUsageNSec,StatusText,FragmentPath,DropInPaths"
)


@dataclass(frozen=True, slots=True)
class Part:
    """One member of the bundle, or why it is not there. `cut` are bytes that were left out of it."""

    name: str
    content: bytes = b""
    missing: str = ""
    cut: int = 0
    text: bool = True
    note: str = ""


Collector = Callable[[], Sequence[Part]]


@dataclass(frozen=True, slots=True)
class Task:
    """A collector with the name it is called by when it comes too late."""

    name: str
    collect: Collector
    limit_s: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for. `state_dir` and the like are None when the configuration does not say where they are;
    `commands` are those of ours that there are.
    """

    config_path: Path
    state_dir: Path | None
    runtime_dir: Path | None
    since: str
    commands: Collection[str]
    pictures: bool = False
    logs: Sequence[Path] = field(default_factory=tuple)


def collect(tasks: Sequence[Task]) -> list[Part]:
    """Run all collectors at once; gives their parts by name, and for what was too late or failed says so."""
    results: dict[str, list[Part]] = {}
    threads = []
    for task in tasks:
        thread = threading.Thread(target=_run, args=(task, results), name=f"collect-{task.name}", daemon=True)
        thread.start()
        threads.append((task, thread))
    for task, thread in threads:
        thread.join(task.limit_s + 2.0)
    parts: list[Part] = []
    for task in tasks:
        late = Part(task.name, missing=f"it did not come within {task.limit_s:.0f} s")
        parts += results.get(task.name, [late])
    return sorted(parts, key=lambda part: part.name)


def _run(task: Task, results: dict[str, list[Part]]) -> None:
    try:
        results[task.name] = list(task.collect())
    except Exception as error:  # noqa: BLE001 - the boundary of a thread: one part that fails is not the bundle's end
        results[task.name] = [Part(task.name, missing=f"{type(error).__name__}: {error}")]


def tasks(wanted: Wanted) -> list[Task]:
    """List the collectors."""
    ours = [
        ("doctor.json", ("doctor", "--json")),
        ("status.json", ("status", "--json")),
        ("status.txt", ("status",)),
        ("config/check.txt", ("config", "check")),
        ("config/effective.toml", ("config", "show")),
        ("outbox/list.json", ("outbox", "list", "--dead", "--json", "--limit", "200")),
        ("outbox/check.json", ("outbox", "check", "--json", "--quick")),
        ("night.json", ("nightly", "--list", "--json")),
    ]
    found = [
        Task(name, _own(name, words, wanted.config_path), OURS_S) for name, words in ours if words[0] in wanted.commands
    ]
    found += [
        Task("config/files", lambda: _config_files(wanted), SYSTEM_S),
        Task("versions.json", _versions, SYSTEM_S),
        Task("packages.txt", _packages, SYSTEM_S),
        Task("host/machine.json", _machine, SYSTEM_S),
        Task("host/moment.json", lambda: _moment(wanted), SYSTEM_S),
        Task("logs", lambda: [_file(f"logs/{n}-{path.name}", path, LOG_BYTES) for n, path in enumerate(wanted.logs)],
             SYSTEM_S),
    ]  # fmt: skip
    found += [Task(name, _system(name, words, most), SYSTEM_S) for name, words, most in _system_commands(wanted.since)]
    if wanted.state_dir is not None:
        found.append(Task("outbox/facts.json", lambda: _facts(wanted.state_dir), SYSTEM_S))
        found.append(Task("host/folders.txt", lambda: _folders(wanted), SYSTEM_S))
    if wanted.pictures:
        found.append(Task("pictures", lambda: _pictures(wanted), SYSTEM_S))
    return found


def _system_commands(since: str) -> list[tuple[str, tuple[str, ...], int]]:
    journal = ("journalctl", "--no-pager", "--quiet", "--output", "short-iso-precise", "--since", since)
    units = [word for unit in UNITS for word in ("--unit", unit)]
    return [
        ("journal/shelfwire.log", (*journal, *units), JOURNAL_BYTES),
        ("journal/kernel.log", (*journal, "--dmesg", "--priority", "warning"), MIB),
        ("service/units.txt", ("systemctl", "--no-pager", "show", "--property", UNIT_FACTS, *UNITS), PART_BYTES),
        ("service/files.txt", ("systemctl", "--no-pager", "cat", *UNITS), PART_BYTES),
        ("host/time.txt", ("timedatectl", "show"), PART_BYTES),
    ]


# -- processes -----------------------------------------------------------------------------------------------


def _own(name: str, words: Sequence[str], config_path: Path) -> Collector:
    """One of our commands, as this program runs; never one that lies in the folder where somebody stands (-P)."""
    command = (sys.executable, "-P", "-m", "agent.cli", *words, "--config", str(config_path))

    return lambda: [output(name, command, OURS_S, PART_BYTES, keep_errors=True)]


def _system(name: str, words: Sequence[str], most: int) -> Collector:
    def run() -> list[Part]:
        if shutil.which(words[0]) is None:
            return [Part(name, missing=f"this machine has no {words[0]}")]
        return [output(name, words, SYSTEM_S, most)]

    return run


def output(name: str, command: Sequence[str], limit_s: float, most: int, *, keep_errors: bool = False) -> Part:
    """Run a command and keep the end of what it prints, in memory: the disk may be full. It is killed when it is late,
    with all that it has started.
    """
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "PYTHONDONTWRITEBYTECODE": "1",
                   "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}  # fmt: skip
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        env=environment,
    )  # fmt: skip
    tails = [_Tail(stream, most) for stream in (process.stdout, process.stderr) if stream is not None]
    try:
        process.wait(limit_s)
        late = ""
    except subprocess.TimeoutExpired:
        late = f"{command[0] if command[0] != sys.executable else command[4]} was stopped after {limit_s:.0f} s"
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    out, err = (tail.end() for tail in tails)
    said = err.decode("utf-8", "replace").strip()
    if not out and (late or process.returncode != 0 or said) and not (keep_errors and said):
        return Part(name, missing=late or " ".join(said[-400:].split()) or f"exit code {process.returncode}")
    if not out and not said:
        return Part(name, missing="there is nothing in it")
    content = out + (err if keep_errors else b"")
    return Part(name, content, cut=tails[0].cut, note=late)


class _Tail:
    """Reads a stream to its end on a thread of its own, and keeps its last bytes."""

    def __init__(self, stream: IO[bytes], most: int) -> None:
        self._stream = stream
        self._most = most
        self._kept = bytearray()
        self.cut = 0
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            while piece := os.read(self._stream.fileno(), 1 << 16):
                self._kept += piece
                over = len(self._kept) - self._most
                if over > self._most // 4:
                    self._drop(over)

    def _drop(self, n: int) -> None:
        self.cut += n
        del self._kept[:n]

    def end(self) -> bytes:
        """Give what was kept; whole lines when something was cut."""
        self._thread.join(2.0)
        over = len(self._kept) - self._most
        if over > 0:
            self._drop(over)
        kept = bytes(self._kept)
        return kept[kept.find(b"\n") + 1 :] if self.cut else kept


# -- files and facts -----------------------------------------------------------------------------------------


def _file(name: str, path: Path, most: int) -> Part:
    """The end of a file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            return Part(name, file.read(most), cut=max(0, size - most))
    except OSError as error:
        return Part(name, missing=f"{path}: {error.strerror}")


def _config_files(wanted: Wanted) -> list[Part]:
    parts = [_file("config/shelfwire.toml", wanted.config_path, PART_BYTES)]
    if wanted.state_dir is not None:
        enrolled = wanted.state_dir / "identity" / "enrolled.toml"
        if enrolled.exists():
            parts.append(_file("config/enrolled.toml", enrolled, PART_BYTES))
    return parts


def _json(name: str, value: object) -> Part:
    return Part(name, (json.dumps(value, indent=2, sort_keys=True) + "\n").encode())


def _versions() -> list[Part]:
    import apsw

    from agent.camera import CA_FILE

    names = ("shelfwire", "apsw", "numpy", "onnxruntime", "openvino", "opencv-python-headless", "paho-mqtt", "pydantic")
    known = {d.metadata["Name"]: d.version for d in distributions()}
    return [_json("versions.json", {
        "packages": {name: known.get(name) for name in names},
        "python": platform.python_version(),
        "sqlite": apsw.sqlite_lib_version(),
        "ca_file": CA_FILE,
    })]  # fmt: skip


def _packages() -> list[Part]:
    lines = sorted({f"{d.metadata['Name']}=={d.version}" for d in distributions()})
    return [Part("packages.txt", ("\n".join(lines) + "\n").encode())]


def _machine() -> list[Part]:
    uname = platform.uname()
    try:
        release = platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        release = ""
    return [_json("host/machine.json", {
        "kernel": f"{uname.system} {uname.release} {uname.version}",
        "machine": uname.machine,
        "release": release,
        "model": _first_line(Path("/proc/device-tree/model")) or _first_line(Path("/sys/class/dmi/id/product_name")),
        "processors": os.cpu_count(),
        "usable_processors": len(os.sched_getaffinity(0)),
        "processor": next((line.partition(":")[2].strip() for line in _lines(Path("/proc/cpuinfo"))
                           if line.startswith("model name")), ""),
        "memory_kb": next((int(line.split()[1]) for line in _lines(Path("/proc/meminfo"))
                           if line.startswith("MemTotal")), 0),
        "video_devices": sorted(str(p) for p in Path("/dev").glob("video*")),
        "accelerators": sorted(str(p) for pattern in ("dri/*", "accel/*", "apex_*", "hailo*")
                               for p in Path("/dev").glob(pattern)),
        "running_as": os.geteuid(),
    })]  # fmt: skip


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _first_line(path: Path) -> str:
    return next(iter(_lines(path)), "").strip("\0 ")


def _moment(wanted: Wanted) -> list[Part]:
    """What is another figure a second later: the one member, with the manifest, that two bundles never share."""
    memory = {line.split(":")[0]: int(line.split()[1]) for line in _lines(Path("/proc/meminfo"))[:5] if ":" in line}
    folders = {str(p) for p in (wanted.state_dir, wanted.runtime_dir, wanted.config_path.parent, Path("/tmp")) if p}  # noqa: S108
    temperatures = {p.parent.name: _first_line(p) for p in Path("/sys/class/thermal").glob("thermal_zone*/temp")}
    return [_json("host/moment.json", {
        "uptime_s": float((_first_line(Path("/proc/uptime")) or "0").split()[0]),
        "load": _first_line(Path("/proc/loadavg")),
        "memory_kb": memory,
        "disks": {folder: _disk(Path(folder)) for folder in sorted(folders)},
        "temperatures_milli_c": temperatures,
    })]  # fmt: skip


def _disk(folder: Path) -> dict[str, int | str]:
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        return {"error": str(error.strerror)}
    return {
        "bytes": disk.f_blocks * disk.f_frsize,
        "free_bytes": disk.f_bavail * disk.f_frsize,
        "files": disk.f_files,
        "free_files": disk.f_favail,
        "read_only": int(bool(disk.f_flag & os.ST_RDONLY)),
    }


def _facts(state_dir: Path | None) -> list[Part]:
    """Counters and facts of the store: no record, no picture."""
    from agent.errors import ShelfwireError
    from agent.store.browse import books

    assert state_dir is not None
    try:
        counters, facts = books(state_dir)
    except ShelfwireError as error:
        return [Part("outbox/facts.json", missing=f"{error}; {error.hint}")]
    return [_json("outbox/facts.json", {"counters": counters, "facts": {k: _read_fact(v) for k, v in facts.items()}})]


def _read_fact(value: str) -> object:
    try:
        read: object = json.loads(value)
    except ValueError:
        return value
    return read


def _folders(wanted: Wanted) -> list[Part]:
    """Names, sizes and rights of our own files; of the spool only how many there are."""
    lines = []
    for folder in (wanted.state_dir, wanted.runtime_dir, wanted.config_path.parent):
        if folder is not None:
            lines += _listing(folder, deep=folder != wanted.config_path.parent)
    return [Part("host/folders.txt", ("\n".join(lines) + "\n").encode())]


def _listing(folder: Path, *, deep: bool) -> list[str]:
    lines = [f"{folder}:"]
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        return [*lines, f"  {error.strerror}"]
    for entry in entries[:200]:
        with contextlib.suppress(OSError):
            status = entry.stat(follow_symlinks=False)
            lines.append(
                f"  {status.st_mode & 0o7777:04o} {status.st_uid}:{status.st_gid} {status.st_size:>12} {entry.name}"
            )
            if deep and entry.is_dir(follow_symlinks=False):
                inside = sum(1 for _ in os.scandir(entry.path))
                lines.append(f"       {inside} entries in it")
    return lines


def _pictures(wanted: Wanted) -> list[Part]:
    """The last small picture of each camera and the one of its commissioning, privacy zones painted over in both."""
    import base64

    parts = []
    folders = [(wanted.runtime_dir, "pictures", "*.json"), (wanted.state_dir, "commission", "*.jpg")]
    for base, name, pattern in folders:
        for path in sorted((base / name).glob(pattern))[:MOST_PICTURES] if base is not None else ():
            raw = _file("", path, PICTURE_BYTES).content
            jpeg = base64.b64decode(json.loads(raw)["jpeg"]) if path.suffix == ".json" else raw
            parts.append(Part(f"{name}/{path.stem}.jpg", jpeg, text=False))
    return parts or [Part("pictures", missing="there is no picture now")]
