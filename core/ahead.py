"""What training needs for a step, made by a thread while the device still works on the step before.

Everything random is a function of the step, so that what comes is the same with and without it.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """make(number) of consecutive numbers, of which up to `by` are made before they are asked for.

    by: 0 makes each when it is asked for, in the thread that asks. Another number than the next one
    begins anew from there. What make raises is raised where its number is asked for.
    """

    def __init__(self, make: Callable[[int], T], by: int):
        self.make, self._by = make, by
        self._pool = ThreadPoolExecutor(1, "ahead") if by else None  # ends with this object
        self._waiting: deque[tuple[int, Future[T]]] = deque()

    def __call__(self, number: int) -> T:
        if self._pool is None:
            return self.make(number)
        if self._waiting and self._waiting[0][0] != number:
            for _, future in self._waiting:
                future.cancel()
            self._waiting.clear()
        while len(self._waiting) <= self._by:
            following = number + len(self._waiting)
            self._waiting.append((following, self._pool.submit(self.make, following)))
        return self._waiting.popleft()[1].result()
