"""`${NAME}`, `${NAME:-default}` and `${file:/run/secrets/x}` in plant.yaml.

A reference may stand only where its value cannot change a result: addresses, credentials, sizes of
stores. What decides how frames are read is written out, so that a journaled plant means the same
on every machine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from operators.document import Node, Problems

_REFERENCE: Final = re.compile(r"\$\{([^}]*)\}")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_ALLOWED_SECTIONS: Final = frozenset({"sources", "sinks", "historian", "server", "journal", "archive"})
_WRITTEN_OUT: Final = frozenset(
    {"kind", "topic", "device", "product", "live", "format", "header", "separator"}
)
_LARGEST_FILE: Final = 65_536
# what processes need whatever a plant says of it
_NEEDED: Final = frozenset({"PATH", "HOME", "USER", "LOGNAME", "LANG", "TZ", "TMPDIR"})


def resolve_references(root: Node, environ: Mapping[str, str] | None, problems: Problems) -> None:
    """Put values in place of the references of plant.yaml; what held one becomes `masked`.

    environ None: nothing is read, a default stands for its reference and the others are left.
    """
    for key, child in root.items():
        for node in _texts(child):
            allowed = key in _ALLOWED_SECTIONS and not (
                key == "sources" and _below_source(node.path) in _WRITTEN_OUT
            )
            if not allowed:
                problems.add(
                    node, "a ${...} reference has no place here, it could change results; write the value out"
                )
                continue
            _resolve(node, environ, problems)


def refuse_references(root: Node, problems: Problems) -> None:
    """In every other file a reference is a problem."""
    for node in _texts(root):
        problems.add(node, "${...} references stand only in plant.yaml; write the value out")


def without_referenced(environ: Mapping[str, str], text: str) -> dict[str, str]:
    """The environment of a plant's processes, which are handed their configuration: without the variables
    that `text`, of plant.yaml, refers to, as they may hold secrets."""
    named = {match[1].partition(":-")[0] for match in _REFERENCE.finditer(text)} - _NEEDED
    return {name: value for name, value in environ.items() if name not in named}


def _below_source(path: str) -> str:
    """`product` of `sources.line1.product`."""
    parts = path.split(".")
    return parts[2] if len(parts) == 3 else ""


def _texts(node: Node) -> list[Node]:
    """Scalars that hold a reference, in file order."""
    if isinstance(node.value, str):
        return [node] if "${" in node.value else []
    children = node.value.values() if isinstance(node.value, dict) else node if node.is_list else ()
    return [found for child in children for found in _texts(child)]


def _resolve(node: Node, environ: Mapping[str, str] | None, problems: Problems) -> None:
    text = str(node.value)
    pieces: list[str] = []
    at = 0
    for match in _REFERENCE.finditer(text):
        pieces.append(text[at : match.start()])
        value = _value(match, node, environ, problems)
        if value is None:
            value = match.group()
        pieces.append(value)
        at = match.end()
    rest = text[at:]
    if "${" in rest:
        problems.add(node, "'${' is never closed; write ${NAME} or ${NAME:-default}")
    node.value = "".join(pieces) + rest
    node.raw = text
    node.masked = True


def _value(
    match: re.Match[str], node: Node, environ: Mapping[str, str] | None, problems: Problems
) -> str | None:
    inside = match.group(1)
    if inside.startswith("file:"):
        return None if environ is None else _file(inside.removeprefix("file:"), node, problems)
    name, has_default, default = inside.partition(":-")
    if not _NAME.match(name):
        problems.add(
            node,
            f"'{match.group()[:60]}' is no reference; write ${{NAME}}, ${{NAME:-default}} or ${{file:PATH}}",
        )
        return None
    value = (environ or {}).get(name, "")
    if value:
        return value
    if has_default:
        return default
    if environ is not None:
        problems.add(node, f"the environment has no '{name}'; set it, or write ${{{name}:-default}}")
    return None


def _file(path: str, node: Node, problems: Problems) -> str | None:
    try:
        with Path(path).open("rb") as file:
            data = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        problems.add(node, f"cannot read the file {path}: {error.strerror}")
        return None
    if len(data) > _LARGEST_FILE:
        problems.add(node, f"the file {path} is larger than {_LARGEST_FILE} bytes")
        return None
    try:
        return data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        problems.add(node, f"the file {path} is no UTF-8 text")
        return None
