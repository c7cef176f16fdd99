"""Parameters by device that an operator has set: over devices.csv, over the product's defaults.

An operator's action of kind `param` is a journal entry, `{"id", "kind": "param", "device_id", "param",
"value": number, text or null, "by", "why"}`; null takes back what was set. The decode stage judges it
by the plant that is applied there and answers; the rules stage goes by that answer. Each keeps a
`Parameters` of its own, so that each has what its place in the journal says.

What is set stays over a change of the plant, and counts wherever the plant that is applied knows the
parameter with that type.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final, NamedTuple

from operators.batch import Control, Slice
from operators.document import nearest

LONGEST_TEXT: Final = 1_000
Value = float | str


class ParameterSpec(NamedTuple):
    """declared: product -> parameter -> its default; None for one that is a column of devices.csv
    alone, a number. devices: device -> product, of devices.csv."""

    declared: Mapping[str, Mapping[str, Value | None]]
    devices: Mapping[str, str]


class Parameters:
    """What is set, by device and parameter."""

    def __init__(self) -> None:
        self._set: dict[str, dict[str, Value]] = {}

    def value(self, device: str, param: str) -> Value | None:
        """What is set for a device; None where nothing is."""
        return self._set.get(device, {}).get(param)

    def of(self, device: str) -> Mapping[str, Value]:
        """All that is set for a device."""
        return self._set.get(device, {})

    def names(self) -> set[str]:
        """The parameters that are set for any device."""
        return {param for own in self._set.values() for param in own}

    def put(self, device: str, param: str, value: Value | None) -> None:
        """Set one, or with None take it back."""
        if value is not None:
            self._set.setdefault(device, {})[param] = value
            return
        own = self._set.get(device, {})
        own.pop(param, None)
        if not own:
            self._set.pop(device, None)

    def take(self, item: Slice) -> str | None:
        """Do what the action of a slice asks for, if it is of kind `param` and has been accepted;
        returns its device."""
        for answer in item.answers:
            param = answer.get("param")
            if param is not None and answer["accepted"]:
                self.put(param["device_id"], param["param"], param["value"])
                return str(param["device_id"])
        return None

    def export(self) -> dict[str, dict[str, Value]]:
        """What a snapshot holds."""
        return {device: dict(own) for device, own in sorted(self._set.items())}

    def load(self, state: Mapping[str, Mapping[str, Value]]) -> None:
        """Take over what `export` gave."""
        self._set = {device: dict(own) for device, own in state.items()}


class Overlay(Mapping[str, Mapping[str, float]]):
    """Numbers by device: those of devices.csv, and over them what is set, as it is at each look."""

    def __init__(self, base: Mapping[str, Mapping[str, float]], parameters: Parameters) -> None:
        self._base = base
        self._parameters = parameters

    def __getitem__(self, device: str) -> Mapping[str, float]:
        own = self._parameters.of(device)
        if not own:
            return self._base[device]
        numbers = {name: value for name, value in own.items() if not isinstance(value, str)}
        return {**self._base.get(device, {}), **numbers}

    def __iter__(self) -> Iterator[str]:
        return iter(self._base)

    def __len__(self) -> int:
        return len(self._base)


def is_param(control: Control | None) -> bool:
    """Whether a control sets a parameter or takes one back."""
    return control is not None and control.kind == "action" and control.data.get("kind") == "param"


def answer_of(control: Control, spec: ParameterSpec, set_now: Parameters) -> dict[str, Any] | None:
    """The answer to an action of kind `param`; None where it has no id to answer to."""
    data = control.data
    action_id = data.get("id")
    if not isinstance(action_id, str) or not action_id:
        return None
    told = refusal(data.get("device_id"), data.get("param"), data.get("value"), spec, set_now)
    device, param = data.get("device_id"), data.get("param")
    value = data.get("value")
    if told is None and value is not None:
        done = f"{param} of {device} is {value if isinstance(value, str) else format(value, 'g')}"
    else:
        done = f"{param} of {device} is what devices.csv or its product says"
    return {
        "id": action_id,
        "accepted": told is None,
        "message": told or done,
        "alarm_id": None,
        "subject": device if isinstance(device, str) else None,
        "state": None,
        "at_ms": control.at_ns // 1_000_000,
        "param": None if told is not None else _stored(data),
    }


def _stored(data: Mapping[str, Any]) -> dict[str, Any]:
    value = data["value"] if isinstance(data.get("value"), str | None) else float(data["value"])
    by, why = (text if isinstance(text := data.get(key), str) else None for key in ("by", "why"))
    return {"device_id": data["device_id"], "param": data["param"], "value": value, "by": by, "why": why}


def refusal(device: Any, param: Any, value: Any, spec: ParameterSpec, set_now: Parameters) -> str | None:
    """Why a parameter cannot be set (or, with None, taken back); None: it can."""
    if not isinstance(device, str) or not isinstance(param, str):
        return "device_id and param are names"
    if value is None and set_now.value(device, param) is not None:
        return None  # also what the plant of today does not know any more
    product = spec.devices.get(device)
    if product is None:
        return f"no device '{device}' in devices.csv{_near(device, spec.devices)}"
    declared = spec.declared.get(product, {})
    if param not in declared:
        known = f"; it has {', '.join(declared)}" if declared else "; it has none"
        return f"no parameter '{param}' of {product}{_near(param, declared) or known}"
    if isinstance(value, str):
        if not isinstance(declared[param], str):
            return f"'{param}' of {product} is a number, not the text '{value[:60]}'"
        if len(value) > LONGEST_TEXT:
            return f"a text of {len(value)} characters; at most {LONGEST_TEXT}"
    elif value is not None:
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return f"a finite number or a text is expected for '{param}'"
        if isinstance(declared[param], str):
            return f"'{param}' of {product} is a text, not the number {value:g}"
    return None


def _near(name: str, known: Collection[str]) -> str:
    return nearest(name, known) or ""
