"""Recorded input (FORMATS section 4): JSON lines, a CSV or an archive, as the slices that the flow reads.

A frame's ingest time is the largest `ingest_ts` read so far, itself included. A recording without
any tick is replayed as if one stood before the first frame whose ingest time is at or past each
whole second (of several in a row the last stands for all); one that has ticks gets no others.
An archive is a journal, so nothing is added to it. How many frames a slice holds carries no meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition

from connectors.errors import ConfigError
from connectors.files.config import FilesConfig
from connectors.files.recorded_lines import (
    RecordedLine,
    chunks,
    control_of,
    has_tick,
    is_csv,
    line_number,
    quarantined,
    tell_bad_line,
)
from connectors.files.recorded_slices import SliceBuilder
from connectors.files.rows import BrokenFileError, csv_frames
from connectors.journal.archive_reader import (
    archived_days,
    archived_files,
    check_gaps,
    is_archive,
    read_files,
)
from connectors.source import Frame
from operators.batch import Slice
from operators.stage import SHARD_KEY


@dataclass(slots=True, eq=False)
class CsvInput:
    """How a CSV file of recorded input is read: as files that the source `source` would find.

    time_of_row: the ingest time of a row in milliseconds, None where it has none; without it all
    rows are of time 0.
    """

    source: str
    config: FilesConfig
    time_of_row: Callable[[Frame], int | None] | None = None


@dataclass(slots=True, eq=False)
class Archives:
    """How archives are read. from_ms, to_ms: only entries of from_ms <= clock < to_ms; with_gaps: go
    on where entries are missing, and `say` so; else they are an error."""

    from_ms: int | None = None
    to_ms: int | None = None
    with_gaps: bool = False
    say: Callable[[str], object] = lambda told: None


def read_recording(
    paths: Sequence[Path | str],
    entry_frames: int = 10_000,
    csv: CsvInput | None = None,
    archives: Archives | None = None,
) -> Iterator[Slice]:
    """The slices of recorded files, read one after the other, in bounded memory.

    A path is a file, the folder of an archive, or an archive's `s3://` address. Each slice holds at
    most `entry_frames` frames; a control is a slice of its own. Raises ConfigError, with file and
    line, for a line that is no entry.
    """
    if entry_frames < 1:
        raise ValueError("entry_frames must be at least 1")
    files = [Path(path) for path in paths if not is_archive(str(path))]
    generate = len(files) == len(paths) and not any(has_tick(path) for path in files if not is_csv(path))
    builder = SliceBuilder(entry_frames, generate)
    for path in files:
        if not is_csv(path):
            builder.quarantined |= quarantined(path)
    for name in paths:
        if is_archive(str(name)):
            yield from _archived_slices(str(name), builder, archives or Archives())
            continue
        path = Path(name)
        if not is_csv(path):
            yield from _json_slices(path, builder)
        elif csv is None:
            raise ConfigError(f"{path}  a CSV file is read by a source of kind files; the plant has none")
        else:
            yield from _csv_slices(path, builder, csv)
    yield from builder.flush()


def _archived_slices(path: str, builder: SliceBuilder, how: Archives) -> Iterator[Slice]:
    yield from builder.flush()
    files = archived_files(path, archived_days(how.from_ms, how.to_ms))
    check_gaps(files, how.say if how.with_gaps else None)
    for read in read_files(
        files, from_ms=how.from_ms, to_ms=how.to_ms, rows=builder.entry_frames, say=how.say
    ):
        yield builder.passed(read.position, read.found)


def _json_slices(path: Path, builder: SliceBuilder) -> Iterator[Slice]:
    decoder = msgspec.json.Decoder(RecordedLine)
    for number, chunk in chunks(path):
        try:
            lines = decoder.decode_lines(chunk)
        except msgspec.MsgspecError:
            tell_bad_line(path, number, chunk, decoder)
            raise
        for index, line in enumerate(lines):
            if line.ingest_ts is not None:
                try:
                    builder.add_line(line)
                except ValueError as error:
                    raise ConfigError(f"{path}:{line_number(number, chunk, index)}  {error}") from error
                if builder.is_full:
                    yield from builder.flush()
            elif line.tick is not None:
                builder.tick(line.tick)
            else:
                try:
                    yield from _other(line, builder)
                except ValueError as error:
                    raise ConfigError(f"{path}:{line_number(number, chunk, index)}  {error}") from error


def _other(line: RecordedLine, builder: SliceBuilder) -> Iterator[Slice]:
    """A line that is neither a frame nor a tick."""
    if line.capture is not None:
        if line.capture != 1:
            raise ValueError(f"capture: version {line.capture} is not known; this version reads 1")
        yield from builder.begin(line.position)
        return
    yield from builder.control(*control_of(line), line.at)
    if line.gap is not None:  # what is missing had positions of its own, where the journal itself lost it
        yield from builder.begin(int(line.gap.get("position", 0)))


def _csv_slices(path: Path, builder: SliceBuilder, csv: CsvInput) -> Iterator[Slice]:
    try:
        for frame in csv_frames(path, csv.config):
            time = csv.time_of_row(frame) if csv.time_of_row is not None else None
            address = (csv.source, frame.topic, frame.port, frame.headers)
            builder.add(frame.payload, address, frame.flags, 0 if time is None else time, frame.line)
            if builder.is_full:
                yield from builder.flush()
    except BrokenFileError as error:
        raise ConfigError(f"{path}  {error}") from error
    except OSError as error:
        raise ConfigError(f"{path}  cannot be read: {error.strerror}") from error


class _Partition(StatefulSourcePartition[tuple[str, Slice], int]):
    def __init__(self, slices: Iterable[Slice], done: int) -> None:
        self._slices = (made for made in slices if made.last_entry > done)
        self._done = done

    def next_batch(self) -> list[tuple[str, Slice]]:
        made = next(self._slices)
        self._done = made.last_entry
        return [(SHARD_KEY, made)]

    def snapshot(self) -> int:
        return self._done


class RecordingSource(FixedPartitionedSource[tuple[str, Slice], int]):
    """Recorded files as a Bytewax source: items are `("shard", Slice)`; ends with the last file."""

    def __init__(
        self, paths: Sequence[Path | str], entry_frames: int = 10_000, csv: CsvInput | None = None
    ) -> None:
        self.paths = paths
        self.entry_frames = entry_frames
        self.csv = csv

    def list_parts(self) -> list[str]:
        return ["recording"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _Partition:
        return _Partition(read_recording(self.paths, self.entry_frames, self.csv), resume_state or 0)
