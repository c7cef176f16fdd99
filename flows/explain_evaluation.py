"""What one device's last evaluating reading left of a rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from operators.expression.kernels import COUNT, FIRST, OFFSET, PAGE


@dataclass(slots=True)
class Evaluation:
    """What one device's last evaluating reading left. values: float64[V], of the probe's nodes;
    held: metric -> (value, quality, age in seconds). recalled: the reading itself was not seen, a
    snapshot says what it left. params: what each was at that reading, and where it came from;
    attributes: likewise."""

    time_ns: int
    ingest_ns: int
    position: int
    values: np.ndarray[Any, np.dtype[np.float64]]
    held: dict[str, tuple[float, str, float]]
    recalled: bool = False
    params: Mapping[str, tuple[float | str | None, str]] = field(default_factory=dict)
    attributes: Mapping[str, str | None] = field(default_factory=dict)


def samples_of_chain(past: Mapping[str, Any], chain: Any) -> Iterator[tuple[int, float]]:
    """Event time and value of the samples of a duration, the oldest first: pages linked in a chain."""
    page, place = int(chain[FIRST]), int(chain[OFFSET])
    for _ in range(int(chain[COUNT])):
        if place == PAGE:
            page, place = int(past["links"][page]), 0
        yield int(past["sample_ns"][page, place]), float(past["sample"][page, place])
        place += 1
