"""rules/*.yaml: from nodes to typed rules, checked against the products that they are for."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import msgspec

from flows.plant_actions import Actions
from flows.plant_file import Product, Shards
from flows.plant_later import LATER
from flows.plant_products import Products
from flows.plant_sources import id_problem
from flows.plant_tables import Table
from operators.convert import convert, shown
from operators.document import Node, Problems, nearest
from operators.expression.formula_spec import Formulas
from operators.expression.tree import Expr
from rules.check import Known, check_rule, number_of
from rules.spec import RULE_TYPES, Rule, RuleProduct
from rules.suppression import check_suppression

STALE_AFTER_EXPECTED: Final = 3
_NO_FORMULAS: Final[Mapping[str, Expr]] = MappingProxyType({})


def rule_product(product: Product, formulas: Mapping[str, Expr] = _NO_FORMULAS) -> RuleProduct:
    """What rules need to know of a product; formulas: those that its conditions may name."""
    return RuleProduct(
        productId=product.productId,
        metrics={name: metric.type for name, metric in product.metrics.items()},
        params=product.params,
        stale_after=STALE_AFTER_EXPECTED * (product.expected_every or 0),
        live_within=product.live_within,
        units={name: metric.unit for name, metric in product.metrics.items() if metric.unit},
        formulas=formulas,
        values={
            name: [value for value in metric.values if isinstance(value, str)]
            for name, metric in product.metrics.items()
            if metric.type == "string" and metric.values
        },
    )


def rule_version(plain: Any) -> str:
    """First 12 hex digits of the SHA-256 of a rule's canonical JSON: the rule as written, keys
    sorted, no blanks, whole numbers without a fraction."""
    text = json.dumps(_canonical(plain), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_canonical(below) for below in value]
    if isinstance(value, float) and abs(value) < 1 << 53 and value == int(value):
        return int(value)
    return value


def read_rules(
    documents: Mapping[str, list[Node]],
    products: Products,
    devices: Table | None,
    actions: Actions,
    formulas: Formulas,
    shards: Shards,
    problems: Problems,
) -> tuple[list[Rule], dict[str, list[str]]]:
    """The sound rules of a folder, in the order of files and documents; and productId -> every
    ruleId that stands in a file for it, sound or not."""
    checker = _Checker(products, devices, actions, formulas, shards, problems)
    rules: list[Rule] = []
    declared: dict[str, list[str]] = {}
    seen: dict[str, Node] = {}
    for node in (node for nodes in documents.values() for node in nodes):
        rule = checker.read(node)
        name = node.get("ruleId")
        if name is not None and isinstance(name.value, str):
            if name.value in seen:
                first = seen[name.value]
                problems.add(name, f"rule '{name.value}' stands already in {first.file}:{first.line}")
            seen.setdefault(name.value, node)
            product = node.get("productId")
            for one in (product if product.is_list else [product]) if product is not None else ():
                declared.setdefault(str(one.value), []).append(name.value)
        if rule is not None:
            rules.append(rule)
    checker.check_suppression(rules, seen)
    return rules, declared


class _Checker:
    """What the rules of a folder are checked against."""

    def __init__(
        self,
        products: Products,
        devices: Table | None,
        actions: Actions,
        formulas: Formulas,
        shards: Shards,
        problems: Problems,
    ) -> None:
        self.problems = problems
        self.actions = actions
        self.nodes: dict[str, Node] = {}
        self.declared = products.declared
        self.complete = products.complete
        self.known = Known(
            {name: rule_product(product, formulas.trees(name)) for name, product in products.known.items()},
            devices.columns if devices is not None else (),
            _samples(devices),
            {
                name: {metric: one.range for metric, one in product.metrics.items() if one.range is not None}
                for name, product in products.known.items()
            },
            actions.declared,
            shards.count,
            shards.by,
        )

    def check_suppression(self, rules: list[Rule], declared: Mapping[str, Node]) -> None:
        """What only all rules together show."""
        for rule, wrong in check_suppression(rules, declared):
            self.problems.add(_below(self.nodes[rule.ruleId], wrong.field), wrong.text)

    def read(self, node: Node) -> Rule | None:
        problems = self.problems
        before = len(problems.errors)
        name = node.get("ruleId")
        if name is not None and isinstance(name.value, str) and name.value:
            _root(node, name.value)
        kind = self._type(node)
        if kind is None:
            return None
        rule = convert(node, kind, problems, LATER, partial=True)
        if rule is None or name is None:
            return None
        if isinstance(rule.ruleId, str) and (told := id_problem(rule.ruleId)) is not None:
            problems.add(name, told)
        rule.version = rule_version(node.plain())
        required = _required(kind)
        if any(getattr(rule, key) is None for key in required) or None in rule.products:
            return None
        # products that are there but could not be made out: their own problems come first
        absent = [one for one in rule.products if one not in self.known.products]
        hidden = [one for one in absent if one in self.declared or not self.complete]
        sound = [one for one in rule.products if one not in hidden]
        if not sound and rule.products:
            return None
        told_at = {(one.line, one.column) for one in problems.errors[before:]}
        for one in check_rule(msgspec.structs.replace(rule, productId=sound), self.known):
            place = _below(node, one.field)
            if place is not node and (place.line, place.column) in told_at:
                continue  # it could not be read, so its default stands there
            if one.start >= 0 and isinstance(place.value, str):
                problems.add_caret(place, one.text, one.start, one.stop)
                if one.warning:
                    problems.found[-1] = problems.found[-1]._replace(warning=True)
            elif one.warning:
                problems.warn(place, one.text)
            else:
                problems.add(place, one.text)
        if rule.autoAction is not None:
            self.actions.check_names(rule.autoAction, self.known.scopes(rule), problems)
        if len(problems.errors) > before:
            return None
        self.nodes.setdefault(rule.ruleId, node)
        return rule

    def _type(self, node: Node) -> type[Rule] | None:
        """The Struct of a rule's kind; a document without one is read as a threshold rule, so that
        what else is wrong with it is told too."""
        kind = node.get("type")
        if kind is None or kind.value is None:
            if node.is_map:
                self.problems.add(node, f"'type' is missing; known: {', '.join(RULE_TYPES)}")
            return RULE_TYPES["threshold"]
        if kind.is_map or kind.is_list:
            self.problems.add(kind, f"a text is expected, not {shown(kind)}; known: {', '.join(RULE_TYPES)}")
            return None
        if kind.value not in RULE_TYPES:
            mend = nearest(kind.raw, RULE_TYPES) or f"; known: {', '.join(RULE_TYPES)}"
            self.problems.add(kind, f"unknown type {shown(kind)}{mend}")
            return None
        return RULE_TYPES[str(kind.value)]


@functools.cache
def _required(kind: type[Rule]) -> tuple[str, ...]:
    """The keys without which a rule of a kind cannot be checked further."""
    return tuple(one.name for one in msgspec.structs.fields(kind) if one.required and one.name != "severity")


def _below(node: Node, field: str) -> Node:
    """The node under a key, `a.b` and `a.0` being below `a`; the nearest above where it is not there."""
    for key in field.split("."):
        if node.is_list and key.isdigit() and int(key) < len(node.value):
            node = node.value[int(key)]
        else:
            node = node.get(key) or node
    return node


def _samples(devices: Table | None) -> dict[str, dict[str, str]]:
    """Two rows that say of every column whether any cell is filled and whether any is a number:
    all that the check of a rule asks, whatever the number of devices."""
    filled: dict[str, str] = {}
    numeric: dict[str, str] = {}
    for row in devices.rows.values() if devices is not None else ():
        for name, cell in row.items():
            if not cell or name in numeric:
                continue
            filled.setdefault(name, cell)
            if number_of(cell) is not None:
                numeric[name] = cell
    return {"filled": filled, "numeric": numeric}


def _root(node: Node, name: str) -> None:
    """Paths of a rule's nodes begin with its ruleId, since a file holds many."""
    node.path = f"{name}.{node.path}" if node.path else name
    if isinstance(node.value, dict):
        children = list(node.value.values())
    else:
        children = list(node)
    for child in children:
        _root(child, name)
