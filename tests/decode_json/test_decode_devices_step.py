"""The decode stage over payloads that name a device for each reading, and over undeclared metrics."""

from __future__ import annotations

import json
from typing import Any

from operators.batch import Address, Slice
from operators.decode.spec import (
    DecodeLimits,
    DecodePlan,
    MasterDevice,
    ProductDecode,
    RoutingSpec,
    SourceSpec,
)
from operators.decode.step import DecodeLogic
from operators.devices import Devices
from tests.decode_json.frames import good_spec, slices

KINDS = {"tempC": "number"}
TYPES = tuple(KINDS.items())
TALL = good_spec(
    "format: json\nrows: 'v[*]'\ndevice: sn\nmetrics: {_x: x}\nderive: {tempC: _x * param.k}",
    KINDS,
    {"k": 1.0},
)
PLAN = DecodePlan(
    products={
        "node": ProductDecode("node", TALL, TYPES, ("gw/+",), {"k": 1.0}, {"n2": {"k": 10.0}}),
        "press": ProductDecode("press", good_spec("format: json", KINDS), TYPES, ("p/+", "gw/own")),
        "strict": ProductDecode(
            "strict", good_spec("format: json", KINDS), TYPES, ("strict/#",), reject_unknown=True
        ),
    },
    routing=RoutingSpec(
        sources=(SourceSpec("mqtt", topic="{kind}/{device_id}"),),
        devices={
            **{name: MasterDevice("node", "hub-9" if name == "n1" else "") for name in ("n1", "n2", "n3")},
            "press-1": MasterDevice("press"),
            "own": MasterDevice("press"),
            "s": MasterDevice("strict"),
        },
    ),
    limits=DecodeLimits(devices=4),
)


def frame(topic: str, value: Any) -> tuple[Address, bytes, int]:
    return Address("mqtt", topic), json.dumps(value).encode(), 0


def rows(*names: Any) -> dict[str, Any]:
    return {"v": [{"sn": name, "x": at} for at, name in enumerate(names)]}


FRAMES = [
    frame("gw/first", {"v": 0}),
    frame("gw/a", rows("n2", "n1", "stranger", "n2")),
    frame("p/press-1", {"data": {"metrics": {"tempC": 1}}}),
    frame("gw/b", rows("press-1", None, "n3")),
    frame("gw/own", {"data": {"metrics": {"tempC": 2}}}),
    frame("gw/c", {"v": 1}),
    frame("strict/s", {"data": {"metrics": {"zz": 2}}}),
]


def run(cut: int) -> tuple[DecodeLogic, list[Slice]]:
    logic = DecodeLogic(PLAN, Devices())
    items = slices(FRAMES, cut=cut)
    for item in items:
        logic.process(item)
    return logic, items


def outcome(cut: int) -> tuple[Any, ...]:
    logic, items = run(cut)
    found = [
        (int(seq), logic.devices.names[device], value, batch.productId)
        for item in items
        for batch in item.readings
        for seq, device, value in zip(batch.seq, batch.device, batch.value[0].tolist(), strict=True)
    ]
    refused = [
        (one.position, one.index, one.reason.name, one.device_id, one.message)
        for item in items
        for one in item.rejects
    ]
    totals: dict[tuple[str, str, str], int] = {}
    for item in items:
        for (source, product), terms in item.ledger.items():
            for term, count in terms.items():
                totals[source, product, term] = totals.get((source, product, term), 0) + count
    return sorted(found), sorted(refused), totals, logic.devices.export()


def test_each_reading_goes_to_the_device_that_it_names() -> None:
    found, refused, totals, devices = outcome(100)
    assert found == [
        (65536, "n2", 0.0, "node"),
        (65537, "n1", 1.0, "node"),
        (65539, "n2", 30.0, "node"),
        (2 * 65536, "press-1", 1.0, "press"),
        (3 * 65536 + 2, "n3", 2.0, "node"),
    ]
    assert refused == [
        (0, 0, "malformed", "", "v: an array is expected"),
        (1, 2, "unknown_device", "stranger", "'stranger' is not in devices.csv"),
        (3, 0, "no_product", "press-1", "'press-1' is of product 'press', not of 'node'"),
        (3, 1, "unknown_device", "", "the reading names no device"),
        (4, 0, "device_limit", "own", "'own' is one device more than limits.devices allows (4)"),
        (5, 0, "malformed", "", "v: an array is expected"),
        (6, 0, "device_limit", "s", "'s' is one device more than limits.devices allows (4)"),
    ]
    assert devices["names"] == ["n2", "n1", "press-1", "n3"]
    assert devices["hubs"] == ["", "", "", ""]  # of addresses; master data have their own
    node = {term: count for (_, product, term), count in totals.items() if product == "node"}
    assert node == {
        "frames_in": 4,
        "frames_decoded": 2,
        "frames_rejected": 2,
        "readings_decoded": 7,
        "readings_rejected": 3,
    }


def test_the_cut_of_the_journal_makes_no_difference() -> None:
    assert outcome(1) == outcome(2) == outcome(5) == outcome(100)


def test_an_undeclared_metric_rejects_its_frame_where_the_contract_says_so() -> None:
    logic = DecodeLogic(PLAN, Devices())
    sent = [{"tempC": 1}, {"tempC": 1, "zz": 2, "b": 3}]
    (item,) = slices([frame("strict/s", {"data": {"metrics": metrics}}) for metrics in sent])
    logic.process(item)
    (reject,) = item.rejects
    assert (reject.position, reject.reason.name) == (1, "unmatched")
    assert reject.message == "'b' is no metric of strict (on_unknown_metric: reject)"
    assert [len(batch) for batch in item.readings] == [1]
    assert logic.unknown_metrics == {("strict", "zz"): 1, ("strict", "b"): 1}
