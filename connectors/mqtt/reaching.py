"""Reaching an MQTT broker: TCP and TLS, in a thread of their own, as names and handshakes block."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Final

from connectors.errors import ConfigError
from connectors.mqtt.config import MqttConfig

CONNECT_TIMEOUT_S: Final = 10.0
_PLACE: Final = re.compile(r" \(_ssl\.c:[0-9]+\)")  # in the source of Python


def tls_context(config: MqttConfig) -> ssl.SSLContext | None:
    """Raises `ConfigError` when a certificate file is unusable."""
    if not config.tls:
        return None
    try:
        context = ssl.create_default_context(cafile=config.ca_file)
        if config.cert_file is not None:
            context.load_cert_chain(config.cert_file, config.key_file)
    except (OSError, ValueError) as error:
        files = ", ".join(name for name in (config.ca_file, config.cert_file, config.key_file) if name)
        raise ConfigError(f"TLS files {files or '(none)'}: {words(error)}") from error
    return context


async def reach(config: MqttConfig, tls: ssl.SSLContext | None) -> socket.socket:
    """A blocking socket to the broker, its handshake done. Raises OSError when that fails."""
    return await _in_thread(asyncio.get_running_loop(), lambda: _connected(config, tls))


def _connected(config: MqttConfig, tls: ssl.SSLContext | None) -> socket.socket:
    reached = socket.create_connection((config.host, config.port), CONNECT_TIMEOUT_S)
    try:
        reached.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            return reached
        return tls.wrap_socket(reached, server_hostname=config.host)
    except BaseException:
        reached.close()
        raise


async def _in_thread(loop: asyncio.AbstractEventLoop, work: Callable[[], socket.socket]) -> socket.socket:
    """Run blocking work in a daemon thread, which a stopping process need not wait for."""
    done: asyncio.Future[socket.socket] = loop.create_future()

    def settle(made: socket.socket | None, error: BaseException | None) -> None:
        if done.done():
            if made is not None:
                made.close()
        elif made is not None:
            done.set_result(made)
        elif error is not None:
            done.set_exception(error)

    def body() -> None:
        made: socket.socket | None = None
        outcome: BaseException | None = None
        try:
            made = work()
        except (OSError, ValueError) as error:
            outcome = error if isinstance(error, OSError) else ConnectionError(words(error))
        if not loop.is_closed():
            loop.call_soon_threadsafe(settle, made, outcome)

    threading.Thread(target=body, name="mqtt-connect", daemon=True).start()
    return await done


def words(error: BaseException) -> str:
    """What went wrong, said as the system says it."""
    said = (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
    return _PLACE.sub("", said)
