"""What FORMATS names and this version does not do: one table, so that nothing of it is ignored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from flows.plant_file import (
    PlantYaml,
    Product,
    ServerConfig,
    Sinks,
)
from operators.contract.spec import Metric
from operators.convert import Later
from operators.decode.spec import DecodeSpec
from operators.document import Node, Problems
from rules.spec import RULE_TYPES

_KEYS: Final[Mapping[type, tuple[str, ...]]] = {
    PlantYaml: ("calendar",),
    Sinks: ("aas", "telemetry"),
    ServerConfig: ("tokens", "tls"),
    Product: ("formulas",),
}

LATER_VALUES: Final[Mapping[tuple[type, str], tuple[str, ...]]] = {
    (PlantYaml, "actions"): ("enabled",),
}

_HARMLESS: Final[Mapping[tuple[type, str], tuple[Any, ...]]] = {
    **{(kind, "max_samples"): (4096,) for kind in RULE_TYPES.values()},
}

_HIDDEN: Final[Mapping[type, tuple[str, ...]]] = {
    Metric: ("name",),
    **dict.fromkeys(RULE_TYPES.values(), ("version",)),
}


def _of_other_kinds() -> dict[type, dict[str, str]]:
    """Keys that fit other kinds of rules: a key of `limit` in a threshold rule is no slip of the pen."""
    keys = {
        name: {one.encode_name for one in msgspec.structs.fields(kind)} for name, kind in RULE_TYPES.items()
    }
    told: dict[type, dict[str, str]] = {}
    for name, kind in RULE_TYPES.items():
        others = sorted(set().union(*keys.values()) - keys[name])
        told[kind] = {
            key: f"does not fit a rule of type {name}; it is for "
            f"{', '.join(other for other in RULE_TYPES if key in keys[other])}"
            for key in others
        }
    return told


class DecodeSection(msgspec.Struct):
    """A `decode:` section before the metrics that it decodes to are known."""

    node: Any


def _decode_section(node: Node, problems: Problems) -> DecodeSection:
    return DecodeSection(node)


_HOOKS: Final[Mapping[type, Callable[[Node, Problems], Any]]] = {DecodeSpec: _decode_section}

LATER: Final = Later(_KEYS, LATER_VALUES, {}, _HOOKS, _HIDDEN, _HARMLESS, _of_other_kinds())
