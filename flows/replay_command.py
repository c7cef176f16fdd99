"""`penstock replay`: the live engine over recorded input, as fast as it goes."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn

from connectors.errors import ConfigError
from connectors.files.recording import Archives
from connectors.journal.archive_reader import is_archive
from flows.engine import run_recording
from flows.folder import open_plant
from flows.recorded import Moment, RecordedInput, recorded_slices
from flows.replay_files import write_outcome
from operators.batch import Slice


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option(
    "--input",
    "inputs",
    type=RecordedInput(),
    multiple=True,
    required=True,
    help="recorded input: JSON lines, an archive (its folder, files of it, s3://...), or CSV for a files "
    "source; may be given several times",
)
@click.option(
    "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="folder of the results"
)
@click.option("--close", is_flag=True, help="at the end, move time past open windows and running delays")
@click.option(
    "--entry-frames",
    type=click.IntRange(1, 65_536),
    default=10_000,
    show_default=True,
    help="how many frames an entry holds; the results do not depend on it",
)
@click.option("--from", "from_ms", type=Moment(), help="of an archive, only what was journaled from then on")
@click.option("--to", "to_ms", type=Moment(), help="of an archive, only what was journaled before that")
@click.option("--gaps", is_flag=True, help="go on where an archive lacks entries, and say which")
@click.option("--json", "as_json", is_flag=True, help="print summary.json on stdout")
def replay(
    plant: Path,
    inputs: tuple[str, ...],
    output: Path,
    close: bool,
    entry_frames: int,
    from_ms: int | None,
    to_ms: int | None,
    gaps: bool,
    as_json: bool,
) -> None:
    """Run PLANT over recorded input; the same bytes at every run.

    With --from, state begins empty there, under the plant, the connections and the parameters that
    stood at that time: windows are partial and alarms that stood already may be raised once more.
    """
    loaded = open_plant(plant)
    if (from_ms is not None or to_ms is not None) and not any(map(is_archive, inputs)):
        raise ConfigError("--from and --to take a part of an archive; --input names none")
    began = time.perf_counter()
    archives = Archives(from_ms, to_ms, gaps, lambda told: click.echo(f"warning: {told}", err=True))
    slices = recorded_slices(loaded, inputs, entry_frames, archives)
    outcome = run_recording(loaded, with_progress(slices), close=close)
    write_outcome(output, outcome)
    seconds = time.perf_counter() - began
    frames = outcome.summary["frames"]["in"]
    click.echo(f"{frames} frames in {seconds:.2f} s ({frames / max(seconds, 1e-9):,.0f}/s)", err=True)
    if as_json:
        click.echo(json.dumps(outcome.summary))


def with_progress(slices: Iterable[Slice], what: str = "") -> Iterator[Slice]:
    """The same slices; on a terminal, work longer than two seconds shows how far it is."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield from slices
        return
    began = time.monotonic()
    frames = 0
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), console=console, transient=True
    ) as progress:
        task = progress.add_task("", visible=False)
        for item in slices:
            yield item
            frames += len(item.frames)
            late = time.monotonic() - began > 2.0
            progress.update(task, description=f"{what} {frames:,} frames".lstrip(), visible=late)
