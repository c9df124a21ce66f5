"""Turn a data set into one file that trainings map into memory: once, for all jobs and machines.

    python experiments/prepare.py SOURCE OUT.images [key=value ...]
    python experiments/prepare.py verify FILE.images       read it whole, compare its checksums

and then: python experiments/run.py grid=NAME scale=cifar10 data_path=OUT.images

SOURCE is one of
  cifar10         a download (170 MB) from the data set's own site, checked against its SHA-256
  an archive      cifar-10-binary.tar.gz or cifar-10-python.tar.gz, or the folder unpacked from it
  a folder        of downsampled ImageNet: train_data_batch_1.npz to _10.npz and val_data.npz
  a folder, .zip  of pictures, .png, .jpg, .jpeg or .webp, as FILE or CLASS/FILE, in train/ and
                  test/ where there are splits; also train_64x64/ and valid_64x64/ (ImageNet 64),
                  cifar_train/ and cifar_test/; without splits every tenth of
                  a class is a test image

of pictures alone:
  size=64         pixels a side: downsampled as in OpenAI's code (halved by areas, then
                  bicubically), the middle square; without it all pictures must be of one size
  crop=center     the middle square without a size; crop=none refuses what is not square
  grey=true       one channel; false: three. Without it: one if all pictures are 8-bit grey
  labels=auto     labels.csv beside the pictures, with lines `file,label`, if there is one; else
  labels=folders  the directory is the class
  labels=names    the class is the file's name up to its first underscore, as in OpenAI's code
  labels=none     no labels, directories of any depth
  labels=FILE.csv  such a table elsewhere; its files are named as they lie below SOURCE
  enlarge=true    take pictures smaller than the size too

  threads=N       pictures decoded at a time (default: one per core)

The file is there as a whole or not at all. Of several jobs that ask for it one makes it and the
others wait; the same command again does nothing.
"""

import errno
import os
import shutil
import signal
import sys
import time
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Any

from core.command import start
from core.data import prepared
from core.data.original import OPTIONS, Options
from core.data.prepared import Prepared
from core.errors import Refused
from experiments import claims
from experiments.board import Board
from experiments.claims import Claim
from experiments.overrides import did_you_mean

KEYS = (*OPTIONS, "threads")
CHOICES = {"crop": ("center", "none"), "grey": ("true", "false"), "enlarge": ("true", "false")}


class Lost(Exception):
    """Another process has taken the preparation over while this one was not heard of."""


class Told:
    """A display with the time left, which begins when there is something to tell."""

    def __init__(self, title: str):
        self.title, self.board, self.last = title, None, 0.0

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *exception) -> None:
        if self.board:
            self.board.__exit__(*exception)

    def __call__(self, done: int, total: int) -> None:
        """Shown ten times a second at most."""
        if not self.board:
            self.board = Board(self.title, total).__enter__()
        if time.monotonic() - self.last > 0.1 or done == total:
            self.last = time.monotonic()
            self.board.progress(done, f"{done:,} of {total:,}")


def parse(words: list[str]) -> tuple[str, Path, Options, int]:
    """Source, output, options and threads of a command line; anything else is Refused."""
    given, paths = {}, []
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key.isidentifier():
            paths.append(word)
        elif key not in KEYS:
            raise Refused(f"unknown key '{key}'{did_you_mean(key, list(KEYS)) or '; see --help'}")
        elif key in given:
            raise Refused(f"'{key}' is given twice")
        else:
            given[key] = _value(key, text)
    if len(paths) != 2:
        raise Refused("give SOURCE and OUT.images; --help says what SOURCE may be")
    threads = given.pop("threads", 0)
    return paths[0], Path(paths[1]), replace(Options(), **given), threads


def _value(key: str, text: str) -> Any:
    if key in ("size", "threads"):
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise Refused(f"{key}={text}: give a whole number, at least 1")
        return int(text)
    if key in CHOICES and text not in CHOICES[key]:
        raise Refused(f"{key}={text}: choose {' or '.join(CHOICES[key])}")
    if key == "labels" and not text:
        raise Refused("labels= is empty: leave it out, or see --help")
    return text if key in ("crop", "labels") else text == "true"


def made_from(source: str, options: Options) -> dict:
    """What the file says of its making. No folder of this machine enters."""
    given = {key: Path(v).name if key == "labels" else v for key, v in options.given().items()}
    return {"source": Path(source).resolve().name, "options": given}


def there(out: Path, made: dict) -> Prepared | None:
    """The file if it is there; Refused when it is another one."""
    if not out.exists():
        return None
    if not prepared.is_prepared(out):
        raise Refused(f"'{out}' exists and is no prepared file: choose another name")
    header = prepared.read_header(out)
    if header.made != made:
        raise Refused(f"'{out}' was made {described(header.made)}: remove it or take another name")
    return header


def described(made: dict) -> str:
    """In words, as on the command line."""
    given = made["options"].items()
    words = ((key, str(v).lower() if isinstance(v, bool) else v) for key, v in given)
    return " ".join([f"from {made['source']}", *(f"{key}={text}" for key, text in words)])


def prepare(source: str, out: Path, options: Options, threads: int) -> tuple[Prepared, bool]:
    """The prepared file's header, and whether this process has made it; waits while others do."""
    made, path, waited = made_from(source, options), out.with_name(f".{out.name}.preparing"), False
    out.parent.mkdir(parents=True, exist_ok=True)
    while True:
        if header := there(out, made):
            return header, False
        if claim := claims.acquire(path):
            with claim:
                if header := there(out, made):
                    return header, False
                try:
                    return _make(source, out, options, threads, made, claim), True
                except Lost:
                    continue
        if not waited:
            print(f"waiting for {claims.holder(path)}, which prepares it", file=sys.stderr)
            waited = True
        time.sleep(1)


def _make(
    source: str, out: Path, options: Options, threads: int, made: dict, claim: Claim
) -> Prepared:
    from core.data.recognise import open_original  # late: PyTorch takes seconds to import

    for left in out.parent.glob(f".{escape(out.name)}.*.part"):  # by who was killed
        left.unlink(missing_ok=True)
    unfinished = out.with_name(f".{out.name}.{claim.token}.part")
    with Told("looking at the pictures") as looked:
        original = open_original(source, options, threads or _cores(), looked)
    size = prepared.blank(original, made).bytes
    if shutil.disk_usage(out.parent).free < size:
        raise Refused(f"'{out}' will have {size:,} bytes, and the disk has not so many left", 1)
    try:
        with Told(f"preparing {out.name}") as told:

            def progress(done: int) -> None:
                if claim.lost.is_set():
                    raise Lost
                told(done, sum(original.count.values()))

            header = prepared.write(unfinished, original, made, progress)
        if claim.lost.is_set() or not unfinished.exists():  # who took over has removed it
            raise Lost
        os.replace(unfinished, out)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = f"the disk is full, free {size:,} bytes"
            raise Refused(f"could not write '{out}': {why}", 1) from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)
    return header


def _cores() -> int:
    from experiments.launch import cores  # late, as above

    return cores()


def summary(path: Path, header: Prepared) -> str:
    """What the file holds, for people."""
    count, form = header.count, f"{header.channels}x{header.size}x{header.size}"
    classes = f"{len(header.classes):,} classes" if header.classes else "no labels"
    return (
        f"{path}: {count['train']:,} training and {count['test']:,} test images, {form}, "
        f"{classes}, {header.bytes / 1e6:,.0f} MB, {described(header.made)}, digest {header.digest}"
    )


def main(words: list[str]) -> int:
    """The command line; returns the exit code."""
    if words[0] == "verify":
        if len(words) != 2:
            raise Refused("give one file: verify FILE.images")
        path = Path(words[1])
        header = prepared.read_header(path)
        with Told(f"verifying {path.name}") as told:
            prepared.verify(path, lambda done: told(done, sum(header.count.values())))
        print(f"{summary(path, header)}: as it was prepared")
        return 0
    source, out, options, threads = parse(words)
    header, new = prepare(source, out, options, threads)
    print(f"{summary(out, header)}{'' if new else ': there already'}")
    print(f"to use it: data.name=folder data_path={out} (a scale may say the first already)")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaving nothing behind
    start(main, needs_words=True)
