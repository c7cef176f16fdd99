"""Devices that payloads name: every spelling of a name, met once or many times, leads to the same device."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Address
from operators.decode import met_addresses
from operators.decode.known_names import LONGEST
from operators.decode.spec import DecodePlan, MasterDevice, ProductDecode, RoutingSpec, SourceSpec
from operators.decode.step import DecodeLogic
from operators.devices import Devices
from tests.decode_json.frames import good_spec, slices

KINDS = {"x": "number"}
LONG = "n" * LONGEST
TEN = "n" * 10
DEVICES = ("a", "ab", "7", "-0.50", "é", '"', "a/b", LONG, LONG + "n", "b", TEN)
PLAN = DecodePlan(
    products={
        name: ProductDecode(
            name, good_spec("format: json\nmetrics: {x: x}\ntimestamp: t", KINDS), (("x", "number"),)
        )
        for name in ("one", "two")
    },
    routing=RoutingSpec(
        sources=(
            SourceSpec("first", device="payload:sn", product="one"),
            SourceSpec("second", device="payload:sn", product="two"),
            SourceSpec("third", device="payload:id.sn", product="one"),
        ),
        devices={name: MasterDevice("", f"hub-{at}") for at, name in enumerate(DEVICES)},
    ),
)
ADDRESSES = [Address(source, f"peer-{at}") for source in ("first", "second", "third") for at in (1, 2)]


def spelled(name: str) -> st.SearchStrategy[str]:
    """The JSON value of a name: with and without escapes, as a number where it is one."""
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
    plain = json.dumps(name, ensure_ascii=False)
    return st.sampled_from([plain, f'"{escaped}"', name if name in ("7", "-0.50") else plain])


FRAME = st.tuples(
    st.sampled_from(ADDRESSES),
    st.sampled_from([*DEVICES, "unknown", "A"]).flatmap(spelled)
    | st.sampled_from(["null", "true", '""', "[7]"]),
    st.integers(0, 99),
)


def frame(address: Address, name: str, number: int) -> bytes:
    where = f'{{"sn": {name}}}' if address.source == "third" else name
    key = "id" if address.source == "third" else "sn"
    return f'{{"{key}": {where}, "x": {number}, "t": 1772355600000}}'.encode()


def expected(address: Address, name: str) -> str | None:
    """The device, as the text of the payload says it; None where it names none."""
    if name in ("null", "true", '""', "[7]"):
        return None
    return name if not name.startswith('"') else str(json.loads(name))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(FRAME, min_size=1, max_size=40), st.sampled_from([1, 3, 1000]))
def test_every_spelling_leads_to_its_device(told: list[tuple[Address, str, int]], cut: int) -> None:
    logic = DecodeLogic(PLAN, Devices())
    items = slices([(address, frame(address, name, n), 0) for address, name, n in told], cut=cut)
    readings: dict[int, Any] = {}
    refused: dict[int, Any] = {}
    for item in items:
        logic.process(item)
        for batch in item.readings:
            for row, seq in enumerate((batch.seq >> 16).tolist()):
                device = logic.devices.names[batch.device[row]]
                readings[seq] = batch.productId, device, float(batch.value[0, row])
        refused |= {one.position: (one.reason.name, one.device_id, one.message) for one in item.rejects}
    for position, (address, name, number) in enumerate(told):
        device = expected(address, name)
        if device in DEVICES:
            product = "two" if address.source == "second" else "one"
            assert readings.pop(position) == (product, device, float(number))
        elif device is not None:
            why = "unknown_device", device, f"'{device}' is not in devices.csv"
            assert refused.pop(position) == why
        else:
            where = "id.sn" if address.source == "third" else "sn"
            why = "unknown_device", "", f"the payload names no device at '{where}'"
            assert refused.pop(position) == why
    assert not readings
    assert not refused


def test_many_names_of_many_addresses() -> None:
    """More names than the table has room for at first, each from several addresses, twice over."""
    names = [f"d{at}" for at in range(3000)]
    plan = DecodePlan(PLAN.products, RoutingSpec(PLAN.routing.sources, {n: MasterDevice("") for n in names}))
    logic = DecodeLogic(plan, Devices())
    told = [(ADDRESSES[at % 2], names[at // 2], at) for at in range(2 * len(names))] * 2
    (item,) = slices(
        [(address, frame(address, f'"{name}"', n), 0) for address, name, n in told], cut=len(told)
    )
    logic.process(item)
    (batch,) = item.readings
    assert [logic.devices.names[slot] for slot in batch.device] == [name for _, name, _ in told]
    assert batch.value[0].tolist() == [float(number) for *_, number in told]
    assert logic.devices.names == names


@pytest.mark.parametrize("made_up", ["names", "spellings"])
def test_names_without_end_take_no_memory_without_end(made_up: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One peer that makes names up, or ways to write one: what is kept of them is begun anew."""
    monkeypatch.setattr(met_addresses, "ADDRESSES_KEPT", 100)
    logic = DecodeLogic(PLAN, Devices())

    def name(at: int) -> str:
        if made_up == "names":
            return f'"{"b" if at % 10 == 0 else f"made-up-{at}"}"'
        bits = f"{at % 1024:010b}"
        return '"' + "".join("n" if bit == "0" else "\\u006e" for bit in bits) + '"'

    told = [(ADDRESSES[0], name(at), at) for at in range(2000)]
    items = slices([(address, frame(address, text, n), 0) for address, text, n in told], cut=50)
    for item in items:
        item.frames.addresses = items[
            0
        ].frames.addresses  # the very object, as a reader of the journal gives it
        logic.process(item)
        assert len(logic._addresses.rows) <= 100 + 50
        assert len(logic._addresses.names) <= 100 + 50
    values = [value for item in items for batch in item.readings for value in batch.value[0].tolist()]
    assert values == [float(at) for at in range(0, 2000, 10 if made_up == "names" else 1)]
    assert sum(len(item.rejects) for item in items) == (1800 if made_up == "names" else 0)
    assert len(logic.devices.names) == 1
