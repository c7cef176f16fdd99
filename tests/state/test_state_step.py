"""The state stage: newest values, windows and alarms of a device, its records and submodels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import AlarmEvent, StateChanges, WindowBatch
from operators.contract.spec import Metric
from operators.devices import Devices
from operators.state.aas import submodel_ids, submodel_json, value_only
from operators.state.references import check_mapping
from operators.state.spec import AasMapping, Element, ProductState, Submodel
from operators.state.step import StateLogic
from operators.state.store import RecordReader
from operators.windows.spec import Window
from tests.contract.slices import slice_of

SECOND = 1_000_000_000
T0 = 1_772_355_600 * SECOND
METRICS = {
    "tempC": Metric(name="tempC", type="number"),
    "count": Metric(name="count", type="integer"),
    "open": Metric(name="open", type="boolean"),
    "mode": Metric(name="mode", type="string"),
}
KINDS = {name: metric.type for name, metric in METRICS.items()}
WINDOWS = (Window(every="1m"),)
MAPPING = AasMapping(
    asset="https://example.com/assets/{device_id}",
    submodels=[
        Submodel(
            id="https://example.com/sm/{device_id}/operational",
            idShort="OperationalData",
            semanticId="https://example.com/OperationalData/1/0",
            elements=[
                Element(path="Temperature", value="tempC"),
                Element(path="Temperature1m.Mean", value="window.`1m`.mean(tempC)"),
                Element(path="Temperature1m.Count", value="window.`1m`.count(tempC)"),
                Element(path="Alarms.OverTemperature", value="alarm.`temp-high`.active"),
                Element(path="Pieces", value="metrics.count"),
                Element(path="Door", value="open"),
                Element(path="Mode", value="`mode`"),
            ],
        )
    ],
)
SPECS = {"p": ProductState(METRICS, WINDOWS, MAPPING)}


def reading(frame, values, device="press-01", in_order=True, qualities=None):
    return {
        "device": device,
        "frame": frame,
        "ts": T0 + frame * SECOND,
        "ingest": T0,
        "flags": ("in_order",) * in_order,
        "values": values,
        "qualities": qualities or {},
    }


def alarm(position, active, device="press-01", ruleId="temp-high", acknowledged=False, shelved=None):
    data = {
        "device_id": device,
        "productId": "p",
        "ruleId": ruleId,
        "transition": "raised" if active else "cleared",
        "state": {"active": active, "acknowledged": acknowledged, "shelved_until": shelved},
    }
    return AlarmEvent(position, device, ruleId, "0", {"subject": f"{device}/{ruleId}", "data": data})


def closed(device, start, revision, mean, count=3):
    n = len(device)
    return WindowBatch(
        "p",
        "1m",
        np.array(device, np.int32),
        np.zeros(n, np.int32),
        np.array(start, np.int64),
        np.array(start, np.int64) + 60 * SECOND,
        np.full(n, count, np.int64),
        np.full(n, count, np.int64),
        np.zeros(n, np.int64),
        np.array(revision, np.int64),
        {"mean": np.array(mean, np.float64)},
        np.arange(n, dtype=np.int64),
    )


def test_newest_in_order_reading_wins_and_state_json_shows_it():
    devices = Devices()
    logic = StateLogic(SPECS, devices)
    rows = [
        reading(0, {"tempC": 20.5, "count": 3, "open": True, "mode": "run"}),
        reading(1, {"tempC": 200.0}, qualities={"tempC": "bad"}),
        reading(2, {"mode": None}),
        reading(3, {"count": 9}, in_order=False),
        reading(4, {"mode": "idle"}, device="a"),
    ]
    logic.process(slice_of(rows, KINDS, devices))
    at = "2026-03-01T09:00:0{}.000Z"
    assert logic.export_state() == {
        "a": {"mode": {"value": "idle", "quality": "good", "time": at.format(4), "position": 4}},
        "press-01": {
            "count": {"value": 3, "quality": "good", "time": at.format(0), "position": 0},
            "mode": {"value": None, "quality": "bad", "time": at.format(2), "position": 2},
            "open": {"value": True, "quality": "good", "time": at.format(0), "position": 0},
            "tempC": {"value": 200.0, "quality": "bad", "time": at.format(1), "position": 1},
        },
    }


def test_records_of_touched_devices_and_their_submodels():
    devices = Devices()
    logic = StateLogic(SPECS, devices)
    item = slice_of(
        [
            reading(0, {"tempC": 20.5, "count": 3, "open": False, "mode": "run"}),
            reading(1, {"tempC": 1}, device="b"),
        ],
        KINDS,
        devices,
    )
    item.windows.append(closed([0, 0, 0], [T0, T0 - 60 * SECOND, T0], [2, 9, 1], [5.5, 1.0, 2.0]))
    item.alarms.append(alarm(0, True))
    logic.process(item)
    changes = logic.changes()
    records = {key: record for key, _, record in changes.records}
    assert sorted(records) == [b"b", b"press-01"]
    assert list(changes.texts.values()) == ["run"]
    assert logic.changes() == StateChanges([], {}, {})
    reader = RecordReader(changes.layouts.get, changes.texts.get)
    state = reader.read(records[b"press-01"])
    assert state.windows["1m"]["tempC"]["mean"].value == 5.5
    assert state.alarms == ["temp-high"]

    submodel = submodel_json(MAPPING.submodels[0], METRICS, "press-01", state)
    assert submodel_ids(MAPPING, "press-01") == [submodel["id"]]
    assert value_only(submodel["submodelElements"]) == {
        "Temperature": 20.5,
        "Temperature1m": {"Mean": 5.5, "Count": 3},
        "Alarms": {"OverTemperature": True},
        "Pieces": 3,
        "Door": False,
        "Mode": "run",
    }
    assert submodel["submodelElements"][1] == {
        "modelType": "SubmodelElementCollection",
        "idShort": "Temperature1m",
        "value": [
            {"modelType": "Property", "idShort": "Mean", "valueType": "xs:double", "value": "5.5"},
            {"modelType": "Property", "idShort": "Count", "valueType": "xs:long", "value": "3"},
        ],
    }
    unheard = submodel_json(MAPPING.submodels[0], METRICS, "c", None)
    assert value_only(unheard["submodelElements"]) == {
        "Temperature": None,
        "Temperature1m": {"Mean": None, "Count": None},
        "Alarms": {"OverTemperature": False},
        "Pieces": None,
        "Door": None,
        "Mode": None,
    }

    item = slice_of([], KINDS, devices)
    item.alarms.append(alarm(2, False))
    logic.process(item)
    ((key, _, record),) = logic.changes().records
    assert (key, reader.read(record).alarms) == (b"press-01", [])


@settings(deadline=None, max_examples=50, derandomize=True)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("ab"),
            st.booleans(),
            st.fixed_dictionaries(
                {},
                optional={
                    "tempC": st.sampled_from([1.0, 2.5, None]),
                    "mode": st.sampled_from(["idle", "run", ""]),
                },
            ),
        ),
        max_size=20,
    ),
    st.integers(1, 5),
    st.integers(0, 20),
)
def test_newest_values_for_every_cut_and_over_a_restore(rows, cut, restore_at):
    devices = Devices()
    logic = StateLogic(SPECS, devices)
    expected = {}
    for at in range(0, len(rows), cut):
        part = [
            reading(at + i, values, device, in_order)
            for i, (device, in_order, values) in enumerate(rows[at : at + cut])
        ]
        for row in part:
            if row["flags"]:
                state = expected.setdefault(row["device"], {})
                state.update({name: (value, row["frame"]) for name, value in row["values"].items()})
            else:
                expected.setdefault(row["device"], {})
        logic.process(slice_of(part, KINDS, devices))
        if at >= restore_at:
            restored = StateLogic(SPECS, devices)
            restored.restore(logic.snapshot())
            logic, restore_at = restored, 1 << 30
    shown = {
        device: {name: (cell["value"], cell["position"]) for name, cell in metrics.items()}
        for device, metrics in logic.export_state().items()
    }
    assert shown == expected


def test_a_changed_product_starts_anew_and_an_unchanged_one_goes_on():
    devices = Devices()
    logic = StateLogic(SPECS, devices)
    logic.process(slice_of([reading(0, {"tempC": 20.5})], KINDS, devices))
    logic.apply({"p": ProductState(dict(METRICS), WINDOWS, MAPPING)})
    assert logic.export_state()["press-01"]["tempC"]["value"] == 20.5
    logic.apply({"p": ProductState({"tempC": METRICS["tempC"]}, (), None)})
    assert {name: one["value"] for name, one in logic.export_state()["press-01"].items()} == {"tempC": 20.5}
    logic.apply({"p": ProductState({"tempC": Metric(name="tempC", type="string")}, (), None)})
    assert logic.export_state() == {"press-01": {}}


@pytest.mark.parametrize(
    ("record", "told"),
    [
        (b"", "this is no record of a device of this version"),
        (b"\x01" + bytes(20), "this is no record of a device of this version"),
        (b"\x02" + bytes(20), "the layout of a device's record is not there"),
    ],
)
def test_bytes_that_are_no_record_are_told(record, told):
    with pytest.raises(ValueError) as error:
        RecordReader({}.get, {}.get).read(record)
    assert str(error.value) == told


def test_a_record_that_is_cut_short_is_told():
    devices = Devices()
    logic = StateLogic(SPECS, devices)
    logic.process(slice_of([reading(0, {"tempC": 20.5})], KINDS, devices))
    changes = logic.changes()
    reader = RecordReader(changes.layouts.get, changes.texts.get)
    ((_, _, record),) = changes.records
    for stop in range(9, len(record)):
        with pytest.raises(ValueError) as error:
            reader.read(record[:stop])
        assert str(error.value).startswith("a device's record is damaged: ")


def problems(path, value, writable=False):
    submodel = Submodel(
        id="{device_id}", idShort="S", elements=[Element(path=path, value=value, writable=writable)]
    )
    found = check_mapping(AasMapping(asset="a", submodels=[submodel]), METRICS, WINDOWS, ["temp-high"])
    return [(one.key, one.text) for one in found]


def test_what_is_wrong_with_a_mapping():
    assert problems("A.B", "tempC") == []
    assert problems("A", "tempc") == [("value", "no metric 'tempc'; did you mean 'tempC'?")]
    assert problems("A", "desired.tempSet") == [("value", "'desired.' is not yet in this version")]
    assert problems("A", "formula.`h`") == [("value", "no formula 'h' for this product")]
    assert problems("A", "alarm.`temp-high`.actve") == [
        (
            "value",
            "an alarm has no 'actve'; did you mean 'active'?; it has active, acknowledged, latched, "
            "shelved, suppressed, out_of_service",
        )
    ]
    assert problems("A", "window.`5m`.mean(tempC)") == [("value", "no window '5m'")]
    assert problems("A", "window.`1m`.p50(tempC)")[0][1].startswith("window '1m' has no 'p50'")
    assert problems("A", "window.`1m`.mean(mode)") == [("value", "window '1m' does not aggregate 'mode'")]
    assert problems("A", "alarm.`temp-hih`.active") == [
        ("value", "no rule 'temp-hih' for this product; did you mean 'temp-high'?")
    ]
    assert problems("A[0]", "tempC") == [("path", "'A[0]': lists are not yet in this version")]
    assert problems("A", "tempC", True) == [("writable", "'writable: true' is not yet in this version")]
    assert problems("A", "1 + 2")[0][1].startswith("'1 + 2' is no reference; write")
