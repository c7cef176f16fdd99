"""`penstock new --rule`: every template passes `check` and its own test, alone and with all others."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from flows.cli import main
from flows.scaffold_rules import FOLDER, TEMPLATES


def penstock(*arguments: str) -> tuple[int, str]:
    """Exit code, and what was printed."""
    told = io.StringIO()
    with redirect_stdout(told), redirect_stderr(told):
        try:
            main(list(arguments))
        except SystemExit as end:
            return int(end.code or 0), told.getvalue()
    return 0, told.getvalue()


def test_every_file_of_the_folder_is_offered() -> None:
    assert {path.name for path in FOLDER.iterdir()} == {
        f"{name}{ending}" for name in TEMPLATES for ending in (".yaml", ".test.yaml")
    }
    assert all(f"{name} " in penstock("new", "--help")[1] for name in TEMPLATES)


@pytest.mark.parametrize("names", [[name] for name in TEMPLATES] + [list(TEMPLATES)], ids="+".join)
def test_a_plant_with_templates_is_good_and_passes_its_tests(names: list[str], tmp_path: Path) -> None:
    rules = [part for name in names for part in ("--rule", name)]
    assert penstock("new", str(tmp_path / "plant"), "--product", "oven", *rules)[0] == 0
    code, output = penstock("check", str(tmp_path / "plant"))
    assert code == 0, output
    code, output = penstock("test", str(tmp_path / "plant"))
    assert code == 0, output


def test_a_template_goes_into_a_plant_that_is_there(tmp_path: Path) -> None:
    plant = str(tmp_path / "plant")
    assert penstock("new", plant, "--product", "oven")[0] == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    code, output = penstock("new", plant, "--product", "oven", "--rule", "silence")
    assert code == 0
    assert (tmp_path / "plant/rules/silence.yaml").read_text().count("productId: oven") == 1
    assert {path: path.read_bytes() for path in before} == before
    assert penstock("test", plant)[0] == 0
    code, output = penstock("new", plant, "--product", "oven", "--rule", "silence")
    assert code == 1
    assert "rules/silence.yaml exists already; it is left as it is" in output


def test_a_rule_needs_a_plant() -> None:
    code, output = penstock("new", "--rule", "silence")
    assert code == 2
    assert "--rule goes into a plant: penstock new FOLDER --rule NAME" in output
