"""Secrets of a plant that runs: in no file, argument or environment of its processes, in no answer."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from operators.jit import warm_up
from tests.ports import free_port
from tests.waiting import LIMIT_S, until

KEY, HIDDEN = "k3y-of-the-line", "p4ss-of-the-historian"
PLANT = """\
plant: hidden
sources:
  ingest: {kind: http, listen: "127.0.0.1:INGEST", api_keys: ["${LINE_KEY}"], device: "const:d1", product: p}
historian: {url: "http://me:${file:PASSWORD}@127.0.0.1:1"}
server: {listen: "127.0.0.1:SERVER"}
"""
PRODUCT = "productId: p\nversion: 1\ndecode: {format: json, metrics: data}\nmetrics: {t: {}}\n"


def status(data: Path, component: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((data / "run" / f"{component}.json").read_bytes())
    except (OSError, ValueError):
        return {}
    return found


def posted(port: int, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/ingest/d1", b'{"data": {"t": 1}}', headers, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def shown_by(port: int, page: str) -> bytes:
    """What the server says; nothing while it is not there yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=LIMIT_S) as answer:
            return bytes(answer.read())
    except urllib.error.HTTPError as error:  # not ready: the historian is away
        return error.read()
    except OSError:
        return b""


def holding(folder: Path) -> list[Path]:
    """The files below a folder in which a secret stands."""
    found = []
    for path in folder.rglob("*"):
        if path.is_file() and any(one.encode() in path.read_bytes() for one in (KEY, HIDDEN)):
            found.append(path)
    return found


def test_no_file_of_a_plant_holds_a_secret(tmp_path: Path) -> None:
    warm_up()
    ingest, server = free_port(), free_port()
    folder, data = tmp_path / "plant", tmp_path / "data"
    (folder / "products").mkdir(parents=True)
    (folder / "products" / "p.yaml").write_text(PRODUCT)
    (folder / "devices.csv").write_text("device_id,productId\nd1,p\n")
    password = tmp_path / "password"
    password.write_text(HIDDEN)
    written = PLANT.replace("INGEST", str(ingest)).replace("SERVER", str(server))
    (folder / "plant.yaml").write_text(written.replace("PASSWORD", str(password)))
    (data / "run").mkdir(parents=True)
    for name in ("source-ingest.json", "source-gone.json", "target-historian.json"):  # of an earlier version
        (data / "run" / name).write_text(json.dumps({"config": {"api_keys": [KEY], "url": HIDDEN}}))
    with (tmp_path / "said").open("wb") as said:
        running = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "run", str(folder), "--data", str(data)],
            stdout=said,
            stderr=said,
            env={**os.environ, "LINE_KEY": KEY},
        )
    try:
        until(lambda: posted(ingest, KEY) == 200, "a frame to be taken")
        assert posted(ingest, "another") == 401
        children = until(lambda: status(data, "supervisor").get("components"), "the supervisor")
        os.kill(children["receiver-ingest"]["pid"], signal.SIGKILL)
        until(lambda: posted(ingest, KEY) == 200, "a frame to be taken by the next receiver")
        until(lambda: status(data, "drainer-historian").get("state"), "the historian's drainer")
        assert holding(data) == []
        told = status(data, "supervisor")["components"]
        shown = [
            Path(f"/proc/{one['pid']}/{name}").read_bytes()
            for one in told.values()
            if one["pid"] is not None
            for name in ("cmdline", "environ")
        ]
        assert len(shown) > 8
        assert not [line for line in shown if KEY.encode() in line or HIDDEN.encode() in line]
        for page in ("health/ready", "metrics"):
            body = until(lambda page=page: shown_by(server, page), page)
            assert KEY.encode() not in body
            assert HIDDEN.encode() not in body
    finally:
        running.terminate()
        running.wait(LIMIT_S)
    assert running.returncode == 0
    assert holding(data) == []
    assert KEY not in (tmp_path / "said").read_text()
    assert sorted(path.name for path in (data / "run").glob("target-*.json")) == [
        "target-alarms-file.json",
        "target-historian.json",
    ]
