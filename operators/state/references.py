"""What a submodel element's `value` refers to, and what is wrong with a mapping."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from operators.contract.spec import Metric
from operators.document import nearest
from operators.state.spec import AasMapping
from operators.state.store import FORMULA
from operators.windows.spec import Window, window_metrics

_NAME: Final = r"([^\W\d]\w*|`[^`]+`)"
_METRIC: Final = re.compile(rf"(?:metrics\.)?{_NAME}")
_WINDOW: Final = re.compile(rf"window\.{_NAME}\.(\w+)\(\s*(?:metrics\.)?{_NAME}\s*\)")
_ALARM: Final = re.compile(rf"alarm\.{_NAME}\.(\w+)")
_FORMULA: Final = re.compile(rf"formula\.{_NAME}")
FLAGS: Final = ("active", "acknowledged", "latched", "shelved", "suppressed", "out_of_service")
"""What a mapping may ask of an alarm; in a record the n-th is bit n."""
_ID_SHORT: Final = re.compile(r"[a-zA-Z]([a-zA-Z0-9_-]*[a-zA-Z0-9_])?")  # IDTA-01001-3-1, AASd-002


class MetricRef(NamedTuple):
    """The newest value of a metric."""

    metric: str


class WindowRef(NamedTuple):
    """An aggregate of the last closed window."""

    window: str
    aggregate: str
    metric: str

    @property
    def shown(self) -> tuple[str, str, str]:
        """As a layout names it."""
        return self.window, self.aggregate, self.metric


class FormulaColumn(NamedTuple):
    """The newest value of a formula, as the state keeps it: where it is over readings, its start is
    the reading's time and its revision the reading's position."""

    formulaId: str
    over: str

    @property
    def shown(self) -> tuple[str, str, str]:
        """As a layout names it."""
        return FORMULA, self.over, self.formulaId


class AlarmRef(NamedTuple):
    """One of FLAGS of an alarm of the device: of its open occurrence; without one nothing is
    active and nothing is to be acknowledged."""

    ruleId: str
    flag: str = "active"


class FormulaRef(NamedTuple):
    """The newest value of a formula."""

    formulaId: str


Reference = MetricRef | WindowRef | AlarmRef | FormulaRef


def flag_bits(state: Mapping[str, Any]) -> int:
    """The flags of an event's `state`, the n-th as bit n."""
    told = [bool(state.get("shelved_until" if flag == "shelved" else flag)) for flag in FLAGS]
    return sum(1 << at for at, flag in enumerate(told) if flag)


def parse_reference(text: str) -> Reference | str:
    """The reference, or what is wrong with its text."""
    text = text.strip()
    if text.startswith("desired."):
        return "'desired.' is not yet in this version"
    if found := _ALARM.fullmatch(text):
        if found[2] not in FLAGS:
            return f"an alarm has no '{found[2]}'{nearest(found[2], FLAGS)}; it has {', '.join(FLAGS)}"
        return AlarmRef(found[1].strip("`"), found[2])
    if found := _FORMULA.fullmatch(text):
        return FormulaRef(found[1].strip("`"))
    if found := _WINDOW.fullmatch(text):
        return WindowRef(found[1].strip("`"), found[2], found[3].strip("`"))
    if found := _METRIC.fullmatch(text):
        return MetricRef(found[1].strip("`"))
    return f"'{text}' is no reference; write a metric, window.`1m`.mean(metric) or alarm.`ruleId`.active"


def references(mapping: AasMapping | None) -> Iterator[Reference]:
    """The references of a mapping that has passed its checks, in its order."""
    for submodel in mapping.submodels if mapping else ():
        for element in submodel.elements:
            found = parse_reference(element.value)
            if not isinstance(found, str):
                yield found


class MappingProblem(NamedTuple):
    """What is wrong at `aas.submodels[submodel].elements[element].key`; element -1: the submodel."""

    submodel: int
    element: int
    key: str
    text: str


def check_mapping(
    mapping: AasMapping,
    metrics: Mapping[str, Metric],
    windows: Collection[Window],
    ruleIds: Collection[str],
    formulas: Collection[str] = (),
) -> list[MappingProblem]:
    """Everything that is wrong with a product's `aas:`. ruleIds, formulas: those of that product."""
    found: list[MappingProblem] = []
    ids: set[str] = set()
    for s, submodel in enumerate(mapping.submodels):
        if "{device_id}" not in submodel.id:
            found.append(
                MappingProblem(s, -1, "id", "needs '{device_id}', or all devices share one submodel")
            )
        if submodel.id in ids:
            found.append(MappingProblem(s, -1, "id", "stands twice; submodel ids must differ"))
        ids.add(submodel.id)
        if not _ID_SHORT.fullmatch(submodel.idShort):
            found.append(MappingProblem(s, -1, "idShort", f"'{submodel.idShort}' {_AN_ID}"))
        taken: dict[str, bool] = {}  # path -> whether it is an element (or a collection)
        for e, element in enumerate(submodel.elements):
            problem = _path_problem(element.path, taken)
            if problem:
                found.append(MappingProblem(s, e, "path", problem))
            reference = parse_reference(element.value)
            problem = (
                reference
                if isinstance(reference, str)
                else _missing(reference, metrics, windows, ruleIds, formulas)
            )
            if problem:
                found.append(MappingProblem(s, e, "value", problem))
            if element.writable:
                found.append(MappingProblem(s, e, "writable", "'writable: true' is not yet in this version"))
    return found


_AN_ID: Final = "is no idShort; use letters, digits, '_' and '-', beginning with a letter"


def _path_problem(path: str, taken: dict[str, bool]) -> str:
    if "[" in path:
        return f"'{path}': lists are not yet in this version"
    parts = path.split(".")
    for part in parts:
        if not _ID_SHORT.fullmatch(part):
            return f"'{part}' {_AN_ID}"
    for depth in range(1, len(parts) + 1):
        above = ".".join(parts[:depth])
        leaf = depth == len(parts)
        if above in taken and (leaf or taken[above]):
            return f"'{above}' is already an element" if taken[above] else f"'{above}' has elements below it"
        taken[above] = leaf
    return ""


def _missing(
    reference: Reference,
    metrics: Mapping[str, Metric],
    windows: Collection[Window],
    ruleIds: Collection[str],
    formulas: Collection[str],
) -> str:
    match reference:
        case FormulaRef(name) if name not in formulas:
            return f"no formula '{name}' for this product{nearest(name, formulas)}"
        case MetricRef(name) if name not in metrics:
            return f"no metric '{name}'{nearest(name, metrics)}"
        case AlarmRef(name) if name not in ruleIds:
            return f"no rule '{name}' for this product{nearest(name, ruleIds)}"
        case WindowRef(every, aggregate, name):
            window = next((w for w in windows if w.every == every), None)
            if window is None:
                return f"no window '{every}'{nearest(every, [w.every for w in windows])}"
            if aggregate not in window.aggregates:
                return f"window '{every}' has no '{aggregate}'{nearest(aggregate, window.aggregates)}"
            if name not in metrics:
                return f"no metric '{name}'{nearest(name, metrics)}"
            if name not in window_metrics(window, metrics):
                return f"window '{every}' does not aggregate '{name}'"
    return ""
