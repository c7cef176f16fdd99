"""The flow process: one shard's dataflow over its journal, with recovery and a clean stop."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

from bytewax.dataflow import Dataflow
from bytewax.testing import cluster_main

from connectors.errors import PenstockError
from connectors.journal.columns import TelemetrySpec
from connectors.journal.output import OutputLog
from connectors.journal.reader import JournalReader
from connectors.journal.source import JournalSource
from connectors.json_logs import log_as_json
from connectors.memory import give_memory_back, settle_memory
from flows import specs
from flows.ending import leave
from flows.plant import plant_flow
from flows.plant_reader import load_bundle
from flows.recovery import hold_recovery, prepare_recovery
from flows.shard import Shard
from flows.shards import divided, home_of
from flows.status import StatusThread, component_name
from operators.jit import warm_up
from operators.pages import PageStore

log = logging.getLogger("flow")

EPOCH = timedelta(seconds=10)
PLANT_SECONDS = 60.0
_held: Final[list[IO[bytes]]] = []  # locks that end with the process


def live_shard(data: Path, state: Path | None = None) -> Shard:
    """The shard over a data directory, under the oldest plant bundle that may still be needed. state:
    where the pages of its state lie, if elsewhere."""

    def bundle(sha256: str) -> Mapping[str, bytes]:
        with closing(JournalReader(data / "journal")) as reader:
            return reader.bundle(sha256)

    with closing(JournalReader(data / "journal")) as reader:
        first = reader.first_plant()
    if first is None:
        raise PenstockError("no plant has been applied; start it with: penstock run PLANT")
    pages = PageStore(data / "recovery" / "pages" if state is None else state)
    number = home_of(data)[1] or 0
    return Shard(load_bundle(first.files), load=load_bundle, bundle=bundle, pages=pages, number=number)


def awaited_shard(data: Path, stop: threading.Event) -> Shard | None:
    """The same, once there is a journal and a plant in it: at the first start both come while this
    process is still importing. None when stopped before."""
    until = time.monotonic() + PLANT_SECONDS
    while not stop.is_set():
        try:
            return live_shard(data)
        except PenstockError:
            if time.monotonic() > until:
                raise
            stop.wait(0.01)
    return None


def flow_by_hand(data: Path, asked: Sequence[str]) -> Dataflow:
    """The dataflow over a shard's folder for `python -m bytewax.run`, which was asked for it with these
    arguments: its recovery store ready, and held as long as this process lives.

    Raises `PenstockError` where the folder is not one shard's, the flow runs already, or the recovery
    store is not the one that the shard's state is in: without it, what the journal no longer holds
    would be missing from the results, and two workers would have half of it each.
    """
    if (count := divided(data).count) > 1:
        raise PenstockError(f"{data} has {count} shards; PENSTOCK_DATA={data / 'shards' / '0'} names one")
    store = data / "recovery"
    options = argparse.ArgumentParser(add_help=False, allow_abbrev=True)
    options.add_argument(
        "-r", "--recovery-directory", type=Path, default=os.environ.get("BYTEWAX_RECOVERY_DIRECTORY")
    )
    options.add_argument(
        "-w", "--workers-per-process", type=int, default=os.environ.get("BYTEWAX_WORKERS_PER_PROCESS", "1")
    )
    found, _ = options.parse_known_args(list(asked))
    if found.recovery_directory is None or found.recovery_directory.resolve() != store.resolve():
        mend = f"python -m bytewax.run flows.plant -r {store} -s {EPOCH.seconds} -b 0"
        raise PenstockError(f"the state of this shard is in {store}; start it with: {mend}")
    if found.workers_per_process != 1:
        raise PenstockError("a shard is one worker; leave out -w, and divide the plant by shards.count")
    shard = live_shard(data)
    _held.append(hold_recovery(store))
    prepare_recovery(store)
    warm_up()
    return wired_flow(data, shard, threading.Event())[0]


def wired_flow(data: Path, shard: Shard, stop: threading.Event) -> tuple[Dataflow, JournalSource, OutputLog]:
    """The dataflow with its source and its sink."""

    def telemetry(sha256: str | None) -> Mapping[str, TelemetrySpec]:
        return specs.telemetry(shard.first_plant if sha256 is None else shard.plant(sha256, None))

    sink = OutputLog(data / "output", shard.devices, telemetry, state=shard.newest_values)
    with closing(JournalReader(data / "journal")) as reader:
        oldest = reader.oldest()

    def durable(entry: int) -> None:
        if shard.pages is not None:
            shard.pages.settle()
        give_memory_back()

    source = JournalSource(
        data,
        on_durable=durable,
        boundaries=sink.boundaries,
        stop=stop,
        stop_ends_input=True,
        hold=sink.backlog_full,
        reached=sink.reached,
        start=oldest,
    )
    return plant_flow(shard, source, sink), source, sink


def main() -> int:
    """`python -m flows.flow DATA`; the folder of a shard is its DATA."""
    data = Path(sys.argv[1])
    log_as_json(component_name(data, "flow"))
    log.info("starting")
    began = time.perf_counter()
    warm_up()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor decides when
    shard = awaited_shard(data, stop)
    if shard is None:
        return 0
    _held.append(hold_recovery(data / "recovery"))
    flow, source, sink = wired_flow(data, shard, stop)
    recovery, scrubbed = prepare_recovery(data / "recovery")
    status = StatusThread(data, "flow", partial(describe, shard, source, sink))
    status.start()
    took = time.perf_counter() - began
    log.info("ready after %.2f s; %d uncommitted snapshots scrubbed", took, scrubbed)
    settle_memory()
    cluster_main(flow, [], 0, epoch_interval=EPOCH, recovery_config=recovery)  # returns after a clean stop
    status.describe = lambda: {"state": "stopped", "plant": shard.current.name}
    status.close()
    log.info("stopped")
    return 0


def describe(shard: Shard, source: JournalSource, sink: OutputLog) -> dict[str, Any]:
    """What the flow tells about itself, for health and metrics."""
    stages = {
        name: {"slices": clock.slices, "rows": clock.rows, "seconds": round(clock.seconds, 6)}
        for name, clock in shard.clocks.items()
    }
    return {
        "state": "running",
        "plant": shard.current.name,
        "sha256": shard.current.sha256,
        "devices": len(shard.devices),
        "stages": stages,
        "rules": shard.told_of_rules(),
        "undeclared": shard.undeclared(),
        "missing": shard.missing(),
        "source": source.describe(),
        "output": sink.describe(),
    }


if __name__ == "__main__":
    leave(main())
