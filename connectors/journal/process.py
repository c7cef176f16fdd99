"""The journal process: the one writer of a shard's journal, behind a Unix socket.

`python -m connectors.journal.process DATA` serves DATA/journal at DATA/run/journal.sock until
SIGTERM or SIGINT, then writes `stopped` and ends with 0; 3 where the environment fails. With
`--config FILE` the journal is a partition of a Kafka topic (connectors/journal/kafka_journal.py), and
DATA/journal a copy of it; all else is the same.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import fcntl
import logging
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from connectors.errors import JournalError, PenstockError
from connectors.journal.kafka_config import partition_config
from connectors.journal.server import KEEP_SECONDS, JournalOptions, JournalServer
from connectors.json_logs import log_as_json
from connectors.memory import keep_memory

log = logging.getLogger("journal")


@contextlib.contextmanager
def _only_one(data: Path) -> Any:
    """Holds the data directory's journal lock; raises JournalError where another process does."""
    (data / "run").mkdir(parents=True, exist_ok=True)
    with (data / "run" / "journal.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise JournalError(f"another journal process serves {data}") from error
        yield


async def serve_journal(
    options: JournalOptions, stop: asyncio.Event, ready: asyncio.Event | None = None
) -> None:
    """Serve a data directory's journal until `stop` is set; raises JournalError."""
    with _only_one(options.data):
        await JournalServer(options).serve(stop, ready)


def run_journal(options: JournalOptions) -> int:
    """The process: until SIGTERM or SIGINT; returns the exit code."""

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve_journal(options, stop)

    try:
        asyncio.run(main())
    except (PenstockError, OSError) as error:
        log.error("%s", error)
        return 3
    return 0


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m connectors.journal.process")
    parser.add_argument("data", type=Path, help="the data directory")
    parser.add_argument("--max-bytes", type=int, default=20_000_000_000, help="of the journal on disk")
    parser.add_argument("--keep-seconds", type=float, default=KEEP_SECONDS, help="of what is durable")
    parser.add_argument("--archived", action="store_true", help="trim only what the archiver reported, too")
    parser.add_argument("--config", type=Path, help="of the partition that is the journal")
    parser.add_argument("--name", default="journal", help="the component's name in logs")
    parser.add_argument("--status", type=Path, help="its status file, from DATA (default: run/journal.json)")
    chosen = parser.parse_args(arguments)
    log_as_json(chosen.name)
    keep_memory()
    status = chosen.data / chosen.status if chosen.status is not None else None
    try:
        kafka = partition_config(chosen.config) if chosen.config is not None else None
    except (OSError, msgspec.MsgspecError) as error:
        log.error("%s: %s", chosen.config, error)
        return 3
    limits = (chosen.max_bytes, chosen.name, chosen.keep_seconds, chosen.archived)
    return run_journal(JournalOptions(chosen.data, *limits, status, kafka))


if __name__ == "__main__":
    sys.exit(main())
