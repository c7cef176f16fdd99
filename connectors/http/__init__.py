"""HTTP as a source, of a plant or of a dataflow of one's own: `HttpSource(config, journal=PATH)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.http.config import HttpConfig

if TYPE_CHECKING:
    from connectors.bytewax_source import HttpSource

__all__ = ["HttpConfig", "HttpSource"]


def __getattr__(name: str) -> object:
    # only where it is asked for: a receiver's process has no use for Bytewax
    if name == "HttpSource":
        from connectors.bytewax_source import HttpSource

        return HttpSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
