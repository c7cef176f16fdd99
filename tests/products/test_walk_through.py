"""docs/writing-a-spec.md does what it says: its products, its messages, its figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from flows.check_command import check_product
from flows.decode_command import decode
from flows.new_command import read_sample
from flows.scaffold import scaffold

TEXT = (Path(__file__).parents[2] / "docs" / "writing-a-spec.md").read_text(encoding="utf-8")
FRAME = "01 FF CC 83 41 00 02 CF 8D CA B6"


def block(opening: str, number: int = 0) -> str:
    return re.findall(rf"^```{opening}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)[number]


@pytest.fixture
def right(tmp_path: Path) -> Path:
    path = tmp_path / "probe.yaml"
    path.write_text(block("yaml right"))
    return path


def test_the_finished_product_passes(right: Path) -> None:
    products, problems = check_product(right)
    assert problems.render() == ""
    assert len(products[0].vectors) == 4


def test_the_first_try_is_told_as_the_page_says(tmp_path: Path) -> None:
    path = tmp_path / "probe.yaml"
    path.write_text(block("yaml wrong"))
    told = check_product(path)[1].render()
    for line in told.splitlines():
        assert line in TEXT
    assert f"{len(told.splitlines())} errors" in TEXT


def test_the_vector_that_differs_is_told_as_the_page_says(right: Path) -> None:
    right.write_text(right.read_text().replace("humidity: 65.5", "humidity: 66.5"))
    assert check_product(right)[1].render() in TEXT


def test_the_scaffold_is_as_the_page_says() -> None:
    text = scaffold("probe", read_sample(FRAME))
    assert "check: {crc16: {poly: 0x1021, init: 0xFFFF, at: -2}}" in text
    assert "# CCITT-FALSE fits the last 2 bytes." in text
    assert "s16 -52 | le -13057" in text


def test_decode_prints_what_the_page_shows(right: Path) -> None:
    ran = CliRunner().invoke(decode, [str(right), "--hex", FRAME], standalone_mode=False)
    for line in ran.output.splitlines():
        assert line.rstrip() in TEXT
