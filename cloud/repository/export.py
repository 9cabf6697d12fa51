"""The repository on a stick, for shops without a line. Its timestamp may last longer than the one that is served."""

import shutil
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from tuf.api.metadata import Timestamp

from cloud.errors import Rejected
from cloud.repository.ceremony import online_signers
from cloud.repository.folder import COMPACT, LIVES, RepositoryFolder, sign, unwritable
from wire.repository import METADATA

MOST_DAYS: Final = 30
"""As long as a snapshot lasts. Until then a stick may show a device an older state as the newest."""


def export(repository: RepositoryFolder, folder: Path, days: int = LIVES[Timestamp.type].days) -> datetime:
    """Copy the repository into `folder`, valid for some days; gives until when.

    Raises `Rejected` (``export-folder``, ``export-days``, ``keys-missing``) and `Broken` (``repository-folder``).
    """
    folder, own = folder.expanduser().resolve(), repository.folder.resolve()
    if own in (folder, *folder.parents) or folder in own.parents:
        raise Rejected("export-folder", f"{folder} holds the repository itself", "name a folder on the stick")
    if not 1 <= days <= MOST_DAYS:
        raise Rejected("export-days", f"{days} days are not possible", f"--days from 1 to {MOST_DAYS}")
    with repository.locked():
        current, online = repository.read(), online_signers(repository)
        repository.write_snapshot(current, online)
        timestamp = current.timestamp
        # The same version as the one served: whichever a device sees first, it stays with it until the next.
        timestamp.signed.expires = (repository.now() + timedelta(days=days)).replace(microsecond=0)
        sign(timestamp, current.root.signed, online)
        try:
            shutil.copytree(own, folder, ignore=shutil.ignore_patterns(".*"), dirs_exist_ok=True)
            (folder / METADATA / "timestamp.json").write_bytes(timestamp.to_bytes(COMPACT))
        except (OSError, shutil.Error) as error:
            raise unwritable(folder, error if isinstance(error, OSError) else OSError(str(error))) from None
        return min(timestamp.signed.expires, *(state.expires_at for state in repository.states()[:3]))
