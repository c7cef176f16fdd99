"""Checks of plant.yaml about devices and master data beyond types."""

from __future__ import annotations

from typing import Final

from flows.plant_file import DevicesConfig, Limits, PlantYaml
from operators.document import Node, Problems

HELD_MOST: Final = 10_000_000
HELD_BYTES_MOST: Final = 1_000_000_000  # they are part of every snapshot that sees them change


def check_devices_section(node: Node, config: PlantYaml, problems: Problems) -> None:
    """`devices`, the limits of held frames, and sources that carry master data. node: of plant.yaml."""
    devices = node.get("devices")
    hold_for = devices.get("hold_for") if devices is not None else None
    if hold_for is not None and isinstance(config.devices, DevicesConfig):
        if config.devices.hold_for < 1_000_000:
            problems.add(hold_for, "must be longer than nothing, e.g. 7d")
        elif config.devices.unknown != "hold":
            problems.warn(
                hold_for, f"has no effect with unknown: {config.devices.unknown}; write unknown: hold"
            )
    limits = node.get("limits")
    for key, most in (("held", HELD_MOST), ("held_bytes", HELD_BYTES_MOST)):
        below = limits.get(key) if limits is not None else None
        sound = below is not None and isinstance(config.limits, Limits)
        if below is not None and sound and not 0 <= getattr(config.limits, key) <= most:
            problems.add(below, f"a number from 0 to {most} is expected")
    sources = node.get("sources")
    for name, source in config.sources.items():
        below = sources.get(name) if sources is not None else None
        carries = below.get("carries") if below is not None else None
        if below is None or carries is None or getattr(source, "carries", "frames") != "master":
            continue
        if source.product is not None:
            problems.add(below, "a source of master data has no product; leave it out", key="product")
