"""Frames with the readings of several devices where unknown ones are held, the plain way.

`run` walks steps in the order of the journal:

    ("tick", at_ms)
    ("frame", at_ms, [(device, value)])     device "": the reading names none
    ("known", at_ms, [device])              they are provisioned
"""

from __future__ import annotations

from typing import Any


class Reference:
    def __init__(self, known: set[str], hold_for: int, cap: int) -> None:
        self.known, self.hold_for, self.cap = set(known), hold_for, cap
        self.waits: list[dict[str, Any]] = []  # a frame and a device each
        self.frames: dict[int, str] = {}  # position -> its term of the ledger
        self.accepted: list[tuple[int, int, str, float]] = []  # position, index, device, value
        self.rejects: list[tuple[int, int, str]] = []
        self.whole_rejects: list[tuple[int, str]] = []

    def run(self, steps: list[tuple[Any, ...]]) -> None:
        for kind, at, *rest in steps:
            if kind == "tick":
                self.give_up(at)
            elif kind == "known":
                self.known |= set(rest[0])
                for one in [one for one in self.waits if one["device"] in rest[0]]:
                    self.waits.remove(one)
                    self.frames[one["position"]] = "decoded"
                    self.accepted += [(one["position"], *reading) for reading in one["readings"]]
            else:
                self.frame(at, rest[0])

    def frame(self, at: int, readings: list[tuple[str, float]]) -> None:
        position = len(self.frames)
        by_device: dict[str, list[tuple[int, str, float]]] = {}
        for index, (device, value) in enumerate(readings):
            by_device.setdefault(device, []).append((index, device, value))
        held = 0
        for device, mine in by_device.items():
            if device in self.known:
                self.accepted += [(position, *reading) for reading in mine]
            elif device and len(self.waits) < self.cap:
                self.waits.append({"at": at, "position": position, "device": device, "readings": mine})
                held += len(mine)
            else:
                self.rejects += [(position, index, device) for index, _, _ in mine]
        self.frames[position] = "held" if held and held == len(readings) else "decoded"

    def give_up(self, at: int) -> None:
        over = [one for one in self.waits if one["at"] + self.hold_for <= at]
        for position in dict.fromkeys(one["position"] for one in over):
            mine = [one for one in over if one["position"] == position]
            if self.frames[position] == "held":
                self.frames[position] = "rejected"
                self.whole_rejects.append((position, mine[0]["device"]))
            else:
                self.rejects += [
                    (position, index, device) for one in mine for index, device, _ in one["readings"]
                ]
        self.waits = [one for one in self.waits if one not in over]

    def ledger(self) -> dict[str, int]:
        terms = list(self.frames.values())
        return {
            "in": len(terms),
            "filtered": 0,
            **{t: terms.count(t) for t in ("decoded", "rejected", "held")},
        }
