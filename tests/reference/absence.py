"""Absence rules the plain way: one device, one reading, one second at a time.

Imports nothing of ours. Times are whole numbers of any unit.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Device:
    in_service: bool = True
    heard: bool = False
    source: str | None = None
    last: tuple[int, int] | None = None  # time and ingest of the newest reading
    since: int | None = None  # None: its clock does not run
    end: int = 0
    away_since: int | None = None  # its source is not connected since
    active: int | None = None  # onset


Event = tuple[str, str, int, int]  # device, transition, time, onset


class Engine:
    """One rule: `of` a metric, or of any reading."""

    def __init__(self, wait: int, grace: int, of_metric: bool, listed: dict[str, bool]) -> None:
        """listed: devices of devices.csv -> in service."""
        self.wait, self.grace, self.of_metric = wait, grace, of_metric
        self.listed = listed
        self.devices: dict[str, Device] = {}
        self.connected: dict[str, bool] = {}
        self.events: list[Event] = []
        self.begun = False

    def begin(self, now: int) -> None:
        """The journal's first entry that is no tick: devices that were never heard wait from here on."""
        if self.begun:
            return
        self.begun = True
        for name, in_service in self.listed.items():
            device = self.devices.setdefault(name, Device(in_service))
            if in_service:
                device.since, device.end = now, now + self.wait

    def there(self, device: Device) -> bool:
        if device.source is None:
            return all(self.connected.values())
        return self.connected.get(device.source, True)

    def tick(self, now: int) -> None:
        for name, device in self.devices.items():
            clock = now if device.last is None else device.last[0] + now - device.last[1]
            if self.waits(device) and device.end + self.grace <= clock:
                self.miss(name, device)

    def waits(self, device: Device) -> bool:
        return device.since is not None and device.active is None and device.away_since is None

    def miss(self, name: str, device: Device) -> None:
        assert device.since is not None
        device.active = device.since
        self.events.append((name, "raised", device.end, device.since))

    def control(self, source: str, connected: bool, now: int) -> None:
        self.begin(now)
        self.tick(now)
        self.connected[source] = connected
        for device in self.devices.values():
            if not self.there(device):
                device.away_since = now if device.away_since is None else device.away_since
            elif device.away_since is not None:
                device.end += now - device.away_since
                device.away_since = None

    def restarted(self, last: int) -> None:
        """The journal ran again; its clock stood at `last` when it ended. Who ever said that it is
        connected is not until it says so again."""
        self.begin(last)
        self.tick(last)
        self.connected = dict.fromkeys(self.connected, False)
        for device in self.devices.values():
            if not self.there(device) and device.away_since is None:
                device.away_since = last

    def reading(
        self, name: str, time: int, ingest: int, source: str, usable: bool, rebased: bool = False
    ) -> None:
        self.begin(ingest)
        device = self.devices.setdefault(name, Device(self.listed.get(name, True)))
        waiting = device.since is not None and device.active is None
        if device.away_since is not None:
            if waiting:
                device.end += ingest - device.away_since
        elif waiting and device.heard and not rebased and device.end <= time:
            self.miss(name, device)
            waiting = False
        fresh = not device.heard
        device.heard, device.source, device.last = True, source, (time, ingest)
        device.away_since = None if self.connected.get(source, True) else ingest
        if usable or not self.of_metric:
            if device.active is not None:
                self.events.append((name, "cleared", time, device.active))
                device.active = None
            device.since = time if device.in_service else None
            device.end = time + self.wait
        elif (waiting and (rebased or fresh)) or (device.since is None and device.in_service):
            device.since, device.end = time, time + self.wait
