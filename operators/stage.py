"""What a stage is: a piece of logic over slices, with state that a snapshot holds.

`stage()` puts a logic into a Bytewax dataflow as one stateful step under one key, `shard`. The
source waits for an epoch's commit before it goes on, so a snapshot holds exactly what the slices
up to the source's own snapshot did (docs/decisions.md, "one key a shard").
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import bytewax.operators as op
from bytewax.operators import KeyedStream, StatefulBatchLogic

from operators.batch import Slice

Slices: TypeAlias = KeyedStream[Slice]
SHARD_KEY = "shard"


class StageLogic(Protocol):
    """One step of the data path, without Bytewax."""

    def process(self, item: Slice) -> None:
        """Read what earlier stages found in the slice and add one's own findings; a control of
        kind `plant` brings new specs: keep the state of what did not change."""

    def snapshot(self) -> bytes:
        """All state, such that `restore` in a new logic goes on bit for bit."""

    def restore(self, data: bytes) -> None:
        """Take over the state that `snapshot` gave."""


class _Step(StatefulBatchLogic[Slice, Slice, bytes]):
    def __init__(self, logic: StageLogic) -> None:
        self.logic = logic

    def on_batch(self, values: list[Slice]) -> tuple[Iterable[Slice], bool]:
        for item in values:
            self.logic.process(item)
        return values, StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        return self.logic.snapshot()


def stage(step_id: str, slices: Slices, make: Callable[[], StageLogic]) -> Slices:
    """A stateful step that runs a logic over every slice.

    `step_id` is part of the stored state: renaming a step drops its state.
    """

    def build(state: bytes | None) -> _Step:
        logic = make()
        if state is not None:
            logic.restore(state)
        return _Step(logic)

    return op.stateful_batch(step_id, slices, build)
