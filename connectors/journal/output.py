"""The output log as a Bytewax sink: what the flow found, until every target has taken it.

`output_writer` writes it, `output_store` says how it lies on disk and reads it, `columns` what its
records hold. `CountingSink` stands in its place where only speed is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from connectors.journal.columns import TelemetrySpec
from connectors.journal.output_store import OutputReader
from connectors.journal.output_writer import MAP_BYTES, Names, OutputWriter
from operators.batch import Slice, StateChanges

__all__ = ["CountingSink", "OutputLog", "OutputReader", "OutputWriter"]

PARTITION: Final = "shard"  # part of the stored state: a rename would lose it


class _LogPartition(StatefulSinkPartition[Slice, str]):
    def __init__(self, sink: OutputLog, plant: str) -> None:
        self._sink = sink
        self._plant = plant
        sink.writer.use(sink.telemetry(plant or None))

    def write_batch(self, values: list[Slice]) -> None:
        writer = self._sink.writer
        for item in [part for whole in values for part in whole.runs]:
            writer.write(item)  # what the slice of a plant holds was found under the one before it
            if item.control is not None and item.control.kind == "plant":
                self._plant = item.control.data["sha256"]
                writer.use(self._sink.telemetry(self._plant))
        writer.commit_due()

    def snapshot(self) -> str:
        self._sink.writer.flush()
        return self._plant

    def close(self) -> None:
        self._sink.writer.close()


class OutputLog(FixedPartitionedSink[Slice, str]):
    """The output log as a Bytewax sink of one partition.

    telemetry: what is written under the plant with a SHA-256; under None, the shard's first plant.
    Its state names the plant under which a snapshot was taken.
    """

    def __init__(
        self,
        path: Path,
        devices: Names,
        telemetry: Callable[[str | None], Mapping[str, TelemetrySpec]],
        *,
        state: Callable[[], StateChanges] = StateChanges,
        map_bytes: int = MAP_BYTES,
    ) -> None:
        self.telemetry = telemetry
        self.writer = OutputWriter(path, devices, {}, state=state, map_bytes=map_bytes)

    def boundaries(self) -> list[int]:
        """See `OutputWriter.boundaries`."""
        return self.writer.boundaries()

    def backlog_full(self) -> str | None:
        """See `OutputWriter.backlog_full`."""
        return self.writer.backlog_full()

    def reached(self) -> int:
        """The last entry that has come out of the dataflow."""
        return self.writer.reached

    def describe(self) -> dict[str, Any]:
        """See `OutputWriter.describe`."""
        return self.writer.describe()

    def list_parts(self) -> list[str]:
        return [PARTITION]

    def build_part(self, step_id: str, for_part: str, resume_state: str | None) -> _LogPartition:
        return _LogPartition(self, resume_state or "")


class _CountingPartition(StatefulSinkPartition[Slice, None]):
    def __init__(self, sink: CountingSink) -> None:
        self._sink = sink

    def write_batch(self, values: list[Slice]) -> None:
        sink = self._sink
        for item in [part for whole in values for part in whole.runs]:
            sink.slices += 1
            sink.frames += len(item.frames)
            sink.rows += sum(len(batch) for batch in item.readings)
            sink.windows += sum(len(batch) for batch in item.windows)
            sink.rejects += len(item.rejects)
            sink.alarms += len(item.alarms)
        sink.last_entry = values[-1].last_entry

    def snapshot(self) -> None:
        return None


class CountingSink(FixedPartitionedSink[Slice, None]):
    """Counts what comes out and writes nothing: the end of the dataflow for a benchmark."""

    def __init__(self) -> None:
        self.slices = self.frames = self.rows = self.windows = self.rejects = self.alarms = 0
        self.last_entry = 0

    def list_parts(self) -> list[str]:
        return [PARTITION]

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> _CountingPartition:
        return _CountingPartition(self)
