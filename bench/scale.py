"""Question: does a message cost more where there are more devices, or more rules, and how much
memory does a device take?

Input: the message of the flow benchmark (JSON, four metrics), one a device every 10 s of event time, in
another order of devices each time.
Devices: 100, 1,000, 10,000 and 100,000 of one product with 20 threshold rules with on-delay and
1-minute windows. Rules: 10, 100 and 1,000 over 100 products of 10 devices each. Each run is a
process of its own that reads a journal on disk with recovery on (an epoch every 10 s), the first
pass over all devices unmeasured, and ends in an output log that counts. Memory is what the process
grows by from no device to all of them (resident set, at the end and at its peak, a snapshot
included); a device more takes what 100,000 take beyond 100, for columns and buffers of the
slices are there with the first of them.

Floors: CPU a message flat within 1.5 times over both ranges; 1 KB resident a device.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from bytewax.testing import cluster_main

from bench.flow import MAP_BYTES, Counts, JournalToTheEnd
from bench.plant import METRICS, PLANT, PRODUCT, START_MS
from connectors.errors import JournalFull
from connectors.journal.clock import JournalClock
from connectors.journal.entries import ENTRY_ROWS, pack_rows
from connectors.journal.output_writer import STATE_S
from connectors.journal.store import Append, JournalStore
from connectors.memory import give_memory_back, settle_memory
from flows.engine import SliceSink
from flows.flow import EPOCH
from flows.plant import plant_flow
from flows.plant_file import Plant
from flows.plant_reader import load_bundle, load_plant
from flows.recovery import prepare_recovery
from flows.shard import Shard
from operators.batch import Address, Slice
from operators.jit import warm_up
from operators.pages import PageStore
from operators.state.step import StateLogic

STEP_S = 10
MESSAGES = 600_000
DEVICES = (100, 1_000, 10_000, 100_000)
RULES = (10, 100, 1_000)
PRODUCTS = 100
FLOOR_FLAT = 1.5
FLOOR_BYTES = 1024


def files(devices: int, products: int, rules: int) -> dict[str, bytes]:
    """A plant folder; device n is of product n mod products, rule n as well."""
    limits = {"tempC": 118, "rpm": 4950, "vibration": 61, "pressure": 297}
    found = {"plant.yaml": (PLANT + "limits: {devices: 200000}\n").encode()}
    for at in range(products):
        found[f"products/press-{at}.yaml"] = PRODUCT.replace("press-v1", f"press-{at}").encode()
    texts = []
    for n in range(rules):
        metric = METRICS[n // products % 4]
        texts.append(
            f"ruleId: {metric}-{n}\nproductId: press-{n % products}\ntype: threshold\n"
            f'condition: "{metric} > {limits[metric] + n // products // 4}"\n'
            f'clear_condition: "{metric} < {limits[metric] - 5}"\non_delay: 20s\nseverity: high\n'
        )
    found["rules/limits.yaml"] = "---\n".join(texts).encode()
    rows = "".join(f"press-{i:06d},press-{i % products}\n" for i in range(devices))
    found["devices.csv"] = b"device_id,productId\n" + rows.encode()
    return found


def write_journal(journal: Path, devices: int, rounds: int) -> None:
    """`rounds` messages of every device, 10 s apart, as a journal on disk."""
    now = [START_MS * 1_000_000]
    clock = JournalClock(0, wall_ns=lambda: now[0], monotonic_ns=lambda: now[0])
    random = np.random.default_rng(1)
    sequence = 0
    with closing(JournalStore(journal, MAP_BYTES, clock)) as store:
        for number in range(rounds):
            at = START_MS + number * STEP_S * 1000
            now[0] = at * 1_000_000
            clock.sample()
            temp = np.round(60 + 20 * random.standard_normal(devices).clip(-3, 3), 1).tolist()
            rpm = random.integers(2500, 5000, devices).tolist()
            vibration = np.round(random.random(devices) * 62, 2).tolist()
            pressure = np.round(200 + 32 * random.standard_normal(devices).clip(-3, 3.1), 1).tolist()
            order = random.permutation(devices).tolist()
            for first in range(0, devices, ENTRY_ROWS):
                some = order[first : first + ENTRY_ROWS]
                rows = [
                    (
                        f'{{"hub_timestamp": {at - 5}, "device_timestamp": {at - 20}, "data": {{"metrics": '
                        f'{{"tempC": {temp[i]}, "rpm": {rpm[i]}, "vibration": {vibration[i]}, '
                        f'"pressure": {pressure[i]}}}}}}}'
                    ).encode()
                    for i in some
                ]
                addresses = [
                    Address("line1", f"iotlink/prd/nohub/press-{i:06d}/periodic/pub/telemetry/json")
                    for i in some
                ]
                sequence += 1
                entry = pack_rows(rows, range(len(rows)), [0] * len(rows), addresses)
                if None in store.commit([Append(b"bench", sequence, entry)]):
                    raise JournalFull("the benchmark's journal took no more")


class _AfterTheFirstRound(Counts):
    """Counts, and notes the CPU time and the memory when every device has been heard once. What is
    written of newest values is made as the output log would, and dropped."""

    def __init__(self, devices: int) -> None:
        super().__init__()
        self.devices = devices
        self.shard: Shard | None = None
        self.began_cpu = 0.0
        self.began_readings = 0
        self.began_stages: dict[str, float] = {}
        self.values_at = 0.0
        self.peak = 0

    def take(self, item: Slice) -> None:
        super().take(item)
        assert self.shard is not None
        if time.monotonic() - self.values_at >= STATE_S:
            for _ in self.shard.newest_values().records:
                pass
            self.values_at = time.monotonic()
            self.peak = max(self.peak, anonymous())
        if not self.began_readings and self.readings >= self.devices:
            self.began_readings = self.readings
            self.began_cpu = time.process_time()
            self.began_stages = {name: clock.cpu_seconds for name, clock in self.shard.clocks.items()}


def measure(devices: int, products: int, rules: int) -> dict[str, Any]:
    """One run, in this process."""
    rounds = max(7, MESSAGES // devices)
    loaded, problems = load_plant(files(devices, products, rules), {}, name_hint="bench")
    if loaded is None:
        raise ValueError(problems.render())
    warm_up()
    with tempfile.TemporaryDirectory(prefix="penstock-bench-") as folder:
        data = Path(folder)
        call = f"scale.write_journal(Path({str(data / 'journal')!r}), {devices}, {rounds})"
        subprocess.run(
            [sys.executable, "-c", f"from pathlib import Path; from bench import scale; {call}"], check=True
        )
        _heard_nobody(loaded)
        settle_memory()
        before = anonymous()
        counts = _AfterTheFirstRound(devices)
        shard = counts.shard = Shard(loaded, load=load_bundle, pages=PageStore(data / "pages"))
        flow = plant_flow(shard, JournalToTheEnd(data / "journal"), SliceSink(counts.take))
        recovery, _ = prepare_recovery(data / "recovery")
        began = time.perf_counter()
        cluster_main(flow, [], 0, epoch_interval=EPOCH, recovery_config=recovery)
        took = time.perf_counter() - began
        cpu = time.process_time() - counts.began_cpu
        give_memory_back()  # as the flow does at the end of every epoch
        settle_memory()
        after = anonymous()
    measured = counts.readings - counts.began_readings
    return {
        "devices": devices,
        "rules": rules,
        "messages": counts.readings,
        "messages_s": counts.readings / took,
        "cpu_us_per_message": cpu / measured * 1e6,
        "cpu_us_by_stage": {
            name: (clock.cpu_seconds - counts.began_stages[name]) / measured * 1e6
            for name, clock in shard.clocks.items()
        },
        "snapshot_seconds": sum(clock.snapshot_seconds for clock in shard.clocks.values()),
        "alarms": counts.alarms,
        "bytes": after - before,
        "bytes_per_device": (after - before) / devices,
        "state_bytes_per_device": {
            name: len(stage.logic.snapshot()) / devices for name, stage in shard.stages.items()
        },
        "peak_bytes_per_device": (counts.peak - before) / devices,
    }


def anonymous() -> int:
    """Bytes of the process that no file stands behind (LMDB's map of the journal is page cache)."""
    for line in Path("/proc/self/smaps_rollup").read_text().splitlines():
        if line.startswith("Anonymous:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/smaps_rollup tells no anonymous memory")


def _heard_nobody(plant: Plant) -> None:
    """Touch what the first use brings in, so that it is not taken for the devices' memory."""
    shard = Shard(plant, load=load_bundle)
    for stage in (shard.decode, shard.contract, shard.rules, shard.windows, shard.state):
        stage()
    assert isinstance(shard.stages["state"].logic, StateLogic)


def run() -> dict[str, Any]:
    """Both ranges, each run in a process of its own."""
    by_devices = [_child(devices, 1, 20) for devices in DEVICES]
    by_rules = [_child(1_000, PRODUCTS, rules) for rules in RULES]
    cost = [run["cpu_us_per_message"] for run in by_devices]
    rules_cost = [run["cpu_us_per_message"] for run in by_rules]
    return {
        "devices": {str(run["devices"]): run for run in by_devices},
        "rules": {str(run["rules"]): run for run in by_rules},
        "devices_ratio": max(cost) / cost[0],
        "rules_ratio": max(rules_cost) / rules_cost[0],
        "bytes_per_device": (by_devices[-1]["bytes"] - by_devices[0]["bytes"]) / (DEVICES[-1] - DEVICES[0]),
        "bytes_without_devices": by_devices[0]["bytes"],
        "floor_ratio": FLOOR_FLAT,
        "floor_bytes_per_device": FLOOR_BYTES,
    }


def _child(devices: int, products: int, rules: int) -> dict[str, Any]:
    call = f"scale.measure({devices}, {products}, {rules})"
    code = f"import json; from bench import scale; print(json.dumps({call}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
