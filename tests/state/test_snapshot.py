"""State as bytes and back."""

from __future__ import annotations

import numpy as np
import pytest

from operators.slots import ProductSlots
from operators.snapshot import pack, unpack


def test_arrays_and_plain_values_come_back():
    state = {
        "a": np.arange(6, dtype=np.uint8).reshape(2, 3),
        "b": {"x": [1, None, "t", np.empty((0, 4))], 3: b"q", "nan": np.array([np.nan, -0.0])},
        "n": np.int64(1 << 62),
    }
    found = unpack(pack(state))
    assert found["a"].dtype == np.uint8
    assert found["a"].tolist() == state["a"].tolist()
    assert found["b"]["x"][3].shape == (0, 4)
    assert found["b"][3] == b"q"
    assert found["b"]["nan"].tobytes() == state["b"]["nan"].tobytes()
    assert found["n"] == 1 << 62
    found["a"][0, 0] = 7  # its own memory


def test_what_cannot_be_held_is_refused():
    with pytest.raises(TypeError, match="cannot hold a object"):
        pack({"a": object()})


def test_rows_are_given_in_the_order_of_first_sight():
    slots = ProductSlots()
    assert slots.rows(np.array([700, 3, 700, 5], np.int32)).tolist() == [0, 1, 0, 2]
    assert slots.rows(np.array([5, 1, 3], np.int32)).tolist() == [2, 3, 1]
    assert slots.row(9000) == slots.row(0) == -1
    again = ProductSlots.load(slots.export())
    assert again.rows(np.array([1, 5, 3, 700], np.int32)).tolist() == [3, 2, 1, 0]
    slots.rows(np.arange(1000, dtype=np.int32))
    assert slots.count == 1000
    assert len(slots.slot_of) == slots.capacity >= 1000
