"""What the conformance suite asks of a connector: a configuration, and a peer that proves it.

Adding a kind? Write `subject_KIND.py` with a `Subject`, and a row in `subjects.py`. A promise that a kind
cannot keep is waived with its reason, by the name of the test without `test_`, or `network` for all
tests with a proxy between the source and its peer.
"""

from __future__ import annotations

import asyncio
import subprocess
import threading
from collections.abc import Callable, Mapping, Sequence

from connectors.source import SourceStatus
from flows.plant_file import SourceConfig
from tests.conformance.proxy import Proxy

CAP = 100_000  # of a frame, as configured
FLOOD_PAYLOAD = 50_000  # bytes of a frame of a flood


class Subject:
    """One connector with its peer; everything it does blocks."""

    waivers: Mapping[str, str]
    config: SourceConfig
    secret: str | None = None  # no log may show it
    direct = True  # the peer hears from the source itself what is safe; False: from a broker between
    connects = False  # the source goes to its peer; False: the peer comes to the source
    exactly_once = False  # what is sent again after a kill becomes no second entry
    first_pause_s = 0.25  # of the back-off, half of which is jitter
    piece = 1  # bytes that a dripping network hands on at once
    cut = (50, 1500)  # bytes of a connection that a cutting network lets pass

    def send(self, payloads: Sequence[bytes]) -> None:
        """Give these to the source; return without waiting for its acknowledgement."""
        raise NotImplementedError

    def told_safe(self) -> int:
        """How many payloads the source (or the broker between) has said are safe."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until everything sent has been told safe."""
        raise NotImplementedError

    def break_peer(self) -> None:
        """The peer dies and comes back."""
        raise NotImplementedError

    def interpose(self) -> Proxy:
        """Put a proxy between source and peer; called before either has met the other. Where the
        source connects, `config` leads to the proxy afterwards, with short time-outs."""
        raise NotImplementedError

    def read(self, frame: bytes) -> list[bytes]:
        """The payloads in a frame of the journal, for a source that joins several in one."""
        return [frame]

    def noticed(self, status: SourceStatus) -> bool:
        """Whether the source has let go of a connection that died without a word."""
        return status.reconnects > 0

    def flood(self, over: threading.Event) -> None:
        """Send frames of `FLOOD_PAYLOAD` bytes as fast as the source or its broker takes them, until
        `over`; what becomes of them is nobody's business."""
        while not over.is_set():
            self.send([b"x" * FLOOD_PAYLOAD] * 20)
            over.wait(0.01)

    def close(self) -> None:
        """Let go of the peer."""


def numbers(start: int, end: int) -> list[bytes]:
    """Payloads that tell who is missing."""
    return [b"frame %06d" % number for number in range(start, end)]


def in_thread(work: Callable[[], None]) -> asyncio.Future[None]:
    """Blocking work of a subject beside a receiver in this event loop."""
    return asyncio.ensure_future(asyncio.to_thread(work))


def ended(process: subprocess.Popen[bytes], seconds: float) -> int:
    """The exit code of a process that must end within so many seconds."""
    return process.wait(seconds)
