"""YAML documents with places, and the problems found in them.

`load_yaml` reads the YAML 1.2 core scalars that FORMATS section 1 allows and refuses what makes
YAML dangerous: aliases, merges, duplicate keys, tags, size and depth beyond a cap. Every value
is a `Node` that knows its file, line, column and YAML path, so that every later check can say
where; a check adds a `Problem` and goes on, so that all problems are printed at once.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import yaml

MAX_BYTES = 4 << 20
MAX_DEPTH = 40
LONGEST_NUMBER = 400  # digits
LONGEST_SHOWN = 600
WIDEST_SOURCE = 120  # characters of an expression that are shown above a caret

_INTEGER = re.compile(r"[-+]?[0-9]+\Z")
_HEX = re.compile(r"0x[0-9a-fA-F]+\Z")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml where it was built in
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")


class Problem(NamedTuple):
    """One thing wrong, or (`warning`) doubtful; lines and columns count from 1."""

    file: str
    line: int
    column: int
    path: str
    text: str
    source: str = ""  # a line of an expression, shown with a caret under `caret_from..caret_to`
    caret_from: int = 0
    caret_to: int = 0
    warning: bool = False

    def render(self) -> str:
        """`file:line:column`, two spaces, `path: what; mend`; then the caret lines, if any."""
        where = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        told = ("warning: " if self.warning else "") + _short(self.text)
        head = f"{where}  {_short(self.path)}: {told}" if self.path else f"{where}  {told}"
        if not self.source:
            return head
        width = max(1, self.caret_to - self.caret_from)
        return f"{head}\n    {self.source}\n    {' ' * self.caret_from}^{'~' * (width - 1)}"


def _short(text: str) -> str:
    """What is shown of a text that somebody else chose."""
    return text if len(text) <= LONGEST_SHOWN else f"{text[: LONGEST_SHOWN - 3]}..."


@dataclass(slots=True, eq=False)
class Node:
    """A YAML value with its place. `value` is dict[str, Node], list[Node], or a scalar
    (str, int, float, bool, None). `keys` holds, for a mapping, the place of each key.
    `quoted` tells a quoted scalar; `raw` is a scalar's text as written (`${...}` included)."""

    value: Any
    file: str
    line: int
    column: int
    path: str
    raw: str = ""
    quoted: bool = False
    masked: bool = False  # `value` holds a resolved `${...}`; only `raw`, the reference, may be shown
    keys: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def is_map(self) -> bool:
        return isinstance(self.value, dict)

    @property
    def is_list(self) -> bool:
        return isinstance(self.value, list)

    def get(self, key: str) -> Node | None:
        """The child under `key` of a mapping; None where it is not, or this is no mapping."""
        return self.value.get(key) if isinstance(self.value, dict) else None

    def items(self) -> Iterator[tuple[str, Node]]:
        """Key and child of a mapping, in file order."""
        yield from self.value.items() if isinstance(self.value, dict) else ()

    def __iter__(self) -> Iterator[Node]:
        """The children of a list."""
        yield from self.value if isinstance(self.value, list) else ()

    def plain(self) -> Any:
        """The value without places: dicts, lists and scalars."""
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value


class Problems:
    """All that was found wrong, in the order of being found; `sorted()` is by place."""

    def __init__(self) -> None:
        self.found: list[Problem] = []

    def add(self, node: Node, text: str, *, key: str | None = None, path: str | None = None) -> None:
        """A problem at a node, or at one of its keys."""
        self.found.append(self._at(node, text, key, path))

    def warn(self, node: Node, text: str, *, key: str | None = None, path: str | None = None) -> None:
        """Something doubtful at a node, or at one of its keys."""
        self.found.append(self._at(node, text, key, path)._replace(warning=True))

    def add_caret(self, node: Node, text: str, start: int, stop: int, *, path: str | None = None) -> None:
        """A problem at characters start..stop (from 0) of a scalar node that holds an expression."""
        column = node.column + start + (1 if node.quoted else 0)
        source = str(node.value).splitlines()[0] if str(node.value) else ""
        if len(source) > WIDEST_SOURCE:
            begin = max(0, min(start - WIDEST_SOURCE // 4, len(source) - WIDEST_SOURCE))
            source = source[begin : begin + WIDEST_SOURCE]
            start, stop = start - begin, min(stop - begin, WIDEST_SOURCE)
        self.found.append(Problem(node.file, node.line, column, path or node.path, text, source, start, stop))

    @staticmethod
    def _at(node: Node, text: str, key: str | None, path: str | None) -> Problem:
        line, column, at = node.line, node.column, node.path
        if key is not None:
            line, column = node.keys.get(key, (line, column))
            at = f"{at}.{key}" if at else key
        return Problem(node.file, line, column, path if path is not None else at, text)

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.found if not problem.warning]

    def sorted(self) -> list[Problem]:
        """By file, line, column; each once."""
        return sorted(set(self.found))

    def render(self) -> str:
        return "\n".join(problem.render() for problem in self.sorted())


def nearest(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the nearest of the known words, or ``."""
    if len(word) > 100:
        return ""
    words = list(known)
    folded = {w.replace("_", "").lower(): w for w in words}
    same = folded.get(word.replace("_", "").lower())
    close = [same] if same else difflib.get_close_matches(word, words, 1, 0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


class _Refused(Exception):
    def __init__(self, mark: Any, text: str) -> None:
        super().__init__(text)
        self.mark = mark
        self.text = text


def scalar(raw: str, quoted: bool = False) -> str | int | float | bool | None:
    """The value of a YAML 1.2 scalar: true, false, null, decimal or 0x numbers; all else is text.
    A number with a leading zero (`0367`), or beyond the range of a double, is text."""
    if quoted:
        return raw
    if raw in ("", "null", "~"):
        return None
    if raw in ("true", "false"):
        return raw == "true"
    digits = raw.lstrip("+-")
    if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit():
        return raw
    if len(digits) > LONGEST_NUMBER:
        return raw
    if _INTEGER.match(raw):
        return int(raw)
    if _HEX.match(raw):
        return int(raw, 16)
    if _FLOAT.match(raw) and abs(number := float(raw)) < float("inf"):
        return number
    return raw


def decode_text(data: bytes, file: str, problems: Problems) -> str | None:
    """The text of a UTF-8 file, with or without a byte order mark; None and a problem otherwise."""
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        begin = data.rfind(b"\n", 0, error.start) + 1
        column = len(data[begin : error.start].decode("utf-8", "replace")) + 1
        problems.found.append(
            Problem(
                file, line, column, "", f"byte 0x{data[error.start]:02X} is not UTF-8; save the file as UTF-8"
            )
        )
        return None


def load_yaml(text: str, file: str, problems: Problems) -> list[Node]:
    """The documents of a YAML file; [] and a problem where it cannot be read."""
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        problems.found.append(
            Problem(file, 1, 1, "", f"the file is larger than {MAX_BYTES >> 20} MiB; split it")
        )
        return []
    if (found := _UNPRINTABLE.search(text)) is not None:
        line = text.count("\n", 0, found.start()) + 1
        column = found.start() - text.rfind("\n", 0, found.start())
        what = f"the character U+{ord(found.group()):04X} is not allowed; remove it"
        problems.found.append(Problem(file, line, column, "", what))
        return []
    try:
        return [node for node in _documents(text, file) if node.value is not None]
    except _Refused as error:
        mark, what = error.mark, error.text
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        what = f"not YAML: {error.problem or error.context}"
    except yaml.YAMLError as error:
        mark, what = None, f"not YAML: {str(error).splitlines()[0]}"
    line, column = (mark.line + 1, mark.column + 1) if mark is not None else (1, 1)
    problems.found.append(Problem(file, line, column, "", what))
    return []


def _documents(text: str, file: str) -> Iterator[Node]:
    events = yaml.parse(text, Loader=_LOADER)
    for event in events:
        if isinstance(event, yaml.DocumentStartEvent):
            yield _node(next(events), events, file, "", 0)


def _node(event: Any, events: Iterator[Any], file: str, path: str, depth: int) -> Node:
    mark = event.start_mark
    if isinstance(event, yaml.AliasEvent):
        raise _Refused(mark, "aliases are not allowed; write the value out")
    if getattr(event, "anchor", None):
        raise _Refused(mark, "anchors are not allowed; write the value out")
    if getattr(event, "tag", None):
        raise _Refused(mark, f"tags are not allowed ({event.tag}); remove it")
    if depth > MAX_DEPTH:
        raise _Refused(mark, f"nested deeper than {MAX_DEPTH} levels")
    node = Node(None, file, mark.line + 1, mark.column + 1, path)
    if isinstance(event, yaml.ScalarEvent):
        node.raw, node.quoted = event.value, bool(event.style)
        node.value = scalar(event.value, node.quoted)
    elif isinstance(event, yaml.SequenceStartEvent):
        node.value = []
        while not isinstance(event := next(events), yaml.SequenceEndEvent):
            node.value.append(_node(event, events, file, f"{path}[{len(node.value)}]", depth + 1))
    else:
        node.value = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = _key(event)
            if key in node.value:
                raise _Refused(event.start_mark, f"key '{key}' stands twice; keep one")
            node.keys[key] = (event.start_mark.line + 1, event.start_mark.column + 1)
            below = f"{path}.{key}" if path else key
            node.value[key] = _node(next(events), events, file, below, depth + 1)
    return node


def _key(event: Any) -> str:
    if not isinstance(event, yaml.ScalarEvent):
        raise _Refused(event.start_mark, "a key must be a plain text")
    if event.anchor or event.tag:
        raise _Refused(event.start_mark, "anchors and tags are not allowed on a key")
    if event.value == "<<" and not event.style:
        raise _Refused(event.start_mark, "merges ('<<') are not allowed; write the keys out")
    return str(event.value)
