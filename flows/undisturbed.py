"""Was anything lost, did anything come twice? A plant's results against an undisturbed run.

The recording of a plant's journal (`penstock capture --from-start`) is replayed in this process,
and what the plant left behind (alarms.jsonl, the historian's rows, the newest values) is compared
with what the replay gives. `penstock demo --kill` and the kill campaigns of the tests count so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from flows.engine import run_recording
from flows.plant_file import Plant
from flows.recorded import recorded_slices


@dataclass(slots=True)
class Comparison:
    """One kind of result: how many there are, how many are missing, doubled, or not expected."""

    what: str
    expected: int
    found: int
    missing: int
    twice: int
    extra: int
    example: str = ""

    @property
    def clean(self) -> bool:
        return not (self.missing or self.twice or self.extra)

    def line(self) -> str:
        """`alarms: 12 expected, 12 found; lost 0, twice 0, unexpected 0`"""
        told = (
            f"{self.what}: {self.expected} expected, {self.found} found; "
            f"lost {self.missing}, twice {self.twice}, unexpected {self.extra}"
        )
        return f"{told}  e.g. {self.example}" if self.example else told


@dataclass(slots=True)
class Differences:
    """Every kind compared."""

    kinds: list[Comparison] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return all(kind.clean for kind in self.kinds)

    def lines(self) -> list[str]:
        return [kind.line() for kind in self.kinds]


def compare(what: str, expected: Iterable[str], found: Iterable[str]) -> Comparison:
    """Two collections of lines, in which a line that stands twice counts twice."""
    wanted, there = Counter(expected), Counter(found)
    missing = wanted - there
    surplus = there - wanted
    twice = sum(count for line, count in surplus.items() if line in wanted)
    extra = sum(count for line, count in surplus.items() if line not in wanted)
    example = next(iter(missing), "") or next(iter(surplus), "")
    return Comparison(what, wanted.total(), there.total(), missing.total(), twice, extra, example[:300])


def differences(plant: Plant, data: Path, recording: Path) -> Differences:
    """Compare what stands in `data` and in the running historian with a replay of `recording`."""
    outcome = run_recording(plant, recorded_slices(plant, [recording]))
    found = Differences()
    found.kinds.append(compare("alarm events", alarm_lines(outcome), file_lines(data / "alarms.jsonl")))
    client = _historian(plant)
    try:
        for productId in plant.products:
            expected, there = telemetry(outcome, client, productId)
            found.kinds.append(compare(f"readings of {productId}", expected, there))
        found.kinds.append(compare("windows", *windows(outcome, client)))
        found.kinds.append(compare("rejects", *rejects(outcome, client)))
    finally:
        client.close()
    return found
