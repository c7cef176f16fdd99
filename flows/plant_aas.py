"""The `aas:` section of a product: paths of elements, and what their values refer to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from operators.contract.spec import Metric
from operators.convert import NOT_YET
from operators.document import nearest
from operators.expression.grammar import parse
from operators.expression.tree import Call, Expr, ExpressionError, Name
from operators.state.spec import AasMapping, Element, Submodel
from operators.windows.spec import Window, window_metrics

Place = tuple[str | int, ...]
Found = Iterator[tuple[Place, str]]

ALARM_FLAGS: Final = ("active",)
LATER_FLAGS: Final = ("acknowledged", "latched", "shelved", "suppressed", "out_of_service")
WINDOW_FACTS: Final = ("good", "bad", "coverage")  # they stand in every line of a window
_ALARM: Final = re.compile(r"alarm\.(?:`(?P<quoted>[^`]+)`|(?P<plain>\w+))\.(?P<flag>\w+)\Z")
_ID_SHORT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*\Z")  # AASd-002


def check_mapping(
    mapping: AasMapping, metrics: Mapping[str, Metric], windows: Sequence[Window], rules: Collection[str]
) -> Found:
    """What is wrong, as (place below `aas:`, text). rules: ruleIds of the product."""
    if "{device_id}" not in mapping.asset:
        yield ("asset",), "every device needs an asset of its own; put {device_id} into it"
    ids: dict[str, int] = {}
    for number, submodel in enumerate(mapping.submodels):
        place: Place = ("submodels", number)
        yield from _check_submodel(place, submodel)
        if submodel.id in ids:
            yield (*place, "id"), f"stands already in submodels[{ids[submodel.id]}]"
        ids.setdefault(submodel.id, number)
        for which, element in enumerate(submodel.elements):
            here = (*place, "elements", which)
            if element.writable:
                yield (*here, "writable"), f"'writable: true' {NOT_YET}"
            told = _value_problem(element, metrics, windows, rules)
            if told is not None:
                yield (*here, "value"), told


def _check_submodel(place: Place, submodel: Submodel) -> Found:
    if "{device_id}" not in submodel.id:
        yield (*place, "id"), "every device needs a submodel of its own; put {device_id} into it"
    if not _ID_SHORT.match(submodel.idShort):
        yield (*place, "idShort"), _id_short(submodel.idShort)
    leaves: set[str] = set()
    inner: set[str] = set()
    for which, element in enumerate(submodel.elements):
        here = (*place, "elements", which, "path")
        parts = element.path.split(".")
        wrong = next((part for part in parts if not _ID_SHORT.match(part)), None)
        if wrong is not None:
            yield here, _id_short(wrong)
            continue
        above = {".".join(parts[:depth]) for depth in range(1, len(parts))}
        if element.path in leaves:
            yield here, f"'{element.path}' stands twice; keep one"
        elif element.path in inner or above & leaves:
            yield here, f"'{element.path}' is a value and a collection at once; rename one"
        leaves.add(element.path)
        inner |= above


def _id_short(text: str) -> str:
    return f"'{text[:60]}' is no idShort; it begins with a letter and holds letters, digits and '_'"


def _value_problem(
    element: Element, metrics: Mapping[str, Metric], windows: Sequence[Window], rules: Collection[str]
) -> str | None:
    if element.value in metrics:
        return None
    if (alarm := _ALARM.match(element.value)) is not None:
        return _alarm_problem(alarm["plain"] or alarm["quoted"], alarm["flag"], rules)
    try:
        tree = parse(element.value)
    except ExpressionError as error:
        return f"{error.message}; a reference is a metric, window.`1m`.mean(x) or alarm.`ruleId`.active"
    if isinstance(tree, Call) and tree.target is not None and tree.target.root == "window":
        return _window_problem(tree, tree.target, metrics, windows)
    if not isinstance(tree, Name):
        return "a reference is expected: a metric, window.`1m`.mean(x) or alarm.`ruleId`.active"
    name = ".".join(tree.parts)
    if tree.root in ("formula", "desired") or (tree.root == "" and tree.parts[0] == "desired"):
        return f"a {tree.root or 'desired'} value {NOT_YET}"
    if tree.root == "alarm":
        return "an alarm's flag is written alarm.`ruleId`.active"
    if tree.root in ("", "metrics"):
        return None if name in metrics else f"no metric '{name}'{nearest(name, metrics)}"
    return f"'{tree.root}' has no value here; write a metric, window.`1m`.mean(x) or alarm.`ruleId`.active"


def _alarm_problem(rule: str, flag: str, rules: Collection[str]) -> str | None:
    if rule not in rules:
        return f"no rule '{rule}' for this product{nearest(rule, rules)}"
    if flag in LATER_FLAGS:
        return f"the flag '{flag}' {NOT_YET}"
    return None if flag in ALARM_FLAGS else f"no flag '{flag}'{nearest(flag, ALARM_FLAGS) or '; active'}"


def _window_problem(
    tree: Call, target: Name, metrics: Mapping[str, Metric], windows: Sequence[Window]
) -> str | None:
    every = ".".join(target.parts)
    window = next((one for one in windows if one.every == every), None)
    if window is None:
        return f"no window '{every}' in this product{nearest(every, [one.every for one in windows])}"
    known = (*window.aggregates, *WINDOW_FACTS)
    if tree.function not in known:
        mend = nearest(tree.function, known) or "; add it to its aggregates"
        return f"the window {every} has no '{tree.function}'{mend}"
    argument: Expr | None = tree.arguments[0] if len(tree.arguments) == 1 else None
    if not isinstance(argument, Name):
        return f"a metric is expected, e.g. window.`{every}`.{tree.function}(x)"
    name = ".".join(argument.parts)
    of = window_metrics(window, metrics)
    return None if name in of else f"the window {every} has no metric '{name}'{nearest(name, of)}"
