"""What a UCUM unit is worth: its dimension, and how its numbers become those of base units.

The library behind it (ucumvert, which puts UCUM on pint) takes a second to load, so it is loaded
when a unit is met that no run on this machine has met before; what it said is kept beside the
compiled kernels, under the versions of both libraries.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from operators.document import nearest

_LONGEST: Final = 60
_NAMES: Final = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]")
_BEYOND: Final = re.compile(r"[A-Za-z%*^'\"][-+]?[0-9]{3}|[0-9]{10}|\({4}")
"""Powers and factors whose exact value would fill the memory, and brackets that nobody writes."""
_KEPT_AS: Final = 1  # rises when what is kept changes its form
_LIKELY: Final[Mapping[str, str]] = {
    "°C": "Cel",
    "degC": "Cel",
    "kpa": "kPa",
    "KPa": "kPa",
    "°F": "[degF]",
    "degF": "[degF]",
    "F": "[degF]",
    "rpm": "{rev}/min",
    "rev/min": "{rev}/min",
    "ppm": "[ppm]",
    "ppb": "[ppb]",
    "psi": "[psi]",
    "inch": "[in_i]",
    "in": "[in_i]",
    "ft": "[ft_i]",
    "kWh": "kW.h",
    "Wh": "W.h",
    "VA": "V.A",
    "var": "V.A{reactive}",
    "NTU": "{NTU}",
    "RH": "%{RH}",
    "%RH": "%{RH}",
    "m³": "m3",
    "m³/h": "m3/h",
    "m²": "m2",
    "µm": "um",
    "Ω": "Ohm",
    "sec": "s",
    "hr": "h",
    "hour": "h",
    "day": "d",
    "pH": "[pH]",
}
"""What people write for units that UCUM writes otherwise."""


class UnitError(ValueError):
    """A text that is no UCUM unit; the message names the mend."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit: base = scale * number + offset, exactly. `offset` is not 0 where the zero lies
    elsewhere (Cel, [degF]). dimension: base dimension -> power, sorted; a logarithmic unit is a
    dimension of its own."""

    text: str
    dimension: tuple[tuple[str, Fraction], ...]
    scale: Fraction
    offset: Fraction = Fraction(0)


def unit_of(text: str) -> Unit:
    """The unit that a UCUM text stands for; raises UnitError."""
    found = _KNOWN.get(text)
    if found is None:
        if not _KNOWN:
            _KNOWN.update(_read())
            found = _KNOWN.get(text)
        if found is None:
            found = _KNOWN[text] = _ask(text)
            _keep()
    return found


_KNOWN: dict[str, Unit] = {}
_LIBRARY: list[Any] = []


def _ask(text: str) -> Unit:
    """What the library says."""
    if not 0 < len(text) <= _LONGEST or not text.isascii():
        raise UnitError(_refusal(text, ()))
    if _BEYOND.search(_NAMES.sub("u", text)):
        raise UnitError(
            f"'{text}' is no usable unit; powers have at most two digits, factors nine, brackets three levels"
        )
    if not _LIBRARY:
        from ucumvert import PintUcumRegistry

        _LIBRARY.append(PintUcumRegistry(non_int_type=Fraction))
    registry = _LIBRARY[0]
    from ucumvert import InvalidUcumError

    try:
        quantity = _quantity(registry, text)
    except InvalidUcumError:
        raise UnitError(_refusal(text, _atoms())) from None
    if quantity is None:  # UCUM, but a quantity of its own kind, such as [pH]
        return Unit(text, ((text, Fraction(1)),), Fraction(1))
    amount = Fraction(quantity.magnitude)
    try:
        base = [registry.Quantity(amount * n, quantity.units).to_base_units() for n in range(2)]
    except (TypeError, ArithmeticError):  # logarithmic: a fraction has no logarithm
        return Unit(text, ((text, Fraction(1)),), Fraction(1))
    zero, one = (Fraction(each.magnitude) for each in base)
    powers = sorted((name, Fraction(power)) for name, power in base[1].dimensionality.items())
    return Unit(text, tuple(powers), one - zero, zero)


def _quantity(registry: Any, text: str) -> Any:
    """The library's quantity for a text; None for a unit that it knows by name alone."""
    from lark.exceptions import VisitError

    if text.startswith("{") and text.endswith("}") and "}" not in text[:-1]:
        return registry.Quantity(1, "")  # an annotation alone counts as 1
    # in a product a temperature is a difference: its zero plays no part
    for told in (text, text.replace("Cel", "K").replace("[degF]", "[degR]")):
        try:
            return registry.from_ucum(told)
        except (VisitError, AttributeError):
            continue
    return None


def _atoms() -> list[str]:
    from ucumvert.xml_util import get_base_units, get_metric_units, get_non_metric_units

    return [*get_base_units(), *get_metric_units(), *get_non_metric_units()]


def _refusal(text: str, atoms: list[str] | tuple[()]) -> str:
    told = f"'{text[:_LONGEST]}' is no UCUM unit"
    if text in _LIKELY:
        return f"{told}; write '{_LIKELY[text]}'"
    near = nearest(text, atoms) if atoms else ""
    return told + (near or "; units are e.g. Cel, bar, mm/s, {rev}/min, and what UCUM lacks stands in braces")


# -- what earlier runs asked


def _path() -> Path:
    versions = f"{version('ucumvert')} {version('pint')} {_KEPT_AS}"
    name = hashlib.sha256(versions.encode()).hexdigest()[:12]
    return Path(__file__).with_name("__pycache__") / f"units-{name}.json"


def _read() -> dict[str, Unit]:
    try:
        kept = json.loads(_path().read_text())
        return {
            text: Unit(
                text,
                tuple((name, Fraction(power)) for name, power in dimension),
                Fraction(scale),
                Fraction(offset),
            )
            for text, (dimension, scale, offset) in kept.items()
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _keep() -> None:
    """Written whole and then put in place, so that two that write at once do no harm; a folder
    that can't be written costs the second at the next start, no more."""
    kept = {
        unit.text: [[[name, str(power)] for name, power in unit.dimension], str(unit.scale), str(unit.offset)]
        for unit in _KNOWN.values()
    }
    path = _path()
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(exist_ok=True)
        beside.write_text(json.dumps(kept))
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
