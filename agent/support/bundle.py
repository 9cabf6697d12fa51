"""Parts without secrets, packed into one file whose bytes depend on nothing but them and the time that it is given."""

import base64
import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.support.collect import Part
from agent.support.redact import Redactor

MOST_BYTES = 20 << 20
"""Of the finished file."""

MOST_TEXT_BYTES = 24 << 20
"""Of all parts, before they are packed: text shrinks to a tenth."""

SURVIVED = "a secret was still in it after the redaction: report this"
TOO_MUCH = "the bundle would be too large"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The finished file. `marker` stands inside too; `left_out` are names of parts with the reason."""

    marker: str
    content: bytes
    members: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    redacted: dict[str, int]


def pack(parts: Sequence[Part], redactor: Redactor, at_s: int, about: dict[str, Any]) -> Bundle:
    """Redact and pack. `at_s` is the time that it is dated with (Unix seconds), `about` says who and what made it."""
    texts = {part.name: part.content.decode("utf-8", "replace") for part in parts if part.text and not part.missing}
    for text in texts.values():
        redactor.learn(text)
    left_out = [(part.name, redactor.clean(part.missing)) for part in parts if part.missing]
    left_out += [(p.name, f"{redactor.clean(p.note)}; what it had said by then is here") for p in parts if p.note]
    left_out += [(p.name, f"its first {p.cut:,} bytes: only the newest are kept") for p in parts if p.cut]
    members: dict[str, bytes] = {}
    for part in parts:
        if part.missing:
            continue
        content = redactor.clean(texts[part.name]).encode() if part.text else part.content
        if part.text and redactor.survives(content.decode()):
            left_out.append((part.name, SURVIVED))
        elif sum(map(len, members.values())) + len(content) > MOST_TEXT_BYTES:
            left_out.append((part.name, TOO_MUCH))
        else:
            members[part.name] = content
    # Values alone: a password that is a common word must not blacken the names of our own fields.
    clean = {name: redactor.clean(value) if isinstance(value, str) else value for name, value in about.items()}
    return _finish(members, sorted(left_out), redactor, at_s, clean)


def _finish(
    members: dict[str, bytes], left_out: list[tuple[str, str]], redactor: Redactor, at_s: int, about: dict[str, Any]
) -> Bundle:
    while True:
        redacted = {name: n for name, n in sorted(redactor.counts.items()) if n}
        marker = _marker(members, at_s)
        manifest = {**about, "marker": marker, "redacted": redacted,
                    "left_out": [{"part": name, "reason": reason} for name, reason in left_out],
                    "members": {name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
                                for name, content in sorted(members.items())}}  # fmt: skip
        text = json.dumps(manifest, indent=2) + "\n"
        inside = {"README.txt": _readme(marker, left_out).encode(), "manifest.json": text.encode(), **members}
        content = _tar(inside, at_s)
        if len(content) <= MOST_BYTES or not members:
            return Bundle(marker, content, tuple(sorted(inside)), tuple(left_out), redacted)
        largest = max(members, key=lambda name: len(members[name]))
        del members[largest]
        left_out = sorted([*left_out, (largest, TOO_MUCH)])


def _marker(members: dict[str, bytes], at_s: int) -> str:
    """A short name that a person can read out, the same for the same content."""
    digest = hashlib.sha256(str(at_s).encode())
    for name, content in sorted(members.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    letters = base64.b32encode(digest.digest()).decode().translate(str.maketrans("IO", "89"))
    return f"SW-{letters[:4]}-{letters[4:8]}"


def _readme(marker: str, left_out: Sequence[tuple[str, str]]) -> str:
    lines = [
        f"Shelfwire support bundle {marker}",
        "",
        "manifest.json     what is in here, with digests, and how many secrets were taken out",
        "doctor.json       what the device's own checks found      status.txt   what it is doing, on one screen",
        "config/           configuration as written, and as it is in force",
        "outbox/           what waits, without the records themselves; counters and facts of the store",
        "journal/          the service's log and the kernel's warnings",
        "service/          systemd's view      host/   machine, disks, clock      packages.txt, versions.json",
        "",
        "Passwords, keys, tokens and logins were replaced by [REDACTED]: all that this device knows by their value,",
        "the others by name and shape. Addresses of cameras and names of shops are still in here, unless",
        "--hide-addresses was given. Treat the file as confidential all the same.",
    ]
    if left_out:
        lines += ["", "Not in here:", *(f"  {name}: {reason}" for name, reason in left_out)]
    return "\n".join(lines) + "\n"


def _tar(members: dict[str, bytes], at_s: int) -> bytes:
    """Pack: order, owners, rights and times are fixed, so that the same content gives the same bytes."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in sorted(members.items()):
            info = tarfile.TarInfo(f"shelfwire-support/{name}")
            info.size, info.mtime, info.mode = len(content), at_s, 0o600
            tar.addfile(info, io.BytesIO(content))
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", fileobj=packed, mode="wb", mtime=at_s) as file:
        file.write(raw.getvalue())
    return packed.getvalue()
