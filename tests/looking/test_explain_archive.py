"""`penstock explain --at` a time that the journal no longer holds: it is in the archive.

tests/archive/boilers.py: `hot` is above 80 for 60 s; b1 reads 85 from 01:10 to 01:15, b2 82 from 03:30
to 03:40, else 50.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from flows.explain_command import explain
from tests.archive.boilers import folder_of, lived
from tests.archive.journals import TestJournal
from tests.looking.test_explain import values

DAY = "2026-03-01T"


@pytest.fixture(scope="module")
def boilers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, TestJournal]]:
    folder = tmp_path_factory.mktemp("boilers")
    plant = folder_of(folder / "plant")
    journal = lived(folder / "data", plant)
    assert journal.reader.oldest() > 1
    yield plant, journal
    journal.close()


def told(boilers: tuple[Path, TestJournal], device: str, at: str) -> tuple[dict[str, Any], dict[str, Any]]:
    plant, journal = boilers
    asked = [
        str(plant),
        "hot",
        "--data",
        str(journal.data),
        "--device",
        device,
        "--at",
        f"{DAY}{at}Z",
        "--json",
    ]
    result = CliRunner().invoke(explain, asked, catch_exceptions=False)
    found = json.loads(result.stdout)
    (one,) = found["devices"]
    return found, one


def test_a_delay_that_ran_then(boilers: tuple[Path, TestJournal]) -> None:
    found, b1 = told(boilers, "b1", "01:10:45")
    assert (found["source"], found["complete"]) == ("archive", True)
    assert values(b1)["tempC"] == 85.0
    assert b1["outcome"] == f"not raised yet: the condition holds since {DAY}01:10:00.000Z, on_delay runs"
    assert b1["delays"][0]["due"] == f"{DAY}01:11:00.000Z"
    _, raised = told(boilers, "b1", "01:11:00")
    assert raised["alarms"][0]["event_time"] == f"{DAY}01:11:00.000Z"
    assert raised["outcome"].startswith("raised: active")


def test_after_the_archive_comes_the_journal(boilers: tuple[Path, TestJournal]) -> None:
    _, b2 = told(boilers, "b2", "03:31:00")
    assert values(b2)["tempC"] == 82.0
    assert b2["outcome"].startswith("raised: active")
    _, before = told(boilers, "b2", "03:29:59")
    assert values(before)["tempC"] == 50.0
    assert before["outcome"] == "not raised: the condition is false"
