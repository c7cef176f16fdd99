"""A Sparkplug edge node of another maker's making (sparkplug-client of Eclipse Tahu) for tests. Its packages
are installed once by npm, in the versions of `sparkplug/package-lock.json`, into a folder outside the tree
(PENSTOCK_SPARKPLUG_CACHE)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.services.node_packages import installed

HERE = Path(__file__).parent / "sparkplug"


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
            env={**os.environ, "SPARKPLUG_NODE": str(installed("sparkplug"))},
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
