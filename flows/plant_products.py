"""products/*.yaml: from nodes to typed products."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from flows.plant_file import Product
from flows.plant_later import LATER, DecodeSection
from flows.plant_sources import id_problem
from operators.contract.spec import Metric
from operators.convert import convert
from operators.decode.routing import filter_problem
from operators.decode.spec import parse_decode
from operators.document import Node, Problems, nearest
from operators.expression.ucum import UnitError, unit_of
from operators.state.references import check_mapping
from operators.windows.spec import device_windows, supported
from rules.check import number_of

RESERVED_COLUMNS: Final = ("_ts", "_ingest_ts", "_device", "_seq", "_historical")
LONGEST_METRIC: Final = 128
MOST_METRICS: Final = 4_096
_COLUMN: Final = re.compile(r"[^A-Za-z0-9_]")
_BAD_NAME: Final = re.compile(r"[`\x00-\x1f\x7f]")
_TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "string": (str,),
}


@dataclass(slots=True, eq=False)
class Products:
    """good: products without a problem. known: these, and what could be made out of the others, so
    that what names them can be checked as well. declared: every productId that stands in a file.
    complete: no file was unreadable, so that an undeclared product is really not there."""

    good: dict[str, Product] = field(default_factory=dict)
    known: dict[str, Product] = field(default_factory=dict)
    complete: bool = True
    declared: dict[str, Node] = field(default_factory=dict)

    @property
    def numeric_params(self) -> dict[str, list[str]]:
        """productId -> parameters whose default is a number."""
        return {
            name: [param for param, value in product.params.items() if not isinstance(value, str)]
            for name, product in self.known.items()
        }

    def check_references(
        self,
        rules: Mapping[str, Sequence[str]],
        formulas: Mapping[str, Collection[str]],
        problems: Problems,
    ) -> None:
        """What products name of rules and formulas in their AAS mappings. rules: productId -> ruleIds;
        formulas: productId -> formulaIds."""
        for name, product in self.known.items():
            node = self.declared[name].get("aas")
            if product.aas is None or node is None or _has_problem(node, problems):
                continue
            if "{device_id}" not in product.aas.asset:
                told = "needs '{device_id}', or all devices are one asset"
                problems.add(_below(node, ("asset",)), told)
            for one in check_mapping(
                product.aas,
                product.metrics,
                device_windows(product.windows),
                rules.get(name, ()),
                formulas.get(name, ()),
            ):
                element = ("elements", one.element) if one.element >= 0 else ()
                place = _below(node, ("submodels", one.submodel, *element, one.key))
                problems.add(place, one.text)


def read_products(
    documents: Mapping[str, list[Node]],
    rows: Mapping[str, Mapping[str, str]],
    problems: Problems,
    sources: Mapping[str, bytes] | None = None,
) -> Products:
    """Every product of a folder. rows: devices.csv, whose columns may be parameters of `decode:`; sources:
    files of the plant, of which the Python ones decode."""
    python = {
        path: data.decode("utf-8", "replace")
        for path, data in (sources or {}).items()
        if path.endswith(".py")
    }
    products = Products()
    tables: dict[str, str] = {}
    numeric = _numeric_columns(rows)
    if not documents:
        return products
    for path, nodes in documents.items():
        if not nodes:
            products.complete = False
            if not any(problem.file == path for problem in problems.found):
                problems.found.append(_empty(path))
        for node in nodes:
            name = node.get("productId")
            if name is None or not isinstance(name.value, str):
                products.complete = False
            else:
                if name.value in products.declared:
                    first = products.declared[name.value]
                    problems.add(name, f"product '{name.value}' stands already in {first.file}:{first.line}")
                    continue
                products.declared[name.value] = node
                table = _COLUMN.sub("_", name.value)
                if table in tables:
                    told = f"its table telemetry_{table} is also that of '{tables[table]}'; rename one"
                    problems.add(name, told)
                tables.setdefault(table, name.value)
            before = len(problems.errors)
            product = _read_product(node, numeric, problems, python)
            if product is not None:
                products.known[product.productId] = product
                if len(problems.errors) == before:
                    products.good[product.productId] = product
    return products


def _numeric_columns(rows: Mapping[str, Mapping[str, str]]) -> dict[str, float]:
    """Columns of devices.csv in which a number stands: they are parameters too."""
    found: dict[str, float] = {}
    for row in rows.values():
        for name, cell in row.items():
            if cell and name not in found and (value := number_of(cell)) is not None:
                found[name] = value
    return found


def _empty(path: str) -> Any:
    from operators.document import Problem

    return Problem(path, 1, 1, "", "the file is empty; it needs productId, version, decode and metrics")


def _read_product(
    node: Node, columns: Mapping[str, float], problems: Problems, python: Mapping[str, str]
) -> Product | None:
    """The product, or as much of it as is sound; None without a name or metrics."""
    product = convert(node, Product, problems, LATER, partial=True)
    name, metrics = node.get("productId"), node.get("metrics")
    if metrics is not None and metrics.is_map:
        _check_names(metrics, problems)
        if not metrics.value:
            problems.add(metrics, "at least one metric is expected")
    if product is None or name is None or metrics is None:
        return None
    if not isinstance(product.productId, str) or not isinstance(product.metrics, dict):
        return None
    _told(name, id_problem(product.productId), problems)
    version = node.get("version")
    if version is not None and isinstance(version.value, int) and product.version < 1:
        problems.add(version, "a whole number from 1 is expected")
    for one in node.get("topics") or ():
        if isinstance(one.value, str):
            _told(one, filter_problem(one.value), problems)
    for key, below in metrics.items():
        metric = product.metrics.setdefault(key, Metric())
        metric.name = key
        if not _has_problem(below, problems):
            _check_metric(below, metric, problems)
    for param in product.params:
        if _BAD_NAME.search(param) or not param:
            problems.add(node.get("params") or node, "no name of a parameter", key=param)
    _check_sequence(node, product, problems)
    _check_windows(node, product, problems)
    section: Any = product.decode
    if isinstance(section, DecodeSection):
        params = {**columns, **product.params}
        decode = parse_decode(section.node, product.metrics, params, problems, python)
        if decode is not None:
            product.decode = decode
    product.windows = [window for window in product.windows if window is not None]
    return product


def _has_problem(node: Node, problems: Problems) -> bool:
    """Whether anything was wrong at a node or below it."""
    at = node.path
    return any(
        one.file == node.file
        and not one.warning
        and one.path.startswith(at)
        and one.path[len(at) :][:1] in ("", ".", "[")
        for one in problems.found
    )


def _check_names(node: Node, problems: Problems) -> None:
    """Names of metrics: usable in expressions, and different as columns of the historian."""
    columns: dict[str, str] = dict.fromkeys(RESERVED_COLUMNS, "")
    if len(node.keys) > MOST_METRICS:
        problems.add(node, f"at most {MOST_METRICS} metrics are taken")
    for name in node.keys:
        if not name or len(name) > LONGEST_METRIC or _BAD_NAME.search(name):
            told = f"a name has 1 to {LONGEST_METRIC} characters, no backtick and no control characters"
            problems.add(node, told, key=name)
            continue
        if name.startswith("_"):
            problems.add(node, "a name that begins with '_' is internal to decode:; rename it", key=name)
            continue
        column = _COLUMN.sub("_", name)
        for mine in (column, f"{column}__quality"):
            if mine in columns:
                other = columns[mine]
                whose = f"also that of '{other}'" if other else "one of the historian's own"
                problems.add(node, f"its column {mine} in the historian is {whose}; rename it", key=name)
            columns.setdefault(mine, name)


def _check_metric(node: Node, metric: Metric, problems: Problems) -> None:
    numeric = metric.type in ("number", "integer")
    for key in ("range", "max_step"):
        below = node.get(key)
        if below is not None and below.value is not None and not numeric:
            problems.add(node, f"'{key}' goes with numbers, not with type {metric.type}", key=key)
    unit = node.get("unit")
    if unit is not None and metric.unit is not None:
        try:
            unit_of(metric.unit)
        except UnitError as error:
            problems.add(unit, str(error))
    if metric.range is not None:
        low, high = metric.range
        if low is not None and high is not None and low > high:
            problems.add(node.get("range") or node, f"the lower bound {low:g} lies above {high:g}; swap them")
    if metric.max_step is not None and metric.max_step <= 0:
        problems.add(node.get("max_step") or node, "a number above 0 is expected")
    values = node.get("values")
    if metric.values is not None and values is not None:
        if not metric.values:
            problems.add(values, "the list is empty, so that nothing is allowed; leave 'values' out")
        for one in values:
            kinds = _TYPES[metric.type]
            if not isinstance(one.value, kinds) or (isinstance(one.value, bool) and metric.type != "boolean"):
                problems.add(one, f"{one.raw!r} is no {metric.type}, as the type of the metric says")
    if metric.on_breach == "clamp" and metric.range is None and metric.max_step is None:
        problems.add(node.get("on_breach") or node, "'clamp' needs a 'range' or a 'max_step' to clamp to")


def _check_sequence(node: Node, product: Product, problems: Problems) -> None:
    """`contract.sequence`: a metric that counts."""
    contract = node.get("contract")
    place = contract.get("sequence") if contract is not None else None
    told = getattr(product.contract, "sequence", None)
    if place is None or told is None or _has_problem(place, problems):
        return
    metric = product.metrics.get(told.metric)
    if metric is None:
        known = f"no metric '{told.metric}' in {product.productId}{nearest(told.metric, product.metrics)}"
        problems.add(place.get("metric") or place, known)
    elif metric.type not in ("number", "integer"):
        problems.add(place.get("metric") or place, f"'{told.metric}' is a {metric.type}; a number counts")
    if told.wraps is not None and not 2 <= told.wraps <= 2**53:
        problems.add(
            place.get("wraps") or place,
            "a whole number from 2 is expected: 256 for one byte, 65536 for two, nothing if it never wraps",
        )


def _check_windows(node: Node, product: Product, problems: Problems) -> None:
    listed = node.get("windows")
    seen: set[str] = set()
    for window, below in zip(product.windows, listed or (), strict=False):
        if window is None:
            continue
        every = below.get("every") or below
        told = supported(window)
        if told is not None:
            key, colon, rest = told.partition(": ")
            place = below.get(key) if colon else None
            problems.add(place or below, rest if place is not None else told)
        elif window.key in seen:
            problems.add(every, f"a window of {window.key} stands already above; keep one")
        if window.by:
            seen.add(window.key)
        metrics = below.get("metrics")
        for one in metrics or ():
            if not isinstance(one.value, str):
                continue
            name = one.value
            if name not in product.metrics:
                problems.add(
                    one, f"no metric '{name}' in {product.productId}{nearest(name, product.metrics)}"
                )
            elif product.metrics[name].type not in ("number", "integer"):
                problems.add(one, f"'{name}' is a {product.metrics[name].type}; windows are over numbers")
        if metrics is not None and metrics.is_list and not metrics.value:
            problems.add(metrics, "the list is empty; leave 'metrics' out for all numeric ones")
        if below.get("aggregates") is not None and not window.aggregates:
            problems.add(
                below.get("aggregates") or below, "the list is empty; leave it out for the usual ones"
            )


def _below(node: Node | None, place: tuple[str | int, ...]) -> Node:
    """The node under a path of keys and list places, or the nearest one above it."""
    assert node is not None
    for part in place:
        child = node.get(part) if isinstance(part, str) else None
        if isinstance(part, int) and node.is_list and part < len(node.value):
            child = node.value[part]
        if child is None:
            return node
        node = child
    return node


def _told(node: Node | None, text: str | None, problems: Problems) -> None:
    if node is not None and text is not None:
        problems.add(node, text)
