"""Recorded input of a plant as slices: JSON lines, archives, and CSV through the plant's files source."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import click
import numpy as np

from connectors.errors import ConfigError
from connectors.files.config import FilesConfig
from connectors.files.recording import Archives, CsvInput, read_recording
from connectors.files.rows import csv_frames, is_csv_name
from connectors.journal.archive_store import REMOTE
from connectors.source import Frame
from flows import specs
from flows.plant_file import Plant
from flows.plant_tests import parse_time
from operators.batch import Address, FrameBatch, Slice, Ticks
from operators.decode.columns import Decoder
from operators.decode.decoders import build_decoder
from operators.decode.routing import Router

CHUNK = 10_000
MILLISECOND = 1_000_000


class RecordedInput(click.ParamType[str]):
    """An option's value: a file, an archive's folder, or its `s3://` address; as text."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if not value.startswith(REMOTE) and not Path(value).exists():
            self.fail(f"'{value}' does not exist.", param, ctx)
        return str(value)


class Moment(click.ParamType[int]):
    """An option's value: a time, `2026-03-01T09:00:00Z` or a day; as milliseconds since 1970."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        ms = None if value.startswith("+") else parse_time(value, 0)
        if ms is None:
            self.fail(f"'{value}' is no time; write 2026-03-01T09:00:00Z, or 2026-03-01 (UTC)", param, ctx)
        return ms


def recorded_slices(
    plant: Plant,
    paths: Sequence[Path | str],
    entry_frames: int = 10_000,
    archives: Archives | None = None,
) -> Iterator[Slice]:
    """The slices of recorded input. Raises `ConfigError`, with file and line, for a bad line."""
    csv = [Path(path) for path in paths if is_csv_name(str(path))]
    if not csv:
        return read_recording(paths, entry_frames, archives=archives)
    source, config = files_source(plant, csv[0])
    times = event_times(plant, source, config, csv)
    return read_recording(paths, entry_frames, CsvInput(source, config, lambda frame: next(times)), archives)


def files_source(plant: Plant, path: Path) -> tuple[str, FilesConfig]:
    """The files source that a CSV goes through: the one whose pattern takes its name, else the
    only one that there is."""
    found = [(n, c) for n, c in plant.sources.items() if isinstance(c, FilesConfig)]
    fitting = [(n, c) for n, c in found if fnmatch.fnmatch(path.name, c.pattern.rpartition("/")[2])]
    if len(fitting or found) != 1:
        known = ", ".join(name for name, _ in found) or "none"
        raise ConfigError(
            f"{path}: a CSV goes through a source of kind files whose pattern takes its name; "
            f"the plant's are: {known}"
        )
    return (fitting or found)[0]


def event_times(
    plant: Plant, source: str, config: FilesConfig, paths: Iterable[Path]
) -> Iterator[int | None]:
    """For each row of the files, in order, its event time in milliseconds: a CSV holds no time of
    arrival, so a row is taken to have arrived when it was measured. None where it has none."""
    plan = specs.decode(plant)
    router = Router(plan)
    for path in paths:
        frames = csv_frames(path, config)
        decoder: Decoder | None = None
        while chunk := list(islice(frames, CHUNK)):
            if decoder is None:
                first = chunk[0]
                route = router.route(Address(source, first.topic, first.port, first.headers))
                takers = (config.product, route.productId, *router.takers(router.source(source), first.topic))
                product = next((name for name in takers if name), next(iter(plan.products)))
                decoder = build_decoder(plan.products[product], plant.limits.depth)
            yield from _times(decoder, chunk)


def _times(decoder: Decoder, chunk: Sequence[Frame]) -> list[int | None]:
    batch = frames_of(chunk)
    rows = np.arange(len(batch), dtype=np.int64)
    params = np.full((len(decoder.param_names), len(batch)), np.nan)
    decoded = decoder.decode(batch, rows, params)
    times: list[int | None] = [None] * len(chunk)
    for frame, ts_ns, origin in zip(
        decoded.frame.tolist(), decoded.ts_ns.tolist(), decoded.time_source.tolist(), strict=True
    ):
        if origin < 2:
            times[frame] = ts_ns // MILLISECOND
    return times


def frames_of(frames: Sequence[Frame], source: str = "") -> FrameBatch:
    """Frames as a batch, at time 0 and from position 0."""
    addresses: dict[Address, int] = {}
    index = [
        addresses.setdefault(Address(source, f.topic, f.port, f.headers), len(addresses)) for f in frames
    ]
    lengths = np.array([len(frame.payload) for frame in frames], np.int64)
    return FrameBatch(
        payload=np.frombuffer(bytearray().join(frame.payload for frame in frames), np.uint8),
        offset=np.cumsum(lengths) - lengths,
        length=lengths,
        address=np.array(index, np.int32),
        addresses=tuple(addresses),
        ingest_ns=np.zeros(len(frames), np.int64),
        position=np.arange(len(frames), dtype=np.int64),
        flags=np.zeros(len(frames), np.uint8),
        ticks=Ticks.none(),
    )
