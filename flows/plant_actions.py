"""actions/*.yaml: what an autoAction does. This version checks them; nothing is sent yet."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from flows.plant_file import Action
from flows.plant_sources import id_problem
from operators.convert import convert, parse_duration
from operators.document import Node, Problems
from operators.expression.grammar import parse
from operators.expression.program import Scope, check_condition
from operators.expression.tree import ExpressionError

_LIMIT: Final = re.compile(r"([1-9][0-9]{0,5}) ?/ ?(.+)\Z")


class Actions:
    """The actions of a folder. known: the sound ones, by actionId, in file order; declared: every
    actionId that stands in a file, sound or not."""

    def __init__(self) -> None:
        self.known: dict[str, Action] = {}
        self.declared: dict[str, Node] = {}

    def check_names(self, name: str, scopes: Iterator[Scope], problems: Problems) -> None:
        """What an action's expressions name must be there for every product of a rule that starts it."""
        action, node = self.known.get(name), self.declared.get(name)
        if action is None or node is None:
            return
        for scope in scopes:
            for place, text in _expressions(node, action):
                for wrong in check_condition(parse(text), scope):
                    problems.add_caret(place, wrong.message, wrong.start, wrong.stop)


def read_actions(documents: Mapping[str, list[Node]], problems: Problems) -> Actions:
    """The actions of a folder, with every problem told."""
    actions = Actions()
    for node in (node for nodes in documents.values() for node in nodes):
        before = len(problems.errors)
        action = convert(node, Action, problems, partial=True)
        name = node.get("actionId")
        if name is not None and isinstance(name.value, str):
            if (told := id_problem(name.value)) is not None:
                problems.add(name, told)
            first = actions.declared.setdefault(name.value, node)
            if first is not node:
                problems.add(name, f"action '{name.value}' stands already in {first.file}:{first.line}")
        if action is not None:
            _check(node, action, problems)
            if len(problems.errors) == before:
                actions.known[action.actionId] = action
    return actions


def _check(node: Node, action: Action, problems: Problems) -> None:
    if node.get("send") is not None and action.send is not None and not isinstance(action.send.json, dict):
        problems.add(_at(node, "send", "json"), "a mapping is expected: the members of the request")
    if not 0 <= action.retries <= 100:
        problems.add(_at(node, "retries"), "must be 0 to 100")
    if action.limit is not None:
        match = _LIMIT.match(action.limit)
        length = parse_duration(match.group(2)) if match is not None else ""
        if not isinstance(length, int) or length <= 0:
            problems.add(_at(node, "limit"), "so many in so long is expected; write for example 1/10m")
    for place, text in _expressions(node, action):
        try:
            parse(text)
        except ExpressionError as error:
            problems.add_caret(place, error.message, error.start, error.stop)


def _expressions(node: Node, action: Action) -> Iterator[tuple[Node, str]]:
    if action.interlock is not None:
        yield _at(node, "interlock"), action.interlock
    if action.verify is not None:
        yield _at(node, "verify", "condition"), action.verify.condition


def _at(node: Node, *keys: str) -> Node:
    for key in keys:
        node = node.get(key) or node
    return node
