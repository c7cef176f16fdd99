"""Reads archives: their files in the order of the journal, as batches of frames and controls.

What stood before the first entry that is read (the plant, the sources connected, the parameters)
comes first as controls of their own, at the clock of that entry: state begins empty there, but under
the plant that was in force.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from connectors.errors import ConfigError
from connectors.journal import archive
from connectors.journal.archive import Contents, Standing
from connectors.journal.archive_store import REMOTE, ArchiveStore, LocalStore, open_store
from connectors.journal.merging import empty_batch
from operators.batch import Address, Control, FrameBatch, Ticks, without_lines

MILLISECOND: Final = 1_000_000
PLANTS: Final = "plants"
Say = Callable[[str], object]


@dataclass(slots=True, eq=False)
class ArchivedFile:
    """A file of an archive: where it is, and what it says about itself."""

    store: ArchiveStore
    name: str
    contents: Contents

    @property
    def path(self) -> str:
        """For people."""
        return f"{self.store.where}/{self.name}"


class Read(NamedTuple):
    """Frames with the ticks among them, or a control; position: ordinal of the next frame after it."""

    position: int
    found: FrameBatch | Control


def is_archive(path: str) -> bool:
    """Whether recorded input of that name is an archive or a file of one."""
    return path.startswith(REMOTE) or path.lower().endswith(archive.SUFFIX) or Path(path).is_dir()


def archived_days(from_ms: int | None, to_ms: int | None) -> tuple[str, str] | None:
    """The days (UTC) of `archived_files` that a range of the journal's clock lies in."""
    if from_ms is None and to_ms is None:
        return None
    return ("" if from_ms is None else archive.day(from_ms), "9" if to_ms is None else archive.day(to_ms))


def archived_files(path: str, days: tuple[str, str] | None = None) -> list[ArchivedFile]:
    """The files of an archive: of a folder, a bucket, or the one file of that name, in the order of
    the journal. days: leave out whole days (`2026-03-01`, UTC) before the first and after the second.

    Raises ConfigError for what cannot be read, is no archive file, or is of more than one journal.
    """
    store, names = _found(path)
    files = read_contents(store, names, days)
    journals = sorted({file.contents.journal for file in files})
    if len(journals) > 1:
        raise ConfigError(
            f"{path}  holds {len(journals)} journals ({', '.join(journals)}); "
            f"name the folder of one, e.g. journal={journals[0]}"
        )
    return sorted(files, key=lambda file: file.contents.first)


def read_contents(
    store: ArchiveStore, names: Iterable[str], days: tuple[str, str] | None = None
) -> list[ArchivedFile]:
    """Files of an archive by their names, in the order of these; days as in `archived_files`."""
    files = []
    for name in sorted(names):
        day = next((part[4:] for part in PurePosixPath(name).parts if part.startswith("day=")), "")
        if days is not None and day and not days[0] <= day <= days[1]:
            continue
        path = f"{store.where}/{name}"
        try:
            with store.open(name) as source:
                files.append(ArchivedFile(store, name, archive.open_file(source, path)[1]))
        except OSError as error:
            raise ConfigError(f"{path}  cannot be read: {error.strerror or error}") from error
    return files


def _found(path: str) -> tuple[ArchiveStore, list[str]]:
    if not path.startswith(REMOTE) and not Path(path).is_dir():
        return LocalStore(Path(path).parent), [Path(path).name]
    store = open_store(path, Path.cwd())
    try:
        names = store.names()
    except OSError as error:
        raise ConfigError(f"{path}  cannot be read: {error.strerror or error}") from error
    of_files = [
        name
        for name in names
        if name.endswith(archive.SUFFIX) and PLANTS not in PurePosixPath(name).parent.parts[-1:]
    ]
    if not of_files:
        raise ConfigError(f"{path}  holds no archive file (*{archive.SUFFIX})")
    return store, of_files


def check_gaps(files: Sequence[ArchivedFile], say: Say | None = None) -> None:
    """Entries that are missing between files, or stand in two: raises ConfigError, or, with `say`,
    says each that is missing and goes on."""
    for before, after in pairwise(files):
        expected = before.contents.last + 1
        if after.contents.first < expected:
            raise ConfigError(
                f"{after.path}  holds entries {after.contents.first} to "
                f"{min(before.contents.last, after.contents.last)} that {before.name} holds, too"
            )
        if after.contents.first > expected:
            told = (
                f"entries {expected} to {after.contents.first - 1} are missing before {after.path}; "
                "what they led to is missing, too"
            )
            if say is None:
                raise ConfigError(f"{told}. --gaps goes on without them")
            say(told)


def read_files(
    files: Iterable[ArchivedFile],
    *,
    from_ms: int | None = None,
    to_ms: int | None = None,
    rows: int = 10_000,
    say: Say = lambda told: None,
) -> Iterator[Read]:
    """What files hold, entry by entry: batches of at most `rows` frames with the ticks among them,
    and controls, each by itself. Only entries of from_ms <= clock < to_ms.

    Raises ConfigError for a damaged file.
    """
    standing: Standing | None = None
    of: ArchivedFile | None = None
    begun = False
    for file in files:
        contents = file.contents
        if to_ms is not None and contents.first_ms >= to_ms:
            return
        if from_ms is not None and contents.last_ms < from_ms:
            continue
        for table in _tables(file):
            ms = table["ms"].to_numpy()
            start = 0 if from_ms is None else int(np.searchsorted(ms, from_ms))
            stop = len(ms) if to_ms is None else int(np.searchsorted(ms, to_ms))
            if not begun:
                if standing is None:
                    standing, of = contents.standing.copy(), file
                for _, control in _controls(table.slice(0, start)):
                    standing.take(control)
                if start == len(ms):
                    continue
                begun = True
                assert of is not None
                position = table["position"][start].as_py()
                for control in standing_controls(of, standing, int(ms[start]), say):
                    yield Read(position, control)
            if start < stop:
                yield from _parts(table.slice(start, stop - start), rows)


def standing_controls(file: ArchivedFile, standing: Standing, ms: int, say: Say) -> Iterator[Control]:
    """What stands, as controls at `ms`; `file` is one beside the archive's plants."""
    for control in standing.controls(ms):
        if control.kind == "plant":
            files = _plant(file, standing.plant)
            if files is None:
                say(
                    f"{file.path}: the plant in force before it ({standing.plant[:12]}) is not beside it "
                    f"in {PLANTS}/; the folder's plant stands in"
                )
                continue
            control = control._replace(data={**control.data, "files": files})
        yield control


def _plant(file: ArchivedFile, sha256: str) -> dict[str, bytes] | None:
    """A plant of the archive: beside the file, or two folders above it."""
    stem = f"{PLANTS}/{sha256}{archive.SUFFIX}"
    above = PurePosixPath(file.name).parent.parent
    store: ArchiveStore = file.store
    tries: list[tuple[ArchiveStore, str]] = [(store, (above / stem).as_posix())]
    if isinstance(store, LocalStore):
        root = store.root.resolve()
        folder = (root / file.name).parent
        tries += [(LocalStore(folder), stem), (LocalStore(folder.parent), stem)]
    for place, name in tries:
        try:
            source = place.open(name)
        except OSError:
            continue
        with source:
            return archive.read_plant(source, f"{place.where}/{name}")
    return None


def _tables(file: ArchivedFile) -> Iterator[pa.Table]:
    try:
        with file.store.open(file.name) as source:
            parquet, contents = archive.open_file(source, file.path)
            last = contents.first - 1
            for table in archive.row_groups(parquet, file.path):
                numbers = table["entry"].to_numpy()
                steps = np.diff(numbers, prepend=last)
                if len(numbers) and (steps.min() < 0 or steps.max() > 1):
                    row = int(np.argmax((steps < 0) | (steps > 1)))
                    raise ConfigError(
                        f"{file.path}  is damaged: entry {numbers[row]} follows {numbers[row] - steps[row]}"
                    )
                last = int(numbers[-1]) if len(numbers) else last
                yield table
            if last != contents.last:
                raise ConfigError(f"{file.path}  is damaged: it ends with entry {last}, not {contents.last}")
    except OSError as error:
        raise ConfigError(f"{file.path}  cannot be read: {error.strerror or error}") from error


def _controls(table: pa.Table) -> Iterator[tuple[int, Control]]:
    """Controls, and the position of each."""
    rows = table.select(["position", "kind", "ms", "control"]).filter(table["control"].is_valid())
    for position, kind, ms, packed in zip(*(column.to_pylist() for column in rows.columns), strict=True):
        yield position, archive.control_of(kind, ms, packed)


def _parts(table: pa.Table, rows: int) -> Iterator[Read]:
    """Rows as batches, cut at controls and at `rows` frames."""
    at_controls = np.flatnonzero(table["control"].is_valid().to_numpy())
    start = 0
    for row in [*at_controls.tolist(), table.num_rows]:
        for first in range(start, row, rows):
            part = table.slice(first, min(rows, row - first))
            ended = part["payload"][-1].is_valid  # with a frame, which the next one follows
            yield Read(part["position"][-1].as_py() + ended, frames_of(part))
        if row < table.num_rows:
            yield from (Read(*found) for found in _controls(table.slice(row, 1)))
        start = row + 1


def frames_of(table: pa.Table) -> FrameBatch:
    """Rows of frames and ticks as one batch. Of ticks with no frame between them the last stands
    for those before it, as in a run of journal entries."""
    table = table.combine_chunks()
    ms = table["ms"].to_numpy()
    is_frame = table["payload"].is_valid().to_numpy()
    before = np.cumsum(is_frame)
    tick_rows, tick_ms = before[~is_frame], ms[~is_frame]
    last = np.append(np.diff(tick_rows) > 0, [True] * min(1, len(tick_rows))).astype(bool)
    ticks = Ticks(tick_rows[last].astype(np.int64), tick_ms[last] * MILLISECOND)
    if not is_frame.any():
        return empty_batch(ticks)
    frames = table.filter(pa.array(is_frame)).combine_chunks()
    payload = _chunk(frames["payload"])
    _, offsets, data = payload.buffers()
    bounds = np.frombuffer(offsets, np.int32)[payload.offset : payload.offset + len(payload) + 1].astype(
        np.int64
    )
    where, addresses = _addresses(frames)
    flags = frames["flags"].to_numpy().astype(np.uint8)
    return FrameBatch(
        payload=np.frombuffer(data, np.uint8) if data is not None else np.empty(0, np.uint8),
        offset=bounds[:-1].copy(),
        length=without_lines(np.diff(bounds), flags),
        address=where,
        addresses=addresses,
        ingest_ns=frames["ms"].to_numpy() * MILLISECOND,
        position=frames["position"].to_numpy().copy(),
        flags=flags,
        ticks=ticks,
    )


def _addresses(frames: pa.Table) -> tuple[Any, tuple[Address, ...]]:
    """int32[N] into the distinct addresses of frames, in the order in which they come."""
    code = np.zeros(len(frames), np.int64)
    words = []
    for name in ("source", "topic", "port", "headers"):
        column = _chunk(frames[name]).dictionary_encode(null_encoding="encode")
        values = column.dictionary.to_pylist()
        words.append(values)
        code = code * len(values) + column.indices.to_numpy()
        _, code = np.unique(code, return_inverse=True)  # small again: no product overflows
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    distinct = frames.select(["source", "topic", "port", "headers"]).take(pa.array(first[order]))
    addresses = tuple(
        Address(source, topic, -1 if port is None else port, _headers(headers))
        for source, topic, port, headers in zip(*(c.to_pylist() for c in distinct.columns), strict=True)
    )
    return rank[inverse], addresses


def _headers(text: str | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in json.loads(text)) if text else ()


def _chunk(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
