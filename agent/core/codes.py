"""The codes that `shelfwire-agent doctor` and `net` give: short, stable, made to be read out over the phone.

A code says what is wrong and who acts on it; the finding that carries it says where and how much. A code is never
given another meaning; `docs/codes.md` is made from this table (`python -m agent.core.codes`).
"""

# ruff: noqa: E501 - a table reads best with a line for each row

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Severity = Literal["warning", "failure"]

Who = Literal["you", "shop", "provider", "operator"]
WHO: Mapping[Who, str] = MappingProxyType(
    {
        "you": "you, here",
        "shop": "the shop's IT",
        "provider": "the network provider",
        "operator": "the cloud's operator",
    }
)
"""Who puts it right, in words."""

AREAS: Mapping[str, str] = MappingProxyType(
    {
        "config": "CFG",
        "camera": "CAM",
        "model": "MOD",
        "network": "NET",
        "certificates": "CRT",
        "time": "TIME",
        "outbox": "BOX",
        "host": "HOST",
        "service": "SVC",
    }
)
"""The areas, in the order in which they are shown, each with the letters that its codes begin with."""


@dataclass(frozen=True, slots=True)
class Code:
    """One thing that can be wrong."""

    code: str
    severity: Severity
    means: str
    cure: str
    who: Who


def _area(head: str, *rows: tuple[Severity, Who, str, str]) -> tuple[Code, ...]:
    return tuple(
        Code(f"{head}-{n}", severity, means, cure, who) for n, (severity, who, means, cure) in enumerate(rows, 1)
    )


F: Severity = "failure"
W: Severity = "warning"

# Only add at the end of an area: the place in the list is the number.
_CODES = (
    *_area(
        "CFG",
        (F, "you", "there is no configuration", "enrol the device, or name its file: -c FILE"),
        (F, "you", "the configuration has mistakes", "mend the lines named, then run shelfwire-agent config check"),
        (F, "you", "the configuration cannot be read", "save it as UTF-8 text that the device's user may read"),
        (W, "you", "no camera is configured", "add a [[camera]] section with name and url"),
        (W, "you", "no broker is configured: nothing reaches the cloud", "enrol the device, or set [cloud] broker"),
        (W, "you", "the configuration holds a password that others can read", "chmod 0640 the file, or use password_file"),
    ),
    *_area(
        "CAM",
        (F, "you", "the camera cannot be reached or found", "check its power, its cable and its address"),
        (F, "you", "the camera refuses the login", "correct username and password_file of this camera"),
        (F, "you", "the camera answers, but not with pictures", "correct the path in its url; set it to H.264 or MJPEG"),
        (F, "you", "the camera is taken or may not be opened", "close the other program; let the user into group video"),
        (F, "you", "the camera is connected, but sends no new pictures", "look at its power, cable and network"),
        (F, "you", "the picture is frozen: the same one again and again", "restart the camera"),
        (F, "you", "the picture is black", "switch the light on, take the cap off, look at the camera's night mode"),
        (F, "you", "something covers the camera", "clear its view"),
        (W, "you", "the picture is out of focus or the lens is dirty", "clean the lens; focus with shelfwire-agent aim"),
        (W, "you", "the camera was moved: it sees another view", "turn it back with aim, or snap --commission anew"),
        (W, "you", "the picture is too bright or too dark", "set the exposure, see shelfwire-agent aim; look at lamps"),
        (W, "you", "far fewer pictures come than were asked for", "lower rate_fps, or look at camera, cable and load"),
        (F, "you", "the camera hangs: opening it does not come back", "unplug it and plug it in; restart this device"),
        (F, "you", "no encrypted connection to the camera can be trusted", "give the system the camera's authority"),
        (W, "you", "the camera gave no picture in the short time of this check", "try shelfwire-agent snap CAMERA, which waits longer"),
        (W, "you", "the camera reports another trouble", "do what its line says"),
        (W, "you", "the picture repeats itself: frozen, or a scene that is quite still", "wave a hand before it, and look again"),
    ),
    *_area(
        "MOD",
        (F, "operator", "the model's files are missing, damaged or altered", "install the model again, or roll it back"),
        (F, "operator", "the model does not answer as where it was made", "try the other runtime, or roll the model back"),
        (F, "operator", "the model or its runtime cannot be loaded", "install the agent again; see the line"),
        (W, "you", "the device is too slow for its cameras' deadline", "lower rate_fps, or take fewer cameras"),
        (W, "operator", "the model runs by another runtime than was asked for", "install that runtime, or set auto"),
        (W, "you", "vision runs another model than the one in force", "systemctl restart shelfwire-vision"),
        (W, "you", "the model's self-test did not end in time: the device is busy", "run doctor model again"),
        (W, "operator", "the model runs without the accelerator or precision asked for", "see the line, or set auto"),
        (W, "you", "it was not measured how this model runs best here, or not as things are now", "run shelfwire-agent bench"),
        (W, "operator", "vision could not measure how the model runs best", "run shelfwire-agent bench; send a support-bundle"),
    ),
    *_area(
        "NET",
        (F, "you", "no cable and no Wi-Fi: no interface has a link", "plug the cable in at both ends; look at its lamps"),
        (F, "shop", "the network gives this device no address", "ask for DHCP on this socket, or for a fixed address"),
        (F, "shop", "there is no way out of this network", "ask for a default gateway; see whether the router runs"),
        (F, "shop", "the network's name servers do not answer", "ask for working DNS on this network"),
        (F, "operator", "the name of the cloud is not known", "correct the address in [cloud], or mend its DNS entry"),
        (F, "shop", "a firewall swallows the connection", "ask to let this device out to the host and port named"),
        (F, "operator", "nothing listens at the cloud's address", "start the server, or correct host and port"),
        (F, "shop", "a login page stands between this device and the internet", "ask for access without a login page"),
        (F, "shop", "somebody intercepts TLS: the certificate is not from our authority", "ask not to inspect this host"),
        (F, "operator", "the server's certificate has expired", "renew it at the server"),
        (F, "operator", "the server's certificate is for another name", "correct [cloud], or the server's certificate"),
        (F, "operator", "there is no TLS at this port", "correct the port (8883 and 443 speak TLS), or the server"),
        (F, "operator", "the cloud refuses this device's login", "see doctor certificates; enrol the device again"),
        (F, "operator", "the device may log in, but not send or receive", "ask to mend its access list"),
        (F, "operator", "the broker takes messages, but gives none back", "ask to look at the broker"),
        (F, "operator", "the cloud's API answers with an error", "ask to look at the server's log"),
        (W, "operator", "nobody takes results from the broker", "ask to start shelfwire-cloud ingest"),
        (F, "operator", "another device uses this device's identity", "find the copied card, and enrol one of them anew"),
        (W, "operator", "the server's certificate ends soon", "renew it at the server"),
        (F, "provider", "the internet connection does not reach the cloud", "call the provider; restart the router"),
        (W, "operator", "the cloud's function answers no frames", "ask to look at shelfwire-cloud serve"),
        (F, "operator", "the broker is overloaded or over its limits", "ask to look at the broker; it is tried again"),
    ),
    *_area(
        "CRT",
        (F, "you", "a certificate or key is missing or cannot be read", "enrol the device again"),
        (F, "you", "the device's certificate has expired", "enrol the device again, with a new code"),
        (F, "you", "the device's certificate is not valid yet", "set the clock; see TIME-1"),
        (W, "operator", "the device's certificate ends soon and was not renewed", "see why renewal fails, in sync's log"),
        (F, "you", "the private key does not belong to the certificate", "enrol the device again"),
        (F, "you", "the certificate is of another device", "correct [device] id, or enrol the device again"),
        (W, "you", "others on this device can read its private key", "chmod 0600 the key's file"),
        (W, "operator", "the device's certificate could not be renewed", "do what the line says; it is tried again"),
    ),
    *_area(
        "TIME",
        (F, "shop", "the clock is wrong", "allow NTP (UDP port 123), or set it: timedatectl set-time"),
        (W, "shop", "no time server keeps the clock", "allow NTP (UDP port 123); see timedatectl timesync-status"),
    ),
    *_area(
        "BOX",
        (F, "you", "the store is missing or cannot be read", "start the agent once; run this as its user or as root"),
        (F, "you", "the store is damaged", "restart vision: it is moved aside, and a new one is started"),
        (F, "you", "the store does not answer: a process that was halted holds it", "see systemctl status shelfwire-*"),
        (W, "operator", "records wait for long", "see the network's lines"),
        (W, "you", "the outbox or the spool is nearly full", "restore the connection, or raise its limits"),
        (W, "operator", "records were refused by the cloud for good", "see shelfwire-agent outbox list; update the agent"),
        (W, "operator", "waiting records were thinned out", "restore the connection, or raise [outbox] max_bytes"),
        (F, "operator", "the books do not balance", "send a support-bundle"),
        (F, "operator", "pictures and their rows do not fit together", "send a support-bundle"),
        (W, "you", "files without a row lie in the spool", "none: vision sweeps them; look again in an hour"),
        (W, "operator", "the night's files are late", "see shelfwire-agent nightly --list"),
        (F, "you", "results cannot be stored", "free disk space; see the host's lines"),
    ),
    *_area(
        "HOST",
        (F, "you", "the disk is full", "free disk space"),
        (W, "you", "the disk fills up", "free disk space, restore the connection, or lower the limits"),
        (F, "you", "the disk can only be read", "look at the card or disk: it may be worn out; restart the device"),
        (W, "you", "memory is short", "take fewer cameras; see what else runs"),
        (W, "you", "processes were killed for want of memory", "take fewer cameras; see what else runs"),
        (W, "you", "the device is hot", "let air to it, clean its fan"),
        (F, "you", "the device is so hot that it slows down", "let air to it, clean its fan"),
        (F, "you", "the power supply is too weak", "take the supply made for this device, and a short cable"),
        (W, "you", "the device is overloaded", "lower rate_fps, or take fewer cameras; see what else runs"),
        (F, "you", "the disk does not answer", "look at the card or disk; restart the device"),
        (F, "you", "no more files fit on the disk", "remove small files"),
    ),
    *_area(
        "SVC",
        (F, "you", "vision does not run: no frames are classified", "systemctl start shelfwire-vision; see its log"),
        (W, "you", "sync does not run: nothing is sent, everything is kept", "systemctl start shelfwire-sync"),
        (F, "you", "vision is there, but does not report", "systemctl restart shelfwire-vision; its log says what hangs"),
        (W, "operator", "a service restarts again and again", "see journalctl -u with its name; send a support-bundle"),
        (W, "you", "a service does not start with the device", "systemctl enable it"),
        (F, "you", "a service has failed", "see journalctl -u with its name"),
        (W, "operator", "the log has errors in the time asked about", "see journalctl -u with the service's name"),
        (W, "operator", "a check of the doctor itself failed", "send a support-bundle; update the agent"),
        (W, "you", "the service manager does not answer", "restart the device"),
        (W, "operator", "a check did not end in time", "run the doctor again; send a support-bundle"),
    ),
)  # fmt: skip

CODES: Mapping[str, Code] = MappingProxyType({code.code: code for code in _CODES})


def page() -> str:
    """Write docs/codes.md."""
    lines = [
        "# Codes",
        "",
        "What the last line of `shelfwire-agent doctor` and of `shelfwire-agent net` says. A number never changes its",
        "meaning. Made by `python -m agent.core.codes`; a test fails when this page and the program differ.",
    ]
    for area, head in AREAS.items():
        lines += ["", f"## {head}: {area}", "", "| code | | means | do | who |", "|---|---|---|---|---|"]
        lines += [
            f"| {code.code} | {code.severity} | {code.means} | {code.cure} | {WHO[code.who]} |"
            for code in _CODES
            if code.code.startswith(f"{head}-")
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(page(), end="")
