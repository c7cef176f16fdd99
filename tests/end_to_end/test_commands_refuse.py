"""Commands over input that is wrong or empty: one line that says what and where, or empty results."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from flows.cli import main
from tests.ports import free_port

PLANT = Path(__file__).resolve().parents[2] / "examples" / "press-line"


def replay(tmp_path: Path, lines: str) -> tuple[int, Path]:
    recording, out = tmp_path / "frames.jsonl", tmp_path / "out"
    recording.write_text(lines, "utf-8")
    with pytest.raises(SystemExit) as ended:
        main(["replay", str(PLANT), "--input", str(recording), "--output", str(out)])
    return int(ended.value.code or 0), out


def test_a_bad_line_is_told_in_one(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    good = json.dumps({"ingest_ts": 1772355600000, "source": "line1", "topic": "a/b", "payload": "{}"})
    code, out = replay(tmp_path, f'{good}\n{{"ingest_ts": "soon"}}\n')
    assert code == 1
    told = capfd.readouterr().err
    assert told == f"{tmp_path / 'frames.jsonl'}:2  ingest_ts: expected `int | null`, got `str`\n"
    assert not out.exists()


def test_no_line_is_no_error(tmp_path: Path) -> None:
    code, out = replay(tmp_path, "")
    assert code == 0
    assert (out / "alarms.jsonl").read_bytes() == b""
    assert json.loads((out / "summary.json").read_bytes())["frames"]["in"] == 0
    assert json.loads((out / "state.json").read_bytes()) == {}


def test_query_only_reads(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["query", str(PLANT), "drop table alarms"])
    assert ended.value.code == 2
    assert "a query only reads; 'DROP'" in capfd.readouterr().err


NOWHERE = "no such folder"
NEVER_RUN = "holds no plant's data; run it first: penstock run"


@pytest.mark.parametrize(
    "words",
    [
        *(["check", "."], ["check", ".", "--connect"], ["apply", ".", "--why", "x"], ["test", "."]),
        *(["history", "."], ["diff", "."], ["rollback", ".", "1", "--why", "x"], ["simulate", "."]),
        *(["capture", ".", "--output", "x.jsonl"], ["explain", ".", "r"], ["decode", ".", "--hex", "00"]),
        *(["alarms", "."], ["alarms", "stats", "."], ["rejects", "."], ["devices", "."], ["state", "."]),
        *(
            ["params", "."],
            ["top", ".", "--once"],
            ["query", ".", "SELECT 1"],
            ["export", ".", "--output", "x"],
        ),
        ["backtest", ".", "--rule", "r", "--from", "2026-01-01", "--to", "2026-02-01"],
    ],
    ids=" ".join,
)
def test_a_folder_that_is_not_there(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    away = tmp_path / "away"
    with pytest.raises(SystemExit) as ended:
        main([str(away) if word == "." else word for word in words])
    said = capfd.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (1, 1), said
    assert said.startswith(f"{away}: {NOWHERE}")


@pytest.mark.parametrize(
    "words",
    [
        *(["history", "."], ["diff", "."], ["rollback", ".", "1", "--why", "x"], ["explain", ".", "r"]),
        *(["alarms", "."], ["alarms", "stats", "."], ["rejects", "."], ["devices", "."], ["state", "."]),
        ["top", ".", "--once"],
    ],
    ids=" ".join,
)
def test_a_plant_that_never_ran(words: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(PLANT, tmp_path / "plant", ignore=shutil.ignore_patterns(".penstock"))
    with pytest.raises(SystemExit) as ended:
        main([str(tmp_path / "plant") if word == "." else word for word in words])
    said = capfd.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (3, 1), said
    assert NEVER_RUN in said


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["apply", "."], "a plant's files may hold code that it runs"),
        (["rollback", ".", "1"], "a plant's files may hold code that it runs"),
        (["diff", "."], "versions are compared where their files are"),
        (["explain", ".", "r"], "explain reads the journal"),
        (["capture", ".", "--output", "x"], "a recording is of the journal"),
    ],
)
def test_what_is_not_done_from_elsewhere(
    words: list[str], why: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*words, "--url", "http://127.0.0.1:8080"])
    assert ended.value.code == 2
    assert f"Error: --url: {why}" in capfd.readouterr().err


@pytest.mark.parametrize(
    "words",
    [
        *(["params"], ["params", "set", "d", "x=1", "--why", "w"], ["params", "reset", "d", "--why", "w"]),
        *(
            ["history"],
            ["devices", "set", "d", "x=1", "--why", "w"],
            ["devices", "retire", "d", "--why", "w"],
        ),
        *(["query", "SELECT 1"], ["export", "--output", "x"]),
    ],
    ids=" ".join,
)
def test_a_plant_elsewhere_that_does_not_run(
    words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    where = f"127.0.0.1:{free_port()}"
    with pytest.raises(SystemExit) as ended:
        main([*words, "--url", f"http://{where}"])
    said = capfd.readouterr().err
    assert (ended.value.code, len(said.splitlines())) == (3, 1), said
    assert f"{where} does not answer" in said
    assert "is the plant running?" in said


def test_an_action_that_is_none(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["alarms", "shelf", str(PLANT)])
    assert ended.value.code == 2
    assert "no action 'shelf'; did you mean 'shelve'?; known: show, " in capfd.readouterr().err


def test_results_go_into_a_folder_that_is_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for words in (["capture", str(PLANT)], ["query", str(PLANT), "SELECT 1"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, "--output", str(tmp_path / "no" / "x")])
        assert ended.value.code == 1
        assert capfd.readouterr().err == f"--output: there is no folder {tmp_path / 'no'}\n"
