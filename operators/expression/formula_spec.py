"""What a document of formulas/*.yaml says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

import msgspec

from operators.expression.tree import Expr, Name, Null
from operators.spec import Expression

READING: Final = "reading"


class Formula(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """A named expression of one product or several.

    over: `reading`, then it stands in conditions and mappings as ``formula.`id``; or a window, then
    it is made of that window's aggregates when the window closes. customer_id: only for devices of
    that customer, in place of the formula of the same name that has none.
    """

    formulaId: str
    productId: str | list[str]
    formula: Expression
    over: Literal["reading", "1m", "1h", "1d"] = "reading"
    customer_id: str | None = None
    description: str | None = None

    @property
    def products(self) -> tuple[str, ...]:
        return (self.productId,) if isinstance(self.productId, str) else tuple(self.productId)


@dataclass(frozen=True, slots=True)
class ProductFormula:
    """One formula of one product. kind: number | bool."""

    formulaId: str
    over: str
    tree: Expr
    kind: str


@dataclass(slots=True, eq=False)
class Formulas:
    """product -> formulaId -> formula, of those that are sound; declared: product -> every formulaId
    that stands in a file for it."""

    of: dict[str, dict[str, ProductFormula]] = field(default_factory=dict)
    declared: dict[str, dict[str, str]] = field(default_factory=dict)

    def trees(self, productId: str) -> dict[str, Expr]:
        """What a condition of a product may name. One that is not sound counts as unknown, for its own
        problems are told where it stands; one over a window is refused where it is named."""
        own = self.of.get(productId, {})
        return {
            name: own[name].tree
            if over == READING and name in own
            else Null(0, 1)
            if over == READING
            else Name(0, 1, "window", (over,), "")
            for name, over in self.declared.get(productId, {}).items()
        }
