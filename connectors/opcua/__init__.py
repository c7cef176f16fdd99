"""OPC UA as a source, of a plant or of a dataflow of one's own: `OpcuaSource(config, journal=PATH)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.opcua.config import OpcuaConfig

if TYPE_CHECKING:
    from connectors.bytewax_source import OpcuaSource

__all__ = ["OpcuaConfig", "OpcuaSource"]


def __getattr__(name: str) -> object:
    # only where it is asked for: a receiver's process has no use for Bytewax
    if name == "OpcuaSource":
        from connectors.bytewax_source import OpcuaSource

        return OpcuaSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
