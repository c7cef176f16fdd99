"""Paged state: what was written under a generation comes back, whatever happened after it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.pages import PAGE, PageStore
from operators.snapshot import pack


def made(rows: int, fill: int, more: bool) -> dict:
    state = {
        "names": [f"press-{n}" for n in range(rows)],
        "products": {
            "p": {"wide": np.full((rows, 700), fill, np.int64), "n": fill, "none": np.empty((0, 3))}
        },
        "bytes": bytes([fill]) * 3,
    }
    state["products"]["p"]["wide"][:: max(1, rows // 3)] = -fill
    if more:
        state["products"]["q"] = {"flat": np.arange(rows * 9000, dtype=np.uint8), "scalar": np.array(7)}
    return state


@settings(deadline=None, max_examples=40, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["rules", "rule"]),
            st.integers(0, 40),
            st.integers(0, 3),
            st.booleans(),
            st.sampled_from(["settle", "crash", ""]),
        ),
        max_size=12,
    )
)
def test_the_last_durable_generation_comes_back(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("pages")
    store = PageStore(folder)
    durable: dict[str, tuple[int, bytes]] = {}
    pending: dict[str, tuple[int, bytes]] = {}
    for stage, rows, fill, more, then in steps:
        state = made(rows, fill, more)
        pending[stage] = (store.write(stage, state), pack(state))
        if then == "settle":
            durable.update(pending)
            store.settle()
        elif then == "crash":
            store.close()
            store, pending = PageStore(folder), {}
            for name, (generation, packed) in durable.items():
                assert pack(store.read(name, generation)) == packed
    store.close()
    again = PageStore(folder)
    for name, (generation, packed) in durable.items():
        assert pack(again.read(name, generation)) == packed
    again.close()


def test_only_changed_pages_are_written(tmp_path: Path) -> None:
    store = PageStore(tmp_path)
    state = {"a": np.zeros((1000, 1024), np.int64), "n": 1}
    first = store.write("s", state)
    whole = store.written_bytes
    assert whole > 8_000_000
    assert store.write("s", state) == first
    assert store.written_bytes == whole
    state["a"][500, 3] = 9
    assert store.write("s", state) > first
    assert store.written_bytes - whole <= PAGE + 8
    store.close()


def test_a_generation_that_is_not_there_is_told(tmp_path: Path) -> None:
    store = PageStore(tmp_path)
    with pytest.raises(LookupError) as error:
        store.read("rules", 3)
    assert str(error.value) == "no state of 'rules' at generation 3"
    store.close()


WRITER = """
import sys
from pathlib import Path
from operators.pages import PageStore
from tests.state.test_pages import made
store = PageStore(Path(sys.argv[1]))
n = 0
while True:
    n += 1
    print(store.write("s", made(5 + n % 30, n % 4, n % 5 == 0)), n, flush=True)
    if n % 3 == 0:
        print("settled", flush=True)
        store.settle()
"""


@pytest.mark.parametrize("lines", [1, 7, 20, 41])
def test_a_killed_writer_leaves_every_generation_since_the_settled_one(tmp_path: Path, lines: int) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        told = [child.stdout.readline() for _ in range(lines)]
        os.kill(child.pid, signal.SIGKILL)
        told += child.stdout.readlines()
    written = [line.split() for line in told if line.endswith("\n") and line != "settled\n"]
    generation, n = (int(word) for word in written[-1])
    store = PageStore(tmp_path)
    assert pack(store.read("s", generation)) == pack(made(5 + n % 30, n % 4, n % 5 == 0))
    store.close()
