"""Devices and master data, the plain way: what becomes of each frame, one after the other.

`run` walks steps of a plant whose only rule is `tempC > param.tempHigh` at severity info, in journal order:

    ("tick", at_ms)
    ("telemetry", at_ms, device, hub or "", tempC, nodes or None)
    ("provision", at_ms, device, hub or "", product or None)
    ("master", at_ms, changes)          a frame
    ("action", at_ms, changes)          an operator's
    ("plant", at_ms, rows)              another devices.csv is applied
"""

from __future__ import annotations

from typing import Any

LIVE_WITHIN = 15 * 60_000


class Reference:
    def __init__(
        self, rows: dict[str, dict[str, str]], unknown: str, hold_for: int, cap: int, keep: bool = False
    ) -> None:
        self.file, self.keep = rows, keep
        self.due: tuple[list[str], int] = [], 0
        self.rows = {name: dict(row) for name, row in rows.items()}
        self.unknown, self.hold_for, self.cap = unknown, hold_for, cap
        self.held: list[tuple[int, int, str, str, float]] = []
        self.frames = dict.fromkeys(("in", "decoded", "rejected", "held"), 0)
        self.rejects: list[tuple[int, str]] = []
        self.filtered = 0
        self.accepted: list[tuple[int, str]] = []
        self.events: list[tuple[str, str, int, str | None, str | None, int]] = []
        self.raised: dict[str, bool] = {}
        self.newest: dict[str, int] = {}
        self.hubs: dict[str, str] = {}  # by device, at its first reading
        self.position = -1

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        for step in steps:
            kind, at = step[0], step[1]
            self.release(*self.due)
            self.due = [], 0
            if kind == "plant":
                self.apply(step[2], at)
                continue
            if kind == "tick":
                self.expire(at)
                continue
            if kind == "action":
                found = self.outcomes(step[2])
                if found is not None:
                    self.take(found, at, by_action=True)
                continue
            self.position += 1
            self.frames["in"] += 1
            if kind == "master":
                self.answered(self.outcomes(step[2]), at)
            elif kind == "provision":
                _, _, device, hub, product = step
                data = {"device_id": device, "hub_id": hub}
                if product is not None:
                    data["productId"] = product
                if self.rows.get(device, {}).get("status") == "retired":
                    data["status"] = ""
                self.answered(self.outcomes([("upsert", data)]), at)
            else:
                self.telemetry(*step[1:])

    def answered(self, found: dict[str, dict[str, str]] | None, at: int) -> None:
        if found is None:
            self.reject(self.position, "refused")
        else:
            self.frames["decoded"] += 1
            self.take(found, at)

    def outcomes(self, changes: list[tuple[str, dict[str, str]]]) -> dict[str, dict[str, str]] | None:
        """The rows that differ afterwards; None where a change is refused, and with it all."""
        found: dict[str, dict[str, str]] = {}
        for op, data in changes:
            name = data["device_id"]
            before = found.get(name, self.rows.get(name))
            if op == "delete":
                row = None if before is None else {**before, "status": "retired"}
            else:
                row = {key: cell for key, cell in {**(before or {}), **data}.items() if cell}
                if row.get("productId", "press") != "press" or row.get("status", "retired") != "retired":
                    return None
                if row.get("productId") and row.get("tempHigh", "0") == "warm":
                    return None
            if row is not None and row != before:
                found[name] = row
        return found

    def events_of(self, device: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == device]

    def take(self, found: dict[str, dict[str, str]], at: int, by_action: bool = False) -> None:
        """Rows change, all of one place together; what waits for them comes in."""
        if not found:
            return
        for device, row in found.items():
            gone = row.get("status") == "retired" and self.rows.get(device, {}).get("status") != "retired"
            if gone and self.raised.pop(device, False):
                newest = self.events_of(device)[-1]
                position = max(newest[5], self.position - (not by_action), 0)
                self.events.append((device, "closed", at, *newest[3:5], position))
        self.rows.update(found)
        self.release(list(found), at)

    def apply(self, after: dict[str, dict[str, str]], at: int) -> None:
        """What the files say otherwise than before wins; what they have no more goes, unless kept."""
        before, self.file = self.file, after
        for device in {**before, **after}:
            old, new, now = before.get(device, {}), after.get(device, {}), self.rows.get(device, {})
            if old == new or (device not in after and self.keep):
                continue
            said = {key: new.get(key, "") for key in {**old, **new} if old.get(key) != new.get(key)}
            row = {key: cell for key, cell in {**now, **said}.items() if cell}
            retired = row.get("status") == "retired" and now.get("status") != "retired"
            if (device not in after or retired) and self.raised.pop(device, False):
                newest = self.events_of(device)[-1]
                self.events.append((device, "closed", at, *newest[3:5], max(newest[5], self.position, 0)))
            if device in after:
                self.rows[device] = row
            else:
                self.rows.pop(device, None)
        self.due = [device for device in after if device in self.rows], at

    def release(self, found: list[str], at: int) -> None:
        """Frames of devices that are known now come in."""
        free = [one for one in self.held if one[2] in found]
        self.held = [one for one in self.held if one[2] not in found]
        for position, sent, device, hub, value in free:
            self.frames["held"] -= 1
            self.decode(position, sent, at, device, hub, value)

    def telemetry(self, at: int, device: str, hub: str, value: float, nodes: Any) -> None:
        if nodes is not None and (self.unknown != "reject" or device in self.rows):
            changes = []
            for name, role, parent in nodes:
                above = name if role == "hub" else parent or hub or device
                changes.append(("upsert", {"device_id": name, "hub_id": above}))
            self.take(self.outcomes(changes) or {}, at)
        if device in self.rows or self.unknown == "accept":
            self.decode(self.position, at, at, device, hub, value)
        elif self.unknown == "reject" or len(self.held) >= self.cap:
            self.reject(self.position, "unknown_device")
        else:
            self.held.append((self.position, at, device, hub, value))
            self.frames["held"] += 1

    def expire(self, at: int) -> None:
        for one in [one for one in self.held if one[1] + self.hold_for <= at]:
            self.held.remove(one)
            self.frames["held"] -= 1
            self.reject(one[0], "unknown_device")

    def reject(self, position: int, reason: str) -> None:
        self.frames["rejected"] += 1
        self.rejects.append((position, reason))

    def decode(self, position: int, sent: int, at: int, device: str, hub: str, value: float) -> None:
        """sent: event time, that of the device's own clock; at: when it is taken in."""
        self.frames["decoded"] += 1
        row = self.rows.get(device, {})
        self.hubs.setdefault(device, hub)
        if row.get("status") == "retired":
            self.filtered += 1
            return
        self.accepted.append((position, device))
        if sent <= self.newest.get(device, -1) or at - sent > LIVE_WITHIN:
            self.newest[device] = max(sent, self.newest.get(device, -1))
            return
        self.newest[device] = sent
        high = row.get("tempHigh", "80")
        if high == "warm":  # said before its product was: unknown
            return
        hot = value > float(high)
        if hot != self.raised.get(device, False):
            self.raised[device] = hot
            known, site = row.get("hub_id") or self.hubs[device] or None, row.get("site_id")
            for word in ("raised",) if hot else ("cleared", "closed"):
                self.events.append((device, word, sent, known, site, position))
