"""The contract stage against the plain reference, however the readings are cut."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from operators.contract.spec import Contract, Metric, ProductContract, TimestampContract
from operators.contract.step import ContractLogic
from operators.devices import Devices
from operators.text import text_code
from tests.contract.slices import FLAGS, QUALITIES, slice_of
from tests.reference.contract import WRONG, judge

SECOND = 1_000_000_000
T0 = 1_772_355_600 * SECOND
BREACH = st.sampled_from([None, "reject", "bad", "clamp"])


@st.composite
def contracts(draw):
    metrics = {
        "tempC": {
            "type": "number",
            "range": draw(st.sampled_from([None, (-5.0, 5.0), (None, 3.0), (0.0, None)])),
            "max_step": draw(st.sampled_from([None, 2.0])),
            "required": draw(st.booleans()),
            "on_breach": draw(BREACH),
        },
        "count": {
            "type": "integer",
            "max_step": draw(st.sampled_from([None, 3.0])),
            "values": draw(st.sampled_from([None, [1, 2, 3]])),
            "on_breach": draw(BREACH),
        },
        "open": {
            "type": "boolean",
            "values": draw(st.sampled_from([None, [True]])),
            "on_breach": draw(BREACH),
        },
        "mode": {
            "type": "string",
            "values": draw(st.sampled_from([None, ["idle", "run"]])),
            "required": draw(st.booleans()),
            "on_breach": draw(BREACH),
        },
    }
    times = {
        "max_future": draw(st.sampled_from([2, 5])) * SECOND,
        "max_age": draw(st.sampled_from([8, 30])) * SECOND,
        "live_within": 4 * SECOND,
        "on_breach": draw(st.sampled_from(["reject", "bad", "clamp"])),
    }
    return metrics, times


VALUES = {
    "tempC": st.sampled_from([0, 1.5, 1.5, 2.5, 2.5, 1, 2, 6.0, -7.25, None, WRONG, "x"]),
    "count": st.sampled_from([1, 1, 2, 2, 3, 7, 2.5, None, WRONG]),
    "open": st.sampled_from([True, True, True, False, None, WRONG]),
    "mode": st.sampled_from(["idle", "idle", "run", "run", "stop", "", None, WRONG]),
}
BEHIND = st.sampled_from([0, 0, 0, -1, -3, -6, -6, -6, -12, 1, 4])
PAYLOADS = st.one_of(
    st.fixed_dictionaries(VALUES),
    st.fixed_dictionaries({"tempC": st.sampled_from([1.5, 2]), "mode": st.just("run")}),
    st.fixed_dictionaries({}, optional=VALUES),
)


@st.composite
def streams(draw):
    """Readings in frames of one to three, some frames sent again."""
    found, sent, ingest = [], [], T0
    for frame in range(draw(st.integers(1, 25))):
        ingest += draw(st.sampled_from([0, 1, 2])) * SECOND
        if sent and draw(st.integers(0, 4)) == 0:
            rows = [dict(row, frame=frame, ingest=ingest) for row in draw(st.sampled_from(sent))]
        else:
            device = draw(st.sampled_from(["a", "a", "a", "b", "b", "gone"]))
            flags = draw(st.sampled_from([(), (), ("time_uncertain",), ("live_reference",), ("historical",)]))
            rows = [
                {
                    "device": device,
                    "frame": frame,
                    "ts": ingest + draw(BEHIND) * SECOND,
                    "ingest": ingest,
                    "flags": flags,
                    "values": draw(PAYLOADS),
                    "payload": b"%d" % frame,  # what is read may be equal, the bytes are not
                }
                for _ in range(draw(st.sampled_from([1, 1, 2, 3])))
            ]
            sent.append(rows)
        found.append(rows)
    return found


def spec_of(metrics, times):
    stamp = TimestampContract(
        max_future=times["max_future"], max_age=times["max_age"], on_breach=times["on_breach"]
    )
    named = {name: Metric(name=name, **m) for name, m in metrics.items()}
    return ProductContract(named, Contract(timestamp=stamp), times["live_within"], frozenset({"gone"}))


def run(spec, frames, cuts, kinds, restore_at=None):
    """(accepted rows, rejects, ledger) of the frames cut into slices of `cuts` frames."""
    devices = Devices()
    logic = ContractLogic({"p": spec}, devices)
    accepted, rejects, ledger = [], [], {}
    at = 0
    while at < len(frames):
        size = cuts[at % len(cuts)]
        item = slice_of([row for rows in frames[at : at + size] for row in rows], kinds, devices)
        logic.process(item)
        batch = item.readings[0]
        for i in range(len(batch)):
            cells = tuple(
                (None if math.isnan(batch.value[m, i]) else batch.value[m, i], int(batch.quality[m, i]))
                for m in range(len(kinds))
            )
            accepted.append((int(batch.seq[i]), int(batch.ts_ns[i]), int(batch.flags[i]), cells))
        rejects += item.rejects
        for terms in item.ledger.values():
            for term, n in terms.items():
                ledger[term] = ledger.get(term, 0) + n
        at += size
        if restore_at is not None and at >= restore_at:
            data, restore_at = logic.snapshot(), None
            logic = ContractLogic({"p": spec}, devices)
            logic.restore(data)
    return accepted, rejects, ledger


@settings(deadline=None, max_examples=100, derandomize=True)
@given(contracts(), streams(), st.lists(st.integers(1, 9), min_size=1, max_size=4), st.integers(0, 25))
def test_kernel_equals_reference_for_every_cut(contract, frames, cuts, restore_at):
    metrics, times = contract
    kinds = {name: metric["type"] for name, metric in metrics.items()}
    spec = spec_of(metrics, times)
    accepted, rejects, ledger = run(spec, frames, cuts, kinds, restore_at)
    assert run(spec, frames, [1000], kinds) == (accepted, rejects, ledger)

    rows = [dict(row, flags=set(row["flags"])) for rows in frames for row in rows]
    expected, reasons, filtered = [], [], 0
    index = 0
    for i, (row, verdict) in enumerate(zip(rows, judge(rows, metrics, times, {"gone"}), strict=True)):
        index = index + 1 if i and rows[i - 1]["frame"] == row["frame"] else 0
        what, name, qualities, values, ts, flags = verdict
        if what == "filtered":
            filtered += 1
        elif what == "accepted":
            cells = tuple(plain(values[m], qualities[m]) for m in metrics)
            expected.append(((row["frame"] << 16) + index, ts, sum(FLAGS[f] for f in flags), cells))
        else:
            reasons.append((row["frame"], index, what, name))
    shown = [
        (r.position, r.index, r.reason.name, None if r.reason >= 17 else r.message.split(":")[0])
        for r in rejects
    ]
    assert shown == reasons
    assert accepted == expected
    assert ledger.get("readings_filtered", 0) == filtered
    assert ledger.get("readings_rejected", 0) == len(reasons)


def plain(value, quality):
    """A cell as it stands in a batch."""
    if isinstance(value, str):
        value = text_code(value)
    return (None if value is None else float(value)), QUALITIES[quality]
