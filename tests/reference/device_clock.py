"""The device-clock alarm the plain way. Imports nothing of ours; times are whole numbers."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass
class Device:
    lags: list[int] = field(default_factory=list)  # of the newest 31 in-order readings
    first: tuple[int, int] = (0, 0)  # event and ingest time of the first one beyond
    onset: int | None = None


def device_clock(
    readings: list[tuple[str, int, int, bool]], live_within: int
) -> list[tuple[str, str, int, int]]:
    """readings in order: device, event time, ingest time, whether its clock was found stepped.
    Gives device, transition, event time, onset."""
    devices: dict[str, Device] = {}
    found = []
    for name, time, ingest, stepped in readings:
        device = devices.setdefault(name, Device())
        if stepped:
            device.lags.clear()
        lag = ingest - time
        if lag > live_within and not any(one > live_within for one in device.lags):
            device.first = (time, ingest)
        device.lags = [*device.lags, lag][-31:]
        padded = device.lags + [0] * (31 - len(device.lags))  # what was never heard was not late
        wrong = statistics.median(padded) > live_within
        backlog = time - device.first[0] > 2 * (ingest - device.first[1])
        if stepped or (wrong and lag > live_within and not backlog):
            if device.onset is None:
                device.onset = time if stepped else device.first[0]
                found.append((name, "raised", time, device.onset))
        elif device.onset is not None and lag <= live_within and not wrong:
            found.append((name, "cleared", time, device.onset))
            device.onset = None
    return found
