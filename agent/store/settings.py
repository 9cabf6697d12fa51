"""The settings that the cloud has ordered: those in force, and those before them."""

from pathlib import Path

from agent.durable import sync_folder, write_file
from agent.store.journal import broken

IN_FORCE, FORMER = "ordered.toml", "former.toml"


class SettingsFiles:
    """Two files in `folder`. Both may be missing, which is the same as empty."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def in_force(self) -> str:
        """Give what lies under the device's own configuration."""
        return self._read(IN_FORCE)

    def former(self) -> str:
        """Give what lay there before."""
        return self._read(FORMER)

    def put(self, text: str) -> None:
        """Put settings in force, safe against a power cut when this returns. Raises `Broken`."""
        self._write(IN_FORCE, text)

    def keep_former(self, text: str) -> None:
        """Keep what was in force, to go back to it. Raises `Broken`."""
        self._write(FORMER, text)

    def _read(self, name: str) -> str:
        try:
            return (self._folder / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return ""

    def _write(self, name: str, text: str) -> None:
        try:
            if text:
                write_file(self._folder / name, text.encode())
            elif (self._folder / name).exists():
                (self._folder / name).unlink()
                sync_folder(self._folder)
        except OSError as error:
            raise broken(self._folder, error) from None
