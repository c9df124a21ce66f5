"""The exceptions that a user is meant to read."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST = 1600  # characters of a message
# The last two are of file systems without hard links, by which runs are claimed.
REFUSING = (errno.EROFS, errno.EACCES, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)


class Refused(Exception):
    """What is wrong and what to do about it, in one line.

    Raised for anything that a user can mend: a wrong key, missing data, a damaged file. The command
    line prints the message alone, without a traceback, and exits with `code`: 2 for a request that
    cannot be carried out as written, 1 for a request that failed on the way. `lasting`: the same
    command would fail again, as after a training that diverged; otherwise mending the cause is
    enough.
    """

    def __init__(self, message: str, code: int = 2, lasting: bool = False):
        message = one_line(message)
        # What is wrong comes first and why comes last; what was given may be of any length.
        half = LONGEST // 2
        short = f"{message[:half]} ... {message[-half:]}"
        super().__init__(message if len(message) <= LONGEST else short)
        self.code, self.lasting = code, lasting

    def __reduce__(self):
        return Refused, (str(self), self.code, self.lasting)


def one_line(text: str) -> str:
    """The text with line ends and control characters written out, as \\n and \\x1b.

    Names of files and contents of files from elsewhere may hold any, and a terminal obeys them.
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_line(error: Exception) -> str:
    """The first line of what an exception of somebody else's code says, or its kind."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class Unwritable(Refused):
    """A place where nothing can be written: a read-only file system, no permission, no folder."""

    def __init__(self, path: object, why: object):
        why = getattr(why, "strerror", None) or why
        super().__init__(
            f"could not write {path}: {why}; make it writable or name another place, such as "
            "results=FOLDER",
            code=1,
        )
        self.path, self.why = path, str(why)

    def __reduce__(self):
        return Unwritable, (self.path, self.why)


class DiskFull(Refused):
    """Nothing else can be written either: a launch ends here instead of failing run by run."""

    def __init__(self, path: object):
        super().__init__(
            f"could not write {path}: the disk is full; free some space and run the same command "
            "again, which continues from what is there",
            code=1,
        )
        self.path = path

    def __reduce__(self):
        return DiskFull, (self.path,)


@contextmanager
def unwritable_is_said(place: object) -> Iterator[None]:
    """Around what writes to a place: a full disk becomes DiskFull, one that refuses Unwritable."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(error.filename or place) from error
        if error.errno in REFUSING:
            raise Unwritable(error.filename or place, error) from error
        raise
