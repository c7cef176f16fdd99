"""Plausible values of a product's metrics: walks within the contract's ranges, and excursions past
the thresholds of its rules, so that alarms are raised and cleared."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from flows.plant_file import Product
from operators.contract.spec import Metric
from rules.spec import Rule

Value = float | int | bool | str

RAMP_S: Final = 3.0  # into an excursion, and out of it
HOLD_S: Final = 15.0
FIRST_S: Final = 8.0  # before the first device's first excursion
BETWEEN_S: Final = 6.0  # the devices of a product follow each other so closely
CYCLE_S: Final = 60.0  # at least so long until a device's next one

_COMPARISON = re.compile(
    r"(?:metrics\.)?(?P<metric>[^\W\d]\w*)\s*(?P<sign>[<>])=?\s*(?:param\.(?P<param>\w+)|(?P<number>-?\d+(?:\.\d+)?))"
)
_EQUALITY = re.compile(r"(?:metrics\.)?(?P<metric>[^\W\d]\w*)\s*==\s*'(?P<text>[^']*)'")


class Threshold(NamedTuple):
    """`metric > at` (above) or `metric < at` in a rule's condition."""

    metric: str
    above: bool
    at: float


def thresholds(
    product: Product, rules: Sequence[Rule], row: Mapping[str, str] | None = None
) -> list[Threshold]:
    """What the rules of a product compare its metrics with, in the order of the rules. Only plain
    comparisons with a number or a parameter are found; that is enough to make an alarm.

    row: the device's master data, whose columns override the product's parameters.
    """
    found: list[Threshold] = []
    for rule in _rules_of(product, rules):
        for match in _COMPARISON.finditer(_text(rule)):
            at = float(match["number"]) if match["number"] else _parameter(product, row or {}, match["param"])
            metric = product.metrics.get(match["metric"])
            if metric is not None and metric.type in ("number", "integer") and at is not None:
                found.append(Threshold(match["metric"], match["sign"] == ">", at))
    return found


class Circumstances(NamedTuple):
    """Values of texts and switches that rules name. wanted: beside a comparison of numbers (`...
    and mode == 'run'`), so that the excursion counts; avoided: alone, they would be an alarm."""

    wanted: set[tuple[str, Value]]
    avoided: set[tuple[str, Value]]


def circumstances(product: Product, rules: Sequence[Rule]) -> Circumstances:
    """What the rules of a product ask of its texts and switches."""
    found = Circumstances(set(), set())
    for rule in _rules_of(product, rules):
        text = _text(rule)
        named: set[tuple[str, Value]] = {(m["metric"], m["text"]) for m in _EQUALITY.finditer(text)}
        for name in re.findall(r"[^\W\d]\w*", text):
            if name in product.metrics and product.metrics[name].type == "boolean":
                named.add((name, True))
        (found.wanted if _COMPARISON.search(text) else found.avoided).update(named)
    return found


def _rules_of(product: Product, rules: Sequence[Rule]) -> list[Rule]:
    return [rule for rule in rules if product.productId in rule.products]


def _text(rule: Rule) -> str:
    return " and ".join(rule.conditions.values())


def _parameter(product: Product, row: Mapping[str, str], name: str) -> float | None:
    for value in (row.get(name), product.params.get(name)):
        if value is not None and value != "":
            try:
                return float(value)
            except ValueError:
                return None
    return None


class SimulatedDevice:
    """One device's values over time, the same for the same seed and times.

    turn: its place among the devices of its product, which overheat one after the other; count:
    how many they are.
    """

    def __init__(
        self,
        device: str,
        product: Product,
        rules: Sequence[Rule],
        seed: int,
        turn: int,
        count: int,
        row: Mapping[str, str] | None = None,
    ) -> None:
        self.device = device
        self._random = random.Random(f"{seed}/{device}")  # noqa: S311 - no secret depends on it
        self._limits = thresholds(product, rules, row)
        told = circumstances(product, rules)
        self._walks = {
            name: _walk(name, metric, self._limits, told, self._random)
            for name, metric in product.metrics.items()
        }
        self._first_s = FIRST_S + turn * BETWEEN_S
        self._cycle_s = max(CYCLE_S, count * BETWEEN_S)

    def values(self, elapsed_s: float) -> dict[str, Value]:
        """Every metric's value, `elapsed_s` after the beginning; to be called with rising times."""
        values = {name: walk.next(self._random, elapsed_s) for name, walk in self._walks.items()}
        share, threshold = self._excursion(elapsed_s)
        if threshold is not None:
            walk = self._walks[threshold.metric]
            if isinstance(walk, _Numbers):
                values[threshold.metric] = walk.beyond(threshold, share)
        return values

    def _excursion(self, elapsed_s: float) -> tuple[float, Threshold | None]:
        """How far (0..1) the device is into an excursion, and past what."""
        since = elapsed_s - self._first_s
        if since < 0 or not self._limits:
            return 0.0, None
        number, within = divmod(since, self._cycle_s)
        share = min(within / RAMP_S, 1.0, (2 * RAMP_S + HOLD_S - within) / RAMP_S)
        if share <= 0:
            return 0.0, None
        return share, self._limits[int(number) % len(self._limits)]


class _Numbers:
    """A walk that returns to its middle, on the quiet side of every threshold."""

    def __init__(self, metric: Metric, limits: list[Threshold], draw: random.Random) -> None:
        low, high = metric.range or (None, None)
        self.low = 0.0 if low is None else low
        self.high = max(self.low + 100.0, 100.0) if high is None else high
        quiet_low, quiet_high = self.low, self.high
        for limit in limits:
            if limit.above:
                quiet_high = min(quiet_high, limit.at - 0.15 * abs(limit.at - self.low))
            else:
                quiet_low = max(quiet_low, limit.at + 0.15 * abs(self.high - limit.at))
        if quiet_low > quiet_high:  # the rules leave no quiet side
            quiet_low, quiet_high = self.low, self.high
        span = quiet_high - quiet_low
        self.middle = quiet_low + span * draw.uniform(0.45, 0.65)
        self.width = span * 0.08
        if metric.max_step is not None:
            self.width = min(self.width, metric.max_step / 4)
        self.whole = metric.type == "integer"
        self.now = self.middle

    def next(self, draw: random.Random, elapsed_s: float) -> Value:
        self.now += (self.middle - self.now) * 0.1 + draw.gauss(0.0, self.width * 0.3)
        return self._shown(self.now)

    def beyond(self, limit: Threshold, share: float) -> Value:
        edge = self.high if limit.above else self.low
        return self._shown(self.now + (limit.at + 0.2 * (edge - limit.at) - self.now) * share)

    def _shown(self, value: float) -> Value:
        value = min(max(value, self.low), self.high)
        return round(value) if self.whole else round(value, 2)


class _Choices:
    """Stays with one value, and changes it now and then."""

    def __init__(self, choices: list[Value], draw: random.Random) -> None:
        self.choices = choices
        self.now = draw.choice(choices)

    def next(self, draw: random.Random, elapsed_s: float) -> Value:
        if draw.random() < 0.02:
            self.now = draw.choice(self.choices)
        return self.now


class _Hours:
    """An hour meter: it only goes up."""

    def __init__(self, draw: random.Random) -> None:
        self.start = draw.uniform(1_000, 20_000)

    def next(self, draw: random.Random, elapsed_s: float) -> Value:
        return round(self.start + elapsed_s / 3600, 1)


def _walk(
    name: str, metric: Metric, limits: list[Threshold], told: Circumstances, draw: random.Random
) -> _Numbers | _Choices | _Hours:
    if metric.type == "boolean":
        return _Choices([(name, True) in told.wanted and (name, True) not in told.avoided], draw)
    if metric.values or metric.type == "string":
        choices: list[Value] = list(metric.values or ["A"])
        wanted = [value for value in choices if (name, value) in told.wanted]
        quiet = [value for value in choices if (name, value) not in told.avoided]
        return _Choices(wanted or quiet or choices, draw)
    if metric.unit == "h":
        return _Hours(draw)
    if metric.type == "integer" and metric.range is None:
        return _Choices([draw.randint(1, 9)], draw)
    return _Numbers(metric, [limit for limit in limits if limit.metric == name], draw)
