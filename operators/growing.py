"""Arrays that grow with the devices. Without numba: processes that run no kernel need it too."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def grown(array: npt.NDArray[Any], capacity: int, fill: Any) -> npt.NDArray[Any]:
    """The array with a leading dimension of at least `capacity`; new elements hold `fill`."""
    if len(array) >= capacity:
        return array
    wide = np.empty((capacity, *array.shape[1:]), array.dtype)
    wide[: len(array)] = array
    wide[len(array) :] = fill
    return wide
