"""Takes secrets out of text: first by value in every encoding, then by the name of the key, then by shape.

By value is what counts: a list of names misses the next name, and a shape the next shape. Names and shapes catch what
this device does not know that it knows, and what they catch is from then on looked for by value as well.
"""

import re
from collections import Counter
from functools import lru_cache

from agent.camera.address import redact as redact_address
from agent.support.encodings import literals, long_tokens, tokens, undone, words
from agent.support.secrets import Secrets, is_secret_name

MARK = "[REDACTED]"
DEPTH = 4
"""How many encodings over one another are undone: a password in an address in JSON in base64."""

LEARN_CHARS = 8

_NAME = (
    r"(?<![A-Za-z0-9_.\-])[A-Za-z0-9_.\-]{0,48}"
    r"(?:pass|pwd|psk|secret|token|credential|key|signature|authorization|cookie|code)[A-Za-z0-9_.\-]{0,16}"
)
"""What may be a name of `agent.support.secrets.KEY`: what else stands before a colon would hide one behind it."""
_ASSIGNED = re.compile(
    rf"""(?P<head>(?P<quote>\\?["']?)(?P<name>{_NAME})(?P=quote)\s*(?:=>|[=:])\s*)"""
    rf"""(?P<value>\\?"(?:[^"\\\n]|\\[^\n])*?\\?"|'[^'\n]*'|(?:Bearer|Basic|Digest)\s+[^\s,;"'<>&]+|[^\s,;"'<>&}}\]]+)""",
    re.IGNORECASE,
)
_OPTION = re.compile(r"(?P<head>--(?P<name>[A-Za-z0-9\-]{2,64})[= ]+)(?P<value>\"[^\"\n]*\"|'[^'\n]*'|[^\s\"']+)")

_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z -]+-----|\Z)", re.DOTALL)

_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("signed token", re.compile(r"\beyJ[A-Za-z0-9_\-]{8,}\.[A-Za-z0-9_\-]{4,}(?:\.[A-Za-z0-9_\-]*)?")),
    ("login header", re.compile(r"\b(?:Bearer|Basic)\s+(?=[A-Za-z0-9+/_.~\-]*[0-9A-Z])[A-Za-z0-9+/_.~\-]{8,}=*")),
    ("login header", re.compile(r"(?<=authorization:)[^\n]+|(?<=cookie:)[^\n]+", re.IGNORECASE)),
    ("cloud key", re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}"
                             r"|\bxox[abpr]-[A-Za-z0-9\-]{10,}|\bsk-[A-Za-z0-9\-]{16,}|\bAIza[A-Za-z0-9_\-]{30,}")),
    ("enrolment code", re.compile(r"(?<=code[ :=])\s*[A-Z0-9]{4}-[A-Z0-9]{4}(?:-[A-Z0-9]{4})*\b", re.IGNORECASE)),
)  # fmt: skip
_ADDRESS = re.compile(r"(?<![A-Za-z0-9+.\-])[A-Za-z][A-Za-z0-9+.\-]{0,20}:(?:\\?/){2}[^\s\"'<>\\]+")

_URL_PASSWORD = re.compile(r"://[^\s/:@\"'<>]{0,128}:([^\s\"'<>@]{4,256})@")

_LOGIN = re.compile(r"(?<![\w.\-])[\w.\-]{1,64}:[^\s:@/\"'<>]{3,128}@(?=[\w\[])")
"""A login before a host, without a scheme."""

_MAC = re.compile(r"\b(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}\b")
_IP = re.compile(r"\b(?!127\.)(?:\d{1,3}\.){3}\d{1,3}\b")


class Redactor:
    """Takes the secrets it knows, and what looks like one, out of texts. `counts` tells how many places, by the way."""

    def __init__(self, secrets: Secrets, *, hide_addresses: bool = False) -> None:
        self._secrets = secrets
        self._hide_addresses = hide_addresses
        self._addresses: dict[str, str] = {}
        self.counts: Counter[str] = Counter()
        self._prepare()

    def _prepare(self) -> None:
        self._values = self._secrets.values()
        self._literals = literals(self._values)
        self._reveals = lru_cache(maxsize=200_000)(self._reveals_secret)

    def learn(self, text: str) -> None:
        """Look for secrets by name and shape, so that `clean` finds them by value in every text."""
        before = len(self._secrets)
        for match in _PRIVATE_KEY.finditer(text):
            self._secrets.add(match[0].replace("\\n", "\n"))
        for line in filter(_is_suspect, text.splitlines()):
            self._learn_line(line)
        if len(self._secrets) > before:
            self._prepare()

    def _learn_line(self, line: str) -> None:
        for found in (*_ASSIGNED.finditer(line), *_OPTION.finditer(line)):
            value = _bare(found["value"])
            if _names_secret(found) and _is_worth_learning(value):
                self._secrets.add(value)
        for _, shape in _SHAPES:
            for match in shape.finditer(line):
                self._secrets.add(match[0].split()[-1])
        for match in _URL_PASSWORD.finditer(line):
            self._secrets.add(match[1])

    def clean(self, text: str) -> str:
        """Give the text without secrets."""
        text = self._by_value(text)
        text, n = _PRIVATE_KEY.subn("[REDACTED private key]", text)
        self.counts["by shape"] += n
        lines = text.splitlines(keepends=True)
        text = "".join(self._by_shape(self._by_name(line)) if _is_suspect(line) else line for line in lines)
        return self._addresses_hidden(text) if self._hide_addresses else text

    def survives(self, text: str) -> bool:
        """Tell whether a secret is still in the text, in any encoding that is undone here."""
        raw = text.encode("utf-8", "surrogateescape")
        return any(value in raw for value in self._values) or bool(self._found(text))

    # -- by value --------------------------------------------------------------------------------------------

    def _by_value(self, text: str) -> str:
        if not self._values:
            return text
        seen = "\n".join(words(text))
        for literal in self._literals:
            if literal in (text if " " in literal else seen):
                text = self._replace(text, literal)
        for token in sorted(self._found(text), key=len, reverse=True):
            text = self._replace(text, token)
        return text

    def _replace(self, text: str, part: str) -> str:
        self.counts["by value"] += text.count(part)
        return text.replace(part, f'"{MARK}"' if part.startswith('"') else MARK)

    def _found(self, text: str) -> set[str]:
        """Give the parts of a text that stand for a secret in some encoding."""
        found = {match[0] for match in long_tokens(text) if self._reveals(match[0])}
        return found | {token for word in words(text) for token in tokens(word) if self._reveals(token)}

    def _reveals_secret(self, token: str, depth: int = DEPTH) -> bool:
        for raw in undone(token):
            if any(value in raw for value in self._values):
                return True
            if depth > 1:
                inner = raw.decode("utf-8", "replace")
                if inner != token and self._reveals_inside(inner, depth - 1):
                    return True
        return False

    def _reveals_inside(self, text: str, depth: int) -> bool:
        parts = {text, *(match[0] for match in long_tokens(text)), *(t for word in words(text) for t in tokens(word))}
        return any(self._reveals_secret(part, depth) for part in parts)

    # -- by name ---------------------------------------------------------------------------------------------

    def _by_name(self, line: str) -> str:
        return _OPTION.sub(self._named, _ASSIGNED.sub(self._named, line))

    def _named(self, match: "re.Match[str]") -> str:
        value = match["value"]
        if not _names_secret(match) or MARK in value or _is_plain(_bare(value)):
            return match[0]
        self.counts["by name"] += 1
        mark = re.match(r"\\?[\"']", value)
        quotes = mark[0] if mark else ""
        return f"{match['head']}{quotes}{MARK}{quotes}"

    # -- by shape --------------------------------------------------------------------------------------------

    def _by_shape(self, line: str) -> str:
        for what, shape in _SHAPES:
            line, n = shape.subn(f"[REDACTED {what}]", line)
            self.counts["by shape"] += n
        line, n = _LOGIN.subn("***@", _ADDRESS.sub(self._address, line))
        self.counts["by shape"] += n
        return line

    def _address(self, match: "re.Match[str]") -> str:
        url = match[0].replace("\\/", "/")
        shown = redact_address(url) if "@" in url or "=" in url else match[0]
        if shown != match[0] and "***" in shown:
            self.counts["by shape"] += 1
        return shown

    def _addresses_hidden(self, text: str) -> str:
        for what, shape in (("mac", _MAC), ("ip", _IP)):
            text = shape.sub(lambda match, what=what: self._alias(what, match[0].lower()), text)  # type: ignore[misc]
        return text

    def _alias(self, what: str, value: str) -> str:
        """Give the same name for the same address all through the bundle, so that it can still be followed."""
        self.counts["addresses"] += 1
        return self._addresses.setdefault(value, f"{what}-{len(self._addresses) + 1}")


_HINTS = ("pass", "pwd", "psk", "secret", "token", "credential", "key", "signature", "authorization", "cookie", "code",
          "bearer", "basic", "eyj", "akia", "asia", "gho_", "ghp_", "ghu_", "ghs_", "ghr_", "xox", "sk-", "aiza", "@",
          "://", "\\/\\/")  # fmt: skip


def _is_suspect(line: str) -> bool:
    """Look cheaply, first: most lines of a log hold nothing that is looked for by name or shape."""
    low = line.lower()
    return any(hint in low for hint in _HINTS)


def _names_secret(match: "re.Match[str]") -> bool:
    """An option ``--code`` is that of `enroll`; a key of this name is an error's."""
    return is_secret_name(match["name"]) or (match.re is _OPTION and match["name"] == "code")


def _bare(value: str) -> str:
    return re.sub(r"^\\?[\"']|\\?[\"']$", "", value)


def _is_plain(value: str) -> bool:
    """Words that stand where a secret may be set and that are none."""
    return value.lower() in ("null", "none", "true", "false", "***", "{", "[", "", "unset", "-", "...")


def _is_worth_learning(value: str) -> bool:
    """A common word behind a name that sounds secret must not blacken every text."""
    mixed = bool(re.search(r"\d", value)) + bool(re.search(r"[a-z]", value)) + bool(re.search(r"[A-Z]", value))
    return len(value) >= LEARN_CHARS and not value.startswith(("/", "[", "{")) and (mixed >= 2 or len(value) >= 16)
