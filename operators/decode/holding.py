"""`devices.unknown: hold`: which frames and readings come to wait, and which have waited for too long."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from operators.batch import Int32, Int64, Slice, told_of_line
from operators.contract.messages import duration_text
from operators.decode.held import HeldFrame, HeldFrames
from operators.decode.met_addresses import MetAddresses
from operators.decode.product import NamedReadings
from operators.decode.routing import HELD
from operators.decode.spec import DecodePlan
from operators.rejects import Reason, Reject


class Holding:
    """What one plant says of frames of unknown devices; `held` are those of the shard."""

    def __init__(self, plan: DecodePlan, held: HeldFrames, addresses: MetAddresses) -> None:
        self._limits, self._hold_for = plan.limits, plan.routing.hold_for
        self._held, self._addresses = held, addresses

    def hold(
        self,
        item: Slice,
        places: Int64,
        status: Int32,
        messages: dict[int, str],
        named: Mapping[int, NamedReadings],
    ) -> None:
        """Keep frames of unknown devices until they are known, as many as the caps allow, and of frames
        that name several devices the readings of such; and give up those that have waited for `hold_for`
        at a tick."""
        frames, ticks, done = item.frames, item.frames.ticks, 0
        parts = {row: mine for mine in named.values() for row in mine.waiting}
        for row in sorted({*np.flatnonzero(status == HELD).tolist(), *parts}):
            while done < len(ticks.row) and ticks.row[done] <= row:
                self.expire(item, int(ticks.ns[done]))
                done += 1
            route = self._addresses.route(places[row])
            frame = HeldFrame(
                int(frames.position[row]), int(frames.ingest_ns[row]), route.device_id, route.productId,
                frames.addresses[int(frames.address[row])], int(frames.flags[row]), frames.frame(row),
                frames.line(row),
            )  # fmt: skip
            if row in parts:
                if self._hold_parts(frame, row, parts[row]):
                    status[row] = HELD
                continue
            over = self._over(1, len(frame.payload))
            if over:
                status[row], messages[row] = Reason.unknown_device, f"{route.message}{over}"
                continue
            self._held.hold(frame)
        for ns in ticks.ns[done:].tolist():
            self.expire(item, ns)
        for mine in named.values():
            if mine.held:
                mine.leave_out()

    def _over(self, count: int, size: int) -> str:
        """Why so many more frames of so many bytes together cannot wait; "" where they can."""
        limits, over = self._limits, ""
        if len(self._held) + count > limits.held:
            over = f"limits.held allows {limits.held} frames"
        elif self._held.size + size > limits.held_bytes:
            over = f"limits.held_bytes allows {limits.held_bytes} bytes"
        return over and f", and no more frames can wait: {over}"

    def _hold_parts(self, frame: HeldFrame, row: int, mine: NamedReadings) -> bool:
        """Hold the readings of unknown devices of a frame. Whether they are all of it."""
        fits: dict[str, list[int]] = {}
        for device, readings in mine.waiting[row].items():
            count = len(fits) + 1
            over = self._over(count, count * len(frame.payload))
            if over:
                why = f"'{device}' is not in devices.csv{over}"
                mine.refused |= dict.fromkeys(readings, (Reason.unknown_device, why))
            else:
                fits[device] = readings
        sole = sum(map(len, fits.values())) == int((mine.row == row).sum())
        for device, readings in fits.items():
            only = tuple(mine.decoded.index[readings].tolist())
            self._held.hold(frame._replace(device=device, only=only, sole=sole))
            mine.held += readings
        return sole

    def expire(self, item: Slice, now_ns: int) -> None:
        for parts in self._held.expire(now_ns - self._hold_for):
            frame = parts[0]
            source, productId = frame.address.source, frame.productId
            if frame.sole:
                item.count(source, productId, "frames_held", -1)
                item.count(source, productId, "frames_rejected")
                names = "' and '".join(part.device for part in parts)
                self._give_up(item, frame, f"'{names}' {'is' if len(parts) == 1 else 'are'}")
                continue
            for part in parts:
                item.count(source, productId, "readings_decoded", len(part.only))
                item.count(source, productId, "readings_rejected", len(part.only))
                for index in part.only:
                    self._give_up(item, part, f"'{part.device}' is", index)

    def _give_up(self, item: Slice, frame: HeldFrame, who: str, index: int = 0) -> None:
        waited = duration_text(self._hold_for)
        were = "was" if who.endswith("is") else "were"
        why = told_of_line(
            frame.line, f"{who} not in devices.csv, and {were} not provisioned within {waited}"
        )
        item.rejects.append(
            Reject(
                Reason.unknown_device, why, frame.address.source, frame.address.topic, frame.device,
                frame.productId, frame.position, index, frame.ingest_ns, frame.payload,
            )
        )  # fmt: skip
