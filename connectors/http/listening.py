"""The server of an HTTP source: Granian on its address, tried again while that is taken."""

from __future__ import annotations

import asyncio
import logging
import socket
from pathlib import Path
from typing import Any

from granian.constants import HTTPModes, Interfaces, SSLProtocols
from granian.http import HTTP1Settings
from granian.server.embed import Server

from connectors.backoff import Backoff
from connectors.errors import ConfigError
from connectors.http.config import HttpConfig
from connectors.source import SourceStatus
from connectors.tcp.config import listen_address
from connectors.tls import in_folder, server_context

log = logging.getLogger(__name__)


class Listening:
    """host, port: where; the port is 0 until the server listens. Raises `ConfigError` for an address that is
    none."""

    def __init__(self, name: str, config: HttpConfig, folder: Path) -> None:
        self.name, self.config = name, config
        try:
            self.host, self._wanted = listen_address(config.listen)
        except ValueError as error:
            raise ConfigError(f"source {name}: {error}") from error
        self.port = 0
        self._files = {
            key: in_folder(folder, getattr(config, key)) for key in ("cert_file", "key_file", "ca_file")
        }

    async def server(self, app: Any, stop: asyncio.Event, status: SourceStatus) -> Server | None:
        """A server of an RSGI application; None when stopped while its address is in use. Raises
        `ConfigError` for an address that can never be listened on and TLS files that are none."""
        if self.config.tls:
            server_context(**self._files)  # says in words what is wrong; Granian reads the files again
        backoff = Backoff(limit_s=5.0)
        while not stop.is_set():
            try:
                self.port = _free(self.host, self._wanted)
                return self._made(app)
            except OSError as error:
                said = f"cannot listen on {self.config.listen}: {error.strerror or error}"
                if isinstance(error, (PermissionError, socket.gaierror)):
                    raise ConfigError(f"source {self.name}: {said}") from error
                status.state, status.detail = "disconnected", said
                log.warning("%s", said)
                await backoff.wait(stop)
        return None

    def _made(self, app: Any) -> Server:
        config, files = self.config, self._files
        secure: dict[str, Any] = {}
        if config.tls:
            secure = {
                "ssl_cert": Path(files["cert_file"] or ""),
                "ssl_key": Path(files["key_file"] or ""),
                "ssl_protocol_min": SSLProtocols.tls12,
            }
            if files["ca_file"] is not None:
                secure |= {"ssl_ca": Path(files["ca_file"]), "ssl_client_verify": True}
        return Server(
            app,
            self.host or "0.0.0.0",  # noqa: S104 - ":8081" asks for every interface
            self.port,
            interface=Interfaces.RSGI,
            http=HTTPModes.http1,
            websockets=False,
            backlog=1024,
            backpressure=config.max_connections,
            http1_settings=HTTP1Settings(
                header_read_timeout=max(1, config.header_timeout // 1_000_000),
                max_buffer_size=max(8192, config.max_header),
            ),
            log_enabled=False,
            **secure,
        )


def _free(host: str, port: int) -> int:
    """The port, or a free one for 0, found by binding it: Granian would share an address in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
        return int(probe.getsockname()[1])
