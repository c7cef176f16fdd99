"""Question: how many messages a second does one flow process carry, from the journal on disk to an
output log that counts, and how does a plain row-at-a-time Bytewax dataflow do on the same job?

Input: `bench/plant.py`: 1,000 devices, one JSON message with four metrics a device and second, 20
threshold rules with on-delay, 1-minute windows of four metrics. The journal is written to disk
before the clock starts (so it is read from the page cache); kernels are warm; recovery is on, with an
epoch every 10 s. The plain dataflow gets its messages from memory (in its favour) and keeps no
snapshot (in its favour).

Floors: 1 M messages/s, 4 times the plain dataflow.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.testing import cluster_main, run_main

from bench import plant as job
from bench.baselines import plain_bytewax
from connectors.errors import JournalFull
from connectors.journal.clock import JournalClock
from connectors.journal.entries import pack_rows
from connectors.journal.merging import Merger
from connectors.journal.reader import JournalReader
from connectors.journal.source import SLICE_BYTES, SLICE_ROWS, slices
from connectors.journal.store import Append, JournalStore
from connectors.memory import settle_memory
from flows.engine import SliceSink
from flows.flow import EPOCH
from flows.plant import plant_flow
from flows.plant_reader import load_bundle, load_plant
from flows.recovery import prepare_recovery
from flows.shard import Shard, StageClock
from operators.batch import Address, Slice
from operators.jit import warm_up
from operators.pages import PageStore
from operators.stage import SHARD_KEY

SECONDS = 600
PLAIN_SECONDS = 60
FLOOR_RATE = 1e6
FLOOR_RATIO = 4.0
MAP_BYTES = 4 << 30


class _ToTheEnd(StatefulSourcePartition[tuple[str, Slice], int]):
    def __init__(self, journal: Path, start: int, clock: StageClock) -> None:
        self._clock = clock
        self._reader = JournalReader(journal)
        self._merger = Merger()
        self._next = start

    def next_batch(self) -> list[tuple[str, Slice]]:
        cpu = time.thread_time()
        entries = self._reader.read(self._next, SLICE_ROWS, SLICE_BYTES)
        if not entries:
            raise StopIteration
        self._next = entries[-1].number + 1
        made = [(SHARD_KEY, item) for item in slices(self._reader, entries, self._merger)]
        self._clock.cpu_seconds += time.thread_time() - cpu
        return made

    def snapshot(self) -> int:
        return self._next


class JournalToTheEnd(FixedPartitionedSource[tuple[str, Slice], int]):
    """A journal that nobody writes any more, as slices; ends at its end."""

    def __init__(self, journal: Path) -> None:
        self.journal = journal
        self.clock = StageClock()

    def list_parts(self) -> list[str]:
        return ["journal"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> _ToTheEnd:
        return _ToTheEnd(self.journal, resume_state or 1, self.clock)


def write_journal(journal: Path, seconds: int) -> int:
    """The input as a journal on disk, its clock at the time of the messages; returns messages."""
    now = [job.START_MS * 1_000_000]
    clock = JournalClock(0, wall_ns=lambda: now[0], monotonic_ns=lambda: now[0])
    addresses = [Address("line1", topic) for topic in job.topics()]
    where = list(range(len(addresses)))
    count = 0
    with closing(JournalStore(journal, MAP_BYTES, clock)) as store:
        for sequence, (at_ms, rows) in enumerate(job.messages(seconds), start=1):
            now[0] = at_ms * 1_000_000
            clock.sample()
            entry = pack_rows(rows, where, [0] * len(rows), addresses)
            if None in store.commit([Append(b"bench", sequence, entry)]):
                raise JournalFull("the benchmark's journal took no more")
            count += len(rows)
    return count


class Counts:
    """The output log that counts."""

    def __init__(self) -> None:
        self.readings = self.windows = self.alarms = self.rejects = 0

    def take(self, item: Slice) -> None:
        self.readings += sum(len(batch) for batch in item.readings)
        self.windows += sum(len(batch) for batch in item.windows)
        self.alarms += len(item.alarms)
        self.rejects += len(item.rejects)


def measure(seconds: int) -> dict[str, Any]:
    """One run of the flow, in this process."""
    files = job.files()
    loaded, problems = load_plant(files, {}, name_hint="bench")
    if loaded is None:
        raise ValueError(problems.render())
    warm_up()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        data = Path(folder)
        messages = write_journal(data / "journal", seconds)
        shard = Shard(loaded, load=load_bundle, pages=PageStore(data / "pages"))
        counts = Counts()
        source = JournalToTheEnd(data / "journal")
        flow = plant_flow(shard, source, SliceSink(counts.take))
        recovery, _ = prepare_recovery(data / "recovery")
        settle_memory()
        began, cpu = time.perf_counter(), time.process_time()
        cluster_main(flow, [], 0, epoch_interval=EPOCH, recovery_config=recovery)
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
    spent = {"read": source.clock.cpu_seconds}
    spent |= {name: clock.cpu_seconds for name, clock in shard.clocks.items()}
    spent["snapshot"] = sum(clock.snapshot_seconds for clock in shard.clocks.values())
    spent["bytewax and the rest"] = cpu - sum(spent.values())
    return {
        "messages": messages,
        "seconds": took,
        "messages_s": messages / took,
        "cpu_us_per_message": cpu / messages * 1e6,
        "cpu_us_by_stage": {name: seconds / messages * 1e6 for name, seconds in spent.items()},
        "readings": counts.readings,
        "windows": counts.windows,
        "alarms": counts.alarms,
        "rejects": counts.rejects,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
    }


def measure_plain(seconds: int) -> dict[str, Any]:
    """One run of the plain dataflow, in this process."""
    topics = job.topics()
    messages = [
        (topic, at, row)
        for at, rows in job.messages(seconds)
        for topic, row in zip(topics, rows, strict=True)
    ]
    limits = {"tempC": 118, "rpm": 4950, "vibration": 61, "pressure": 297}
    rules = [
        (job.METRICS[n % 4], limits[job.METRICS[n % 4]] + n // 4, limits[job.METRICS[n % 4]] - 5.0)
        for n in range(job.RULES)
    ]
    counts: dict[str, int] = {}
    flow = plain_bytewax.dataflow(messages, rules, counts)
    began = time.perf_counter()
    run_main(flow)
    took = time.perf_counter() - began
    return {
        "messages": len(messages),
        "seconds": took,
        "messages_s": len(messages) / took,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000,
        "out": counts,
    }


def run() -> dict[str, Any]:
    """Each in a process of its own, in turns, twice; the better of each counts."""
    ours: list[dict[str, Any]] = []
    plain: list[dict[str, Any]] = []
    for _ in range(2):
        ours.append(_child("measure", SECONDS))
        plain.append(_child("measure_plain", PLAIN_SECONDS))
    best = max(ours, key=lambda result: result["messages_s"])
    other = max(plain, key=lambda result: result["messages_s"])
    return {
        "penstock": best,
        "plain_bytewax": other,
        "ratio": best["messages_s"] / other["messages_s"],
        "floor_messages_s": FLOOR_RATE,
        "floor_ratio": FLOOR_RATIO,
    }


def _child(function: str, seconds: int) -> dict[str, Any]:
    code = f"import json; from bench import flow; print(json.dumps(flow.{function}({seconds})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(_last(done.stdout.splitlines()))
    return found


def _last(lines: list[str]) -> str:
    found: Iterator[str] = reversed(lines)
    return next(found)
