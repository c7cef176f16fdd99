"""An OPC UA server of another maker's making (node-opcua) for tests, on loopback. Its packages are
installed once by npm, in the versions of `opcua/package-lock.json`, into a folder outside the tree
(PENSTOCK_OPCUA_CACHE)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.ports import free_port
from tests.services.node_packages import installed

HERE = Path(__file__).parent / "opcua"
NAMESPACE = "http://penstock.test/line"
OTHERS = ("http://penstock.test/a", "http://penstock.test/b")

Node = tuple[Any, ...]  # device, metric, type, value; what more there is to say (see `add` of server.js)


class OpcuaServer:
    """A server with `nodes` in the namespace NAMESPACE; `namespaces` in their order, it included."""

    def __init__(
        self,
        folder: Path,
        nodes: Sequence[Node],
        *,
        port: int = 0,
        namespaces: Sequence[str] = (*OTHERS, NAMESPACE),
        user: str | None = None,
        password: str | None = None,
        fold_ms: int = 0,
        strict: bool = False,
    ) -> None:
        self.folder, self.nodes, self.user, self.password = folder, list(nodes), user, password
        self.strict = strict  # refuses clients whose certificate nobody has put into its folder
        self.fold_ms = fold_ms  # of an item's changes within so long the server keeps the last alone
        self.port = port or free_port()
        self.endpoint = f"opc.tcp://127.0.0.1:{self.port}"
        self.namespaces = list(namespaces)
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self, namespaces: Sequence[str] | None = None) -> None:
        self.namespaces = list(namespaces or self.namespaces)
        self.folder.mkdir(parents=True, exist_ok=True)
        given = {
            "port": self.port,
            "namespaces": self.namespaces,
            "home": NAMESPACE,
            "nodes": self.nodes,
            "user": self.user,
            "password": self.password,
            "fold": self.fold_ms,
            "strict": self.strict,
        }
        errors = (self.folder / "server.log").open("ab")
        self._process = subprocess.Popen(
            ["node", str(HERE / "server.js"), str(self.folder), json.dumps(given)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, "NODE_OPCUA": str(installed("opcua"))},
        )
        self.certificate = bytes.fromhex(self._answer("ready")["certificate"])

    def _answer(self, key: str) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                assert key in answer, answer
                return answer
        raise AssertionError(f"the server ended: {(self.folder / 'server.log').read_text()[-2000:]}")

    def tell(self, **command: Any) -> dict[str, Any]:
        """One command, done when it returns; the server's answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        return self._answer("ok")

    def counts(self) -> dict[str, int]:
        """What became of values at the server: `written` by a flood; `queued`, `folded` into a later value
        before that, `dropped` by full queues; `sent`, `acknowledged`."""
        return {name: int(value) for name, value in self.tell(counts=True).items() if name != "ok"}

    def set(self, name: str, value: Any, at_ms: int | None = None, status: str = "Good") -> None:
        """A new value of `device.metric`."""
        self.tell(set=[[name, value, at_ms, status]])

    def pause(self, paused: bool) -> None:
        """Stop the process where it stands, or let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if paused else signal.SIGCONT)

    def kill(self) -> None:
        """The server's end without a word."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        with suppress(AssertionError, OSError):
            self.kill()
