"""The repository of models over HTTP: plain files, as any web server would give them, and what stands in it."""

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import FileResponse, Response

from cloud.errors import CloudError
from cloud.repository.folder import RepositoryFolder
from cloud.web import problems
from cloud.web.shapes import Shape

PREFIX: Final = "/repository"
"""Where the files are; one answer there is a few hundred bytes, for devices pay for each."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_FILES: Final = (
    (re.compile(r"metadata/timestamp\.json"), "application/json", "no-cache"),
    (re.compile(r"metadata/\d{1,10}\.[A-Za-z0-9_%-]{1,80}\.json"), "application/json", "max-age=86400"),
    (re.compile(rf"targets/models/{_NAME}/\d{{1,10}}/[0-9a-f]{{64}}\.bundle\.json"), "application/json", "immutable"),
    (re.compile(r"blobs/[0-9a-f]{64}"), "application/octet-stream", "immutable"),
)
"""What may be asked for, as what it is sent, and how long it may be kept on the way."""
_FOR_EVER = "max-age=31536000, immutable"

files_router = APIRouter(include_in_schema=False)
router = APIRouter(tags=["repository"])


class Role(Shape):
    """One role of the metadata. `alarm`: it must be signed anew soon, else no device updates any more."""

    role: str
    version: int
    expires_at: datetime
    left_s: float
    alarm: bool


class Offered(Shape):
    """A published bundle."""

    name: str
    release: int
    version: str
    digest: str
    size_bytes: int
    published_at: str


class Repository(Shape):
    """What devices may be ordered to take, and how long the signatures over it last."""

    roles: list[Role]
    bundles: list[Offered]


def _repository(request: Request) -> RepositoryFolder:
    found = request.app.state.repository
    if not isinstance(found, RepositoryFolder) or not found.exists:
        raise problems.not_found(
            "repository-missing", "this cloud has no repository of models",
            "make one: shelfwire-cloud fleet keys init FOLDER",
        )  # fmt: skip
    return found


@router.get("/repository", responses=problems.documented())
def show(repository: Annotated[RepositoryFolder, Depends(_repository)]) -> Repository:
    """Show the repository of models."""
    try:
        roles = [Role(**_fields(state)) for state in repository.states()]
        return Repository(roles=roles, bundles=[Offered(**_fields(one)) for one in repository.published()])
    except CloudError as error:
        raise problems.ApiProblem(503, error.code, str(error), error.hint) from error  # type: ignore[arg-type]


def _fields(one: object) -> Mapping[str, object]:
    return {name: getattr(one, name) for name in one.__dataclass_fields__}  # type: ignore[attr-defined]


@files_router.api_route(f"{PREFIX}/{{path:path}}", methods=["GET", "HEAD"])
def file(request: Request, path: str) -> Response:
    """Give a file, or a part of one. What is not there gets an empty answer: every check asks for the next root."""
    found = request.app.state.repository
    for pattern, kind, cache in _FILES:
        if isinstance(found, RepositoryFolder) and pattern.fullmatch(path):
            place = found.folder / path
            if place.is_file() and not place.is_symlink():
                return _answer(request, place, kind, cache)
    return Response(status_code=404)


def _answer(request: Request, place: Path, kind: str, cache: str) -> Response:
    state = place.stat()
    # The name of what never changes says what is in it; that of the timestamp does not.
    tag = f'"{place.name[:64]}"' if cache == "immutable" else f'"{state.st_mtime_ns:x}-{state.st_size:x}"'
    headers = {"Cache-Control": _FOR_EVER if cache == "immutable" else cache, "ETag": tag}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return FileResponse(place, headers=headers, media_type=kind, stat_result=state)
