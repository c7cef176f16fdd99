"""The output log into the embedded historian: every row once, whoever is killed when."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import clickhouse_connect
import httpx

from connectors.journal.output import OutputWriter
from tests.output.made import MODES, SECOND, SPECS, START_NS, devices, event, made_slice, reject, windows
from tests.ports import free_port
from tests.waiting import LIMIT_S, until


class Historian:
    """The historian process of a data directory, and the drainer that feeds it."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.listen = f"127.0.0.1:{free_port()}"
        (data / "run").mkdir(exist_ok=True)
        config = {
            "historian": {
                "url": "embedded",
                "listen": self.listen,
                # TTL counts from ingest, and what is written here was taken in on a fixed day
                "keep": {"raw": 100 * 365 * 86_400 * SECOND, "windows": 100 * 365 * 86_400 * SECOND},
            },
            "products": {"press-v1": [list(metric) for metric in SPECS["press-v1"].metrics]},
            "windows": ["1m"],
        }
        (data / "run" / "target-historian.json").write_text(json.dumps(config))
        self.engine: subprocess.Popen[bytes] | None = None
        self.drainer: subprocess.Popen[bytes] | None = None

    def start_engine(self) -> None:
        self.engine = subprocess.Popen(
            [sys.executable, "-m", "flows.historian", str(self.data), "--listen", self.listen],
            stderr=subprocess.DEVNULL,
        )
        until(self.answers)

    def start_drainer(self) -> None:
        self.drainer = subprocess.Popen(
            [sys.executable, "-m", "flows.drainer", str(self.data), "historian"], stderr=subprocess.DEVNULL
        )

    def answers(self) -> bool:
        assert self.engine is not None
        assert self.engine.poll() is None
        try:
            return httpx.get(f"http://{self.listen}/ping", timeout=1).text == "Ok.\n"
        except httpx.TransportError:
            return False

    def status(self) -> dict[str, Any]:
        try:
            told = json.loads((self.data / "run" / "drainer-historian.json").read_bytes())
        except (OSError, ValueError):
            return {}
        alive = self.drainer is not None and told.get("pid") == self.drainer.pid
        return dict(told) if alive else {}

    def sent(self) -> int:
        return int(sum(self.status().get("sent", {}).values()))

    def is_drained(self) -> bool:
        told = self.status()
        return told.get("state") == "idle" and told.get("lag_records") == 0

    @staticmethod
    def kill(process: subprocess.Popen[bytes] | None) -> None:
        if process is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()


@contextmanager
def historian(data: Path) -> Iterator[Historian]:
    made = Historian(data)
    try:
        yield made
    finally:
        for process in (made.drainer, made.engine):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(LIMIT_S)


def test_historian_and_drainer_killed_rows_are_those_of_an_undisturbed_run(tmp_path: Path) -> None:
    log = OutputWriter(tmp_path / "output", devices(), SPECS, map_bytes=1 << 28, cut_rows=200)
    entry = 0

    def put(count: int) -> None:
        nonlocal entry
        for _ in range(count):
            entry += 1
            first = entry * 50
            log.write(
                made_slice(
                    entry,
                    first,
                    50,
                    tick_ns=START_NS + entry * SECOND,
                    alarms=[event(first + 7), event(first + 9, 0, "closed")],
                    rejects=[reject(first + 3)],
                    windows=[windows(first + 20)],
                )
            )
            log.commit_due()

    def goes_on(before: int, last: int) -> bool:
        """More is written while it sends, and no more than it can ever catch up with."""
        if entry < last:
            put(1)
        return running.sent() > before

    with historian(tmp_path) as running:
        running.start_engine()
        for kill in range(4):
            put(30)
            if running.drainer is None:
                running.start_drainer()
            before = running.sent()
            until(partial(goes_on, before, entry + 20), "the drainer to send")
            if kill % 2:
                running.kill(running.engine)
                put(10)
                running.start_engine()
            else:
                running.kill(running.drainer)
                running.drainer = None
        put(10)
        log.flush()
        if running.drainer is None:
            running.start_drainer()
        until(running.is_drained)
        client = clickhouse_connect.get_client(
            host="127.0.0.1", port=int(running.listen.rpartition(":")[2]), autogenerate_session_id=False
        )
        rows = client.query("SELECT * FROM telemetry_press_v1 ORDER BY _seq").named_results()
        found = list(rows)
        positions = list(range(50, (entry + 1) * 50))
        assert [row["_seq"] >> 16 for row in found] == positions
        for row in found[::37]:
            position = row["_seq"] >> 16
            assert row["_device"] == f"press-{position % 3:02d}"
            assert row["tempC"] == (None if position % 5 == 4 else position * 0.5)
            assert row["tempC__quality"] == ("absent" if position % 5 == 4 else "good")
            assert row["count"] == position % 7
            assert row["mode"] == MODES[position % 3]
            assert row["_historical"] == (position % 11 == 10)
            assert int(row["_ts"].timestamp() * 1000) == START_NS // 1_000_000 + position * 10
        alarms = client.query("SELECT id FROM alarms ORDER BY sequence").result_columns[0]
        expected = [event(e * 50 + n).event["id"] for e in range(1, entry + 1) for n in (7, 9)]
        assert list(alarms) == expected
        refused = client.query(
            "SELECT position, reason, payload_hex FROM rejects ORDER BY position"
        ).result_rows
        assert list(refused) == [(e * 50 + 3, "short", "00ff") for e in range(1, entry + 1)]
        closed = client.query(
            "SELECT position, device_id, min, mean FROM windows_1m ORDER BY 1, 2"
        ).result_rows
        assert list(closed) == [
            (e * 50 + 20, device, 1.0, None)
            for e in range(1, entry + 1)
            for device in ("press-00", "press-01")
        ]
        tall = client.query("SELECT count(), uniqExact(metric) FROM telemetry").result_rows[0]
        assert tall == (sum(3 - (p % 5 == 4) for p in positions), 3)
        client.close()
        assert running.drainer is not None
        running.drainer.terminate()
        assert running.drainer.wait(LIMIT_S) == 0
    assert not (tmp_path / "failed").exists()
    log.close()


def test_a_failed_insert_leaves_the_historian_usable(tmp_path: Path) -> None:
    with historian(tmp_path) as running:
        running.start_engine()
        base = f"http://{running.listen}/"
        made = httpx.post(
            base, content="CREATE TABLE t (a UInt8) ENGINE = MergeTree ORDER BY a", timeout=LIMIT_S
        )
        assert made.status_code == 200
        for form, body in (
            ("CSV", b"x\n"),
            ("RowBinary", b""),
            ("Native", b"\xff" * 50),
            ("ArrowStream", b"z"),
        ):
            for _ in range(6):  # more than there are connections
                query = f"INSERT INTO t FORMAT {form}"
                httpx.post(base, params={"query": query}, content=body, timeout=LIMIT_S)
        answer = httpx.post(
            base, params={"query": "INSERT INTO t FORMAT JSONEachRow"}, content=b'{"a": 7}\n', timeout=LIMIT_S
        )
        assert answer.status_code == 200
        for _ in range(6):
            assert httpx.get(base, params={"query": "SELECT sum(a) FROM t"}, timeout=LIMIT_S).text == "7\n"
