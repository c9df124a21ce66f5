"""What programs have in common: --help, refusals in one line, exit codes."""

import os
import sys
from collections.abc import Callable

from core.errors import Refused, unwritable_is_said


def start(
    main: Callable[[list[str]], int | None],
    needs_words: bool = False,
    text: Callable[[], str] | None = None,
) -> None:
    """Runs a program's `main` on the words of the command line, and exits with what it returns.

    --help prints `text`, or else the docstring of main's module, as does a command line without
    words where some are needed. A refusal is one line on stderr and its exit code; Ctrl-C is exit
    code 130, and a reader that has gone (`| head`) is no error.
    """
    words = sys.argv[1:]
    try:
        if {"-h", "--help", "help"} & set(words) or (needs_words and not words):
            print(text() if text else main.__globals__["__doc__"].strip(), flush=True)
            sys.exit(0)
        with unwritable_is_said(os.getcwd()):
            code = main(words)
        sys.exit(code)
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # What Python would still flush at its end must not raise again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
