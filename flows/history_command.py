"""`penstock history | diff | rollback`: the versions of a plant that were applied."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, NamedTuple

import click
import msgspec
from rich.table import Table

from connectors.durable import replace_durably
from connectors.errors import ConfigError, PenstockError
from connectors.journal.reader import Applied
from flows.apply import resolved_plant
from flows.apply_command import bring_in
from flows.change import plan_change
from flows.folder import data_directory, open_plant
from flows.history_rows import history_rows, journal_reader
from flows.look_command import plant_options, show
from flows.plant_file import Plant
from flows.plant_reader import read_folder
from flows.remote_plant import RemotePlant, no_url
from operators.document import nearest

SHORT: Final = 12  # characters of a hash that are shown
FOLDER: Final = "folder"


class Version(NamedTuple):
    """One side of a comparison."""

    label: str
    files: Mapping[str, bytes]


@click.command()
@click.argument("plant", required=False, type=click.Path(path_type=Path))
@plant_options
def history(plant: Path | None, data: Path | None, url: str | None, token: str | None, as_json: bool) -> None:
    """The versions of PLANT that were applied, newest first: who, when, why, and what changed."""
    if url is not None:
        rows = RemotePlant(url, token).history()
    elif plant is None and data is None:
        raise click.UsageError("name the plant: PLANT, --data DIR or --url URL")
    else:
        rows = history_rows(data_directory(plant or Path(), data))
    if as_json:
        click.echo(json.dumps(rows, ensure_ascii=False))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("apply id", "when", "by", "sha256", "why", "changes"):
        table.add_column(name, overflow="fold", no_wrap=name in ("apply id", "when", "sha256"))
    for row in rows:
        sha = str(row["sha256"])[:SHORT]
        table.add_row(
            str(row["apply_id"])[:SHORT] or sha, row["at"], row["by"], sha, row["why"], row["changes"]
        )
    show(table)


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@no_url("versions are compared where their files are: in the data directory of the plant")
@click.argument("a", required=False)
@click.argument("b", required=False)
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@click.option("--json", "as_json", is_flag=True, help="machine-readable output")
def diff(plant: Path, a: str | None, b: str | None, data: Path | None, as_json: bool) -> None:
    """What differs between two versions of PLANT: the files, and what the change would do.

    A and B are apply ids (their first digits do), or `folder`. Without B: A against the folder;
    without both: what is applied against the folder.
    """
    where = data_directory(plant, data)
    before = version(where, plant, a)
    after = version(where, plant, b or FOLDER)
    plan = plan_change(resolved_plant(before.files), resolved_plant(after.files))
    if as_json:
        body = {"a": before.label, "b": after.label, "files": changed_files(before.files, after.files)}
        click.echo(json.dumps({**body, "plan": msgspec.to_builtins(plan)}, ensure_ascii=False))
        return
    if plan.empty:
        click.echo(f"{before.label} and {after.label} are the same")
        return
    for line in unified(before, after):
        click.echo(line)
    click.echo("\n".join(plan.lines()))
    for text in plan.refused:
        click.echo(text, err=True)


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@no_url("a plant's files may hold code that it runs, so versions are brought in where the plant runs")
@click.argument("apply_id")
@click.option("--dry-run", is_flag=True, help="say what it would do, and do nothing")
@click.option("--by", help="who does it (default: the user)")
@click.option("--why", help="the reason, for the history")
@click.option("--write-folder", is_flag=True, help="write that version's files into the folder, too")
@click.option("--yes", is_flag=True, help="do not ask")
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@click.option("--json", "as_json", is_flag=True, help="the plan, machine-readable, on stdout")
def rollback(
    plant: Path,
    apply_id: str,
    dry_run: bool,
    by: str | None,
    why: str | None,
    write_folder: bool,
    yes: bool,
    data: Path | None,
    as_json: bool,
) -> None:
    """Apply the version APPLY_ID of PLANT once more, as a new entry of the history."""
    where = data_directory(plant, data)
    found = version(where, plant, apply_id)
    if apply_id == FOLDER:
        raise click.UsageError("name an apply id; the folder is brought in with: penstock apply PLANT")
    loaded = resolved_plant(found.files)
    bring_in(loaded, where, dry_run, by, why, yes, as_json)
    if dry_run:
        return
    if write_folder:
        written = write_files(plant, found.files)
        click.echo(f"{written} files of {plant} written or removed", err=True)
    elif _differs(plant, loaded):
        click.echo(
            f"the folder {plant} holds another version than the applied one now; --write-folder would have "
            f"written it, and penstock diff {plant} shows how they differ",
            err=True,
        )


def version(data: Path, folder: Path, name: str | None) -> Version:
    """The version that a name means: an apply id or the first digits of one (or of a bundle's
    SHA-256), `folder`; None: what is applied. Raises `ConfigError`."""
    if name == FOLDER:
        return Version(FOLDER, open_plant(folder).files)
    with closing(journal_reader(data)) as reader:
        known = reader.history()
        if not known:
            raise PenstockError(f"no plant has been applied in {data}; start it with: penstock run PLANT")
        found = known[-1] if name is None else _named(known, name)
        return Version(found.apply_id[:SHORT] or found.sha256[:SHORT], reader.bundle(found.sha256))


def _named(known: Sequence[Applied], name: str) -> Applied:
    found = [one for one in known if one.apply_id == name] or [
        one for one in known if name and (one.apply_id.startswith(name) or one.sha256.startswith(name))
    ]
    if not found:
        ids = [one.apply_id[:SHORT] or one.sha256[:SHORT] for one in known]
        mend = nearest(name, ids) or f"; the newest is {ids[-1]}, penstock history shows all"
        raise ConfigError(f"no version '{name}' was applied{mend}")
    if len({one.sha256 for one in found}) > 1:
        raise ConfigError(f"'{name}' may mean {len(found)} versions; write more digits of it")
    return found[-1]


def changed_files(before: Mapping[str, bytes], after: Mapping[str, bytes]) -> list[dict[str, str]]:
    """The files that differ, each with `change`: added, changed or removed."""
    found = []
    for path in sorted({*before, *after}):
        if before.get(path) != after.get(path):
            change = "added" if path not in before else "removed" if path not in after else "changed"
            found.append({"file": path, "change": change})
    return found


def unified(before: Version, after: Version) -> list[str]:
    """The files' differences as `diff -u` shows them."""
    lines: list[str] = []
    for one in changed_files(before.files, after.files):
        path = one["file"]
        old, new = (side.files.get(path, b"").decode("utf-8", "replace") for side in (before, after))
        names = (f"{before.label}/{path}", f"{after.label}/{path}")
        lines.extend(difflib.unified_diff(old.splitlines(), new.splitlines(), *names, lineterm=""))
    return lines


def write_files(folder: Path, files: Mapping[str, bytes]) -> int:
    """Make a folder's plant files those of a bundle; its tests stay. Returns how many were written
    or removed."""
    there = dict(open_files(folder))
    written = 0
    for path, body in files.items():
        if there.get(path) != body:
            replace_durably(folder / path, body)
            written += 1
    for path in there.keys() - files.keys():
        (folder / path).unlink()
        written += 1
    return written


def open_files(folder: Path) -> Mapping[str, bytes]:
    """The files of a folder that a bundle would hold."""
    return {path: body for path, body in read_folder(folder).items() if not path.startswith("tests/")}


def _differs(folder: Path, applied: Plant) -> bool:
    return dict(open_files(folder)) != dict(applied.files)
