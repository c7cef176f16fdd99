"""What a product's `windows:` list says."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

import msgspec

from operators.attributes import Attributes
from operators.contract.spec import Metric
from operators.document import nearest
from operators.spec import HOUR, MINUTE, SECOND, Duration

Aggregate = Literal["count", "min", "max", "mean", "last", "std", "p50", "p95", "p99"]


DEVICE: Final = "device_id"
PREFIX: Final[Mapping[str, str]] = MappingProxyType(
    {"hub_id": "hub", "site_id": "site", "customer_id": "customer", "productId": "product"}
)
"""What stands before the name of a group in the place of a device's, as in the subjects of alarms."""


class Window(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One entry of `windows:`; `every` stays a text ("1m", "5m", "1h", "shift") and is its name."""

    every: str
    lateness: Duration = 0
    correct_within: Duration = 0
    aggregates: list[Aggregate] = msgspec.field(
        default_factory=lambda: ["count", "min", "max", "mean", "last"]
    )
    metrics: list[str] | None = None  # default: all numeric ones
    by: list[str] = msgspec.field(default_factory=lambda: [DEVICE])

    @property
    def key(self) -> str:
        """What a window is known by among those of its product."""
        return self.every if self.over == DEVICE else f"{self.every} by {self.over}"

    @property
    def over(self) -> str:
        """Whose readings one window holds: DEVICE or a name in PREFIX."""
        return self.by[0]


_KNOWN: Final = (DEVICE, *PREFIX)
_FIXED: Final = re.compile(r"([1-9][0-9]*)(s|m)")
_LATER: Final = re.compile(r"[1-9][0-9]*(h|d|mo)|shift")
MAX_KEPT: Final = 4096  # windows of one device that may be open or correctable at a time


def every_ns(every: str) -> int:
    """Length of a window that `supported` lets pass, in nanoseconds; its starts are the multiples
    of it since 1970 (UTC)."""
    found = _FIXED.fullmatch(every)
    if found is None:
        raise ValueError(every)
    return int(found[1]) * (SECOND if found[2] == "s" else MINUTE)


def kept(window: Window) -> int:
    """How many windows of a device may be open or correctable at a time."""
    return -(-(window.lateness + window.correct_within) // every_ns(window.every)) + 1


def supported(window: Window) -> str | None:
    """What this version cannot do about a window, as the text of an error; None when it can."""
    if len(window.by) != 1:
        told = "nothing is named" if not window.by else f"{len(window.by)} names"
        return f"by: {told}; write one of {', '.join(_KNOWN)}, and a window of its own for another"
    if window.over not in _KNOWN:
        return f"by: '{window.over}' is unknown{nearest(window.over, _KNOWN)}; one of {', '.join(_KNOWN)}"
    if _LATER.fullmatch(window.every):
        return f"every: '{window.every}' is not yet in this version"
    if _FIXED.fullmatch(window.every) is None:
        return f"every: '{window.every}' is no window; write a length as 30s, 1m, 5m"
    length = every_ns(window.every)
    if length >= HOUR:
        return f"every: '{window.every}' is not yet in this version"
    if HOUR % length:
        return f"every: '{window.every}' does not divide an hour; take 1m, 5m, 15m, 30m"
    if kept(window) > MAX_KEPT:
        return (
            f"lateness and correct_within span {kept(window)} windows of {window.every}, "
            f"more than {MAX_KEPT}; make them shorter or the window longer"
        )
    return None


def device_windows(windows: Iterable[Window]) -> list[Window]:
    """Those of single devices, which formulas and submodels may name."""
    return [window for window in windows if window.by == [DEVICE]]


def window_metrics(window: Window, metrics: Mapping[str, Metric]) -> list[str]:
    """Names of the metrics that a window aggregates, in file order of the product."""
    if window.metrics is None:
        return [name for name, metric in metrics.items() if metric.type in ("number", "integer")]
    return [name for name in metrics if name in window.metrics]


@dataclass(frozen=True, slots=True)
class ProductWindows:
    """All that the windows stage knows of one product; metrics in file order. joined: master data, for
    windows over groups."""

    metrics: Mapping[str, Metric]
    windows: tuple[Window, ...]
    joined: Attributes | None = None
