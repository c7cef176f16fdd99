"""What simulated devices count."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Told:
    """What the devices sent and were told is safe: PUBACK of the broker, acknowledgement of a TCP
    source (`unacknowledging` frames went where none is given)."""

    sent: int = 0
    acknowledged: int = 0
    unacknowledging: int = 0
    dropped: int = 0
