"""A TCP proxy before a Kafka broker that can hold back what a producer sends: the network as it may be
between a process that dies and a broker that has not heard of it."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

PRODUCE = 0  # the api key of a Produce request


class HoldingProxy:
    """Passes connections on to `target`. While `holding`, a connection that sends a Produce request is
    held from that request on: its bytes stay here, whether its client lives or not, until `release`."""

    def __init__(self, port: int, target: int) -> None:
        self.target = target
        self.holding = False
        self.held: list[_Connection] = []
        self._released = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", port), reuse_port=False)
        threading.Thread(target=self._accept, daemon=True).start()

    def release(self, seconds: float = 10.0) -> int:
        """Send on what is held; returns how many bytes that were, once the broker has answered to them
        or hung up."""
        self.holding = False
        self._released.set()
        sent = 0
        for connection in self.held:
            connection.over.wait(seconds)
            sent += connection.late_bytes
        return sent

    def close(self) -> None:
        """Take no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)  # else the thread in accept() keeps it
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                client.close()
                continue
            for one in (client, broker):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _Connection(self, client, broker)

    def wait_released(self) -> None:
        self._released.wait()


class _Connection:
    def __init__(self, proxy: HoldingProxy, client: socket.socket, broker: socket.socket) -> None:
        self.proxy, self.client, self.broker = proxy, client, broker
        self.late_bytes = 0
        self.over = threading.Event()
        threading.Thread(target=self._to_broker, daemon=True).start()
        threading.Thread(target=self._to_client, daemon=True).start()

    def _to_broker(self) -> None:
        """Whole requests at a time: four bytes of size, two of api key."""
        waiting = b""
        with suppress(OSError):
            while data := self.client.recv(1 << 16):
                waiting += data
                while len(waiting) >= 6:
                    size = 4 + int.from_bytes(waiting[:4], "big")
                    if self.proxy.holding and int.from_bytes(waiting[4:6], "big") == PRODUCE:
                        self._hold(waiting)
                        return
                    if len(waiting) < size:
                        break
                    self.broker.sendall(waiting[:size])
                    waiting = waiting[size:]
        self.broker.close()

    def _hold(self, waiting: bytes) -> None:
        self.proxy.held.append(self)
        reader = threading.Thread(target=self._gather, args=(kept := [waiting],), daemon=True)
        reader.start()
        self.proxy.wait_released()
        with suppress(OSError):
            late = b"".join(kept)
            self.late_bytes = len(late)
            self.broker.sendall(late)

    def _gather(self, kept: list[bytes]) -> None:
        with suppress(OSError):
            while data := self.client.recv(1 << 16):
                kept.append(data)

    def _to_client(self) -> None:
        with suppress(OSError):
            while data := self.broker.recv(1 << 16):
                if self.late_bytes:
                    self.over.set()  # the broker has answered to what was late
                with suppress(OSError):
                    self.client.sendall(data)
        self.over.set()
        self.client.close()
