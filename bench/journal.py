"""Question: what does the journal cost over writing the same bytes to a file and syncing it?

Input: entries of 6,500 frames of 150 bytes with 1,000 topics (about 1 MB each), appended through
the group-committing process by one client over its socket, pipelined, answered when durable. Peer:
the very same entries written to a new file, `fdatasync` after as many as one group commit took on
average (`ratio`, which the floor is about), and after every one (`ratio_each`). Both run in turns;
the journal is trimmed between them, as in a plant, so that it uses its pages again. Medians. Also:
frames a second when the journal is read as slices.

The journal's bytes cross a socket and a process, the file's do not: with fewer than three idle
cores, and a disk faster than memory copies, that is what the ratio shows.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from connectors.errors import JournalError
from connectors.journal import wire
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.client import JournalClient
from connectors.journal.entries import pack_frames
from connectors.journal.source import JournalSource
from connectors.source import Frame

FLOOR: Final = 0.8
FRAMES: Final = 6500
ENTRIES: Final = 256
ROUNDS: Final = 4


def run(entries: int = ENTRIES, rounds: int = ROUNDS) -> dict[str, Any]:
    """Measure; returns speeds, ratios and the floor."""
    frames = [Frame(f"iotlink/dev/hub/d{n % 1000}/telemetry", os.urandom(150)) for n in range(FRAMES)]
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as folder:
        data = Path(folder)
        process = subprocess.Popen(
            [sys.executable, "-m", "connectors.journal.process", str(data), "--max-bytes", str(4 << 30)],
            stderr=subprocess.DEVNULL,
        )
        try:
            client = _connect(data)
            body = bytes(pack_frames("line1", frames))
            size = len(body) * entries / 1e6
            speeds: dict[str, list[float]] = {"journal": [], "raw": [], "raw_each": []}
            read: list[float] = []
            for turn in range(rounds + 1):  # the first makes the file
                before = client.status()["metrics"]["journal_commits_total"]
                spent = asyncio.run(_append(data, body, entries))
                status = client.status()["metrics"]
                group = max(1, round(entries / max(1, status["journal_commits_total"] - before)))
                read.append(_read(data, int(status["journal_oldest_entry"])))
                spent_raw, spent_each = (_raw(data / "raw", body, entries, size) for size in (group, 1))
                _trim(client)
                if turn:
                    speeds["journal"].append(size / spent)
                    speeds["raw"].append(size / spent_raw)
                    speeds["raw_each"].append(size / spent_each)
            client.close()
        finally:
            process.terminate()
            process.wait(30)
    median = {name: statistics.median(speed) for name, speed in speeds.items()}
    return {
        "journal_mb_s": round(median["journal"], 1),
        "raw_mb_s": round(median["raw"], 1),
        "ratio": round(median["journal"] / median["raw"], 3),
        "ratio_each": round(median["journal"] / median["raw_each"], 3),
        "floor": FLOOR,
        "group_entries": group,
        "commit_seconds_p50": status["commit_seconds_p50"],
        "commit_seconds_p99": status["commit_seconds_p99"],
        "read_frames_s": round(statistics.median(read)),
    }


def _trim(client: BlockingJournalClient) -> None:
    last = client.status()["metrics"]["journal_last_entry"]
    client.durable(last)
    until = time.monotonic() + 30
    while client.status()["metrics"]["journal_oldest_entry"] <= last and time.monotonic() < until:
        time.sleep(0.02)


def _connect(data: Path) -> BlockingJournalClient:
    until = time.monotonic() + 30
    while True:
        try:
            return BlockingJournalClient(data)
        except JournalError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


async def _append(data: Path, body: bytes, entries: int) -> float:
    """Seconds to append `entries` packed entries, pipelined, all durable."""
    client = JournalClient(data, "line1")
    await client.control("connected", {"source": "line1"})
    began = time.perf_counter()
    # frames are packed once: what is measured is the journal, not the making of frames
    futures = [await client._send(wire.APPEND, wire.KEY_SIZE.pack(0), body) for _ in range(entries)]
    await asyncio.gather(*futures)
    spent = time.perf_counter() - began
    await client.close()
    return spent


def _raw(path: Path, body: bytes, entries: int, group: int) -> float:
    """Seconds to write the same bytes to a new file, synced after each `group` entries."""
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_CREAT | os.O_WRONLY)
    try:
        began = time.perf_counter()
        for number in range(entries):
            os.write(file, body)
            if (number + 1) % group == 0 or number + 1 == entries:
                os.fdatasync(file)
        return time.perf_counter() - began
    finally:
        os.close(file)


def _read(data: Path, start: int) -> float:
    """Frames a second through the journal source."""
    part = JournalSource(data).build_part("journal", "journal", start)
    count = 0
    began = time.perf_counter()
    while batch := list(part.next_batch()):
        count += sum(len(item.frames) for _, item in batch)
    spent = time.perf_counter() - began
    part.close()
    return count / spent


def main() -> int:
    """Print the result; 1 where it is below the floor."""
    result = run()
    print(
        f"journal {result['journal_mb_s']:.0f} MB/s, raw write + fdatasync {result['raw_mb_s']:.0f} MB/s, "
        f"ratio {result['ratio']:.2f} (floor {FLOOR}; {result['ratio_each']:.2f} synced each), "
        f"{result['group_entries']} entries a commit, "
        f"read {result['read_frames_s'] / 1e6:.1f} M frames/s"
    )
    return 0 if result["ratio"] >= FLOOR else 1


if __name__ == "__main__":
    sys.exit(main())
