"""Who may sign: a new repository, keys exchanged, signatures renewed. Every root is signed by enough keys of the root
before it, which is how devices that were away for years find their way to the newest."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from securesystemslib.signer import Key, Signer
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import Metadata, Root, Snapshot, Targets, Timestamp

from cloud.errors import Rejected
from cloud.repository.folder import LIVES, PLACES, Current, RepositoryFolder, enough, sign
from cloud.repository.keys import KEY_NAME, SUFFIX, Unlock, make_key, next_name, no_passphrase, read_key, signers_in

ROOT_KEYS: Final = 3
ROOT_THRESHOLD: Final = 2
ONLINE: Final = (Snapshot.type, Timestamp.type)
ROLES: Final = (Root.type, Targets.type, *ONLINE)

README: Final = """\
Keys of a Shelfwire repository. Whoever holds two of the root keys, or the targets key and the server, decides what
runs on every device.

root-1.key, root-2.key, root-3.key   Put each in another place, off line: two of them make a new root, one alone
                                     nothing. One may be lost: shelfwire-cloud fleet keys rotate root --replace NAME
targets.key                          Signs what is published. Off line too; plug it in to publish.
root.json                            No secret: the root of trust that devices are given.
"""


@dataclass(frozen=True, slots=True)
class KeyState:
    """A key of a role: the name of its file, and whether that was found."""

    role: str
    name: str
    keyid: str
    here: bool


class Keys:
    """The keys of one repository. New offline keys are locked by `passphrase`; `unlock` opens those there are."""

    def __init__(
        self, repository: RepositoryFolder, passphrase: bytes | None = None, unlock: Unlock = no_passphrase
    ) -> None:
        self._repository = repository
        self._passphrase = passphrase
        self._unlock = unlock

    def init(self, folder: Path) -> Path:
        """Make a repository: root and targets keys into `folder`, to be taken away, online keys where they are used.

        Gives the file with the root of trust. Raises `Rejected` (``repository-there``, ``keys-there``).
        """
        repository = self._repository
        with repository.locked():
            if repository.exists:
                raise Rejected(
                    "repository-there", f"there is a repository in {repository.folder} already",
                    "keep it; to exchange keys: shelfwire-cloud fleet keys rotate ROLE",
                )  # fmt: skip
            for place in PLACES:
                (repository.folder / place).mkdir(parents=True, exist_ok=True)
            offline: dict[str, Signer] = {}
            root = Root(consistent_snapshot=True)
            for number in range(1, ROOT_KEYS + 1):
                _add(root, Root.type, make_key(folder, f"root-{number}", self._passphrase), offline)
            root.roles[Root.type].threshold = ROOT_THRESHOLD
            _add(root, Targets.type, make_key(folder, "targets-1", self._passphrase), offline)
            online: dict[str, Signer] = {}
            for role in ONLINE:
                _add(root, role, make_key(repository.online, f"{role}-1"), online)
            current = Current(Metadata(root), Metadata(Timestamp()), Metadata(Snapshot()), Metadata(Targets()))
            for signed in (current.timestamp.signed, current.snapshot.signed, current.targets.signed):
                signed.version = 0  # each is written as its next version
            repository.write_root(self._next_root(current.root, root, offline))
            repository.write_targets(current, offline, online)
        given = folder / "root.json"
        given.write_bytes(current.root.to_bytes())
        (folder / "README.txt").write_text(README, "utf-8")
        return given

    def show(self, folders: Sequence[Path] = ()) -> list[KeyState]:
        """All keys that count, and which of them are in these folders or online here."""
        root = self._repository.read().root.signed
        here = {**signers_in(folders, self._unlock), **self._online()}
        return [
            KeyState(role, _name(root.keys[keyid]), keyid, keyid in here)
            for role in ROLES
            for keyid in root.roles[role].keyids
        ]

    def rotate(self, role: str, folders: Sequence[Path], into: Path, replace: str | None = None) -> list[str]:
        """Exchange the key of a role (``root``, ``targets``, ``snapshot``, ``timestamp``, or ``online`` for both).

        `folders` hold enough root keys to sign with. Of the root, `replace` names the one key that goes: by its name,
        or the first figures of its id. New offline keys go `into` a folder. Gives the names of the new keys. Raises
        `Rejected` (``keys-missing``, ``keys-unknown``, ``keys-there``).
        """
        repository = self._repository
        with repository.locked():
            current, old = repository.read(), repository.read().root.signed
            root = current.root.signed
            signers: dict[str, Signer] = dict(signers_in(folders, self._unlock))
            enough(Root.type, old, signers)
            made, gone = [], []
            for one in ONLINE if role == "online" else (role,):
                gone += [_one_root_key(root, replace)] if one == Root.type else list(root.roles[one].keyids)
                place = repository.online if one in ONLINE else into
                name = next_name(place, one, (_name(key) for key in root.keys.values()))
                signer = make_key(place, name, None if one in ONLINE else self._passphrase)
                for keyid in gone:
                    if keyid in root.roles[one].keyids:
                        root.revoke_key(keyid, one)
                _add(root, one, signer, signers)
                made.append(name)
            # Who reads at any moment, or after a power cut, must find all of it signed: where the old key is here, what
            # it had signed is signed by both first, and counts before the new root as after it.
            both = {**signers, **self._online()}
            replaced = set(gone) - set(old.roles[Root.type].keyids)
            new_root = self._next_root(current.root, old, signers)
            if replaced <= both.keys():
                current.old = old
                self._sign_below(current, role, both)
                repository.write_root(new_root)
            else:
                repository.write_root(new_root)
                self._sign_below(current, role, both)
            self._remove_online(gone)
        return made

    def renew(self, folders: Sequence[Path]) -> list[str]:
        """Sign root and targets for another term, those of them whose keys are here; gives which.

        Raises `Rejected` (``keys-missing``) when neither is possible.
        """
        repository = self._repository
        with repository.locked():
            current, signers = repository.read(), signers_in(folders, self._unlock)
            root = current.root.signed
            having = {role: sum(k in signers for k in root.roles[role].keyids) for role in ROLES}
            renewed = [r for r in (Root.type, Targets.type) if having[r] >= root.roles[r].threshold]
            if not renewed:
                enough(Root.type, root, signers)
            if Root.type in renewed:
                repository.write_root(self._next_root(current.root, repository.read().root.signed, signers))
            if Targets.type in renewed:
                repository.write_targets(current, signers, self._online())
        return renewed

    def _next_root(self, metadata: Metadata[Root], old: Root, signers: Mapping[str, Signer]) -> Metadata[Root]:
        """Make the next root, signed by enough of the old keys and of its own."""
        repository, root = self._repository, metadata.signed
        root.version = old.version + 1 if repository.exists else 1
        root.expires = (repository.now() + LIVES[Root.type]).replace(microsecond=0)
        sign(metadata, root, signers)
        for keyid in old.roles[Root.type].keyids:
            if keyid in signers and keyid not in metadata.signatures:
                metadata.sign(signers[keyid], append=True)
        try:
            old.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
            root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError as error:
            raise Rejected(
                "keys-missing", f"devices would not accept this root: {error}", "bring more of the root keys together"
            ) from None
        return metadata

    def _sign_below(self, current: Current, role: str, signers: Mapping[str, Signer]) -> None:
        """Sign anew what the exchanged keys have signed. After a stolen online key both metadata get new versions."""
        if role == Targets.type:
            self._repository.write_targets(current, signers, signers)
        elif role != Root.type:
            self._repository.write_snapshot(current, signers)

    def _online(self) -> Mapping[str, Signer]:
        return online_signers(self._repository)

    def _remove_online(self, keyids: Sequence[str]) -> None:
        """Delete online keys that count no more."""
        for path in self._repository.online.glob(f"*{SUFFIX}"):
            if read_key(path).public_key.keyid in keyids:
                path.unlink()


def online_signers(repository: RepositoryFolder) -> Mapping[str, Signer]:
    """The keys that lie on this machine, by key id; none when it has none."""
    return dict(signers_in([repository.online])) if repository.online.is_dir() else {}


def _add(root: Root, role: str, signer: Signer, signers: dict[str, Signer]) -> None:
    root.add_key(signer.public_key, role)
    signers[signer.public_key.keyid] = signer


def _name(key: Key) -> str:
    return str(key.unrecognized_fields.get(KEY_NAME, "?"))


def _one_root_key(root: Root, wanted: str | None) -> str:
    """The id of the root key that is meant. Raises `Rejected` (``keys-unknown``)."""
    keyids = root.roles[Root.type].keyids
    found = [
        k for k in keyids if wanted and (_name(root.keys[k]) == wanted or (len(wanted) > 7 and k.startswith(wanted)))
    ]
    if len(found) != 1:
        names = ", ".join(_name(root.keys[keyid]) for keyid in keyids)
        raise Rejected("keys-unknown", f"{wanted!r} is none of the root's keys", f"--replace one of: {names}")
    return found[0]
