"""Small files: written whole or not at all, and read as what anybody may have written."""

import errno
import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

from core.errors import DiskFull, Refused, Unwritable
from core.files import replacing

LARGEST = 2**24  # bytes of a file that is read
CHECKSUM = "checksum"  # the last key of a JSON file: "sha256:" and the digest of the rest
LENGTH = 71


def read_json(path: Path) -> dict | None:
    """The object in a JSON file; None when it does not exist or is not as it was written.

    Numbers are finite and of 64 bits at most. Files of earlier versions have no checksum and are
    taken as they are.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST + 1)
        if len(content) > LARGEST:
            return None
        found = json.loads(content, parse_constant=_no, parse_float=_real, parse_int=_whole)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    last, value = list(found.items())[-1] if found else ("", None)
    if last == CHECKSUM or (isinstance(value, str) and len(value) == LENGTH):  # or its name is hurt
        del found[last]
        return found if (last, value) == (CHECKSUM, _checksum(found)) else None
    return found


def read_record(path: Path, **kinds: type | tuple[type, ...]) -> dict | None:
    """As `read_json`, of what is kept: None where there is no file.

    kinds: of the values that it may have. Refused, naming the file, when it holds no object, or a
    value of another type.
    """
    found = read_json(path)
    if found is None and os.path.lexists(path):
        raise Refused(f"{path} is damaged: delete it and run the same command again", 1)
    for key, kind in kinds.items():
        value = (found or {}).get(key)
        if value is not None and not isinstance(value, kind):
            raise Refused(
                f"{path} is damaged ('{key}' is a {type(value).__name__}): delete it and run the "
                "same command again",
                1,
            )
    return found


def _no(word: str) -> None:
    raise ValueError(f"{word} is no number of JSON's")


def _real(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no(text)


def _whole(text: str) -> int:
    number = int(text)
    return number if -(2**63) <= number < 2**63 else _no(text)


def is_damaged(path: Path) -> bool:
    """Whether there is a JSON file that is not as it was written."""
    return read_json(path) is None and path.is_file()


def stamp(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is replaced or written to; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def write_bytes(path: Path, content: bytes, durable: bool = True) -> None:
    """Atomic: the file has its old content or the new one, never a part.

    durable: on the disk when this returns, rather than soon.
    """
    try:
        with replacing(path, durable) as file:
            file.write(content)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(path) from error
        raise


def write_json(path: Path, content: dict[str, Any], durable: bool = True) -> None:
    """As `write_bytes`; with a checksum, by which `read_json` knows damage."""
    content = {key: value for key, value in content.items() if key != CHECKSUM}
    sealed = content | {CHECKSUM: _checksum(content)}
    text = json.dumps(sealed, indent=1, allow_nan=False) + "\n"
    write_bytes(path, text.encode(), durable)


def _checksum(content: dict) -> str:
    text = json.dumps(content, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def check_writable(folder: Path) -> None:
    """Refused unless a file can be written in the folder or, where that is missing, above it.

    No folder is made, which others might find, and put a file into, before it was removed.
    """
    there = next(place for place in (folder, *folder.parents) if os.path.lexists(place))
    try:
        write_bytes(there / ".writable", b"?")
        (there / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise Unwritable(folder, error) from error
