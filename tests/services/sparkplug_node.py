"""A Sparkplug edge node of another maker's making (sparkplug-client of Eclipse Tahu) for tests. Its packages
are installed once by npm, in the versions of `sparkplug/package-lock.json`, into a folder outside the tree
(PENSTOCK_SPARKPLUG_CACHE)."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent / "sparkplug"
CACHE = Path(
    os.environ.get("PENSTOCK_SPARKPLUG_CACHE")
    or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock" / "sparkplug"
)


def why_not() -> str | None:
    """What this machine lacks for a node, or None."""
    lacking = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)} here" if lacking else None


def installed() -> Path:
    """The folder of the packages; they are fetched the first time."""
    lock = (HERE / "package-lock.json").read_bytes()
    folder = CACHE / hashlib.sha256(lock).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            for name in ("package.json", "package-lock.json"):
                shutil.copy(HERE / name, folder / name)
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
            )
            if done.returncode:
                raise RuntimeError(f"npm ci: {done.stderr[-2000:]}")
            (folder / "ready").touch()
    return folder


class TahuNode:
    """One node with one device; metrics: (name, type, value)."""

    def __init__(
        self, port: int, group: str, node: str, device: str, metrics: Sequence[tuple[str, str, Any]]
    ) -> None:
        given = {
            "url": f"tcp://127.0.0.1:{port}",
            "group": group,
            "node": node,
            "device": device,
            "metrics": metrics,
        }
        self._process = subprocess.Popen(
            ["node", str(HERE / "node.js"), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "SPARKPLUG_NODE": str(installed())},
        )
        self._answer("ready")

    def data(self, values: Mapping[str, Any], at_ms: int = 0) -> int:
        """Publish values; returns how often births have been asked for."""
        return int(self._tell({"data": dict(values), "at": at_ms})["asked"])

    def death(self) -> None:
        """The device's, not the node's."""
        self._tell({"death": True})

    def kill(self) -> None:
        """The node's end without a word, so its will is told."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _tell(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer("ok")

    def _answer(self, key: str) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                assert "error" not in answer, answer
                if key in answer:
                    return answer
        raise AssertionError("the edge node ended")
