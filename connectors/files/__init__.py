"""Files as a source, of a plant or of a dataflow of one's own: `FilesSource(config, journal=PATH)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from connectors.files.config import FilesConfig

if TYPE_CHECKING:
    from connectors.bytewax_source import FilesSource

__all__ = ["FilesConfig", "FilesSource"]


def __getattr__(name: str) -> object:
    # only where it is asked for: a receiver's process has no use for Bytewax
    if name == "FilesSource":
        from connectors.bytewax_source import FilesSource

        return FilesSource
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
