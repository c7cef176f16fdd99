"""`penstock rejects`: filters, and resubmission, exactly once and through the current specs."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from connectors.errors import ConfigError
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.columns import decode_rejects
from connectors.journal.merging import Merger
from connectors.journal.output_store import OutputReader
from connectors.journal.output_writer import OutputWriter
from connectors.journal.reader import JournalReader
from connectors.journal.source import slices
from connectors.source import Frame
from flows import look_command, rejects_command, specs
from flows.plant_reader import load_bundle, load_plant
from flows.shard import Shard
from operators.batch import Address, Slice
from operators.decode.routing import RESUBMITTED, Resubmitted, Router, resubmitted
from operators.rejects import Reason, Reject
from tests.journal.journal_process import RunningJournal

PLANT = """\
plant: tall
sources:
  gate: {kind: mqtt, host: 127.0.0.1, subscribe: ["gw/#"], topic: "gw/{device_id}", product: node}
"""
PRODUCT = """\
productId: node
version: 1
decode: {format: json, rows: "v[*]", device: sn, metric: id, value: x, timestamp: t}
metrics:
  tempC: {range: [0, 100], on_breach: reject}
"""
START_NS = 1_772_355_600_000_000_000


def folder(product: str = PRODUCT, more: str = "") -> dict[str, bytes]:
    devices = "device_id,productId\na,node\nb,node\n" + more
    return {
        "plant.yaml": PLANT.encode(),
        "products/node.yaml": product.encode(),
        "devices.csv": devices.encode(),
    }


def payload(*rows: tuple[str, Any]) -> bytes:
    return json.dumps({"v": [{"sn": sn, "id": "tempC", "x": x} for sn, x in rows]}).encode()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[RunningJournal]:
    with RunningJournal(tmp_path / "data") as running:
        yield running


def apply(client: BlockingJournalClient, files: dict[str, bytes]) -> None:
    plant, problems = load_plant(files, {})
    assert plant is not None, problems.render()
    client.control("plant", {"sha256": plant.sha256, "files": dict(plant.files)})


def run_flow(data: Path) -> tuple[list[Slice], list[Reject]]:
    """The stages over all that is in the journal, from its beginning; the output log is made anew."""
    shutil.rmtree(data / "output", ignore_errors=True)
    with closing(JournalReader(data / "journal")) as reader:
        first = reader.first_plant()
        assert first is not None
        shard = Shard(load_bundle(first.files), load=load_bundle, bundle=reader.bundle)
        items = slices(reader, reader.read(reader.oldest(), 1 << 20, 1 << 30), Merger())
        stages = [shard.decode(), shard.contract(), shard.rules(), shard.windows(), shard.state()]
        telemetry = specs.telemetry(shard.first_plant)
        writer = OutputWriter(data / "output", shard.devices, telemetry, state=shard.newest_values)
        for item in items:
            for logic in stages:
                logic.process(item)
            writer.write(item)
        writer.flush()
        writer.close()
    with closing(OutputReader(data / "output")) as output:
        rejects = [one for record in output.read("rejects", 0) for one in decode_rejects(record.body)]
    return items, sorted(rejects, key=lambda one: (one.position, one.index))


def values(items: list[Slice]) -> list[tuple[int, float, int]]:
    """(position, value, event time) of the accepted readings."""
    return [
        (int(seq) >> 16, value, int(ts))
        for item in items
        for batch in item.readings
        for seq, value, ts in zip(batch.seq, batch.value[0].tolist(), batch.ts_ns, strict=True)
    ]


def resubmit(data: Path, *arguments: str) -> dict[str, int]:
    result = CliRunner().invoke(look_command.rejects, ["resubmit", "--data", str(data), "--json", *arguments])
    assert result.exit_code == 0, result.output
    found: dict[str, int] = json.loads(result.stdout)
    return found


def test_mended_specs_take_what_was_refused_once(journal: RunningJournal) -> None:
    data = journal.data
    with journal.client("gate") as client:
        apply(client, folder())
        client.append([Frame("gw/1", payload(("a", 1), ("b", 120), ("c", 3)))])
        client.append([Frame("gw/1", b'{"v":'), Frame("gw/1", payload(("c", 4)))])
        before, rejects = run_flow(data)
        assert [(one.position, one.index, one.reason.name) for one in rejects] == [
            (0, 1, "range"),
            (0, 2, "unknown_device"),
            (1, 0, "malformed"),
            (2, 0, "unknown_device"),
        ]
        assert [value for _, value, _ in values(before)] == [1.0]
        arrived = [int(ns) for item in before for ns in item.frames.ingest_ns]
        apply(client, folder(PRODUCT.replace("100", "200"), more="c,node\n"))

        assert resubmit(data, "--dry-run") == {"resubmitted": 4, "already": 0, "skipped": 0}
        assert resubmit(data, "--reason", "range") == {"resubmitted": 1, "already": 0, "skipped": 0}
        assert resubmit(data) == {"resubmitted": 3, "already": 1, "skipped": 0}
        assert resubmit(data, "--source", "gate") == {"resubmitted": 0, "already": 4, "skipped": 0}
        assert resubmit(data, "--source", "other") == {"resubmitted": 0, "already": 0, "skipped": 0}

        after, rejects = run_flow(data)
        # a reading alone where it alone was refused; a frame without a time keeps when it came first
        assert values(after) == [
            (0, 1.0, arrived[0]),
            (3, 120.0, arrived[0] // 1_000_000 * 1_000_000),
            (4, 3.0, arrived[0] // 1_000_000 * 1_000_000),
            (6, 4.0, arrived[2] // 1_000_000 * 1_000_000),
        ]
        assert [(one.position, one.reason.name) for one in rejects[4:]] == [(5, "malformed")]

        # what is refused again can be sent again
        assert resubmit(data, "--reason", "malformed") == {"resubmitted": 1, "already": 1, "skipped": 0}
        with closing(JournalReader(data / "journal")) as reader:
            last = rejects_command.Originals(reader).find(reader.next_position() - 1)
        assert last is not None
        assert (last.payload, last.address.source) == (b'{"v":', "gate")
        assert last.address.headers == ((RESUBMITTED, f"5@{arrived[1] // 1_000_000}"),)


def test_a_frame_comes_with_the_address_that_it_had(journal: RunningJournal) -> None:
    with journal.client("gate") as client:
        apply(client, folder())
        client.append([Frame("gw/1", b"{", port=7, headers=(("x", "y"), ("x", "z")), flags=2)])
    run_flow(journal.data)
    assert resubmit(journal.data)["resubmitted"] == 1
    with closing(JournalReader(journal.data / "journal")) as reader:
        originals = rejects_command.Originals(reader)
        first, second = originals.find(0), originals.find(1)
        assert originals.find(2) is None
    assert first is not None
    assert second is not None
    assert second[1:3] == first[1:3] == (b"{", 2)
    assert second.address._replace(headers=second.address.headers[:2]) == first.address
    assert first.address == Address("gate", "gw/1", 7, (("x", "y"), ("x", "z")))


REJECT = Reject(Reason.range, "m", "gate", "gw/1", "a", "node", 9, 2, START_NS, b"{}")


def test_a_trimmed_frame_is_what_its_reject_knows() -> None:
    found = rejects_command.again(REJECT, None, {})
    assert found is not None
    assert (found.source, found.key) == ("gate", "resubmit:9.2")
    assert found.frame.headers == ((RESUBMITTED, f"9.2@{START_NS // 1_000_000}"),)
    assert (found.frame.topic, found.frame.payload) == ("gw/1", b"{}")


def test_a_frame_that_was_cut_is_not_sent_again() -> None:
    cut = Reject(Reason.too_large, "m", "gate", "gw/1", "", "", 9, 0, START_NS, b"{}")
    assert rejects_command.again(cut, None, {}) is None


def test_a_reading_of_a_reading_stays_that_one() -> None:
    before = Address("gate", "gw/1", -1, ((RESUBMITTED, "3.7@1000"), ("k", "v")))
    again = Reject(Reason.malformed, "m", "gate", "gw/1", "", "node", 12, 0, START_NS, b"{")
    found = rejects_command.again(again, rejects_command.Original(before, b"{", 0, START_NS), {})
    assert found is not None
    assert found.frame.headers == (("k", "v"), (RESUBMITTED, "12.7@1000"))


@pytest.mark.parametrize(
    "text", ["", "x", "1", "1.2", "1@", "-1@5", "1.@5", "1@5 ", "1.123456@5", "1@" + "9" * 14]
)
def test_a_header_of_another_make_means_nothing(text: str) -> None:
    assert resubmitted(((RESUBMITTED, text),)) is None


def test_headers_are_read_as_they_are_written() -> None:
    for mark in (Resubmitted(0, -1, 0), Resubmitted(12, 0, 5), Resubmitted(1, 65534, 1_772_355_600_000)):
        assert resubmitted((("a", "b"), (RESUBMITTED, mark.text()))) == mark
    plant, _ = load_plant(folder(), {})
    assert plant is not None
    route = Router(specs.decode(plant)).route(Address("gate", "gw/x", -1, ((RESUBMITTED, "1.2@3"),)))
    assert (route.reading, route.arrived_ns) == (2, 3_000_000)


def test_filters() -> None:
    line = {"reason": "range", "productId": "node", "device_id": "a", "source": "gate"}
    line["ingest_time"] = "2026-03-01T09:00:00.000Z"
    for filters, taken in (
        (rejects_command.Filters(), True),
        (rejects_command.Filters("range", "node", "a", "gate", START_NS), True),
        (rejects_command.Filters(reason="type"), False),
        (rejects_command.Filters(product="x"), False),
        (rejects_command.Filters(device="b"), False),
        (rejects_command.Filters(source="x"), False),
        (rejects_command.Filters(since_ns=START_NS + 1_000_000), False),
    ):
        assert filters.take(REJECT) == filters.take_line(line) == taken
    assert rejects_command.since_ns("2h", START_NS) == START_NS - 7_200_000_000_000
    assert rejects_command.since_ns("2026-03-01T09:00:00Z", 0) == START_NS
    with pytest.raises(ConfigError, match="--since soon: write a duration"):
        rejects_command.since_ns("soon", 0)
