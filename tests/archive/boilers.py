"""Four hours of two boilers, a reading each every 30 seconds, in a journal and its archive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from connectors.source import Frame
from flows.folder import open_plant
from tests.archive.journals import START_MS, TestJournal

PLANT = Path(__file__).parent / "plant"
STEP_MS = 30_000
HOURS = 4
DIFFERENT: Mapping[str, tuple[tuple[str, str, float], ...]] = {  # else 50
    "b1": (("01:10", "01:15", 85), ("02:10", "02:20", 78), ("02:40", "02:45", 90)),
    "b2": (("01:30", "01:30", 10), ("03:30", "03:40", 82)),
}


def at_ms(clock: str) -> int:
    """`01:10` of the day as milliseconds since 1970."""
    hours, minutes = clock.split(":")
    return START_MS + (int(hours) * 60 + int(minutes)) * 60_000


def temperature(device: str, ms: int) -> float:
    """Of a boiler at a time; both ends of a stretch belong to it but the last reading."""
    for start, end, value in DIFFERENT[device]:
        if at_ms(start) <= ms < max(at_ms(end), at_ms(start) + 1):
            return value
    return 50.0


def lived(
    data: Path,
    folder: Path,
    *,
    trimmed: bool = True,
    at: Mapping[str, Callable[[TestJournal], None]] = MappingProxyType({}),
) -> TestJournal:
    """The journal of a plant that ran for four hours; what its archive holds is trimmed. at: what
    else happens, by the time of day."""
    journal = TestJournal(data)
    plant = open_plant(folder)
    journal.control("started", {"clean": True})
    journal.plant(dict(plant.files), plant.sha256)
    journal.control("connected", {"source": "line1"})
    archiver = journal.archiver()
    while journal.ms < START_MS + HOURS * 3_600_000 - STEP_MS:
        journal.tick(STEP_MS)
        for clock, happen in at.items():
            if at_ms(clock) == journal.ms:
                happen(journal)
        journal.frames(
            "line1",
            [
                Frame(
                    f"d/{device}/telemetry",
                    json.dumps({"t": journal.ms, "m": {"tempC": temperature(device, journal.ms)}}).encode(),
                )
                for device in DIFFERENT
            ],
        )
    while archiver.step():
        pass
    while trimmed and journal.store.trim(archiver.entry):
        pass
    return journal


def folder_of(path: Path, rules: str | None = None) -> Path:
    """A copy of the plant, with other rules where they are given."""
    shutil.copytree(PLANT, path)
    if rules is not None:
        (path / "rules" / "rules.yaml").write_text(rules)
    return path
