"""Arrays that grow with the devices. Without numba: processes that run no kernel need it too."""

from __future__ import annotations

import contextlib
import math
import mmap
from typing import Any, Final

import numpy as np
import numpy.typing as npt

MAPPED: Final = 1 << 20  # bytes from which an array has memory of its own


def room(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """An array whose elements are anything.

    A large one has pages of its own, large ones where the system has such: readings meet devices in
    any order, so an array of a hundred thousand is looked at all over, and pages of 4 KB would cost a
    walk of the page table each time. What it grows out of goes back to the system at once and leaves
    no hole among what stays.
    """
    kind = np.dtype(dtype)
    count = math.prod(shape)
    if count * kind.itemsize < MAPPED or not hasattr(mmap, "MADV_HUGEPAGE"):
        return np.empty(shape, kind)
    memory = mmap.mmap(-1, count * kind.itemsize, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a system without large pages
        memory.madvise(mmap.MADV_HUGEPAGE)
    return np.frombuffer(memory, kind, count).reshape(shape)


def grown(array: npt.NDArray[Any], capacity: int, fill: Any) -> npt.NDArray[Any]:
    """The array with a leading dimension of at least `capacity`; new elements hold `fill`."""
    if len(array) >= capacity:
        return array
    wide = room((capacity, *array.shape[1:]), array.dtype)
    wide[: len(array)] = array
    wide[len(array) :] = fill
    return wide
