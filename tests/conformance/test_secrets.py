"""No secret is in a log, a status file or a process's arguments."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from tests.conformance.processes import ROOT, Processes
from tests.conformance.subject import Subject
from tests.waiting import LIMIT_S


def test_secrets(subject: Subject, processes: Processes) -> None:
    assert subject.secret is not None
    processes.wait_state("connected")
    said = Path(f"/proc/{processes.receiver.pid}/cmdline").read_bytes()
    said += Path(f"/proc/{processes.receiver.pid}/environ").read_bytes()
    assert subject.secret.encode() not in said
    processes.receiver.terminate()
    processes.receiver.wait(LIMIT_S)
    assert re.search('"event": "(connected to|listening on)', processes.log.read_text())
    for path in processes.data.rglob("*"):
        if path.is_file() and path.name != "source-line.json":
            assert subject.secret.encode() not in path.read_bytes(), path
    assert (processes.data / "run" / "source-line.json").stat().st_mode & 0o777 == 0o600


def test_a_broken_configuration_ends_with_exit_code_1(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    body = {"plant": "works", "source": "line", "config": {"kind": "mqtt", "host": 7, "password": "s3cret"}}
    (tmp_path / "run" / "source-line.json").write_text(json.dumps(body))
    done = subprocess.run(
        [sys.executable, "-m", "flows.receiver", str(tmp_path), "line"],
        cwd=ROOT,
        capture_output=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 1
    assert b"Expected `str`, got `int` - at `$.config.host`" in done.stderr
    assert b"s3cret" not in done.stderr
