"""Question: what does a slice of the journal cost the flow before its frames count, and what does a frame
cost where the payload names the device?

Input: the plants of the benchmarks `flow` (the topic names the device) and `latency` (the payload does, and
one message in 200 raises an alarm that the next one ends), 1,000 devices, 20,000 messages/s by their
own times, in journal entries of 20, 180 and 8,000 frames, each of them a slice: at that rate a flow
meets some 180 at a time. All stages in one process, without Bytewax and without the output log; CPU time of
the thread, median of the slices, the first fifth aside.

No floor; at 180 frames a slice's cost is what the latency of a live plant is made of.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import latency
from bench import plant as job
from connectors.errors import JournalFull
from connectors.journal.clock import JournalClock
from connectors.journal.entries import pack_rows
from connectors.journal.merging import Merger
from connectors.journal.reader import JournalReader
from connectors.journal.source import SLICE_BYTES, slices
from connectors.journal.store import Append, JournalStore
from connectors.memory import settle_memory
from flows.plant_reader import load_bundle, load_plant
from flows.shard import Shard
from operators.batch import Address
from operators.jit import warm_up

ROWS: Final = {20: 500, 180: 500, 8_000: 20}  # frames a slice -> slices
RATE: Final = 20_000
MAP_BYTES: Final = 1 << 30
PORTS: Final = {"KAFKA": "127.0.0.1:1", "TCP_PORT": "1", "HISTORIAN_PORT": "2", "SERVER_PORT": "3"}

Message = Callable[[int, int], tuple[Address, bytes]]


def by_topic(n: int, at_ms: int) -> tuple[Address, bytes]:
    """Message n of the plant whose topics name the devices; quiet."""
    device = n % job.DEVICES
    topic = f"iotlink/prd/nohub/press-{device:04d}/periodic/pub/telemetry/json"
    values = (
        f'"tempC": {20 + n * 7 % 60}.5, "rpm": {2500 + device}, "vibration": {n % 60}.25, "pressure": 250'
    )
    body = f'{{"hub_timestamp": {at_ms}, "device_timestamp": {at_ms}, "data": {{"metrics": {{{values}}}}}}}'
    return Address("line1", topic), body.encode()


def by_payload(n: int, at_ms: int) -> tuple[Address, bytes]:
    """Message n of the plant whose payloads name the devices."""
    device = n % latency.DEVICES
    hot = 120 if n % latency.HOT_EVERY == 0 else 60
    body = (
        f'{{"id":"press-{device:04d}","t":{at_ms},"m":{{"n":{n},"tempC":{hot},"rpm":{2500 + device},'
        f'"vibration":{device % 60},"pressure":{200 + device % 90}}}}}'
    )
    return Address("gate", f"127.0.0.1:{5000 + device % latency.GATEWAYS}"), body.encode()


def _write(journal: Path, message: Message, rows: int, count: int) -> None:
    """Entries of so many messages, the journal's clock at the time of the last of each."""
    now = [job.START_MS * 1_000_000]
    clock = JournalClock(0, wall_ns=lambda: now[0], monotonic_ns=lambda: now[0])
    with closing(JournalStore(journal, MAP_BYTES, clock)) as store:
        for entry in range(count):
            made = [
                message(n, job.START_MS + n * 1000 // RATE) for n in range(entry * rows, (entry + 1) * rows)
            ]
            addresses = list(dict.fromkeys(address for address, _ in made))
            number = {address: at for at, address in enumerate(addresses)}
            now[0] = (job.START_MS + (entry + 1) * rows * 1000 // RATE) * 1_000_000
            clock.sample()
            where = [number[address] for address, _ in made]
            body = pack_rows([payload for _, payload in made], where, [0] * rows, addresses)
            if None in store.commit([Append(b"bench", entry + 1, body)]):
                raise JournalFull("the benchmark's journal took no more")


def _told(shard: Shard, journal: Path, rows: int) -> Iterator[dict[str, int]]:
    """CPU time of each slice in ns, by stage."""
    stages = {name: getattr(shard, name)() for name in ("decode", "contract", "rules", "windows", "state")}
    reader, merger, following = JournalReader(journal), Merger(), 1
    with closing(reader):
        while True:
            began = time.thread_time_ns()
            entries = reader.read(following, rows, SLICE_BYTES)
            if not entries:
                return
            following = entries[-1].number + 1
            made = slices(reader, entries, merger)
            spent = {"read": time.thread_time_ns() - began}
            for item in made:
                for name, stage in stages.items():
                    began = time.thread_time_ns()
                    stage.process(item)
                    spent[name] = time.thread_time_ns() - began
            yield spent


def measure(files: dict[str, bytes], message: Message, rows: int, count: int) -> dict[str, Any]:
    """One plant, one size of slices."""
    loaded, problems = load_plant(files, PORTS, name_hint="bench")
    if loaded is None:
        raise ValueError(problems.render())
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        _write(Path(folder) / "journal", message, rows, count)
        found = list(_told(Shard(loaded, load=load_bundle), Path(folder) / "journal", rows))[count // 5 :]
    by_stage = {name: median(one[name] for one in found) / 1000 for name in found[0]}
    whole = median(sum(one.values()) for one in found) / 1000
    return {"cpu_us": whole, "cpu_us_a_frame": whole / rows, "cpu_us_by_stage": by_stage}


def run() -> dict[str, Any]:
    """Both plants, each size."""
    warm_up()
    settle_memory()
    named = {name: text.encode() for name, text in latency.plant_files("idempotent").items()}
    plants: dict[str, tuple[dict[str, bytes], Message]] = {
        "topic": (job.files(), by_topic),
        "payload": (named, by_payload),
    }
    return {
        name: {str(rows): measure(files, message, rows, count) for rows, count in ROWS.items()}
        for name, (files, message) in plants.items()
    }
