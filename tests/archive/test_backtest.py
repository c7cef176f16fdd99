"""`penstock backtest` on a history whose alarms were worked out by hand (tests/archive/boilers.py).

With the rules as they were, `hot` (above 80 for 60 s) was raised three times: b1 at 01:11 (85) and 02:41
(90), b2 at 03:31 (82); `cold` (below 20) once, b2 at 01:30. Each cleared with the first reading after
its stretch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from connectors.errors import ConfigError
from flows.backtest import Occurrence, pairs, warm_up
from flows.cli import cli
from flows.folder import open_plant
from tests.archive.boilers import PLANT, folder_of, lived
from tests.archive.journals import TestJournal, archive_files, archive_rows

RULES = (PLANT / "rules" / "rules.yaml").read_text()
LOWER = RULES.replace("tempC > 80", "tempC > 75")
HIGHER = RULES.replace("tempC > 80", "tempC > 87")
DAY = "2026-03-01T"


@pytest.fixture(scope="module")
def boilers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestJournal]:
    """Three hours are in the archive and trimmed, the fourth is in the journal alone."""
    folder = tmp_path_factory.mktemp("boilers")
    journal = lived(folder / "data", folder_of(folder / "plant"))
    assert len(archive_files(journal.archive)) == 3
    assert journal.reader.oldest() > 1
    yield journal
    journal.close()


def backtest(folder: Path, data: Path, *arguments: str) -> Result:
    chosen = ["backtest", str(folder), "--data", str(data), *arguments]
    return CliRunner().invoke(cli, chosen, catch_exceptions=True)


def lines(folder: Path, journal: TestJournal, *arguments: str) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """The head, the rules, and the alarms as (what, rule, device, now's times, then's times)."""
    result = backtest(folder, journal.data, "--json", *arguments)
    assert result.exit_code == 0, result.output
    read = [json.loads(line) for line in result.stdout.splitlines()]
    alarms = [line["alarm"] for line in read if "alarm" in line]
    return (
        read[0]["backtest"],
        [line["rule"] for line in read if "rule" in line],
        [
            (one["what"], one["ruleId"], one["device_id"], clocks(one["now"]), clocks(one["then"]))
            for one in alarms
        ],
    )


def clocks(one: dict[str, Any] | None) -> str | None:
    """`01:11-01:15`"""
    if one is None:
        return None
    return "-".join((at or "").removeprefix(DAY)[:5] for at in (one["raised"], one["cleared"]))


def counts(rule: dict[str, Any]) -> tuple[Any, ...]:
    return (rule["ruleId"], rule["now"], rule["then"], rule["both"], rule["only_now"], rule["only_then"])


def test_the_same_rules_give_the_same_alarms(boilers: TestJournal) -> None:
    head, rules, alarms = lines(PLANT, boilers)
    assert head["frames"] == 2 * (4 * 120 - 1)
    assert (head["from"], head["to"], head["input_from"]) == (None, None, None)
    assert [counts(rule) for rule in rules] == [("hot", 3, 3, 3, 0, 0), ("cold", 1, 1, 1, 0, 0)]
    assert alarms == [
        ("both", "hot", "b1", "01:11-01:15", "01:11-01:15"),
        ("both", "hot", "b1", "02:41-02:45", "02:41-02:45"),
        ("both", "hot", "b2", "03:31-03:40", "03:31-03:40"),
        ("both", "cold", "b2", "01:30-01:30", "01:30-01:30"),
    ]


def test_a_lower_threshold(boilers: TestJournal, tmp_path: Path) -> None:
    _, rules, alarms = lines(folder_of(tmp_path / "p", LOWER), boilers, "--rule", "hot")
    assert [counts(rule) for rule in rules] == [("hot", 4, 3, 3, 1, 0)]
    assert alarms == [
        ("both", "hot", "b1", "01:11-01:15", "01:11-01:15"),
        ("only_now", "hot", "b1", "02:11-02:20", None),
        ("both", "hot", "b1", "02:41-02:45", "02:41-02:45"),
        ("both", "hot", "b2", "03:31-03:40", "03:31-03:40"),
    ]


def test_a_higher_threshold_in_part_of_the_time(boilers: TestJournal, tmp_path: Path) -> None:
    span = ["--from", f"{DAY}01:11:00Z", "--to", f"{DAY}03:31:00Z"]
    head, rules, alarms = lines(folder_of(tmp_path / "p", HIGHER), boilers, *span)
    assert head["input_from"] == f"{DAY}00:11:00.000Z"
    assert head["frames"] == 2 * 2 * (60 * 3 + 20)
    assert [counts(rule) for rule in rules] == [("hot", 1, 2, 1, 0, 1), ("cold", 1, 1, 1, 0, 0)]
    assert alarms[:2] == [
        ("only_then", "hot", "b1", None, "01:11-01:15"),
        ("both", "hot", "b1", "02:41-02:45", "02:41-02:45"),
    ]


def test_another_delay_matches_what_lasted_at_the_same_time(boilers: TestJournal, tmp_path: Path) -> None:
    later = RULES.replace("on_delay: 60s", "on_delay: 4m")
    _, rules, alarms = lines(folder_of(tmp_path / "p", later), boilers, "--rule", "hot")
    assert [counts(rule) for rule in rules] == [("hot", 3, 3, 3, 0, 0)]
    assert alarms[0] == ("both", "hot", "b1", "01:14-01:15", "01:11-01:15")


def test_a_new_rule_in_shadow_and_one_that_is_gone(boilers: TestJournal, tmp_path: Path) -> None:
    hot = RULES.partition("---")[0]
    new = hot + "---\n" + hot.replace("ruleId: hot", "ruleId: warm\nmode: shadow").replace("> 80", "> 70")
    folder = folder_of(tmp_path / "p", new)
    _, rules, _ = lines(folder, boilers)
    assert [(*counts(rule), rule["shadow"], rule["gone"]) for rule in rules] == [
        ("hot", 3, 3, 3, 0, 0, False, False),
        ("warm", 4, 0, 0, 4, 0, True, False),
        ("cold", 0, 1, 0, 0, 1, False, True),
    ]
    shown = backtest(folder, boilers.data, "--from", f"{DAY}01:00:00Z", "--to", f"{DAY}03:00:00Z")
    assert (
        shown.stdout
        == f"""\
boilers, {DAY}01:00:00.000Z to {DAY}03:00:00.000Z: 718 frames
input from {DAY}00:00:00.000Z on, so that delays and durations are filled

hot: 2 alarms instead of 2 (2 in both, 0 only now, 0 only then)
  both       b1  {DAY}01:11:00.000Z - {DAY}01:15:00.000Z
  both       b1  {DAY}02:41:00.000Z - {DAY}02:45:00.000Z

warm (shadow): 3 alarms instead of 0 (0 in both, 3 only now, 0 only then)
  only now   b1  {DAY}01:11:00.000Z - {DAY}01:15:00.000Z
  only now   b1  {DAY}02:11:00.000Z - {DAY}02:20:00.000Z
  only now   b1  {DAY}02:41:00.000Z - {DAY}02:45:00.000Z

cold (no longer in the folder): 0 alarms instead of 1 (0 in both, 0 only now, 1 only then)
  only then  b2  {DAY}01:30:00.000Z - {DAY}01:30:30.000Z

all rules: 5 alarms instead of 3
"""
    )


def test_a_plant_that_was_applied_on_the_way_counts_from_there(tmp_path: Path) -> None:
    """From 02:00 on 75 was the threshold: then 4 alarms, with 80 in the folder 3."""
    first = folder_of(tmp_path / "first")
    lower = open_plant(folder_of(tmp_path / "second", LOWER))
    journal = lived(
        tmp_path / "data", first, at={"02:00": lambda one: one.plant(dict(lower.files), lower.sha256)}
    )
    _, rules, alarms = lines(first, journal, "--rule", "hot")
    assert [counts(rule) for rule in rules] == [("hot", 3, 4, 3, 0, 1)]
    assert alarms[1] == ("only_then", "hot", "b1", None, "02:11-02:20")
    # a part that begins after the change knows what was applied before it
    _, rules, _ = lines(first, journal, "--rule", "hot", "--from", f"{DAY}03:05:00Z")
    assert [counts(rule) for rule in rules] == [("hot", 1, 1, 1, 0, 0)]
    _, rules, _ = lines(tmp_path / "second", journal, "--from", f"{DAY}02:10:00Z", "--to", f"{DAY}02:30:00Z")
    assert counts(rules[0]) == ("hot", 1, 1, 1, 0, 0)
    journal.close()


def test_entries_that_are_nowhere_any_more_are_told(boilers: TestJournal, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(boilers.data, data)
    files = archive_files(data / "archive")
    gone = archive_rows(files[-1:])
    files[-1].unlink()
    told = f"entries {gone[0][0]} to {gone[-1][0]} are neither in the archive nor in the journal any more"
    result = backtest(PLANT, data)
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == f"{told}. --gaps goes on without them"
    result = backtest(PLANT, data, "--gaps", "--json")
    assert result.exit_code == 0, result.exception
    assert f"warning: {told}\n" in result.stderr
    assert [json.loads(line)["rule"]["now"] for line in result.stdout.splitlines() if "rule" in line[:8]] == [
        2,
        1,
    ]


def test_a_plant_without_an_archive_has_its_journal(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "p")
    journal = lived(tmp_path / "data", folder, trimmed=False)
    config = folder / "plant.yaml"
    config.write_text("".join(line for line in config.open() if "archive" not in line))
    shutil.rmtree(journal.archive)
    _, rules, _ = lines(folder, journal)
    assert [counts(rule) for rule in rules] == [("hot", 3, 3, 3, 0, 0), ("cold", 1, 1, 1, 0, 0)]
    journal.close()


def test_captures_that_name_their_plant_will_do_and_others_are_refused(
    boilers: TestJournal, tmp_path: Path
) -> None:
    line = {"ingest_ts": 1, "source": "line1", "topic": "d/b1/telemetry", "payload": "{}"}
    recording = tmp_path / "x.jsonl"
    recording.write_text(json.dumps(line))
    result = backtest(PLANT, boilers.data, "--input", str(recording))
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception) == (
        "the input does not say which plant was in force, so what happened then is not known; "
        "archives and captures from a journal's beginning do"
    )
    whole = backtest(PLANT, boilers.data, "--input", str(boilers.archive), "--json")
    assert whole.exit_code == 0
    assert json.loads(whole.stdout.splitlines()[1])["rule"]["then"] == 2


def test_what_is_asked_wrongly_is_told(boilers: TestJournal, tmp_path: Path) -> None:
    def told(*arguments: str) -> str:
        result = backtest(PLANT, boilers.data, *arguments)
        assert isinstance(result.exception, ConfigError), result.output
        return str(result.exception)

    assert told("--rule", "hott") == f"{PLANT}: no rule 'hott'; did you mean 'hot'?"
    assert told("--from", "2026-03-02", "--to", "2026-03-01") == "--from is not before --to"
    result = backtest(PLANT, tmp_path)
    assert str(result.exception) == (
        f"{tmp_path / 'journal'} does not exist; has the plant been run? (or name --input)"
    )
    result = backtest(PLANT, tmp_path, "--from", "yesterday")
    assert result.exit_code == 2
    assert "'yesterday' is no time; write 2026-03-01T09:00:00Z, or 2026-03-01 (UTC)" in result.stderr


@pytest.mark.parametrize(
    ("change", "seconds"),
    [
        (("", ""), 3600),
        (("on_delay: 60s", "on_delay: 2h"), 7200),
        (("tempC > 80", "avg(tempC, 3h) > 80"), 3 * 3600 + 60),
    ],
)
def test_input_begins_so_early_that_delays_and_durations_are_filled(
    tmp_path: Path, change: tuple[str, str], seconds: int
) -> None:
    assert warm_up(open_plant(folder_of(tmp_path / "p", RULES.replace(*change)))) == seconds * 10**9


def test_pairs_are_one_to_one_and_of_the_same_time() -> None:
    def one(raised: str, cleared: str | None) -> Occurrence:
        return Occurrence("r", "d/r", "d", raised, "low", False, raised, cleared)

    now = [one("1", "2"), one("3", "4"), one("5", "6"), one("9", None)]
    then = [one("0", "4"), one("6", "7"), one("7", "8")]
    assert [(pair.what, pair.one.raised) for pair in pairs(now, then)] == [
        ("both", "1"),
        ("only now", "3"),
        ("both", "5"),
        ("only now", "9"),
        ("only then", "7"),
    ]
