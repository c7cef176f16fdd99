"""What a `decode:` section of format typed says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from operators.contract.spec import Metric
from operators.decode.derive_spec import Derived, parse_derive
from operators.document import Node, Problems, nearest

_KEYS: Final = ("format", "metrics", "derive")


@dataclass(frozen=True, slots=True)
class TypedSpec:
    """A typed layout that has passed its checks. metrics: (metric or internal `_x`, its name at the
    source); None: every metric by its own name."""

    metrics: tuple[tuple[str, str], ...] | None = None
    internals: tuple[str, ...] = ()
    derive: tuple[Derived, ...] = ()


def parse_typed_spec(
    node: Node, metrics: Mapping[str, Metric], params: Mapping[str, float | str], problems: Problems
) -> TypedSpec:
    """The layout of a section whose `format` is typed; what is wrong is in `problems`."""
    for key in node.keys:
        if key not in _KEYS:
            problems.add(node, f"unknown key{nearest(key, _KEYS)}", key=key)
    named = _names(node.get("metrics"), metrics, problems)
    internals = tuple(name for name, _ in named or () if name.startswith("_"))
    return TypedSpec(named, internals, parse_derive(node.get("derive"), metrics, params, internals, problems))


def _names(
    node: Node | None, metrics: Mapping[str, Metric], problems: Problems
) -> tuple[tuple[str, str], ...] | None:
    if node is None or node.value is None:
        return None
    if not node.is_map:
        problems.add(
            node, "a mapping from metric to its name at the source is expected, e.g. {tempC: Motor/Temp}"
        )
        return None
    found: dict[str, str] = {}
    for name, child in node.items():
        if not name.startswith("_") and name not in metrics:
            problems.add(node, f"no metric '{name}'{nearest(name, metrics)}", key=name)
        if child.is_map or child.is_list or not child.raw:
            problems.add(child, "the metric's name at the source is expected")
        elif child.raw in found:
            problems.add(child, f"'{child.raw}' is already '{found[child.raw]}'; use 'derive' for a copy")
        else:
            found[child.raw] = name
    return tuple((name, there) for there, name in found.items())
