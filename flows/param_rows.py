"""Parameters of a plant's devices: what counts, where it comes from, and whether a new value is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from connectors.errors import ConfigError
from connectors.journal.lines import iso_time
from flows import specs
from flows.plant_file import Plant
from operators.parameters import Parameters, ParameterSpec, Value, refusal
from rules.check import number_of


def parameter_rows(plant: Plant, overrides: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """device_id, productId, param, value, source (set, devices.csv, product, or None where it has no
    value), by, why, at, in_effect: by device in the order of devices.csv, then what is set for devices
    or parameters that the plant does not know."""
    spec = specs.parameters(plant)
    own = {(row["device_id"], row["param"]): row for row in overrides}
    found = []
    for device, product in spec.devices.items():
        cells = plant.master.devices[device]
        for param, default in spec.declared.get(product, {}).items():
            row = own.pop((device, param), None)
            fits = row is not None and isinstance(row["value"], str) == isinstance(default, str)
            if row is not None:
                found.append(_row(device, product, param, row["value"], "set", row, in_effect=fits))
            if not fits:
                value, source = _unset(cells.get(param, ""), default)
                found.append(_row(device, product, param, value, source, {}))
    for (device, param), row in own.items():
        found.append(_row(device, spec.devices.get(device), param, row["value"], "set", row, in_effect=False))
    return found


def _unset(cell: str, default: Value | None) -> tuple[Value | None, str | None]:
    """The value without an operator, and where it comes from."""
    if cell:
        value = cell if isinstance(default, str) else number_of(cell)
        return value, "devices.csv"
    return default, None if default is None else "product"


def _row(
    device: str,
    product: str | None,
    param: str,
    value: Value | None,
    source: str | None,
    about: Mapping[str, Any],
    *,
    in_effect: bool = True,
) -> dict[str, Any]:
    at_ms = about.get("at_ms")
    return {
        "device_id": device,
        "productId": product,
        "param": param,
        "value": value,
        "source": source,
        "by": about.get("by"),
        "why": about.get("why"),
        "at": None if at_ms is None else iso_time(int(at_ms) * 1_000_000),
        "in_effect": in_effect,
    }


def read_value(spec: ParameterSpec, device: str, name: str, text: str) -> Value:
    """A value as its parameter takes it; raises `ConfigError` for what is none."""
    default = spec.declared.get(spec.devices.get(device, ""), {}).get(name)
    if isinstance(default, str):
        return text
    value = number_of(text)
    known = name in spec.declared.get(spec.devices.get(device, ""), {})
    if value is None and known:
        raise ConfigError(f"{name}: '{text[:60]}' is no number, and '{name}' is one")
    return text if value is None else value


def refusals(
    spec: ParameterSpec,
    overrides: Sequence[Mapping[str, Any]],
    device: str,
    wanted: Mapping[str, Value | None],
) -> list[str]:
    """Why values cannot be set, one text each that cannot. overrides: what is set by now."""
    known = Parameters()
    for row in overrides:
        known.put(row["device_id"], row["param"], row["value"])
    told = [refusal(device, name, value, spec, known) for name, value in wanted.items()]
    return [text for text in told if text]


def set_action(device: str, name: str, value: Value | None, by: str, why: str) -> dict[str, Any]:
    """What stands in the journal, beside the action's id."""
    return {"kind": "param", "device_id": device, "param": name, "value": value, "by": by, "why": why}
