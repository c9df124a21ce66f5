"""The one exception that a user is meant to read."""


class Refused(Exception):
    """What is wrong and what to do about it, in one line.

    Raised for anything that a user can mend: a wrong key, missing data, a damaged file. The command
    line prints the message alone, without a traceback, and exits with `code`: 2 for a request that
    cannot be carried out as written, 1 for a request that failed on the way. `lasting`: the same
    command would fail again, as after a training that diverged; otherwise mending the cause is
    enough.
    """

    def __init__(self, message: str, code: int = 2, lasting: bool = False):
        super().__init__(message)
        self.code, self.lasting = code, lasting

    def __reduce__(self):
        return Refused, (str(self), self.code, self.lasting)
