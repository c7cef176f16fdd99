"""A data directory as a plant leaves it, made by running recorded frames through the dataflow."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import msgspec
from bytewax.testing import run_main

from connectors.journal.entries import pack_control
from connectors.journal.output_store import Cursor, OutputReader, cursor_path
from connectors.journal.output_writer import OutputWriter
from connectors.journal.store import Append, JournalStore
from flows import specs
from flows.engine import SliceSink, SliceSource
from flows.folder import open_plant
from flows.plant import plant_flow
from flows.plant_reader import load_bundle
from flows.recorded import recorded_slices
from flows.shard import Shard

PRESS_LINE = Path(__file__).resolve().parents[2] / "examples" / "press-line"
START_MS = 1_772_355_600_000  # 2026-03-01T09:00:00Z
TOPIC = "iotlink/dev/hub-a/{}/periodic/pub/telemetry/json"
FRAMES = 40


def frame(second: int, device: str, temperature: float) -> str:
    """One line of recorded input."""
    at = START_MS + 1000 * second
    metrics = {"tempC": temperature, "rpm": 1500, "vibration": 1.5, "mode": "run"}
    payload = json.dumps({"device_timestamp": at, "data": {"metrics": metrics}})
    return json.dumps(
        {"ingest_ts": at + 5, "source": "line1", "topic": TOPIC.format(device), "payload": payload}
    )


def lines() -> list[str]:
    """press-01 stays hot, press-02 is hot for 20 s; one frame is broken, one is of a stranger."""
    found = []
    for second in range(FRAMES):
        found.append(frame(second, "press-01", 90.0 + second / 4))
        found.append(frame(second, "press-02", 85.0 if second < 20 else 60.0))
    broken = {"ingest_ts": START_MS + 40_000, "source": "line1", "topic": TOPIC.format("press-03")}
    found.append(json.dumps({**broken, "payload": '{"data": '}))
    found.append(frame(41, "press-99", 20.0))
    found.extend(frame(second, "press-01", 99.5) for second in range(42, 75))
    return found


def make_data(data: Path, folder: Path = PRESS_LINE, recorded: Sequence[str] = ()) -> None:
    """Run recorded lines, else `lines()`, through a plant and leave journal, output log, cursors and
    alarms.jsonl in `data`."""
    plant = open_plant(folder)
    data.mkdir(parents=True)
    with closing(JournalStore(data / "journal", 1 << 24)) as journal:
        bundle = (plant.sha256.encode(), msgspec.msgpack.encode(dict(plant.files)))
        journal.commit([Append(b"", 0, pack_control("plant", {"sha256": plant.sha256}), b"", bundle)])
    recording = data / "recording.jsonl"
    recording.write_text("".join(line + "\n" for line in recorded or lines()))
    shard = Shard(plant, load=load_bundle)
    writer = OutputWriter(data / "output", shard.devices, specs.telemetry(plant), state=shard.newest_values)
    run_main(plant_flow(shard, SliceSource(recorded_slices(plant, [recording])), SliceSink(writer.write)))
    writer.flush()
    with closing(OutputReader(data / "output")) as reader:
        records = reader.read("alarms", 0)
        kinds = {"alarms": reader.tally("alarms")[0]}
        identity = reader.identity
    writer.close()
    (data / "alarms.jsonl").write_bytes(b"".join(record.body + b"\n" for record in records))
    (data / "cursors").mkdir()
    cursor_path(data, "alarms-file").write_bytes(msgspec.json.encode(Cursor("alarms-file", identity, kinds)))
