"""Write or refresh a bundle's `bundle.json`: `python -m models.pack FOLDER`."""

import argparse
import hashlib
import sys
from pathlib import Path

from models.bundle import MANIFEST, Bundle, BundleFile, Manifest, Precision, Role, inside, read_manifest
from models.errors import BundleError


def describe(folder: Path, path: str, role: Role, precision: Precision | None = None) -> BundleFile:
    """The entry for the file `path` of `folder` as it is now. Raises BundleError bundle-path, bundle-file-missing."""
    place = inside(folder, path)
    if not place.is_file():
        raise BundleError("bundle-file-missing", f"{path} is missing from {folder}", "put it there, or unlist it")
    content = place.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    return BundleFile(path=path, size_bytes=len(content), sha256=digest, role=role, precision=precision)


def write(folder: Path, manifest: Manifest) -> Bundle:
    """Write `manifest` as the `bundle.json` of `folder` and load the result. Raises what Bundle.load raises."""
    half = folder / f".{MANIFEST}.half"
    half.write_text(manifest.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")
    half.replace(folder / MANIFEST)
    return Bundle.load(folder)


def refresh(folder: Path) -> Bundle:
    """Put the sizes and digests of the files as they are now into `bundle.json`; the rest stays."""
    manifest, _ = read_manifest(folder)
    files = tuple(describe(folder, file.path, file.role, file.precision) for file in manifest.files)
    return write(folder, manifest.model_copy(update={"files": files}))


def main(arguments: list[str] | None = None) -> int:
    """The command. Exit code 0, or 1 with the reason and its cure on standard error."""
    parser = argparse.ArgumentParser(prog="python -m models.pack", description=refresh.__doc__)
    parser.add_argument("folder", type=Path, help="the bundle's folder")
    try:
        bundle = refresh(parser.parse_args(arguments).folder)
    except BundleError as wrong:
        sys.stderr.write(f"{wrong} ({wrong.code})\n  {wrong.hint}\n")
        return 1
    sys.stdout.write(f"{bundle.ref.name} {bundle.ref.version}, release {bundle.ref.release}: {bundle.ref.digest}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
