"""TCP as a source, of a plant or of a dataflow of one's own: `TcpSource(config, journal=PATH)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.tcp.config import TcpConfig

if TYPE_CHECKING:
    from connectors.bytewax_source import TcpSource

__all__ = ["TcpConfig", "TcpSource"]


def __getattr__(name: str) -> object:
    # only where it is asked for: a receiver's process has no use for Bytewax
    if name == "TcpSource":
        from connectors.bytewax_source import TcpSource

        return TcpSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
