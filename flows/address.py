"""`host:port` texts."""

from __future__ import annotations

from connectors.errors import ConfigError


def split_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`; raises `ConfigError`."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or not 0 <= int(port) <= 65535 or not host:
        raise ConfigError(f"'{text}' is not an address; write host:port, e.g. 127.0.0.1:8080")
    return host.strip("[]"), int(port)
