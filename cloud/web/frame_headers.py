"""The headers of a frame for the OpenAPI document; `cloud.frame` reads them."""

_HEADERS: tuple[tuple[str, bool, str], ...] = (
    ("X-Shelfwire-Camera", True, "the camera's name"),
    ("X-Shelfwire-Number", True, "the camera's own number of the frame, from 1"),
    ("X-Shelfwire-Captured-At", True, "RFC 3339"),
    ("X-Shelfwire-Clock", True, "synced, or unsure: then the frame is dated back from its arrival by its age"),
    ("X-Shelfwire-Age-Ms", False, "the frame's age now, by the clock since the device's start"),
    ("X-Shelfwire-Local-Label", False, "what the device itself made of it, percent-encoded UTF-8"),
    ("X-Shelfwire-Sha256", False, "of the picture, in hexadecimal"),
)
_DEADLINE = ("X-Shelfwire-Deadline-Ms", False, "how long the device waits for the answer")
_FRAME = ("X-Shelfwire-Frame", False, "the frame that a device asks about, device/run/seq")


def described(*, of_job: bool = False) -> list[dict[str, object]]:
    """Describe them as parameters of a call. A job needs none of them unless it names a frame."""
    listed = (_FRAME, *_HEADERS) if of_job else (*_HEADERS, _DEADLINE)
    needed = " (needed with X-Shelfwire-Frame)"
    return [
        {
            "name": name,
            "in": "header",
            "required": required and not of_job,
            "schema": {"type": "string"},
            "description": text + (needed if required and of_job else ""),
        }
        for name, required, text in listed
    ]
