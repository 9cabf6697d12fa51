"""How a device and its cloud come to trust each other by a short code: the words of the protocol, for both sides.

docs/enrolment.md tells it as a story and says what it is safe against. In short: the device asks under the code's
public part, over TLS that it cannot verify yet; the server answers with its certificate authorities and proves that it
knows the secret part; from then on the device verifies TLS by these, and shows that it knows the secret too.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from wire.errors import WireError
from wire.records import Moment, Name, Part

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
"""Crockford's base32: no I, L, O and U, which are read wrong or spell words."""
GROUP = 4
ID_LETTERS = 4
"""The public part: 20 bits to find the code by. The other eight letters are the secret: 40 bits."""
CODE_LETTERS = 12
CODE_BYTES = 8
"""Random bytes that make a code; four of their 64 bits are left over."""

SALT_BYTES = NONCE_BYTES = 32
SCRYPT_N, SCRYPT_R, SCRYPT_P = 1 << 15, 8, 1
"""32 MiB and about 0.1 s for one guess on a fast core: all 2^40 secrets take over a thousand core-years."""
SCRYPT_MEMORY_BYTES = 64 << 20

TRUST_BYTES = 32 * 1024
PEM_BYTES = 8 * 1024
ROOT_BYTES = 16 * 1024
ANSWER_BYTES = 64 * 1024
"""Largest answer of the server that a device reads."""

HELLO, ENROL, DEVICE, RENEW = "/v1/enrolment/hello", "/v1/enrolment", "/v1/device", "/v1/device/certificate"
"""Paths on the server's port for devices. The first two need no certificate."""

_READ_AS = str.maketrans({"I": "1", "L": "1", "O": "0", "-": None, " ": None, "_": None, "–": None, ".": None})
_BYTES_32 = r"^[0-9a-f]{64}$"
_LABEL = b"shelfwire enrolment 1: the server knows the code"

Secret32 = Annotated[str, Field(pattern=_BYTES_32, repr=False)]
CodeId = Annotated[str, Field(pattern=f"^[{ALPHABET}]{{{ID_LETTERS}}}$")]
Store = Annotated[str, Field(max_length=64)]
Pem = Annotated[str, Field(min_length=1, max_length=PEM_BYTES)]
TrustPem = Annotated[str, Field(min_length=1, max_length=TRUST_BYTES)]
Address = Annotated[str, Field(min_length=1, max_length=300)]


@dataclass(frozen=True, slots=True)
class Code:
    """A code as a person types it: `id` is public, `secret` is not, and stays out of logs."""

    id: str
    secret: str = field(repr=False)

    def __str__(self) -> str:
        """Write it in groups of four."""
        letters = self.id + self.secret
        return "-".join(letters[i : i + GROUP] for i in range(0, CODE_LETTERS, GROUP))


def make_code(random_bytes: bytes) -> Code:
    """Make a code of `CODE_BYTES` random bytes."""
    number = int.from_bytes(random_bytes[:CODE_BYTES], "big")
    letters = "".join(ALPHABET[number >> 5 * place & 31] for place in range(CODE_LETTERS))
    return Code(letters[:ID_LETTERS], letters[ID_LETTERS:])


def parse_code(text: str) -> Code:
    """Read a code as people type it: any case, with or without dashes, O for 0, I and L for 1.

    Raises `WireError` (``bad-code``).
    """
    letters = text.strip().upper().translate(_READ_AS)
    if len(letters) != CODE_LETTERS or not set(letters) <= set(ALPHABET):
        raise WireError(
            "bad-code",
            f"a code has {CODE_LETTERS} letters and digits, in groups like ABCD-EFGH-JKLM; this has {len(letters)}"
            if len(letters) != CODE_LETTERS
            else "the code has a letter that no code has (there is no U)",
            "type it as shelfwire-cloud fleet device add printed it",
        )
    return Code(letters[:ID_LETTERS], letters[ID_LETTERS:])


@dataclass(frozen=True, slots=True)
class Keys:
    """What a secret is stretched to. `server` proves the server; `device` is shown by the device, once."""

    server: bytes = field(repr=False)
    device: bytes = field(repr=False)


def stretch(code: Code, salt: bytes) -> Keys:
    """Stretch the secret of a code, so that guessing is dear. Takes about 0.1 s and 32 MiB."""
    made = hashlib.scrypt(
        code.secret.encode("ascii"), salt=code.id.encode("ascii") + salt, n=SCRYPT_N, r=SCRYPT_R, p=SCRYPT_P,
        maxmem=SCRYPT_MEMORY_BYTES, dklen=64,
    )  # fmt: skip
    return Keys(made[:32], made[32:])


class Hello(Part):
    """Device: which code it was given."""

    v: Literal[1]
    code: CodeId
    nonce: Annotated[str, Field(pattern=_BYTES_32)]


class Welcome(Part):
    """Server: for whom the code is, whom to trust from now on (PEM), what time it is, and the proof of all of it."""

    v: Literal[1]
    device: Name
    store: Store
    salt: Annotated[str, Field(pattern=_BYTES_32)]
    nonce: Annotated[str, Field(pattern=_BYTES_32)]
    now: Moment
    trust: TrustPem
    proof: Annotated[str, Field(pattern=_BYTES_32)]


class Enrol(Part):
    """Device: its half of the stretched secret, and the public key to be certified. Only over verified TLS."""

    v: Literal[1]
    code: CodeId
    key: Secret32
    csr: Pem


class Renew(Part):
    """Device, with its certificate: a new public key to be certified."""

    v: Literal[1]
    csr: Pem


class Identity(Part):
    """Server: who the device is from now on, and where its cloud is.

    `root` is the root of trust for models (TUF root metadata), if the cloud has one. It comes with an enrolment alone,
    never with a renewal: nobody who takes the server over later can put another in its place.
    """

    v: Literal[1]
    device: Name
    store: Store
    certificate: Pem
    trust: TrustPem
    broker: Address
    api: Address
    root: Annotated[str, Field(max_length=ROOT_BYTES)] = ""


class Known(Part):
    """Server, to a device with a certificate: who it is taken for, and until when."""

    v: Literal[1]
    device: Name
    store: Store
    serial: Annotated[str, Field(pattern=r"^[0-9a-f]{1,40}$")]
    not_after: Moment
    now: Moment


def proof(keys: Keys, hello: Hello, welcome: Welcome) -> str:
    """Give the server's proof: HMAC-SHA-256 over everything that both sides said, each part with its length."""
    said = welcome.model_dump(mode="json", exclude={"proof"})
    parts = [
        _LABEL,
        hello.code.encode(),
        bytes.fromhex(hello.nonce),
        *(f"{k}={said[k]}".encode() for k in sorted(said)),
    ]
    text = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    return hmac.new(keys.server, text, hashlib.sha256).hexdigest()


def proves(keys: Keys, hello: Hello, welcome: Welcome) -> bool:
    """Whether the server's answer shows that it knows the code."""
    return hmac.compare_digest(proof(keys, hello, welcome), welcome.proof)


def is_certificate_text(text: str) -> bool:
    """Whether a text holds PEM certificates and nothing else, private keys above all."""
    block = r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]+-----END CERTIFICATE-----\s*"
    return re.fullmatch(rf"\s*({block}){{1,16}}", text) is not None
