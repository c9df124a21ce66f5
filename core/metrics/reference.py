"""The moments of a whole data set's features: computed once, kept by content, in bounded memory."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from core.data import arrays
from core.data.images import Images
from core.files import replacing
from core.metrics.distances import moments
from core.metrics.extractor import CHUNK, Extractor, features_of

try:
    import fcntl
except ImportError:  # Windows, where filelock locks otherwise
    fcntl = None

Tell = Callable[[str], None]  # told how far it is, in words; may raise, to stop
AT_ONCE = 2**25  # numbers: features of so many are held together, 256 MiB
KEEP_SECONDS = 60.0  # between two states of a longer computation that are kept


class Moments:
    """Mean [d] and covariance [d, d] of features that come in chunks, float64.

    Chan, Golub & LeVeque 1983: a chunk's own sums of squares about its own mean are added, and what
    the distance of the means adds, so that nothing cancels.
    """

    def __init__(self, dimension: int):
        self.n = 0
        self.mean = np.zeros(dimension)
        self.scatter = np.zeros((dimension, dimension))

    def add(self, features: np.ndarray) -> None:
        """Features [m, d]."""
        m = len(features)
        mean = features.mean(axis=0)
        centred, apart = features - mean, mean - self.mean
        self.scatter += centred.T @ centred + np.outer(apart, apart) * (self.n * m / (self.n + m))
        self.mean += apart * (m / (self.n + m))
        self.n += m

    @property
    def covariance(self) -> np.ndarray:
        """Divisor n - 1."""
        return self.scatter / (self.n - 1)


def reference_moments(
    images: Images, extractor: Extractor, cache: Path | None, tell: Tell = lambda words: None
) -> tuple[np.ndarray, np.ndarray]:
    """`moments` of the features of all `images`, computed once and kept in the folder `cache`.

    The file is named after what determines its content, the extractor's weights and the data, so
    that it never is out of date. Processes that ask at once wait for the first of them; a damaged
    file is computed anew. Where there are too many features to hold, they come in chunks, and what
    was interrupted goes on from the last state kept, to the same numbers. Without a cache folder
    everything is computed. Refused: fewer images than features.
    """
    if cache is None:
        return _computed(images, extractor, None, tell)
    cache.mkdir(parents=True, exist_ok=True)
    path = cache / f"moments-{extractor.name}-{extractor.digest}-{_digest(images)}.npz"
    with _locked(path, tell):
        kept = _read(path, extractor.dimension)
        if kept is None:
            kept = _computed(images, extractor, path.with_suffix(".partial"), tell)
            _write(path, mean=kept[0], covariance=kept[1])
            path.with_suffix(".partial").unlink(missing_ok=True)
    return kept


# Images are never changed, and to hash a million of them takes a minute.
@lru_cache(maxsize=2)
def _digest(images: Images) -> str:
    return images.digest()


@contextmanager
def _locked(path: Path, tell: Tell) -> Iterator[None]:
    """While nobody else computes the file; who waits says so, and can be stopped.

    Where the file system has no locks several may compute it at once, to the same content.
    """
    if not _has_locks(path.with_name(f"{path.name}.lock")):
        yield
        return
    lock = FileLock(f"{path}.lock")
    while True:
        try:
            lock.acquire(timeout=1)
            break
        except Timeout:
            tell("another process computes the moments of the reference images")
    try:
        yield
    finally:
        lock.release()


def _has_locks(path: Path) -> bool:
    """Whether files can be locked there; filelock would wait for ever where they cannot."""
    if fcntl is None:
        return True
    with open(path, "a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody has it
            return True
        except OSError:
            return False
    return True


def _computed(
    images: Images, extractor: Extractor, partial: Path | None, tell: Tell
) -> tuple[np.ndarray, np.ndarray]:
    """partial: where the state of a long computation is kept."""
    if len(images) * extractor.dimension <= AT_ONCE:
        return moments(features_of(extractor, images.pixels, tell, "reference images"))
    found, kept = _resumed(extractor.dimension, partial), time.monotonic()
    while found.n < len(images):
        found.add(extractor(images.pixels[found.n : found.n + CHUNK]))
        if partial and time.monotonic() - kept > KEEP_SECONDS:
            _write(partial, n=found.n, mean=found.mean, scatter=found.scatter)
            kept = time.monotonic()
        tell(f"features of {found.n:,} of {len(images):,} reference images")
    return found.mean, found.covariance


def _resumed(dimension: int, partial: Path | None) -> Moments:
    """The state that was kept, or that of no image."""
    found = Moments(dimension)
    arrays = _arrays(partial) if partial else {}
    shapes = {"n": (), "mean": (dimension,), "scatter": (dimension, dimension)}
    if {key: array.shape for key, array in arrays.items()} == shapes:
        found.n, found.mean, found.scatter = int(arrays["n"]), arrays["mean"], arrays["scatter"]
    return found


def _read(path: Path, dimension: int) -> tuple[np.ndarray, np.ndarray] | None:
    """The moments in the file, or None if it is missing or not whole."""
    arrays = _arrays(path)
    shapes = {"mean": (dimension,), "covariance": (dimension, dimension)}
    if {key: array.shape for key, array in arrays.items()} == shapes:
        return arrays["mean"], arrays["covariance"]
    if path.exists():
        print(f"warning: {path} is damaged; computed again", file=sys.stderr)
    return None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Those of the file; none if it is missing or damaged (zip members have CRCs)."""
    try:
        return arrays.read(path)
    except (OSError, ValueError):
        return {}


def _write(path: Path, **arrays: np.ndarray | int) -> None:
    with replacing(path, durable=False) as file:
        np.savez(file, **arrays)
