"""`penstock backtest`: the folder's rules over archived input, against what really happened."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from connectors.errors import ConfigError, JournalError
from flows.backtest import (
    BOTH,
    NOW,
    THEN,
    Comparison,
    Occurrence,
    Occurrences,
    Pair,
    compare,
    occurrences,
    warm_up,
)
from flows.backtest_input import History, open_history
from flows.folder import data_directory, open_plant
from flows.plant_file import Plant
from flows.recorded import Moment, RecordedInput
from flows.replay_command import with_progress
from flows.shards import archive_path, home_of, shard_folders
from operators.batch import Slice
from operators.contract.messages import time_text
from operators.document import nearest

MILLISECOND = 1_000_000


@click.command()
@click.argument("plant", type=click.Path(path_type=Path))
@click.option("--rule", "rules", multiple=True, help="this rule alone; may be given several times")
@click.option("--from", "from_ms", type=Moment(), help="alarms raised from then on (default: all)")
@click.option("--to", "to_ms", type=Moment(), help="alarms raised before that (default: all)")
@click.option("--data", type=click.Path(path_type=Path), help="data directory (default: PLANT/.penstock)")
@click.option(
    "--input",
    "inputs",
    type=RecordedInput(),
    multiple=True,
    help="other recorded input than the plant's archive and journal; may be given several times",
)
@click.option("--gaps", is_flag=True, help="go on where entries are missing, and say which")
@click.option("--json", "as_json", is_flag=True, help="JSON lines on stdout: the head, each rule, each alarm")
def backtest(
    plant: Path,
    rules: tuple[str, ...],
    from_ms: int | None,
    to_ms: int | None,
    data: Path | None,
    inputs: tuple[str, ...],
    gaps: bool,
    as_json: bool,
) -> None:
    """What PLANT's folder, as it is now, would have made of what the plant took in.

    The input is the plant's archive and what its journal still holds. It is run twice: with the
    plants as they were applied then, and with the folder. Nothing is sent anywhere.
    """
    loaded = open_plant(plant)
    for rule in rules:
        known = [one.ruleId for one in loaded.rules]
        if rule not in known:
            raise ConfigError(f"{plant}: no rule '{rule}'{nearest(rule, known)}")
    if from_ms is not None and to_ms is not None and from_ms >= to_ms:
        raise ConfigError("--from is not before --to")
    begin_ms = None if from_ms is None else from_ms - warm_up(loaded) // MILLISECOND
    asked = History(begin_ms, to_ms, inputs=inputs, with_gaps=gaps)
    folder = data_directory(plant, data)
    histories = [_history(loaded, one, asked) for one in ([folder] if inputs else shard_folders(folder))]
    told = _head(loaded, histories, from_ms, to_ms, begin_ms)

    # an occurrence is of one shard, so what each shard finds by itself is the whole
    then = [
        occurrences(loaded, with_progress(_known(one), "as it was"), as_applied=True) for one in histories
    ]
    now = [
        occurrences(loaded, with_progress(one.slices(), "with the folder"), as_applied=False)
        for one in histories
    ]
    found = compare(
        _in_order(now),
        _in_order(then),
        {rule.ruleId: rule.mode == "shadow" for rule in loaded.rules},
        start=None if from_ms is None else time_text(from_ms * MILLISECOND),
        end=None if to_ms is None else time_text(to_ms * MILLISECOND),
        only=rules,
    )
    told["frames"] = sum(one.frames for one in now)
    if as_json:
        for line in _json_lines(told, found):
            click.echo(json.dumps(line, ensure_ascii=False))
        return
    for text in _lines(told, found):
        click.echo(text)


def _in_order(found: Sequence[Occurrences]) -> list[Occurrence]:
    return sorted((one for every in found for one in every.all()), key=lambda one: (one.raised, one.subject))


def _history(plant: Plant, data: Path, asked: History) -> History:
    def say(told: str) -> None:
        click.echo(f"warning: {told}", err=True)

    if asked.inputs:
        asked.say = say
        return asked
    if not (data / "journal").is_dir():
        raise ConfigError(f"{data / 'journal'} does not exist; has the plant been run? (or name --input)")
    archive = archive_path(plant.archive.path, home_of(data)[1]) if plant.archive is not None else None
    try:
        return open_history(data, archive, asked.from_ms, asked.to_ms, say, with_gaps=asked.with_gaps)
    except JournalError as error:
        raise ConfigError(f"{data}: {error}") from error


def _known(history: History) -> Iterator[Slice]:
    """The slices, once it is certain that they say which plant was in force."""
    frames = 0
    is_known = False
    for item in history.slices():
        is_known = is_known or (item.control is not None and item.control.kind == "plant")
        frames += len(item.frames)
        if frames and not is_known:
            raise ConfigError(
                "the input does not say which plant was in force, so what happened then is not known; "
                "archives and captures from a journal's beginning do"
            )
        yield item


def _head(
    plant: Plant, histories: Sequence[History], from_ms: int | None, to_ms: int | None, begin_ms: int | None
) -> dict[str, Any]:
    firsts = [one.first_ms for one in histories]
    first_ms = max((one for one in firsts if one is not None), default=None)  # from then on, all have it
    late = begin_ms is not None and first_ms is not None and first_ms > begin_ms
    return {
        "plant": plant.name,
        "sha256": plant.sha256,
        "from": None if from_ms is None else time_text(from_ms * MILLISECOND),
        "to": None if to_ms is None else time_text(to_ms * MILLISECOND),
        "input_from": None if begin_ms is None else time_text(begin_ms * MILLISECOND),
        "oldest": time_text(first_ms * MILLISECOND) if late and first_ms is not None else None,
    }


def _json_lines(told: dict[str, Any], found: Sequence[Comparison]) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = [{"backtest": told}]
    for one in found:
        lines.append({"rule": one.line()})
        lines.extend({"alarm": pair.line()} for pair in one.pairs)
    return lines


def _lines(told: dict[str, Any], found: Sequence[Comparison]) -> list[str]:
    span = f"{told['from'] or 'the beginning'} to {told['to'] or 'the end'}"
    lines = [f"{told['plant']}, {span}: {told['frames']:,} frames"]
    if told["input_from"] is not None:
        lines.append(f"input from {told['input_from']} on, so that delays and durations are filled")
    if told["oldest"] is not None:
        lines.append(f"nothing is left from before {told['oldest']}: state begins empty there")
    for one in found:
        mark = " (shadow)" if one.shadow else " (no longer in the folder)" if one.gone else ""
        lines += ["", f"{one.ruleId}{mark}: {_instead(one.now, one.then)}{_parts(one)}"]
        lines += [_line(pair) for pair in one.pairs]
    if len(found) != 1:
        total = _instead(sum(one.now for one in found), sum(one.then for one in found))
        lines += ["", f"all rules: {total}"]
    return lines


def _instead(now: int, then: int) -> str:
    return f"{now} alarm{'' if now == 1 else 's'} instead of {then}"


def _parts(one: Comparison) -> str:
    if not one.pairs:
        return ""
    return f" ({one.count(BOTH)} in both, {one.count(NOW)} only now, {one.count(THEN)} only then)"


def _line(pair: Pair) -> str:
    who = pair.one.subject.removesuffix(f"/{pair.one.ruleId}")
    if pair.now is None or pair.then is None:
        return f"  {pair.what:<9}  {who}  {_times(pair.one)}"
    same = (pair.now.raised, pair.now.cleared) == (pair.then.raised, pair.then.cleared)
    return f"  {pair.what:<9}  {who}  {_times(pair.now)}{'' if same else f'; then {_times(pair.then)}'}"


def _times(one: Occurrence) -> str:
    return f"{one.raised} - {one.cleared or 'not cleared'}"
