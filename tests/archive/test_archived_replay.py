"""A replay of an archive is, byte for byte, the replay of a capture of the same entries."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from connectors.errors import ConfigError
from connectors.files.capture import RecordingWriter
from flows.cli import cli
from flows.folder import open_plant
from tests.archive.boilers import folder_of, lived
from tests.archive.journals import TestJournal, archive_files, archive_rows

FILES = ("alarms.jsonl", "windows.jsonl", "rejects.jsonl", "telemetry.parquet", "state.json", "summary.json")


@pytest.fixture(scope="module")
def boilers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestJournal]:
    folder = tmp_path_factory.mktemp("boilers")
    journal = lived(folder / "data", folder_of(folder / "plant"), trimmed=False)
    yield journal
    journal.close()


def replay(folder: Path, output: Path, *arguments: str) -> Result:
    chosen = ["replay", str(folder), "--output", str(output), *arguments]
    return CliRunner().invoke(cli, chosen, catch_exceptions=True)


def outcome(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def plant_of(journal: TestJournal) -> Path:
    return journal.data.parent / "plant"


@pytest.fixture(scope="module")
def captured(boilers: TestJournal) -> dict[str, bytes]:
    """Of a capture of what is in the archive."""
    recording = boilers.data / "recording.jsonl"
    last = archive_rows(archive_files(boilers.archive))[-1][0]
    with recording.open("wb") as file:
        RecordingWriter(file, boilers.reader).write(boilers.reader.read(1, 1 << 30, 1 << 30, last))
    result = replay(plant_of(boilers), boilers.data / "of-capture", "--input", str(recording))
    assert result.exit_code == 0, result.output
    found = outcome(boilers.data / "of-capture")
    assert found["alarms.jsonl"].count(b"\n") >= 6
    return found


@pytest.mark.parametrize("frames", [1, 7, 10_000])
def test_a_folder_replays_as_a_capture(
    boilers: TestJournal, captured: dict[str, bytes], tmp_path: Path, frames: int
) -> None:
    arguments = ["--input", str(boilers.archive), "--entry-frames", str(frames)]
    result = replay(plant_of(boilers), tmp_path, *arguments)
    assert result.exit_code == 0, result.output
    assert outcome(tmp_path) == captured


def test_files_in_any_order_replay_as_their_folder(
    boilers: TestJournal, captured: dict[str, bytes], tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for number, path in enumerate(reversed(archive_files(boilers.archive))):
        shutil.copy(path, elsewhere / f"{number}.parquet")
    result = replay(plant_of(boilers), tmp_path / "out", "--input", str(elsewhere))
    assert result.exit_code == 0, result.output
    assert outcome(tmp_path / "out") == captured


def test_the_plant_of_the_recording_counts_and_not_the_folders(
    boilers: TestJournal, captured: dict[str, bytes], tmp_path: Path
) -> None:
    other = folder_of(
        tmp_path / "plant",
        "ruleId: x\nproductId: boiler\ntype: threshold\ncondition: tempC > 1\nseverity: low\n",
    )
    result = replay(other, tmp_path / "out", "--input", str(boilers.archive))
    assert result.exit_code == 0, result.output
    assert (tmp_path / "out" / "alarms.jsonl").read_bytes() == captured["alarms.jsonl"]


def test_a_part_begins_under_the_plant_that_was_in_force(boilers: TestJournal, tmp_path: Path) -> None:
    other = folder_of(
        tmp_path / "plant",
        "ruleId: x\nproductId: boiler\ntype: threshold\ncondition: tempC > 1\nseverity: low\n",
    )
    part = ["--from", "2026-03-01T02:00:00Z", "--to", "2026-03-01T03:00:00Z", "--json"]
    result = replay(other, tmp_path / "out", "--input", str(boilers.archive), *part)
    assert result.exit_code == 0, result.output
    assert '"frames": {"in": 240,' in result.stdout
    events = (tmp_path / "out" / "alarms.jsonl").read_text()
    assert [line.count('"ruleId":"hot"') for line in events.splitlines()] == [1, 1, 1]
    assert '"time":"2026-03-01T02:41:00.000Z"' in events


def test_positions_of_a_part_are_those_of_the_whole(
    boilers: TestJournal, captured: dict[str, bytes], tmp_path: Path
) -> None:
    part = ["--from", "2026-03-01T02:00:00Z", "--to", "2026-03-01T03:00:00Z"]
    assert replay(plant_of(boilers), tmp_path, "--input", str(boilers.archive), *part).exit_code == 0
    events = (tmp_path / "alarms.jsonl").read_bytes().splitlines()
    assert events
    assert set(events) <= set(captured["alarms.jsonl"].splitlines())


def failure(result: Result) -> str:
    assert isinstance(result.exception, ConfigError), result.output
    return str(result.exception)


def test_a_gap_is_an_error_that_names_the_entries(boilers: TestJournal, tmp_path: Path) -> None:
    copy = tmp_path / "archive"
    shutil.copytree(boilers.archive, copy)
    files = archive_files(copy)
    gone = archive_rows(files[1:2])
    files[1].unlink()
    told = (
        f"entries {gone[0][0]} to {gone[-1][0]} are missing before {files[2]}; "
        "what they led to is missing, too"
    )
    result = replay(plant_of(boilers), tmp_path / "out", "--input", str(copy))
    assert failure(result) == f"{told}. --gaps goes on without them"
    result = replay(plant_of(boilers), tmp_path / "out", "--input", str(copy), "--gaps")
    assert result.exit_code == 0
    assert f"warning: {told}\n" in result.stderr


def test_bad_files_are_told_with_their_names(boilers: TestJournal, tmp_path: Path) -> None:
    def told(path: Path) -> str:
        return failure(replay(plant_of(boilers), tmp_path / "out", "--input", str(path)))

    text = tmp_path / "text.parquet"
    text.write_text("no Parquet at all, but long enough")
    assert told(text).startswith(f"{text}  cannot be read as Parquet: Parquet magic bytes not found")
    foreign = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"x": [1]}), foreign)  # type: ignore[no-untyped-call]
    assert told(foreign) == (
        f"{foreign}  is Parquet, but not of an archive; archives are written by a running plant"
    )
    rotten = tmp_path / "rotten.parquet"
    bytes_of = bytearray(archive_files(boilers.archive)[1].read_bytes())
    page = pq.read_metadata(archive_files(boilers.archive)[1]).row_group(0).column(9).data_page_offset  # type: ignore[no-untyped-call]
    bytes_of[page + 200] ^= 0xFF
    rotten.write_bytes(bytes_of)
    assert told(rotten).startswith(f"{rotten}  is damaged: ")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert told(empty) == f"{empty}  holds no archive file (*.parquet)"
    missing = replay(plant_of(boilers), tmp_path / "out", "--input", str(tmp_path / "none.parquet"))
    assert missing.exit_code == 2
    assert "does not exist" in missing.stderr


def test_a_range_needs_an_archive(boilers: TestJournal, tmp_path: Path) -> None:
    lines = tmp_path / "x.jsonl"
    lines.write_text("")
    result = replay(plant_of(boilers), tmp_path / "out", "--input", str(lines), "--from", "2026-03-01")
    assert failure(result) == "--from and --to take a part of an archive; --input names none"


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{path: ''}", "17  archive.path: a folder is expected, or s3://bucket/prefix"),
        ("{path: 'ftp://x/y'}", "17  archive.path: 'ftp://x/y' is no folder and no s3://bucket/prefix"),
        ("{path: 's3://'}", "17  archive.path: 's3://' is no folder and no s3://bucket/prefix"),
        ("{keep: 1h}", "17  archive.keep: at least 1d is expected"),
        ("{kep: 1d}", "11  archive.kep: unknown key 'kep'; did you mean 'keep'?"),
    ],
)
def test_what_is_wrong_in_plant_yaml_is_told_with_its_place(tmp_path: Path, section: str, told: str) -> None:
    folder = folder_of(tmp_path / "plant")
    config = folder / "plant.yaml"
    kept = [line for line in config.read_text().splitlines() if not line.startswith("archive")]
    config.write_text("\n".join([*kept, f"archive: {section}"]))
    with pytest.raises(ConfigError) as error:
        open_plant(folder)
    assert str(error.value) == f"plant.yaml:4:{told}"
