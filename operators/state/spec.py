"""What a product's `aas:` section says: which values stand in which submodel elements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from operators.attributes import Attributes
from operators.contract.spec import Metric
from operators.expression.formula_spec import ProductFormula
from operators.expression.program import Scope
from operators.windows.spec import Window


class Element(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One submodel element: `path` is an idShortPath, `value` a reference: a metric's name,
    `window.`1m`.mean(tempC)`, `alarm.`ruleId`.active`, `formula.`id``, `desired.x`."""

    path: str
    value: str
    writable: bool = False


class Submodel(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """One submodel a device; `{device_id}` in `id` is the device's name."""

    id: str
    idShort: str
    semanticId: str | None = None
    elements: list[Element] = msgspec.field(default_factory=list)


class AasMapping(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """The `aas:` section of a product."""

    asset: str
    submodels: list[Submodel] = msgspec.field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FormulasSpec:
    """The formulas that a product's `aas:` refers to, and what they may name.

    scope: all parameters as columns. params: their defaults; attributes: rows of devices.csv by
    device. stale_after: nanoseconds after which a held value is unknown, 0 = never. joined: the same rows
    as of event time, with those of sites and customers.
    """

    formulas: tuple[ProductFormula, ...]
    scope: Scope
    params: Mapping[str, float | str]
    attributes: Mapping[str, Mapping[str, str]]
    stale_after: int = 0
    joined: Attributes | None = None

    @property
    def master(self) -> Attributes:
        """The attributes as of event time."""
        return self.joined or Attributes.of_devices(self.attributes)


@dataclass(frozen=True, slots=True)
class ProductState:
    """All that the state stage knows of one product; metrics in file order. devices: rows of master data."""

    metrics: Mapping[str, Metric]
    windows: tuple[Window, ...]
    aas: AasMapping | None = None
    formulas: FormulasSpec | None = None
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
