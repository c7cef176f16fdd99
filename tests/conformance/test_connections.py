"""The short form of `python -m tests.conformance.connections`."""

from __future__ import annotations

from pathlib import Path

from tests.conformance.connections import BEYOND, SLOW, many


def test_two_thousand_connections(tmp_path: Path) -> None:
    """Each is served; those beyond the cap are refused and counted; frames that never end are dropped."""
    found = many(2000, tmp_path)
    assert found["refused"] == BEYOND + SLOW
    assert (
        found["open_kb_each"] < 20
    )  # the bound of memory: 400 MB for the largest max_connections by default
