"""Formulas that submodels show: of readings, of windows, and what is known of an alarm."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Control
from operators.contract.spec import Metric
from operators.devices import Devices
from operators.expression.formula_spec import ProductFormula
from operators.expression.grammar import parse
from operators.expression.program import Scope
from operators.state.aas import submodel_json, value_only
from operators.state.spec import AasMapping, Element, FormulasSpec, ProductState, Submodel
from operators.state.step import StateLogic
from operators.state.store import RecordReader
from operators.windows.spec import Window
from tests.contract.slices import slice_of
from tests.reference.expression import text_of
from tests.reference.temporal import Past
from tests.state.test_state_step import SECOND, T0, alarm, closed

METRICS = {name: Metric(name=name, type="number") for name in ("tempC", "rpm")}
KINDS: dict[str, Any] = dict.fromkeys(METRICS, "number")
WINDOWS = (Window(every="1m"),)
STALE_S = 5
ELEMENTS = {
    "Temperature": "tempC",
    "Health": "formula.health",
    "Hot": "formula.hot",
    "Spread": "formula.spread",
    "Mean": "window.`1m`.mean(tempC)",
    "Alarm.Active": "alarm.`temp-high`.active",
    "Alarm.Acknowledged": "alarm.`temp-high`.acknowledged",
    "Alarm.Shelved": "alarm.`temp-high`.shelved",
}
MAPPING = AasMapping(
    asset="a/{device_id}",
    submodels=[
        Submodel(
            id="s/{device_id}",
            idShort="S",
            elements=[Element(path=path, value=value) for path, value in ELEMENTS.items()],
        )
    ],
)
TEMP = ("name", "tempC")
HEALTH = ("-", ("name", "param.top"), ("call", "default", ("call", "delta", TEMP), ("name", "rpm")))
HOT = ("call", "held", (">", TEMP, ("number", 50.0)), ("duration", 2000))
SPREAD = "max(tempC) - mean(tempC) + param.top"
DEVICES = ("a", "b")


def logic_of(attributes: dict[str, dict[str, str]] | None = None) -> StateLogic:
    formulas = (
        ProductFormula("health", "reading", parse(text_of(HEALTH)), "number"),
        ProductFormula("hot", "reading", parse(text_of(HOT)), "bool"),
        ProductFormula("spread", "1m", parse(SPREAD, window="1m"), "number"),
    )
    scope = Scope("p", KINDS, {"top": None})
    spec = FormulasSpec(formulas, scope, {"top": 100.0}, attributes or {}, STALE_S * SECOND)
    devices = Devices()
    for device in DEVICES:
        devices.add(device, "p", "")
    return StateLogic({"p": ProductState(METRICS, WINDOWS, MAPPING, spec)}, devices)


def shown(logic: StateLogic, device: str) -> dict[str, Any]:
    """The submodel's values as a reader of the records sees them."""
    state = next((one for one in logic.devices_state() if one.device_id == device), None)
    whole = submodel_json(MAPPING.submodels[0], METRICS, device, state, {"hot": "bool", "spread": "number"})
    return value_only(whole["submodelElements"])


value = st.none() | st.sampled_from([0.0, 49.5, 50.5, 80.0, 1e308, -1e308])
one_reading = st.fixed_dictionaries(
    {
        "device": st.sampled_from(DEVICES),
        "step": st.sampled_from([1, 1, 2, 7]),
        "values": st.dictionaries(st.sampled_from(list(METRICS)), value, max_size=2),
        "in_order": st.sampled_from([True, True, True, False]),
    }
)


def made(readings: list[dict[str, Any]]) -> list[dict[str, Any]]:
    clock = dict.fromkeys(DEVICES, 0)
    found = []
    for frame, one in enumerate(readings):
        if one["in_order"]:
            clock[one["device"]] += one["step"]
        found.append(
            {
                "device": one["device"],
                "frame": frame,
                "ts": T0 + clock[one["device"]] * SECOND - (0 if one["in_order"] else 3 * SECOND),
                "ingest": T0,
                "flags": ("in_order",) * one["in_order"],
                "values": one["values"],
            }
        )
    return found


def expected(readings: list[dict[str, Any]], device: str) -> list[Any]:
    """Health and Hot after the device's last in-order reading, the plain way."""
    past, held, found = Past([HEALTH, HOT]), dict.fromkeys(METRICS, (None, 0)), [None, None]
    for one in readings:
        if one["device"] != device or not one["flags"]:
            continue
        names: dict[str, Any] = {"param.top": 100.0}
        for name in METRICS:
            if name in one["values"]:
                held[name] = (one["values"][name], one["ts"])
            known, since = held[name]
            names[name] = None if one["ts"] - since > STALE_S * SECOND else known
        found = past.read(one["ts"] // 1_000_000, names)
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(one_reading, max_size=25), st.sets(st.integers(0, 25), max_size=4))
def test_formulas_over_readings_equal_the_reference_for_every_cut(
    readings: list[dict[str, Any]], cuts: set[int]
) -> None:
    readings = made(readings)
    logic = logic_of()
    edges = sorted({0, len(readings), *(cut for cut in cuts if cut < len(readings))})
    for start, stop in pairwise(edges):
        logic.process(slice_of(readings[start:stop], KINDS, logic.devices))
        fresh = logic_of()
        fresh.restore(logic.snapshot())
        logic = fresh
    for device in DEVICES:
        if any(one["device"] == device for one in readings):
            told = shown(logic, device)
            assert [told["Health"], told["Hot"]] == expected(readings, device)


def reading(frame: int, values: dict[str, Any]) -> dict[str, Any]:
    return {
        "device": "a",
        "frame": frame,
        "ts": T0 + frame * SECOND,
        "ingest": T0,
        "flags": ("in_order",),
        "values": values,
    }


def window_of(logic: StateLogic, number: int, revision: int, mean: float, high: float) -> None:
    item = slice_of([], KINDS, logic.devices)
    batch = closed([0], [T0 + number * 60 * SECOND], [revision], [mean])
    batch.aggregates["max"] = batch.aggregates["mean"] * 0 + high
    item.windows.append(batch)
    logic.process(item)


def test_a_formula_over_a_window_is_of_its_last_revision() -> None:
    logic = logic_of({"a": {"top": "1000"}})
    logic.process(slice_of([reading(1, {"tempC": 3.0})], KINDS, logic.devices))
    assert shown(logic, "a")["Spread"] is None
    window_of(logic, 1, 1, 10.0, 25.0)
    assert shown(logic, "a")["Spread"] == 1015.0
    window_of(logic, 1, 2, 12.0, 25.0)
    assert shown(logic, "a")["Spread"] == 1013.0
    window_of(logic, 0, 3, 0.0, 500.0)  # a correction of an older window
    assert shown(logic, "a")["Spread"] == 1013.0


def test_a_parameter_that_is_set_counts_from_the_next_reading_on() -> None:
    logic = logic_of()
    logic.process(slice_of([reading(1, {"rpm": 1.0})], KINDS, logic.devices))
    assert shown(logic, "a")["Health"] == 99.0
    item = slice_of([], KINDS, logic.devices)
    item.control = Control("action", T0, {"kind": "param"})
    item.answers.append(
        {"accepted": True, "param": {"device_id": "a", "param": "top", "value": 7.0, "by": None, "why": None}}
    )
    logic.process(item)
    logic.process(slice_of([reading(2, {"rpm": 1.0})], KINDS, logic.devices))
    assert shown(logic, "a")["Health"] == 6.0
    fresh = logic_of()
    fresh.restore(logic.snapshot())
    fresh.process(slice_of([reading(3, {"rpm": 2.0})], KINDS, fresh.devices))
    assert shown(fresh, "a")["Health"] == 5.0


def test_what_is_known_of_an_alarm() -> None:
    logic = logic_of()
    logic.process(slice_of([reading(1, {"tempC": 3.0})], KINDS, logic.devices))
    assert shown(logic, "a")["Alarm"] == {"Active": False, "Acknowledged": True, "Shelved": False}
    item = slice_of([], KINDS, logic.devices)
    item.alarms.append(alarm(1, True, "a", shelved="2026-03-01T10:00:00.000Z"))
    logic.process(item)
    assert shown(logic, "a")["Alarm"] == {"Active": True, "Acknowledged": False, "Shelved": True}
    item = slice_of([], KINDS, logic.devices)
    item.alarms.append(alarm(1, False, "a", acknowledged=True))
    logic.process(item)
    assert shown(logic, "a")["Alarm"] == {"Active": False, "Acknowledged": True, "Shelved": False}


def test_records_hold_them() -> None:
    logic = logic_of()
    logic.process(slice_of([reading(1, {"tempC": 60.0, "rpm": 1.0})], KINDS, logic.devices))
    window_of(logic, 1, 1, 10.0, 25.0)
    item = slice_of([], KINDS, logic.devices)
    item.alarms.append(alarm(1, True, "a"))
    logic.process(item)
    changes = logic.changes()
    reader = RecordReader(changes.layouts.get, changes.texts.get)
    ((_, _, record),) = changes.records
    assert reader.read(record) == next(one for one in logic.devices_state() if one.device_id == "a")
