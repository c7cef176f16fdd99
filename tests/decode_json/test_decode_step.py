"""The decode stage: routing, frame checks, slots, ticks, ledger, whatever the cut."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import (
    FRAME_HISTORICAL,
    FRAME_RETAINED,
    GOOD,
    HISTORICAL,
    LIVE_REFERENCE,
    TIME_UNCERTAIN,
    UNCERTAIN,
    Address,
    Slice,
)
from operators.decode.routing import (
    Template,
    TopicFilters,
    device_problem,
    filter_problem,
    template_problem,
)
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
from tests.decode_json.frames import INGEST_NS, good_spec, slices

KINDS = {"tempC": "number", "mode": "string"}
TYPES = tuple(KINDS.items())
STANDARD = good_spec("format: json", KINDS)
CSV = good_spec(
    'format: csv\ntimestamp: {column: timestamp, format: "%Y-%m-%d %H:%M:%S"}\n'
    'columns: {_f: value}\nderive: {tempC: "(_f - param.zero) * 5 / 9"}',
    KINDS,
    {"zero": 32},
)
PLAN = DecodePlan(
    products={
        "press": ProductDecode("press", STANDARD, TYPES, ("iotlink/+/+/+/+/pub/telemetry/json",)),
        "fan": ProductDecode("fan", STANDARD, TYPES, ("iotlink/+/+/+/+/pub/telemetry/json", "fans/#")),
        "furnace": ProductDecode("furnace", CSV, TYPES, (), {"zero": 32.0}, {"furnace-2": {"zero": 0.0}}),
        "app": ProductDecode("app", STANDARD, TYPES),
    },
    routing=RoutingSpec(
        sources=(
            SourceSpec("line1"),
            SourceSpec("drops", "files", product="furnace", live=True),
            SourceSpec("old", "files", product="furnace", device="const:furnace-1", historical=True),
            SourceSpec("legacy", "tcp", device="peer"),
            SourceSpec("named", device="payload:meta.sn", product="app"),
            SourceSpec("head", device="header:X-Device", product="app"),
            SourceSpec("fans", topic="fans/{device_id}/x"),
        ),
        devices={
            "press-01": MasterDevice("press", "hub-7"),
            "press-02": MasterDevice("press"),
            "fan-01": MasterDevice("fan"),
            "furnace-1": MasterDevice("furnace"),
            "furnace-2": MasterDevice("furnace"),
            "10.0.0.5": MasterDevice("app"),
            "10.0.0.6:77": MasterDevice("app"),
            "a1": MasterDevice("app"),
            "7": MasterDevice("app"),
            "lost": MasterDevice("gone"),
        },
    ),
    limits=DecodeLimits(devices=100, frame=500),
)
CSV_HEADER = (("csv", "timestamp,value"),)


def topic(device: str, hub: str = "nohub", direction: str = "pub", role: str = "telemetry") -> str:
    return f"iotlink/dev/{hub}/{device}/periodic/{direction}/{role}/json"


def payload(**metrics: Any) -> bytes:
    return json.dumps({"device_timestamp": 1_772_355_600_000, "data": {"metrics": metrics}}).encode()


def run(
    frames: list[tuple[Address, bytes, int]], plan: DecodePlan = PLAN, **options: Any
) -> tuple[DecodeLogic, list[Slice]]:
    logic = DecodeLogic(plan, Devices())
    items = slices(frames, **options)
    for item in items:
        logic.process(item)
        check_sums(item)
    return logic, items


def check_sums(item: Slice) -> None:
    totals: dict[str, int] = {}
    for terms in item.ledger.values():
        for term, count in terms.items():
            totals[term] = totals.get(term, 0) + count
        outcomes = ("frames_decoded", "frames_rejected", "frames_filtered", "frames_held")
        assert terms.get("frames_in", 0) == sum(terms.get(term, 0) for term in outcomes)
    assert totals.get("frames_in", 0) == len(item.frames)
    assert totals.get("frames_rejected", 0) == len(item.rejects)
    assert totals.get("readings_decoded", 0) == sum(len(batch) for batch in item.readings)


def one(address: Address, raw: bytes, flags: int = 0, plan: DecodePlan = PLAN) -> tuple[DecodeLogic, Slice]:
    logic, items = run([(address, raw, flags)], plan)
    return logic, items[0]


ROUTED = [
    (Address("line1", topic("press-01")), "press", "press-01", "hub-7"),
    (Address("line1", topic("press-02", "hub-3")), "press", "press-02", "hub-3"),
    (Address("line1", topic("fan-01", "fan-01")), "fan", "fan-01", "fan-01"),
    (Address("not-in-the-plant", topic("press-02")), "press", "press-02", ""),
    (Address("legacy", "10.0.0.5", -1, (("peer", "10.0.0.5:4711"),)), "app", "10.0.0.5", ""),
    (Address("legacy", "10.0.0.6", -1, (("peer", "10.0.0.6:77"),)), "app", "10.0.0.6:77", ""),
    (Address("head", "x", -1, (("x-device", "a1"),)), "app", "a1", ""),
    (Address("fans", "fans/fan-01/x"), "fan", "fan-01", ""),
]


@pytest.mark.parametrize(("address", "product", "device", "hub"), ROUTED)
def test_an_address_names_product_device_and_hub(
    address: Address, product: str, device: str, hub: str
) -> None:
    logic, item = one(address, payload(tempC=1))
    assert [batch.productId for batch in item.readings] == [product]
    assert (logic.devices.names, logic.devices.products) == ([device], [product])
    assert logic.router.route(address).hub_id == hub


REFUSED = [
    (Address("line1", topic("p-9")), "unknown_device", "'p-9' is not in devices.csv", "p-9", ""),
    (Address("fans", "fans/fan-9/x"), "unknown_device", "'fan-9' is not in devices.csv", "fan-9", "fan"),
    (
        Address("line1", "fans/x"),
        "unknown_device",
        "'fans/x' does not fit 'iotlink/{env}/{hub_id}/{device_id}/{type}/{direction}/{role}/{format}', "
        "which names the device",
        "",
        "fan",
    ),
    (
        Address("line1", topic("press-01", role="alert_report")),
        "no_product",
        f"'press-01' is of product 'press', which does not take '{topic('press-01', role='alert_report')}'",
        "press-01",
        "",
    ),
    (Address("line1", topic("lost")), "no_product", "the plant has no product 'gone'", "lost", ""),
    (Address("head", "x"), "unknown_device", "there is no header 'X-Device' to name the device", "", "app"),
    (
        Address("legacy", "10.0.0.5", -1, (("resync", "a length of 70000"),)),
        "resync",
        "garbage between frames: a length of 70000",
        "",
        "",
    ),
    (
        Address("legacy", "10.0.0.5", -1, (("too_large", "16000001 bytes; max_payload allows 8000000"),)),
        "too_large",
        "the frame has 16000001 bytes; max_payload allows 8000000",
        "",
        "",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("address", "reason", "message", "device", "product"), REFUSED)
def test_an_address_without_product_or_device_is_told(
    address: Address, reason: str, message: str, device: str, product: str
) -> None:
    _, item = one(address, payload(tempC=1))
    (reject,) = item.rejects
    assert (reject.reason.name, reject.message) == (reason, message)
    assert (reject.device_id, reject.productId) == (device, product)
    assert (reject.source, reject.topic) == (address.source, address.topic)
    assert (reject.position, reject.index, reject.ingest_ns) == (0, 0, INGEST_NS)
    assert reject.payload == payload(tempC=1)


BROKEN = [
    (b"", "empty", "the frame is empty"),
    (b"x" * 501, "too_large", "501 bytes; limits.frame allows 500"),
    (b'{"a":"\xff"}', "encoding", "not valid UTF-8 at byte 6"),
    (b'{"a":' * 65, "too_deep", "nested too deep at byte 320"),
    (b'{"a":1,}', "malformed", "a member's name in double quotes is expected at byte 7"),
    (b'{"a":1e400}', "bad_number", "a number beyond the range of a double at byte 5"),
    (
        b'{"device_timestamp":"now"}',
        "malformed",
        "device_timestamp: a time as a number or an ISO 8601 text is expected at byte 20",
    ),
]


@pytest.mark.parametrize(("raw", "reason", "message"), BROKEN)
def test_a_broken_frame_is_told_with_its_place_and_stops_nobody(
    raw: bytes, reason: str, message: str
) -> None:
    at = Address("line1", topic("press-01"))
    _, (item,) = run([(at, payload(tempC=1), 0), (at, raw, 0), (at, payload(tempC=2), 0)])
    (reject,) = item.rejects
    assert (reject.reason.name, reject.message) == (reason, message)
    assert (reject.device_id, reject.productId, reject.position) == ("press-01", "press", 1)
    assert item.readings[0].value[0].tolist() == [1.0, 2.0]
    assert item.readings[0].seq.tolist() == [0, 2 << 16]


def test_an_unknown_device_on_an_unknown_topic_has_no_product() -> None:
    """A product that a source names takes nothing from other sources' unknown devices."""
    products = {name: PLAN.products[name] for name in ("press", "furnace")}
    plan = DecodePlan(products, PLAN.routing, PLAN.limits)
    for address in (Address("line1", topic("new", role="other")), Address("line1", "foo/bar")):
        _, item = one(address, payload(tempC=1), plan=plan)
        assert item.rejects[0].reason.name == "no_product"
        assert item.rejects[0].message == f"no product takes '{address.topic}'"


def test_retained_messages_and_own_control_requests_are_filtered() -> None:
    frames = [
        (Address("line1", topic("press-01")), b"not even JSON", FRAME_RETAINED),
        (Address("line1", topic("press-01", direction="sub")), payload(), 0),
        (Address("line1", topic("press-01", role="control_request")), payload(), 0),
    ]
    logic, (item,) = run(frames)
    assert (item.rejects, item.readings, logic.devices.names) == ([], [], [])
    assert item.ledger[("line1", "press")] == {"frames_in": 1, "frames_filtered": 1}
    assert item.ledger[("line1", "")] == {"frames_in": 2, "frames_filtered": 2}


def test_the_payload_names_the_device() -> None:
    at = Address("named", "q")
    frames = [
        (at, b'{"meta":{"sn":"a1"},"data":{"metrics":{"tempC":1}}}', 0),
        (at, b'{"meta":{"sn":"zz"}}', 0),
        (at, b'{"meta":{"sn":7},"data":{"metrics":{"tempC":2}}}', 0),
        (at, b'{"meta":{"sn":null}}', 0),
        (at, b'{"meta":', 0),
        (at, b'{"meta":{"sn":"\\u00611"},"data":{"metrics":{"tempC":3}}}', 0),
        (at, b"", 0),
    ]
    logic, (item,) = run(frames)
    (batch,) = item.readings
    assert [logic.devices.names[slot] for slot in batch.device] == ["a1", "7", "a1"]
    assert batch.value[0].tolist() == [1.0, 2.0, 3.0]
    assert [(r.reason.name, r.device_id, r.message) for r in item.rejects] == [
        ("unknown_device", "zz", "'zz' is not in devices.csv"),
        ("unknown_device", "", "the payload names no device at 'meta.sn'"),
        ("malformed", "", "the frame ends where a value is expected at byte 8"),
        ("empty", "", "the frame is empty"),
    ]


def test_csv_rows_with_a_parameter_by_device() -> None:
    frames = [
        (Address("drops", "furnace-1.csv", -1, CSV_HEADER), b"2013-12-02 21:15:00,212", 0),
        (Address("drops", "deep/furnace-2.csv", -1, CSV_HEADER), b"2013-12-02 21:15:00,90", 0),
        (Address("old", "any.csv", -1, CSV_HEADER), b"2013-12-02 21:20:00,32", 0),
    ]
    _, (item,) = run(frames)
    (batch,) = item.readings
    assert batch.value[0].tolist() == [100.0, 50.0, 0.0]
    assert batch.flags.tolist() == [LIVE_REFERENCE, LIVE_REFERENCE, HISTORICAL]
    assert [item.sources[number] for number in batch.source] == ["drops", "drops", "old"]


def test_a_stand_in_time_makes_good_values_uncertain() -> None:
    at = Address("line1", topic("press-01"))
    frames = [
        (at, payload(tempC=1), 0),
        (at, b'{"hub_timestamp":1,"data":{"metrics":{"tempC":1,"mode":null}}}', 0),
        (at, b'{"data":{"metrics":{"tempC":1}}}', FRAME_HISTORICAL),
    ]
    _, (item,) = run(frames)
    (batch,) = item.readings
    assert batch.flags.tolist() == [0, TIME_UNCERTAIN, TIME_UNCERTAIN | HISTORICAL]
    assert batch.quality.T.tolist() == [[GOOD, 3], [UNCERTAIN, 2], [UNCERTAIN, 3]]
    assert batch.ts_ns.tolist() == [INGEST_NS, 1_000_000, INGEST_NS + 2_000_000]


def test_devices_beyond_the_limit_are_refused() -> None:
    plan = DecodePlan(PLAN.products, PLAN.routing, DecodeLimits(devices=1))
    frames = [
        (Address("line1", topic(device)), payload(tempC=1), 0)
        for device in ("press-02", "fan-01", "press-02")
    ]
    logic, (item,) = run(frames, plan)
    assert logic.devices.names == ["press-02"]
    (reject,) = item.rejects
    assert reject.reason.name == "device_limit"
    assert reject.message == "'fan-01' is one device more than limits.devices allows (1)"


def test_an_unknown_device_is_accepted_where_the_plant_says_so() -> None:
    plan = DecodePlan(
        PLAN.products, RoutingSpec(PLAN.routing.sources, PLAN.routing.devices, "accept"), PLAN.limits
    )
    logic, item = one(Address("fans", "fans/new/x"), payload(tempC=1), plan=plan)
    assert (logic.devices.names, logic.devices.products) == (["new"], ["fan"])
    _, item = one(Address("line1", topic("new")), payload(tempC=1), plan=plan)
    assert item.rejects[0].message == (
        f"press and fan take '{topic('new')}', and devices.csv does not say which 'new' is"
    )


def test_ticks_stand_among_each_products_rows_and_reach_silent_products() -> None:
    press, fan = Address("line1", topic("press-01")), Address("line1", topic("fan-01"))
    frames = [
        (press, payload(tempC=1), 0),
        (fan, payload(tempC=2), 0),
        (press, b"{", 0),
        (press, payload(tempC=3), 0),
    ]
    logic, (item,) = run(frames, ticks=[(0, 10), (2, 20), (3, 30), (4, 40)])
    rows = {batch.productId: (batch.ticks.row.tolist(), batch.ticks.ns.tolist()) for batch in item.readings}
    assert rows == {"press": ([0, 1, 1, 2], [10, 20, 30, 40]), "fan": ([0, 1, 1, 1], [10, 20, 30, 40])}
    quiet = slices([], ticks=[(0, 50)])[0]
    logic.process(quiet)
    assert [(b.productId, len(b), b.ticks.ns.tolist()) for b in quiet.readings] == [
        ("press", 0, [50]),
        ("fan", 0, [50]),
    ]


def test_a_changed_plant_keeps_slots_and_moves_devices() -> None:
    logic, _ = run([(Address("line1", topic("press-01")), payload(tempC=1), 0)])
    devices = {**PLAN.routing.devices, "press-01": MasterDevice("fan", "hub-9")}
    logic.apply(DecodePlan(PLAN.products, RoutingSpec(PLAN.routing.sources, devices), PLAN.limits))
    (item,) = slices([(Address("line1", topic("press-01")), payload(tempC=1), 0)])
    logic.process(item)
    assert [batch.productId for batch in item.readings] == ["fan"]
    assert (logic.devices.names, logic.devices.products) == (["press-01"], ["fan"])
    assert logic.router.route(Address("line1", topic("press-01"))).hub_id == "hub-9"


FRAMES = st.one_of(
    st.tuples(
        st.sampled_from([address for address, *_ in ROUTED] + [address for address, *_ in REFUSED]),
        st.one_of(
            st.integers(0, 99).map(lambda n: payload(tempC=n, mode=f"m{n % 3}")),
            st.sampled_from([raw for raw, *_ in BROKEN]),
        ),
        st.sampled_from([0, 0, 0, FRAME_RETAINED, FRAME_HISTORICAL]),
    ),
    st.tuples(
        st.just(Address("named", "q")),
        st.sampled_from(["a1", "7", "10.0.0.5", "zz"]).map(
            lambda n: json.dumps({"meta": {"sn": n}}).encode()
        ),
        st.just(0),
    ),
    st.tuples(
        st.sampled_from([Address("drops", f"furnace-{n}.csv", -1, CSV_HEADER) for n in (1, 2, 3)]),
        st.sampled_from([b"2013-12-02 21:15:00,212", b"x,1", b"2013-12-02 21:15:00,NaN", b"\xff", b","]),
        st.just(0),
    ),
)


def outcome(frames: list[Any], ticks: list[tuple[int, int]], cut: int) -> Any:
    logic, items = run(frames, ticks=ticks, cut=cut)
    order: dict[str, list[Any]] = {}
    for item in items:
        for batch in item.readings:
            found = order.setdefault(batch.productId, [])
            marks = list(zip(batch.ticks.row.tolist(), batch.ticks.ns.tolist(), strict=True))
            for row in range(len(batch) + 1):
                found += [("tick", ns) for at, ns in marks if at == row]
                if row == len(batch):
                    continue
                value = [None if np.isnan(v) else float(v) for v in batch.value[:, row]]
                usable = batch.quality[1, row] <= UNCERTAIN
                mode = batch.texts[int(batch.value[1, row])] if usable else None
                columns = (batch.device, batch.ts_ns, batch.seq, batch.ingest_ns, batch.flags)
                numbers = [int(column[row]) for column in columns]
                source = item.sources[int(batch.source[row])]
                found.append((numbers, value, mode, batch.quality[:, row].tolist(), source))
    ledger: dict[Any, int] = {}
    for item in items:
        for pair, terms in item.ledger.items():
            for term, count in terms.items():
                ledger[pair, term] = ledger.get((pair, term), 0) + count
    rejects = [reject for item in items for reject in item.rejects]
    trimmed = {}  # a product's ticks before its first reading mean nothing
    for name, rows in order.items():
        while rows and rows[0][0] == "tick":
            rows.pop(0)
        if rows:
            trimmed[name] = rows
    return trimmed, rejects, ledger, logic.snapshot(), sorted(logic.unknown_metrics.items())


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(FRAMES, min_size=1, max_size=25), st.lists(st.integers(0, 25), max_size=4))
def test_the_cut_into_slices_changes_nothing(frames: list[Any], ticks: list[int]) -> None:
    marks = [(min(row, len(frames)), number) for number, row in enumerate(sorted(ticks))]
    whole = outcome(frames, marks, 10_000)
    assert outcome(frames, marks, 1) == whole
    assert outcome(frames, marks, 7) == whole


def test_a_restored_logic_goes_on_with_the_same_slots() -> None:
    frames = [(address, payload(tempC=1), 0) for address, *_ in ROUTED]
    logic, _ = run(frames[:4])
    again = DecodeLogic(PLAN, Devices())
    again.restore(logic.snapshot())
    for other in (logic, again):
        for item in slices(frames):
            other.process(item)
    assert again.snapshot() == logic.snapshot()
    assert again.devices.slots == logic.devices.slots


def test_topic_filters_match_like_mqtt() -> None:
    filters = TopicFilters(
        [("a", "x/+/z"), ("b", "x/#"), ("c", "#"), ("d", "x"), ("a", "x/y/z"), ("e", "+/y/+")]
    )
    assert filters.takers("x/y/z") == ("a", "b", "c", "e")
    assert filters.takers("x") == ("b", "c", "d")
    assert filters.takers("$SYS/y/z") == ()
    assert filters.takers("/y/") == ("c", "e")


def test_templates_and_their_problems() -> None:
    assert Template("devices/{hub_id}/{device_id}/{role}").parts("devices/h/d/r") == {
        "hub_id": "h", "device_id": "d", "role": "r",
    }  # fmt: skip
    assert Template("a/+/dev-{device_id}/#").parts("a/b/dev-7/x/y") == {"device_id": "7"}
    assert Template("{device_id}/{device_id}").parts("a/b") is None
    assert template_problem("a/{b}", "topic") is not None
    assert template_problem("a/{device_id}", "topic") is None
    assert template_problem("a/{device", "peer") == "a part is written {name}"
    assert device_problem("payload:meta.sn") is None
    assert device_problem("payload:") == "'payload:' says nothing; write payload:PATH"
    assert device_problem("topics") is not None
    assert filter_problem("a/#/b") == "'#' stands alone as the last level"
    assert filter_problem("a/b+") == "'+' stands alone in its level"
