"""What decoding and the choice of a shard must know of a source: one reading of its keys for both."""

from __future__ import annotations

from typing import Any

from connectors.files.config import FilesConfig
from operators.decode.spec import SourceSpec
from operators.sparkplug import sparkplug_names


def source_spec(name: str, config: Any) -> SourceSpec:
    """How the addresses of a source are read. config: one of flows.plant_file.SourceConfig, which would
    bring the compiler into a receiver's process."""
    files = isinstance(config, FilesConfig)
    live = isinstance(config, FilesConfig) and config.live
    return SourceSpec(
        name=name,
        kind=str(type(config).__struct_config__.tag),
        device=config.device,
        topic=config.topic,
        product=config.product,
        live=live,
        historical=files and not live,
        sparkplug=sparkplug_names(config),
        carries=getattr(config, "carries", "frames"),
    )
