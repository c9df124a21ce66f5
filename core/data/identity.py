"""Which files are images, and the identity of a user's own: a hash that no path enters."""

import hashlib
import zipfile
from pathlib import Path

from core.data.prepared import is_prepared, read_header
from core.errors import Refused

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})


PIECE = 2**20  # bytes of a file that are held at a time


def is_image(name: str, suffixes: frozenset[str] = IMAGE_SUFFIXES) -> bool:
    """Whether a path relative to the data set's folder or .zip is an image, and not hidden."""
    parts = name.split("/")
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return not hidden and Path(name).suffix.lower() in suffixes


def content_digest(path: Path) -> str:
    """16 hex digits over the names, relative to `path`, and the bytes of all images in it.

    path: a folder or a .zip, or a prepared file, whose header tells its digest. Refused when it is
    none of these.
    """
    if is_prepared(path):
        return read_header(path).digest
    content = hashlib.sha256()
    if path.is_dir():
        files = sorted((f.relative_to(path).as_posix(), f) for f in path.rglob("*") if f.is_file())
        for name, file in files:
            if not is_image(name):
                continue
            content.update(f"{name}\0{file.stat().st_size}\0".encode())
            with file.open("rb") as picture:
                while piece := picture.read(PIECE):
                    content.update(piece)
    elif path.is_file() and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                entries = sorted(archive.infolist(), key=lambda e: e.filename)
        except (OSError, ValueError, EOFError, RuntimeError, zipfile.BadZipFile) as error:
            raise Refused(f"data_path={path} is a damaged .zip: replace it") from error
        for entry in entries:
            if not is_image(entry.filename):
                continue
            # A .zip carries a checksum of every file.
            about = f"{entry.filename}\0{entry.file_size}\0{entry.CRC}\0"
            content.update(about.encode(errors="surrogateescape"))
    else:
        raise Refused(
            f"data_path={path} is neither a folder nor a .zip of images nor a file that "
            "experiments/prepare.py made"
        )
    return content.hexdigest()[:16]
