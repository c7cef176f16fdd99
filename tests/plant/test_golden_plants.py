"""Plants with mistakes: the whole text that `check` prints is compared.

Each folder of tests/golden/plants holds the files that differ from tests/golden/base, `remove` (the
files that are not there) and `expected.err`. PENSTOCK_GOLDEN=write writes the expectations anew.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flows.plant_reader import load_plant, read_folder
from flows.plant_tests import check_tests

GOLDEN = Path(__file__).resolve().parent.parent / "golden"
ENVIRON = {"SECRET_PORT": "hunter2", "HOME": "/root"}
CASES = sorted(path.name for path in (GOLDEN / "plants").iterdir())


def told(files: dict[str, bytes]) -> str:
    plant, problems = load_plant(files, ENVIRON, name_hint="line")
    if plant is not None:
        check_tests(plant, problems)
    assert (plant is None) <= bool(problems.errors)
    return problems.render() + "\n"


def files_of(case: str) -> dict[str, bytes]:
    folder = GOLDEN / "plants" / case
    files = read_folder(GOLDEN / "base") | read_folder(folder)
    removed = folder / "remove"
    for path in removed.read_text().split() if removed.exists() else ():
        del files[path]
    return files


def test_the_base_is_good() -> None:
    assert told(read_folder(GOLDEN / "base")) == "\n"


@pytest.mark.parametrize("case", CASES)
def test_every_mistake_is_told_with_its_place(case: str) -> None:
    expected = GOLDEN / "plants" / case / "expected.err"
    found = told(files_of(case))
    if os.environ.get("PENSTOCK_GOLDEN") == "write":
        expected.write_text(found, encoding="utf-8")
    assert found == expected.read_text(encoding="utf-8")
    assert "hunter2" not in found
    assert len(found.strip()) > 0
