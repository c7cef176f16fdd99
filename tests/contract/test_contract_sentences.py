"""What a refused reading tells a person, and where the reject record says it came from."""

from __future__ import annotations

import pytest

from operators.contract.messages import duration_text
from operators.contract.spec import Contract, Metric, ProductContract
from operators.contract.step import ContractLogic
from operators.devices import Devices
from operators.rejects import Reason, Reject
from tests.contract.slices import slice_of

SECOND = 1_000_000_000
T0 = 1_772_355_600 * SECOND
METRICS = {
    "tempC": Metric(type="number", range=(-40, 150), required=True, on_breach="reject"),
    "rpm": Metric(type="number", range=(0, None), max_step=500, on_breach="reject"),
    "count": Metric(type="integer"),
    "open": Metric(type="boolean", values=[True], on_breach="reject"),
    "mode": Metric(type="string", values=["idle", "run"], on_breach="reject"),
}
KINDS = {name: metric.type for name, metric in METRICS.items()}


def reading(frame, values, ts=T0, ingest=T0):
    return {
        "device": "press-01",
        "frame": frame,
        "ts": ts + frame,
        "ingest": ingest,
        "flags": (),
        "values": values,
    }


def rejects_of(*readings):
    devices = Devices()
    logic = ContractLogic({"p": ProductContract(METRICS, Contract(), 900 * SECOND)}, devices)
    item = slice_of(readings, KINDS, devices)
    logic.process(item)
    return item.rejects


@pytest.mark.parametrize(
    ("values", "reason", "message"),
    [
        ({"tempC": 151.2}, "range", "tempC: 151.2 is above 150 (range -40..150)"),
        ({"tempC": -41}, "range", "tempC: -41 is below -40 (range -40..150)"),
        ({"tempC": 1, "rpm": -1}, "range", "rpm: -1 is below 0 (range 0..)"),
        ({"tempC": "hot"}, "type", "tempC: not a number"),
        ({"tempC": 1, "count": 2.5}, "type", "count: 2.5 is not an integer"),
        ({"rpm": 5}, "required", "tempC: required, but not in the reading"),
        ({"tempC": 1, "open": False}, "values", "open: false is none of true"),
        ({"tempC": 1, "mode": "stop"}, "values", "mode: 'stop' is none of idle, run"),
        ({"tempC": 200, "count": 2.5}, "type", "count: 2.5 is not an integer"),
    ],
)
def test_sentence(values, reason, message):
    (reject,) = rejects_of(reading(0, values))
    assert (reject.reason.name, reject.message) == (reason, message)


def test_step_names_the_value_before():
    (reject,) = rejects_of(reading(0, {"tempC": 1, "rpm": 300}), reading(1, {"tempC": 1, "rpm": 900.5}))
    assert reject.message == "rpm: 900.5 is 600.5 away from 300, more than max_step 500"


def test_time_stamps():
    ahead, behind = rejects_of(
        reading(0, {"tempC": 1}, ts=T0 + 603 * SECOND),
        reading(1, {"tempC": 1}, ts=T0 - 31 * 86_400 * SECOND - 1),
    )
    assert ahead.message == (
        "time 2026-03-01T09:10:03.000Z is 10m 3s after ingest time, more than max_future 5m"
    )
    assert behind.message == (
        "time 2026-01-29T09:00:00.000Z is 31d before ingest time, more than max_age 30d"
    )


def test_record_holds_the_raw_frame_and_the_place():
    first, second = rejects_of(reading(40, {}), reading(41, {"tempC": 1}), reading(42, {}))
    assert first == Reject(
        Reason.required,
        "tempC: required, but not in the reading",
        "line1",
        "a/b",
        "press-01",
        "p",
        40,
        0,
        T0,
        b"00000040",
    )
    assert (second.position, second.payload) == (42, b"00000042")


def test_retired_after_a_plant_change_is_filtered():
    devices = Devices()
    before = ProductContract(METRICS, Contract(), 900 * SECOND)
    logic = ContractLogic({"p": before}, devices)
    item = slice_of([reading(0, {"tempC": 1})], KINDS, devices)
    logic.process(item)
    assert len(item.readings[0]) == 1
    logic.apply({"p": ProductContract(METRICS, Contract(), 900 * SECOND, frozenset({"press-01"}))})
    item = slice_of([reading(1, {"tempC": 1})], KINDS, devices)
    logic.process(item)
    assert len(item.readings[0]) == 0
    assert item.ledger == {("line1", "p"): {"readings_filtered": 1}}


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0s"),
        (2_500_000_000, "2.5s"),
        (90 * SECOND, "1m 30s"),
        (5400 * SECOND, "1h 30m"),
        (86_400 * SECOND, "1d"),
    ],
)
def test_durations(ns, text):
    assert duration_text(ns) == text


def test_metrics_in_another_order_are_another_contract():
    devices = Devices()
    logic = ContractLogic({"p": ProductContract(METRICS, Contract(), 900 * SECOND)}, devices)
    turned = dict(reversed(METRICS.items()))
    logic.apply({"p": ProductContract(turned, Contract(), 900 * SECOND)})
    kinds = {name: metric.type for name, metric in turned.items()}
    item = slice_of([reading(0, {"tempC": 151.2})], kinds, devices)
    logic.process(item)
    assert [reject.message for reject in item.rejects] == ["tempC: 151.2 is above 150 (range -40..150)"]
