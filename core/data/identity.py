"""The identity of a user's own images: a hash of their content that no path enters."""

import hashlib
import zipfile
from pathlib import Path

from core.errors import Refused


def content_digest(path: Path) -> str:
    """16 hex digits over the names, relative to `path`, and the bytes of all files in it.

    path: a folder or a .zip. Refused when it is neither.
    """
    content = hashlib.sha256()
    if path.is_dir():
        files = sorted((f.relative_to(path).as_posix(), f) for f in path.rglob("*") if f.is_file())
        for name, file in files:
            content.update(f"{name}\0{file.stat().st_size}\0".encode())
            content.update(file.read_bytes())
    elif path.is_file() and zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for entry in sorted(archive.infolist(), key=lambda e: e.filename):
                # A .zip carries a checksum of every file.
                content.update(f"{entry.filename}\0{entry.file_size}\0{entry.CRC}\0".encode())
    else:
        raise Refused(f"data_path={path} is neither a folder nor a .zip of images")
    return content.hexdigest()[:16]
