"""Objects in anything that speaks S3, with presigned addresses: who is given one needs no key of ours."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from cloud.errors import CloudError, Rejected, Retryable
from cloud.objects import NoSuchObject
from cloud.objects.keys import SignedPut, check_key, check_prefix

PIECE_BYTES: Final = 4 * 1024 * 1024
CONNECT_S: Final = 5
REQUEST_S: Final = 120
"""Longest single request: a piece of a large object over a slow line."""
RETRY_S: Final = 10
"""obstore itself tries again for so long; whoever asked decides about more."""

_DENIED = re.compile(
    r"\b(401|403)\b|AccessDenied|SignatureDoesNotMatch|InvalidAccessKeyId|ExpiredToken|credential", re.IGNORECASE
)
_NO_BUCKET = re.compile(r"NoSuchBucket|bucket does not exist|InvalidBucketName", re.IGNORECASE)


class S3Objects:
    """Objects in a bucket, below a prefix. Endpoint, region and credentials are those of the usual AWS_* variables."""

    def __init__(self, address: str, environment: Mapping[str, str]) -> None:
        parts = urlsplit(address)
        prefix = parts.path.strip("/")
        if not parts.netloc or parts.query:
            raise Rejected("objects-address", f"{address[:80]!r} names no bucket", "s3://bucket or s3://bucket/prefix")
        if prefix:
            check_key(prefix)
        self.address = address
        self._bucket = parts.netloc
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        known = {
            "access_key_id": environment.get("AWS_ACCESS_KEY_ID"),
            "secret_access_key": environment.get("AWS_SECRET_ACCESS_KEY"),
            "session_token": environment.get("AWS_SESSION_TOKEN"),
            "endpoint": endpoint,
        }
        self._store = S3Store(
            self._bucket,
            prefix=prefix or None,
            region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
            # An endpoint of one's own is mostly a host without a wildcard in its DNS: the bucket stands in the path.
            virtual_hosted_style_request=endpoint is None,
            client_options={
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=CONNECT_S),
                "timeout": timedelta(seconds=REQUEST_S),
            },
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=RETRY_S)},
            **{name: value for name, value in known.items() if value},  # type: ignore[arg-type]
        )

    def put(self, key: str, content: bytes | Path, *, if_absent: bool = False) -> bool:
        """See Objects. With `if_absent` the whole object is in memory for a moment."""
        with self._explained():
            try:
                if if_absent:
                    whole = content if isinstance(content, bytes) else content.read_bytes()
                    obstore.put(self._store, check_key(key), whole, mode="create")
                else:
                    obstore.put(self._store, check_key(key), content)
            except AlreadyExistsError:
                return False
        return True

    def get(self, key: str) -> Iterator[bytes]:
        """See Objects."""
        with self._explained(check_key(key)):
            for piece in obstore.get(self._store, key).stream(PIECE_BYTES):
                yield bytes(piece)

    def size(self, key: str) -> int | None:
        """See Objects."""
        with self._explained(), suppress(FileNotFoundError):
            return int(obstore.head(self._store, check_key(key))["size"])
        return None

    def list(self, prefix: str) -> Iterator[str]:
        """See Objects."""
        with self._explained():
            for page in obstore.list(self._store, check_prefix(prefix)):
                yield from (found["path"] for found in page)

    def delete(self, key: str) -> None:
        """See Objects."""
        with self._explained(), suppress(FileNotFoundError):
            obstore.delete(self._store, check_key(key))

    def move(self, key: str, to: str) -> None:
        """See Objects: a copy, then the deletion."""
        with self._explained(check_key(key)):
            obstore.rename(self._store, key, check_key(to))

    def sign_put(self, key: str, *, size: int, sha256: str, expires_s: int) -> SignedPut:  # noqa: ARG002 - see below
        """See Objects. The signature binds key and time; size and digest are looked at once the object is there."""
        with self._explained():
            url = obstore.sign(self._store, "PUT", check_key(key), timedelta(seconds=expires_s))
        return SignedPut(url, {"Content-Type": "application/octet-stream"}, expires_s)

    @contextmanager
    def _explained(self, key: str = "") -> Iterator[None]:
        """Turn obstore's errors into ours."""
        try:
            yield
        except CloudError:
            raise
        except FileNotFoundError as error:
            # A missing bucket is told in the same way as a missing object.
            if _NO_BUCKET.search(str(error)):
                raise self._no_bucket() from error
            if not key:
                raise
            raise NoSuchObject(key) from error
        except (BaseError, OSError, ValueError) as error:
            raise self._explain(error) from error

    def _explain(self, error: Exception) -> Rejected | Retryable:
        said = " ".join(str(error).split())
        short = said[:300]
        if _NO_BUCKET.search(said):
            return self._no_bucket()
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or _DENIED.search(said):
            return Rejected(
                "objects-auth", f"{self.address} refuses these credentials: {short}",
                "correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or what they may do in this bucket",
            )  # fmt: skip
        return Retryable(
            "objects-away", f"{self.address} does not answer: {short}",
            "start it, or correct AWS_ENDPOINT_URL; what waits for it is tried again",
        )  # fmt: skip

    def _no_bucket(self) -> Rejected:
        return Rejected(
            "objects-bucket", f"there is no bucket {self._bucket}", "create it, or correct the bucket in --objects"
        )
