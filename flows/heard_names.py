"""What metrics and products are called, and the units that payloads name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from flows.heard_rows import Path, word
from flows.scaffold import TEMPERATURE, is_free, metric_name

_VALUES: Final = frozenset({"value", "val", "v", "reading"})
UNIT_NAMES: Final = frozenset({"unit", "units", "uom", "unitofmeasurement", "u"})
_UCUM: Final = {  # a unit as devices write it -> as UCUM does; without words that mean something else there
    **{"°C": "Cel", "ºC": "Cel", "℃": "Cel", "degC": "Cel", "Celsius": "Cel", "celsius": "Cel"},
    **{"°F": "[degF]", "degF": "[degF]", "%": "%", "%RH": "%", "%rH": "%", "ppm": "[ppm]", "psi": "[psi]"},
    **{"rpm": "{rev}/min", "RPM": "{rev}/min", "1/min": "{rev}/min", "kWh": "kW.h", "Wh": "W.h"},
    **{"m³/h": "m3/h", "m³": "m3", "l/min": "L/min", "l": "L", "lux": "lx", "µm": "um"},
    **{
        one: one
        for one in (
            *(
                "Cel",
                "K",
                "Pa",
                "hPa",
                "kPa",
                "MPa",
                "bar",
                "mbar",
                "V",
                "mV",
                "kV",
                "A",
                "mA",
                "W",
                "kW",
                "MW",
            ),
            *("Hz", "kHz", "m", "mm", "cm", "km", "um", "s", "ms", "min", "h", "g", "kg", "t", "L", "mL"),
            *("m3", "m3/h", "L/min", "L/h", "m/s", "mm/s", "km/h", "m/s2", "lx", "N", "kN", "J", "kJ", "deg"),
        )
    },
}


def metric_names(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for each path of a value: the last of its parts that tell it from the others, and for a
    member called `value` the part above it."""
    told = {path: _told(path) for path in paths}
    many = dict.fromkeys(told, 1)
    while True:
        sent = Counter(parts[-many[path] :] for path, parts in told.items())
        short = [
            path
            for path, parts in told.items()
            if many[path] < len(parts)
            and (sent[parts[-many[path] :]] > 1 or "".join(parts[-many[path] :]).isdigit())
        ]
        if not short:
            break
        for path in short:
            many[path] += 1
    names: dict[str, Path] = {}
    for path, parts in told.items():
        joined = metric_name(("_".join(parts[-many[path] :]),), ())
        names[joined if is_free(joined, names) else metric_name(parts, names)] = path
    return {path: name for name, path in names.items()}


def _told(path: Path) -> tuple[str, ...]:
    parts = tuple(map(str, path))
    return parts[:-1] if len(path) > 1 and word(path[-1]) in _VALUES and isinstance(path[-2], str) else parts


def ucum(text: str, name: str = "") -> str:
    """A unit as devices write it, in UCUM; "" for none that is known. name: of the metric: C is a
    temperature only where that says so."""
    text = text.strip()
    if text in ("C", "F"):
        return {"C": "Cel", "F": "[degF]"}[text] if TEMPERATURE.search(name) else ""
    return _UCUM.get(text, "")


def device_stem(devices: Sequence[str]) -> str:
    """What the names of most of some devices begin with, up to a number: press-01 is of `press`, and
    tasmota_AB12CD of `tasmota`."""
    stems = Counter(_stem(device) for device in devices)
    return min(stems, key=lambda one: (-stems[one], one)) or "device"


def _stem(device: str) -> str:
    words = re.match(r"[A-Za-z]*(?:[-_][A-Za-z]+)*", device)[0]  # type: ignore[index]  # it matches anything
    whole, mark, last = words.rpartition("_" if words.rfind("_") > words.rfind("-") else "-")
    if mark and device[len(words) :][:1].isdigit() and re.fullmatch("[A-Fa-f]+", last):
        words = whole  # the beginning of a number in hexadecimal
    return words.strip("-_")
