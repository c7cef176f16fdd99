"""`contract.sequence`: what a device counted and never came, against a plain count; snapshots; mistakes."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Slice
from operators.contract.spec import Contract, Metric, ProductContract, SequenceContract
from operators.contract.step import ContractLogic
from operators.devices import Devices
from operators.document import Problems, load_yaml
from tests.contract.slices import slice_of
from tests.reference.contract_sequence import counted

KINDS = {"t": "number", "n": "integer"}
SECOND = 1_000_000_000
START = 1_772_355_600 * SECOND


def logic(wraps: int | None, devices: Devices) -> ContractLogic:
    metrics = {
        "t": Metric(name="t", range=(0.0, 100.0), on_breach="reject"),
        "n": Metric(name="n", type="integer"),
    }
    contract = Contract(sequence=SequenceContract(metric="n", wraps=wraps))
    return ContractLogic({"p": ProductContract(metrics, contract, 900 * SECOND)}, devices)


def run(readings: list[dict[str, Any]], wraps: int | None, cut: int) -> tuple[dict[str, int], list[Any]]:
    """The ledger's counts and those by device, the engine being stopped and started at every cut."""
    devices = Devices()
    engine = logic(wraps, devices)
    ledger: dict[str, int] = {}
    for first in range(0, len(readings), cut):
        item: Slice = slice_of(readings[first : first + cut], KINDS, devices)
        engine.process(item)
        for terms in item.ledger.values():
            for term, count in terms.items():
                if term.startswith("sequence"):
                    ledger[term] = ledger.get(term, 0) + count
        kept = engine.snapshot()
        engine = logic(wraps, devices)
        engine.restore(kept)
    return ledger, engine.missing(10)


READING = st.tuples(
    st.sampled_from(["a", "b"]),
    st.integers(-3, 40),  # seconds from the one before
    st.sampled_from([20.0, 500.0, None]),  # 500: out of range, rejected by the contract
    st.integers(0, 9) | st.sampled_from([None, 2.5, -1]),
)


@settings(max_examples=120, deadline=None)
@given(st.lists(READING, max_size=25), st.sampled_from([None, 2, 7, 10]), st.sampled_from([1, 3, 100]))
def test_equal_to_a_plain_count(rows: list[Any], wraps: int | None, cut: int) -> None:
    readings, at, arrived = [], START, START
    for frame, (device, step, t, n) in enumerate(rows):
        at += step * SECOND
        arrived = max(arrived, at)
        values = {"t": t} if n is None else {"t": t, "n": n}
        readings.append(
            {"device": device, "frame": frame, "ts": at, "ingest": arrived, "flags": [], "values": values}
        )
    ledger, by_device = run(readings, wraps, cut)
    whole = run(readings, wraps, 1000)
    assert (ledger, by_device) == whole
    wanted = counted(readings, wraps)
    assert {one["device_id"]: (one["missing"], one["gaps"], one["restarts"]) for one in by_device} == {
        device: counts for device, counts in wanted.items() if any(counts)
    }
    sums = [sum(counts[k] for counts in wanted.values()) for k in range(3)]
    assert [ledger.get(f"sequence_{name}", 0) for name in ("missing", "gaps", "restarts")] == sums


def test_a_counter_of_one_byte() -> None:
    numbers = [254, 255, 0, 3, 3, 200, 201]
    readings = [
        {
            "device": "a",
            "frame": k,
            "ts": START + k * SECOND,
            "ingest": START + k * SECOND,
            "flags": [],
            "values": {"t": 1.0, "n": n},
        }
        for k, n in enumerate(numbers)
    ]
    ledger, by_device = run(readings, 256, 100)
    assert by_device == [{"productId": "p", "device_id": "a", "missing": 2, "gaps": 1, "restarts": 1}]
    assert ledger == {"sequence_missing": 2, "sequence_gaps": 1, "sequence_restarts": 1}


def test_mistakes_are_told_with_place_and_mend() -> None:
    from flows.plant_products import read_products

    text = """\
productId: p
version: 1
decode: {format: json}
metrics: {n: {type: integer}, mode: {type: string}}
contract: {sequence: %s}
"""
    for section, told in (
        ("{metric: m}", "5:31  contract.sequence.metric: no metric 'm' in p"),
        ("{metric: mode}", "5:31  contract.sequence.metric: 'mode' is a string; a number counts"),
        ("{metric: n, wraps: 1}", "5:41  contract.sequence.wraps: a whole number from 2 is expected"),
        ("{wraps: 256}", "5:22  contract.sequence: 'metric' is missing"),
    ):
        problems = Problems()
        read_products({"p.yaml": load_yaml(text % section, "p.yaml", problems)}, {}, problems)
        assert len(problems.errors) == 1
        assert told in problems.render(), problems.render()
