"""formulas/*.yaml: from nodes to the trees that conditions and mappings name.

A formula that a customer has for himself stands beside the one of the same name for all others; they
become one tree that asks `device.customer_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from flows.plant_file import Product
from flows.plant_products import Products
from flows.plant_sources import id_problem
from operators.convert import convert
from operators.document import Node, Problems, nearest
from operators.expression.formula_spec import READING, Formula, Formulas, ProductFormula
from operators.expression.formulas import formulas_of
from operators.expression.grammar import parse
from operators.expression.program import Scope, check_value, kind_of
from operators.expression.tree import Bool, Call, Compare, Expr, ExpressionError, Name, Null, Text, walk
from operators.windows.spec import device_windows, window_metrics

_CUSTOMER: Final = Name(0, 1, "device", ("customer_id",), "device.customer_id")


@dataclass(slots=True, eq=False)
class _Written:
    """A formula as it stands in a file; place: of its text."""

    formula: Formula
    tree: Expr
    place: Node


def read_formulas(
    documents: Mapping[str, list[Node]],
    products: Products,
    scope_of: Callable[[Product], Scope],
    customers: bool,
    problems: Problems,
) -> Formulas:
    """Every formula of a folder. scope_of: the names that a product's expressions may use; customers:
    whether devices.csv has a column customer_id."""
    found = Formulas()
    written: dict[str, dict[str, list[_Written]]] = {}
    for node in (node for nodes in documents.values() for node in nodes):
        one = _read(node, customers, problems)
        if one is None:
            continue
        for name in one.formula.products:
            if name not in products.known:
                if name not in products.declared and products.complete:
                    problems.add(
                        node.get("productId") or node, f"no product '{name}'{nearest(name, products.known)}"
                    )
                continue
            found.declared.setdefault(name, {})[one.formula.formulaId] = one.formula.over
            same = written.setdefault(name, {}).setdefault(one.formula.formulaId, [])
            problem = _beside(one, same)
            if problem:
                problems.add(node.get("formulaId") or node, problem)
            else:
                same.append(one)
    for name, by_id in written.items():
        product = products.known[name]
        found.of[name] = _checked(by_id, product, scope_of(product), problems)
    return found


def _read(node: Node, customers: bool, problems: Problems) -> _Written | None:
    formula = convert(node, Formula, problems)
    name, text = node.get("formulaId"), node.get("formula")
    if formula is None or name is None or text is None:
        return None
    told = id_problem(formula.formulaId)
    if told is not None:
        problems.add(name, told)
        return None
    if formula.customer_id is not None and not customers:
        problems.add(node.get("customer_id") or node, "devices.csv has no column customer_id to ask")
        return None
    try:
        tree = parse(formula.formula, window="" if formula.over == READING else formula.over)
    except ExpressionError as error:
        problems.add_caret(text, error.message, error.start, error.stop)
        return None
    return _Written(formula, tree, text)


def _beside(one: _Written, others: list[_Written]) -> str:
    """What is wrong with a formula beside others of its name and product."""
    for other in others:
        where = f"{other.place.file}:{other.place.line}"
        if other.formula.customer_id == one.formula.customer_id:
            return f"formula '{one.formula.formulaId}' stands already in {where}"
        if other.formula.over != one.formula.over:
            return (
                f"formula '{one.formula.formulaId}' in {where} is over {other.formula.over}; they must agree"
            )
    return ""


def _checked(
    written: Mapping[str, list[_Written]], product: Product, scope: Scope, problems: Problems
) -> dict[str, ProductFormula]:
    """The sound formulas of one product, each after those that it names."""
    trees = {name: _chosen(ones) for name, ones in written.items()}
    over = {name: ones[0].formula.over for name, ones in written.items()}
    found: dict[str, ProductFormula] = {}
    for name in _in_order(trees, written, problems):
        scope.formulas = {one.formulaId: one.tree for one in found.values() if one.over == over[name]}
        _about(scope, over[name], product)
        sound = True
        for one in written[name]:
            told = _wrong(one, over, product, scope)
            for error in told:
                problems.add_caret(one.place, error.message, error.start, error.stop)
            sound = sound and not told
        if sound:
            kind = kind_of(trees[name], scope)
            found[name] = ProductFormula(
                name, over[name], trees[name], "bool" if kind == "bool" else "number"
            )
    return found


def _about(scope: Scope, over: str, product: Product) -> None:
    """The scope of a formula over readings or over a window."""
    window = next((one for one in device_windows(product.windows) if one.every == over), None)
    scope.window = "" if over == READING else over
    names = window_metrics(window, product.metrics) if window is not None else []
    scope.aggregates = dict.fromkeys(names, window.aggregates) if window is not None else {}


def _wrong(one: _Written, over: Mapping[str, str], product: Product, scope: Scope) -> list[ExpressionError]:
    tree, mine = one.tree, one.formula.over
    if scope.window and not any(window.every == scope.window for window in device_windows(product.windows)):
        return [
            ExpressionError(
                f"{product.productId} has no window of {scope.window}; add it to its windows",
                tree.start,
                tree.stop,
            )
        ]
    for node in walk(tree):
        if isinstance(node, Name) and node.root == "formula" and over.get(node.parts[0], mine) != mine:
            told = f"formula '{node.parts[0]}' is over {over[node.parts[0]]}, this one over {mine}"
            return [ExpressionError(told, node.start, node.stop)]
    problems = check_value(tree, scope)
    if not problems and kind_of(tree, scope) in ("text", "null"):
        problems = [ExpressionError("a formula is a number or a condition", tree.start, tree.stop)]
    return problems


def _chosen(ones: list[_Written]) -> Expr:
    """The tree that takes each customer's own formula, and else the one for all."""
    tree: Expr = next((one.tree for one in ones if one.formula.customer_id is None), Null(0, 1))
    for one in ones:
        if one.formula.customer_id is not None:
            whose = Compare(0, 1, "==", _CUSTOMER, Text(0, 1, one.formula.customer_id))
            known = Call(0, 1, "default", (whose, Bool(0, 1, False)))
            tree = Call(0, 1, "if", (known, one.tree, tree))
    return tree


def _in_order(
    trees: Mapping[str, Expr], written: Mapping[str, list[_Written]], problems: Problems
) -> Iterator[str]:
    """The formulas, each after those that it names; those in a cycle are told and left out."""
    done: set[str] = set()
    refused: set[str] = set()

    def visit(name: str, above: tuple[str, ...]) -> Iterator[str]:
        if name in done or name in refused or name not in trees:
            return
        for below in formulas_of(trees[name]):
            if below in (*above, name):
                cycle = [*above, name][[*above, name].index(below) :]
                refused.update(cycle)
                one = written[name][0]
                place = next(n for n in walk(trees[name]) if isinstance(n, Name) and n.parts == (below,))
                told = f"the formulas go round in a circle: {' -> '.join([*cycle, below])}"
                problems.add_caret(one.place, told, place.start, place.stop)
                return
            yield from visit(below, (*above, name))
        if name not in refused:
            done.add(name)
            yield name

    for name in trees:
        yield from visit(name, ())
