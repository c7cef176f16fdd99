"""The live engine over recorded input: the same dataflow, another source and sink.

`penstock replay`, `penstock test` and the benchmark run it; nothing of it knows the clock of the
machine, so the outcome is a function of the plant and the slices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np
from bytewax.inputs import DynamicSource, StatelessSourcePartition
from bytewax.outputs import DynamicSink, StatelessSinkPartition
from bytewax.testing import run_main

from connectors.errors import PenstockError
from connectors.journal.merging import empty_batch
from flows.plant import plant_flow
from flows.plant_file import Plant
from flows.plant_reader import load_bundle
from flows.replay_files import Outcome, OutcomeCollector
from flows.shard import Shard
from operators.batch import Slice, Ticks
from operators.spec import DAY
from operators.stage import SHARD_KEY

PAST_THE_END = 366 * DAY  # `--close` moves the clock on by so much: past every window and delay


class SliceSource(DynamicSource[tuple[str, Slice]]):
    """Slices from an iterable, one a batch. An error of ours ends the input and stays in `failed`:
    Bytewax would print its own trace of it."""

    def __init__(self, slices: Iterable[Slice]) -> None:
        self.slices = slices
        self.failed: PenstockError | None = None

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Slices:
        return _Slices(self)


class _Slices(StatelessSourcePartition[tuple[str, Slice]]):
    def __init__(self, source: SliceSource) -> None:
        self._source = source
        self._slices = iter(source.slices)

    def next_batch(self) -> list[tuple[str, Slice]]:
        try:
            return [(SHARD_KEY, next(self._slices))]
        except PenstockError as error:
            self._source.failed = error
            raise StopIteration from error


class _Calls(StatelessSinkPartition[tuple[str, Slice]]):
    def __init__(self, take: Callable[[Slice], None]) -> None:
        self._take = take

    def write_batch(self, items: list[tuple[str, Slice]]) -> None:
        for _, item in items:
            for part in item.runs:
                self._take(part)


class SliceSink(DynamicSink[tuple[str, Slice]]):
    """Hands every finished slice to a callable."""

    def __init__(self, take: Callable[[Slice], None]) -> None:
        self.take = take

    def build(self, step_id: str, worker_index: int, worker_count: int) -> _Calls:
        return _Calls(self.take)


def run_slices(plant: Plant, slices: Iterable[Slice], take: Callable[[Slice], None]) -> Shard:
    """Run the dataflow over slices; `take` gets each when all stages have seen it. Returns the
    shard, whose stages hold the state at the end; raises what the slices raise, e.g. `ConfigError`
    for a bad line of a recording."""
    shard = Shard(plant, load=load_bundle)
    source = SliceSource(slices)
    run_main(plant_flow(shard, source, SliceSink(take)))
    if source.failed is not None:
        raise source.failed
    return shard


def run_recording(plant: Plant, slices: Iterable[Slice], *, close: bool = False) -> Outcome:
    """Everything that comes out of a recording. `close`: move time past open windows and
    running delays at the end."""
    collector = OutcomeCollector(plant)
    shard = run_slices(plant, _closed(slices) if close else slices, collector.take)
    return collector.outcome(shard)


def _closed(slices: Iterable[Slice]) -> Iterator[Slice]:
    """The slices, then one tick past everything that may still be open."""
    last: Slice | None = None
    newest_ns = 0
    for item in slices:
        if len(item.frames):
            newest_ns = max(newest_ns, int(item.frames.ingest_ns[-1]))
        if len(item.frames.ticks.ns):
            newest_ns = max(newest_ns, int(item.frames.ticks.ns[-1]))
        last = item
        yield item
    if last is not None and newest_ns:
        yield closing_slice(last, newest_ns + PAST_THE_END)


def closing_slice(last: Slice, clock_ns: int) -> Slice:
    """A slice of one tick and no frame, after `last`."""
    frames = empty_batch(Ticks(np.zeros(1, np.int64), np.array([clock_ns], np.int64)))
    return Slice(last_entry=last.last_entry + 1, position=last.position, frames=frames)
