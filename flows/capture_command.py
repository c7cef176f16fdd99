"""`penstock capture`: live frames in the input format of `replay`."""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

import click

from connectors.errors import ConfigError, PenstockError
from connectors.files.capture import RecordingWriter
from connectors.journal.reader import JournalReader
from flows.folder import data_directory
from flows.remote_plant import no_url
from flows.shards import shard_folders

ROWS = 16_384
BYTES = 8 << 20
IDLE_S = 0.05


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path), required=True, help="the recording (JSON lines)")
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@click.option("--from-start", is_flag=True, help="begin with the oldest entry that the journal still holds")
@click.option("--seconds", type=float, help="stop by itself after so long")
@click.option("--until-now", is_flag=True, help="stop at the journal's end instead of waiting for more")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a recording on stdout, at its end")
@no_url("a recording is of the journal, so it is made where the plant runs")
def capture(
    plant: Path,
    output: Path,
    data: Path | None,
    from_start: bool,
    seconds: float | None,
    until_now: bool,
    as_json: bool,
) -> None:
    """Write what PLANT's journal takes in, until Ctrl-C.

    A recording holds every journal entry, so `replay` gives what the live path gave; one that does
    not begin at the journal's first entry knows nothing of what was before it. A plant of several
    shards has a journal each and becomes a recording each, `frames.0.jsonl` beside `frames.1.jsonl`,
    to be replayed each by itself.

    \b
    penstock capture plant --output morning.jsonl --seconds 600
    penstock capture plant --output all.jsonl --from-start --until-now
    """
    if not output.absolute().parent.is_dir():
        raise ConfigError(f"--output: there is no folder {output.absolute().parent}")
    folders = shard_folders(data_directory(plant, data))
    for folder in folders:
        if not (folder / "journal").is_dir():
            raise PenstockError(f"{folder / 'journal'} does not exist; has the plant been run?")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    recorded = partial(record, stop=stop, from_start=from_start, seconds=seconds, until_now=until_now)
    outputs = [output] if len(folders) == 1 else [_of_shard(output, number) for number in range(len(folders))]
    with ThreadPoolExecutor(len(folders)) as pool:
        futures = [
            pool.submit(recorded, folder / "journal", path)
            for folder, path in zip(folders, outputs, strict=True)
        ]
        while not all(future.done() for future in futures):  # here, so that signals are taken
            stop.wait(IDLE_S)
            if stop.is_set():
                break
        for path, future in zip(outputs, futures, strict=True):
            frames = future.result()
            click.echo(f"{frames} frames in {path}", err=True)
            if as_json:
                click.echo(json.dumps({"file": str(path), "frames": frames}))


def _of_shard(output: Path, number: int) -> Path:
    return output.with_name(f"{output.stem}.{number}{output.suffix}")


def record(
    journal: Path,
    output: Path,
    stop: threading.Event,
    *,
    from_start: bool,
    seconds: float | None = None,
    until_now: bool = False,
) -> int:
    """Follow a journal into a recording; returns how many frames were written."""
    began = time.monotonic()
    frames = 0
    with closing(JournalReader(journal)) as reader, output.open("wb") as file:
        following = reader.oldest() if from_start else reader.last() + 1
        end = reader.last() if until_now else sys.maxsize
        if from_start and following > 1:
            click.echo(
                f"the journal begins at entry {following}: what is before it was handed on and trimmed; "
                "a capture that is to hold all is started with the plant",
                err=True,
            )
        writer = RecordingWriter(file, reader)
        while not stop.is_set() and following <= end:
            if seconds is not None and time.monotonic() - began > seconds:
                break
            entries = reader.read(following, ROWS, BYTES, None if end == sys.maxsize else end)
            if not entries:
                file.flush()
                stop.wait(IDLE_S)
                continue
            frames += writer.write(entries)
            following = entries[-1].number + 1
        writer.close()
    return frames
