"""Sparkplug among the messages of a broker's connection: what the receiver does beside the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import numpy as np

from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.session import HostState, MqttSession
from connectors.mqtt.sparkplug.messages import FIGURES, Numbered, Sparkplug
from connectors.mqtt.sparkplug.store import BirthStore
from connectors.source import Frame, FrameRows, Where
from operators.batch import Int64
from operators.sparkplug import BIRTHS_AND_DEATHS, NAMESPACE, PREFIX, STATE, split_topic

ENTRY_FRAMES: Final = 8192  # of one journal entry
ENTRY_BYTES: Final = 1 << 20
_SAID_AGAIN_S: Final = 1.0


NOBODY: Final = -2  # no row of a batch, nor a repeat (-1)


class Part(NamedTuple):
    """What a journal entry holds. ends: int64[N], the row of the message that ends with a frame, `NOBODY`
    where none does. A birth or a death ends with none: it leads to more than its frames, and is read again
    when it comes again. unique: int64[K], the rows among these whose content no other message has."""

    rows: FrameRows
    ends: Int64
    unique: Int64


class Divided(NamedTuple):
    """others: the rows that are no Sparkplug messages, and which they were (int64[N]); parts: the frames
    of the messages; deaths: to be kept when all of it is durable."""

    others: FrameRows | None
    rows: Int64
    parts: list[Part]
    deaths: list[Numbered]


class Feed:
    """One source's Sparkplug: its state as a host application, its messages."""

    def __init__(self, config: SparkplugConfig, folder: Path, cap: int) -> None:
        """cap: bytes of a payload that are allowed."""
        self.sparkplug = Sparkplug(config, BirthStore(folder), cap)
        self._state_topic = f"{NAMESPACE}/{STATE}/{config.host_id}" if config.host_id is not None else ""
        self._said = 0.0

    def state(self) -> HostState | None:
        """What STATE tells of a connection that begins now (Sparkplug 3.0, section 5.14)."""
        if not self._state_topic:
            return None
        now = int(time.time() * 1000)
        online, offline = (
            msgspec.json.encode({"online": there, "timestamp": now}) for there in (True, False)
        )
        return HostState(self._state_topic, online, offline)

    def divide(self, session: MqttSession, rows: FrameRows) -> Divided | None:
        """What Sparkplug's messages among the rows become; None where there are none of them."""
        mine = [
            topic.startswith(PREFIX) and not any(name == "too_large" for name, _ in headers)
            for topic, _, headers in rows.addresses
        ]
        if not any(mine):
            return None
        chosen = np.array(mine, np.bool_)[rows.where]
        starts = np.cumsum(rows.lengths, dtype=np.int64) - rows.lengths
        frames: list[Frame] = []
        ends: list[int] = []
        unique: list[int] = []
        for row in np.flatnonzero(chosen).tolist():
            topic = rows.addresses[rows.where[row]][0]
            data = rows.payload[starts[row] : starts[row] + int(rows.lengths[row])]
            if topic == self._state_topic:
                self._hear_state(session, data)
            else:
                found = self.sparkplug.take(topic, data, int(rows.flags[row]))
                if found:
                    frames += found
                    ends += [NOBODY] * (len(found) - 1)
                    ends.append(NOBODY if _is_birth_or_death(topic) else row)
                    if self.sparkplug.unique:
                        unique.append(row)
        self.sparkplug.keep()
        self.ask(session)
        left = np.flatnonzero(~chosen)
        others = _some(rows, left, starts) if len(left) else None
        return Divided(others, left, _parts(frames, ends, unique), self.sparkplug.deaths())

    def tick(self, session: MqttSession) -> Divided:
        """Once a second: what time alone has led to."""
        frames = self.sparkplug.tick()
        self.ask(session)
        parts = _parts(frames, [NOBODY] * len(frames), [])
        return Divided(None, np.empty(0, np.int64), parts, self.sparkplug.deaths())

    def durable(self, deaths: Sequence[Numbered]) -> None:
        """These are in the journal; to be called before their messages are acknowledged."""
        self.sparkplug.keep_deaths(deaths)

    def ask(self, session: MqttSession) -> None:
        """Publish the questions that are due."""
        for topic, payload in self.sparkplug.commands():
            session.publish(topic, payload)

    def figures(self) -> dict[str, float]:
        """For the status file."""
        return {f"sparkplug_{name}": float(self.sparkplug.counts[name]) for name in FIGURES}

    def close(self, whole: bool) -> None:
        """The end. whole: all that was taken is durable."""
        self.sparkplug.close(whole)

    def _hear_state(self, session: MqttSession, data: bytes) -> None:
        """Another connection's will may say that we are not there while we are."""
        try:
            told = msgspec.json.decode(data, type=dict[str, object])
        except (msgspec.DecodeError, UnicodeDecodeError):
            told = {}
        now = time.monotonic()
        if told.get("online") is not True and now - self._said >= _SAID_AGAIN_S:
            self._said = now
            session.tell_state()


def _parts(frames: Sequence[Frame], ends: Sequence[int], unique: Sequence[int]) -> list[Part]:
    """Frames as columns, each what one journal entry holds."""
    found: list[Part] = []
    first = 0
    while first < len(frames):
        last, size = first, 0
        addresses: dict[Where, int] = {}
        where: list[int] = []
        while last < len(frames) and last - first < ENTRY_FRAMES:
            frame = frames[last]
            if last > first and size + len(frame.payload) > ENTRY_BYTES:
                break
            where.append(addresses.setdefault((frame.topic, frame.port, frame.headers), len(addresses)))
            size += len(frame.payload)
            last += 1
        part = frames[first:last]
        rows = FrameRows(
            b"".join(frame.payload for frame in part),
            np.array([len(frame.payload) for frame in part], np.uint32),
            np.array(where, np.uint32),
            np.array([frame.flags for frame in part], np.uint8),
            list(addresses),
        )
        of_part = np.array(ends[first:last], np.int64)
        found.append(Part(rows, of_part, np.intersect1d(of_part, np.array(unique, np.int64))))
        first = last
    return found


def _is_birth_or_death(topic: str) -> bool:
    address = split_topic(topic)
    return address is not None and address.type in BIRTHS_AND_DEATHS


def _some(rows: FrameRows, chosen: Int64, starts: Int64) -> FrameRows:
    numbers, where = np.unique(rows.where[chosen], return_inverse=True)
    payload = b"".join(
        rows.payload[start : start + size]
        for start, size in zip(starts[chosen].tolist(), rows.lengths[chosen].tolist(), strict=True)
    )
    return FrameRows(
        payload,
        rows.lengths[chosen],
        where.astype(np.uint32),
        rows.flags[chosen],
        [rows.addresses[number] for number in numbers.tolist()],
    )
