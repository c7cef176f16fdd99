"""The journal process: what it acknowledged is there, once and in order, whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
from journal_process import ROOT, RunningJournal

from connectors.errors import JournalError, JournalFull
from connectors.journal import wire
from connectors.journal.blocking import BlockingJournalClient, JournalWatch
from connectors.journal.client import JournalClient
from connectors.journal.entries import CONTROL
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.source import Frame
from flows import health
from tests.waiting import LIMIT_S, until


def journaled(data: Path) -> tuple[list[tuple[str, bytes]], list[tuple[str, object]]]:
    """All (source, payload) in order, and all controls but `started` and `stopped`."""
    frames, controls = [], []
    with JournalReader(data / "journal") as reader:
        following = reader.oldest()
        while read := reader.read(following, 5000, 4 << 20):
            following = read[-1].number + 1
            batch = merge([entry for entry in read if entry.kind != CONTROL])
            frames += [
                (batch.addresses[batch.address[row]].source, batch.frame(row)) for row in range(len(batch))
            ]
            controls += [reader.control(entry)[::2] for entry in read if entry.kind == CONTROL]
    return frames, [control for control in controls if control[0] not in ("started", "stopped")]


def test_appends_of_several_clients_are_durable_and_in_order(tmp_path: Path) -> None:
    async def run() -> dict[str, list[int]]:
        async def one(name: str) -> list[int]:
            async with JournalClient(tmp_path, name) as client:
                await client.control("connected", {"source": name})
                sends = [client.append([Frame("t", b"%d" % n)] * (n % 3 + 1)) for n in range(100)]
                positions = await asyncio.gather(*sends)
                await client.control("disconnected", {"source": name})
                return list(positions)

        names = ["a", "b", "c"]
        return dict(zip(names, await asyncio.gather(*map(one, names)), strict=True))

    with RunningJournal(tmp_path) as journal:
        positions = asyncio.run(run())
        status = journal.client().status()
        assert status["state"] == "running"
        assert status["metrics"]["journal_frames_total"] == 3 * 199
        assert stat.S_IMODE((tmp_path / "run/journal.sock").stat().st_mode) == 0o600
        assert journal.stop() == 0
    frames, controls = journaled(tmp_path)
    for name, given in positions.items():
        expected = [b"%d" % n for n in range(100) for _ in range(n % 3 + 1)]
        assert [payload for source, payload in frames if source == name] == expected
        assert [frames[position] for position in given] == [(name, b"%d" % n) for n in range(100)]
    assert sorted(map(repr, controls)) == sorted(
        repr((kind, {"source": name})) for name in "abc" for kind in ("connected", "disconnected")
    )
    assert json.loads((tmp_path / "run/journal.json").read_text())["state"] == "stopped"


def test_killed_at_random_moments_it_keeps_what_it_acknowledged_once_and_in_order(tmp_path: Path) -> None:
    kills, chance = 6, random.Random(20260301)
    acknowledged: dict[int, int] = {}

    async def run(journal: RunningJournal) -> int:
        sent, stop = 0, asyncio.Event()
        client = JournalClient(tmp_path, "line1")

        async def append(first: int, count: int) -> None:
            position = await client.append([Frame("t", b"%d" % n) for n in range(first, first + count)])
            acknowledged.update((first + n, position + n) for n in range(count))

        async def feed() -> int:
            nonlocal sent
            tasks = set()
            while not stop.is_set():
                count = chance.randint(1, 40)
                task = asyncio.create_task(append(sent, count))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += count
                await asyncio.sleep(0.001 if len(tasks) < 100 else 0.02)
            await asyncio.gather(*tasks)
            return sent

        feeding = asyncio.create_task(feed())
        for _ in range(kills):
            await asyncio.sleep(chance.uniform(0.02, 0.3))
            await asyncio.to_thread(journal.kill)
            await asyncio.to_thread(journal.start)
        stop.set()
        total = await feeding
        await client.close()
        return total

    with RunningJournal(tmp_path) as journal:
        total = asyncio.run(run(journal))
    frames, _ = journaled(tmp_path)
    assert [payload for _, payload in frames] == [b"%d" % n for n in range(total)]
    assert acknowledged == {n: n for n in range(total)}


def test_a_client_that_is_killed_leaves_whole_appends_only(tmp_path: Path) -> None:
    program = (
        "import asyncio, sys; from pathlib import Path\n"
        "from connectors.journal.client import JournalClient\n"
        "from connectors.source import Frame\n"
        "async def main():\n"
        "    client = JournalClient(Path(sys.argv[1]), 'line1')\n"
        "    n = 0\n"
        "    while True:\n"
        "        await client.append([Frame('t', b'%d' % k) for k in range(n, n + 10)])\n"
        "        n += 10\n"
        "        print(n, flush=True)\n"
        "asyncio.run(main())\n"
    )
    with RunningJournal(tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        told = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
        told += [int(line) for line in child.stdout.read().split("\n")[:-1]]
        child.wait(LIMIT_S)
        child.stdout.close()
    frames, _ = journaled(tmp_path)
    assert [payload for _, payload in frames] == [b"%d" % n for n in range(len(frames))]
    assert len(frames) % 10 == 0
    assert len(frames) >= told[-1]


def test_a_full_journal_makes_clients_wait_until_it_is_trimmed(tmp_path: Path) -> None:
    async def run(journal: RunningJournal) -> list[int]:
        client = JournalClient(tmp_path, "line1")
        sends = [asyncio.create_task(client.append([Frame("t", bytes(100_000))])) for _ in range(60)]
        while not client.full:
            await asyncio.sleep(0.01)
        assert not all(send.done() for send in sends)
        with journal.client() as other:
            with pytest.raises(JournalFull):
                other.append([Frame("t", bytes(100_000))])
            assert other.status()["state"] == "full"
            trimmed = 0
            while not all(send.done() for send in sends):
                trimmed = other.status()["metrics"]["journal_last_entry"]
                other.durable(trimmed)
                await asyncio.sleep(0.05)
        positions = [await send for send in sends]
        await client.close()
        return positions

    with RunningJournal(tmp_path, max_bytes=4 << 20) as journal:
        assert asyncio.run(run(journal)) == list(range(60))


def test_a_plant_and_a_key_are_kept_over_a_restart(tmp_path: Path) -> None:
    with RunningJournal(tmp_path) as journal:
        with journal.client("drops") as client:
            entry = client.control("plant", {"sha256": "ab", "files": {"plant.yaml": b"plant: x"}})
            assert client.append([Frame("a.csv", b"1")], key="a.csv:0") == 0
        assert journal.stop() == 0
        journal.start()
        with journal.client("drops") as client:
            assert client.append([Frame("a.csv", b"1")], key="a.csv:0") == 0
            assert client.append([Frame("a.csv", b"2")], key="a.csv:1") == 1
        with JournalReader(tmp_path / "journal") as reader:
            assert reader.last_plant() == ("ab", {"plant.yaml": b"plant: x"}, entry)


def test_a_lost_connection_disconnects_its_sources_and_a_new_one_connects_them(tmp_path: Path) -> None:
    async def run(journal: RunningJournal) -> None:
        client = JournalClient(tmp_path, "line1")
        await client.control("connected", {"source": "line1"})
        await asyncio.to_thread(journal.kill)
        await asyncio.to_thread(journal.start)
        while not client.connected:
            await asyncio.sleep(0.01)
        await client.append([Frame("t", b"x")])
        await client.close()

    with RunningJournal(tmp_path) as journal:
        asyncio.run(run(journal))
        until(lambda: len(journaled(tmp_path)[1]) >= 3, "the disconnection")
    says = {"source": "line1"}
    assert journaled(tmp_path)[1] == [("connected", says), ("connected", says), ("disconnected", says)]


def test_peers_that_are_mad_or_stuck_stop_nobody(tmp_path: Path) -> None:
    path = wire.socket_path(tmp_path)
    hello = msgspec.msgpack.encode({"session": os.urandom(16), "name": "mad", "watch": False})
    with RunningJournal(tmp_path) as journal:
        mad: list[socket.socket] = []
        for sent in (
            b"GET / HTTP/1.1\r\n\r\n",
            wire.HEAD.pack(1 << 31, wire.HELLO, 0),
            wire.message(wire.HELLO, 0, b"\x00"),
            wire.message(wire.HELLO, 0, hello) + wire.message(wire.APPEND, 1, b"\x00\x00nonsense"),
            wire.message(wire.HELLO, 0, hello) + wire.message(wire.CONTROL, 1, b"\x92\xa1x\x80"),
            wire.message(wire.HELLO, 0, hello) + wire.message(99, 1),
        ):
            peer = wire.connect(path, 30)
            peer.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                while part := peer.recv(4096):  # told why, then dropped
                    assert part
            mad.append(peer)
        stuck = wire.connect(path, 30)
        stuck.sendall(wire.message(wire.HELLO, 0, hello) + wire.HEAD.pack(1 << 20, wire.APPEND, 1) + b"half")
        with journal.client() as client:
            assert client.append([Frame("t", b"good")]) == 0
        for peer in (*mad, stuck):
            peer.close()
        assert journal.stop() == 0
    assert journaled(tmp_path)[0] == [("cli", b"good")]


def test_a_watch_wakes_on_commits_and_survives_a_restart(tmp_path: Path) -> None:
    with RunningJournal(tmp_path) as journal:
        watch = JournalWatch(tmp_path)
        until(lambda: watch.wait(0.01), "the greeting")  # just connected: may have missed something
        with journal.client() as client:
            for round_ in range(2):
                client.append([Frame("t", b"x")])
                until(lambda: watch.wait(0.05), "the word of a commit")
                watch.durable(client.status()["metrics"]["journal_last_entry"])
                if round_ == 0:
                    journal.kill()
                    assert watch.wait(0.05)
                    journal.start()
                    client = journal.client()
            while client.status()["metrics"]["journal_durable_entry"] == 0:
                watch.wait(0.01)
            client.close()
        watch.close()


def test_the_clock_ticks_every_second_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    with RunningJournal(tmp_path) as journal:
        with JournalReader(tmp_path / "journal") as reader:
            until(lambda: reader.last() >= 4, "ticks")
        journal.kill()
        journal.start()
        journal.stop()
    with JournalReader(tmp_path / "journal") as reader:
        read = reader.read(1, 1000, 1 << 20)
        clock = [entry.ms for entry in read]
        kinds = [reader.control(entry)[::2] for entry in read if entry.kind == CONTROL]
    assert clock == sorted(clock)
    assert [entry.number for entry in read] == list(range(1, len(read) + 1))
    assert kinds == [("started", {"clean": True}), ("started", {"clean": False}), ("stopped", {})]


def test_one_process_serves_a_data_directory(tmp_path: Path) -> None:
    with RunningJournal(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", "connectors.journal.process", str(tmp_path)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )
    assert second.returncode == 3
    line = json.loads(second.stderr.splitlines()[-1])
    assert line["event"] == f"another journal process serves {tmp_path}"
    with pytest.raises(JournalError, match="no journal process answers"):
        BlockingJournalClient(tmp_path)


def test_what_is_durable_stays_for_a_while_for_captures(tmp_path: Path) -> None:
    with RunningJournal(tmp_path, keep_seconds=2.0) as process, process.client("a") as client:
        client.append([Frame("t", b"1")])
        began = time.monotonic()
        client.durable(client.status()["metrics"]["journal_last_entry"])
        until(lambda: client.status()["metrics"]["journal_oldest_entry"] > 1, "the trim")
        assert time.monotonic() - began > 2.0


def test_a_journal_that_stands_still_is_told_as_hanging(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "STALE_S", 3.0)

    def told() -> str:
        return str(health.readiness(tmp_path)["components"]["journal"]["state"])

    with RunningJournal(tmp_path) as journal:
        child = {"state": "running", "pid": journal.process.pid, "restarts": 0}
        supervisor = {"component": "supervisor", "pid": os.getpid(), "components": {"journal": child}}
        (tmp_path / "run" / "supervisor.json").write_text(json.dumps(supervisor))
        until(lambda: told() == "running", told=told)
        journal.process.send_signal(signal.SIGSTOP)
        until(lambda: told() == "hanging", told=told)
        journal.process.send_signal(signal.SIGCONT)
        until(lambda: told() == "running", told=told)
