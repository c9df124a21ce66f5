"""Small files, written whole or not at all."""

import errno
import json
import os
from pathlib import Path

from core.errors import DiskFull


def read_json(path: Path) -> dict | None:
    """The content of a JSON file, or None when it does not exist or is cut short."""
    try:
        return json.loads(path.read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Atomic: the file has its old content or the new one, never a part.

    durable: on the disk when this returns, rather than soon.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(path) from error
        raise


def write_json(path: Path, content: dict, durable: bool = True) -> None:
    """As `write_bytes`."""
    text = json.dumps(content, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), durable)
