"""What a `decode:` section with `udf: products/torano.py:decode` says."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from operators.convert import parse_size
from operators.document import Node, Problems, nearest

KEYS: Final = ("udf", "memory")
ARGUMENTS: Final = ("frames", "ports", "addresses", "received", "params")
DEFAULT_MEMORY: Final = 512_000_000
LEAST_MEMORY: Final = 64_000_000
_WHERE: Final = re.compile(r"(?P<file>products/[^/:]+\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class UdfSpec:
    """A Python file of the plant. source: its text; memory: bytes that its process may take;
    params: the product's numeric parameters, in file order."""

    file: str
    function: str
    source: str
    memory: int = DEFAULT_MEMORY
    params: tuple[str, ...] = ()


def parse_udf(
    node: Node, params: Mapping[str, float | str], sources: Mapping[str, str], problems: Problems
) -> UdfSpec | None:
    """The section, or None, with all that is wrong in `problems`. sources: Python files by path."""
    before = len(problems.errors)
    for key in node.keys:
        if key not in KEYS:
            told = f"unknown key{nearest(key, KEYS)}; beside 'udf' stands 'memory' alone"
            problems.add(node, told, key=key)
    memory = _memory(node.get("memory"), problems)
    given = node.get("udf")
    match = _WHERE.fullmatch(given.value) if given is not None and isinstance(given.value, str) else None
    if given is None or match is None:
        told = "a file of the plant and a function in it are expected, e.g. products/torano.py:decode"
        problems.add(given or node, told)
        return None
    source = sources.get(match["file"])
    if source is None:
        problems.add(given, f"no file {match['file']} in the plant{nearest(match['file'], sources)}")
        return None
    wrong = _wrong(match["file"], match["function"], source)
    if wrong:
        problems.add(given, wrong)
    if len(problems.errors) > before:
        return None
    numeric = tuple(name for name, value in params.items() if not isinstance(value, str))
    return UdfSpec(match["file"], match["function"], source, memory, numeric)


def _memory(node: Node | None, problems: Problems) -> int:
    if node is None:
        return DEFAULT_MEMORY
    size = parse_size(str(node.raw))
    if isinstance(size, str):
        problems.add(node, size)
        return DEFAULT_MEMORY
    if size < LEAST_MEMORY:
        problems.add(node, f"{node.raw} is less than Python itself needs; 64MB or more")
    return size


def _wrong(file: str, function: str, source: str) -> str:
    """What is wrong with the file itself; nothing of it is run."""
    try:
        tree = ast.parse(source, file)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        place = f":{error.lineno}:{error.offset}" if isinstance(error, SyntaxError) else ""
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        return f"{file}{place} is no Python: {what}"
    functions = {one.name: one for one in tree.body if isinstance(one, ast.FunctionDef)}
    if function not in functions:
        known = nearest(function, functions) or (f"; it has {', '.join(functions)}" if functions else "")
        return f"no function '{function}' in {file}{known}"
    arguments = functions[function].args
    names = [one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    for name in names:
        if name not in ARGUMENTS:
            mend = nearest(name, ARGUMENTS) or f"; they are some of {', '.join(ARGUMENTS)}"
            return f"{file}:{functions[function].lineno}  argument '{name}' of {function} is not known{mend}"
    if "frames" not in names:
        return f"{file}:{functions[function].lineno}  {function} has no argument 'frames'"
    return ""
