"""One shard of a plant, looked at: its journal, its output log, and what its flow tells.

`ShardView` only reads, and keeps no state of its own but caches. `flows.views.Views` is made of the
views of all shards. Its methods may be called from any thread.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from connectors.errors import JournalError
from connectors.journal.columns import decode_alarms, decode_rejects, decode_telemetry
from connectors.journal.entries import FRAMES
from connectors.journal.lines import reject_line
from connectors.journal.output_store import OutputReader, read_cursors
from connectors.journal.reader import JournalReader
from flows.alarm_figures import FigureEvent
from flows.alarm_filters import AlarmFilters
from flows.shards import home_of
from flows.status import read_status
from operators.state.store import DeviceState, Heard, RecordReader

TAIL_BYTES: Final = 1 << 16
HISTORY: Final = 10_000  # events that are looked through
SHADOW_RECORDS: Final = 1_000
ALL_ALARMS: Final = AlarmFilters()
Found = TypeVar("Found")


class ShardView:
    """A read-only view of a shard's folder, which need not be complete (yet)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = home_of(folder)[1]  # None: the only shard
        self._lock = threading.Lock()
        self._output: OutputReader | None = None
        self._journal: JournalReader | None = None
        self._frames_entry = (0, 0)  # last entry looked at, last entry of frames up to it
        self._devices = RecordReader(
            lambda identifier: self.read(lambda output: output.state_layout(identifier)),
            lambda code: self.read(lambda output: output.state_text(code)),
        )

    def close(self) -> None:
        """Let go of the stores."""
        with self._lock:
            for store in (self._output, self._journal):
                if store is not None:
                    store.close()
            self._output = self._journal = None

    def output(self) -> OutputReader | None:
        """The output store, once the flow has made it."""
        with self._lock:
            if self._output is None and (self.folder / "output" / "data.mdb").exists():
                try:
                    self._output = OutputReader(self.folder / "output")
                except JournalError:
                    return None
            return self._output

    def journal(self) -> JournalReader | None:
        """The journal, once it has been made."""
        with self._lock:
            if self._journal is None and (self.folder / "journal" / "data.mdb").exists():
                try:
                    self._journal = JournalReader(self.folder / "journal")
                except JournalError:
                    return None
            return self._journal

    def read(self, read: Callable[[OutputReader], Found]) -> Found | None:
        output = self.output()
        return None if output is None else read(output)

    def lag(self) -> dict[str, float]:
        """How far the flow is behind the journal: entries, and seconds since the oldest entry
        whose results are not committed was journaled."""
        output, journal = self.output(), self.journal()
        if journal is None:
            return {"entries": 0, "seconds": 0.0}
        applied, last = output.applied() if output is not None else 0, journal.last()
        if applied >= last:
            return {"entries": 0, "seconds": 0.0}
        try:
            unread = journal.read(max(applied + 1, journal.oldest()), 1, 1)
        except JournalError:  # trimmed between the two calls
            unread = []
        seconds = max(0.0, time.time() - unread[0].ms / 1000) if unread else 0.0
        return {"entries": last - applied, "seconds": round(seconds, 3)}

    def waiting(self) -> dict[str, dict[str, float]]:
        """By target: records and bytes that wait for it, and the age in seconds of the oldest."""
        output = self.output()
        if output is None:
            return {}
        found: dict[str, dict[str, float]] = {}
        for name, cursor in read_cursors(self.folder, output.identity).items():
            records = size = 0
            oldest_ns: list[int] = []
            for kind, number in cursor.kinds.items():
                more, weight = output.backlog(kind, number)
                records, size = records + more, size + weight
                if more:
                    oldest_ns.extend(_ingest_ns(output, kind, number))
            age = time.time() - min(oldest_ns) / 1e9 if oldest_ns else 0.0
            found[name] = {"records": records, "bytes": size, "oldest_s": round(max(0.0, age), 3)}
        return found

    def drained(self, *, to_the_end: bool = False) -> bool:
        """The flow has committed what it made of the journal's last frames (`to_the_end`: of its
        last entry, which a journal that runs never stays at), and every target holds all that
        stands in the output log."""
        output, journal = self.output(), self.journal()
        if output is None or journal is None:
            return False
        end = journal.last() if to_the_end else self._last_frames(journal)
        if min(output.applied(), output.applied_bulk()) < end:
            return False
        cursors = read_cursors(self.folder, output.identity)
        return bool(cursors) and all(
            number >= output.tally(kind)[0]
            for cursor in cursors.values()
            for kind, number in cursor.kinds.items()
        )

    def _last_frames(self, journal: JournalReader) -> int:
        """The number of the journal's last entry of frames; 0 where none is left of any."""
        looked, frames = self._frames_entry
        last = journal.last()
        number, oldest = last, max(journal.oldest(), looked + 1)
        while number >= oldest:
            try:
                entry = journal.read(number, 1, 1, number)[0]
            except (JournalError, IndexError):  # trimmed meanwhile, so it has been applied
                break
            if entry.kind == FRAMES:
                frames = number
                break
            number -= 1
        self._frames_entry = (last, frames)
        return frames

    def alarm_events(
        self, after: int | None, limit: int, filters: AlarmFilters = ALL_ALARMS
    ) -> tuple[int, list[dict[str, Any]]]:
        """Events in the order of their finding, and the number to ask with for those that follow.

        after: such a number; None: the newest. At most `limit` events are looked at; the output
        log holds the newest 10,000, those before are passed over.
        """
        output = self.output()
        if output is None:
            return 0, []
        if after is None:
            after = max(0, output.tally("alarms")[0] - limit)
        records = output.read("alarms", after, max_records=limit)
        events = (event for record in records for event in decode_alarms(record.body))
        return (records[-1].number if records else after), filters.events(events)

    def newest_alarm_events(self, limit: int) -> Iterator[dict[str, Any]]:
        """The newest events of the output log, newest first, decoded as they are asked for."""
        output = self.output()
        for record in output.newest("alarms", limit) if output is not None else []:
            yield from reversed(decode_alarms(record.body))

    def find_alarms(self, prefix: str) -> list[dict[str, Any]]:
        """The newest `data` of each alarm whose id begins with `prefix`, among the open ones and the
        newest 10,000 events."""
        output = self.output()
        if output is None:
            return []
        found: dict[str, dict[str, Any]] = {}
        sought = f'"alarm_id":"{prefix}'.encode()
        for record in output.read("alarms", 0, 1 << 30, HISTORY):
            if sought in record.body:
                for event in decode_alarms(record.body):
                    found[event["data"]["alarm_id"]] = event["data"]
        for event in output.open_alarms():
            if event["data"]["alarm_id"].startswith(prefix):
                found[event["data"]["alarm_id"]] = event["data"]
        return [data for name, data in found.items() if name.startswith(prefix)]

    def shadow_events(self, limit: int, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        """The newest events of rules in mode shadow that the output log still holds, newest first."""
        found: list[dict[str, Any]] = []
        output = self.output()
        for record in output.newest("alarm_batches", SHADOW_RECORDS) if output is not None else []:
            events = [event for event in decode_alarms(record.body) if event.get("shadow")]
            found.extend(filters.events(reversed(events)))
            if len(found) >= limit:
                break
        return found[:limit]

    def rejects(self, limit: int, reason: str | None = None) -> list[dict[str, Any]]:
        """The newest rejects that the output log still holds, newest first (FORMATS section 5)."""
        found: list[dict[str, Any]] = []
        output = self.output()
        for record in output.newest("rejects", 1_000) if output is not None else []:
            for reject in reversed(decode_rejects(record.body)):
                if reason is None or reject.reason.name == reason:
                    found.append(reject_line(reject))
                    if len(found) == limit:
                        return found
        return found

    def records_of(self, device_id: str) -> list[DeviceState]:
        """What is known of a device, once a product."""
        return _newest(map(self._devices.read, self.read(lambda output: output.state(device_id)) or []))

    def records(self) -> list[DeviceState]:
        """What is known of every device, once a product."""
        return _newest(map(self._devices.read, self.read(OutputReader.states) or []))

    def heard(self) -> list[Heard]:
        """Which devices have been heard as which products."""
        found = map(self._devices.heard, self.read(OutputReader.states) or [])
        return list({one[:2]: one for one in found}.values())

    def flow_status(self) -> dict[str, Any]:
        """What the shard's flow has told of itself."""
        return read_status(self.folder).get("flow", {})

    def written_events(self) -> Iterator[FigureEvent]:
        """The complete lines of the shard's alarms file."""
        decoder = msgspec.json.Decoder(FigureEvent)
        with suppress(FileNotFoundError), (self.folder / "alarms.jsonl").open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield decoder.decode(line)

    def last_events(self, limit: int) -> list[dict[str, Any]]:
        """The last events of the shard's alarms file, newest first."""
        lines = _last_lines(self.folder / "alarms.jsonl", limit)
        return [msgspec.json.decode(line) for line in lines]


def _newest(records: Iterable[DeviceState]) -> list[DeviceState]:
    """Of two records of a device and product the later, which is of the newer form."""
    return list({(one.device_id, one.productId): one for one in records}.values())


def _ingest_ns(output: OutputReader, kind: str, after: int) -> list[int]:
    """When the oldest frame behind the first record after a cursor was journaled; [] where its
    kind does not tell (windows, alarm_intervals)."""
    for record in output.read(kind, after, 1, 1):
        if kind == "telemetry":
            return [int(decode_telemetry(record.body).ingest_ns[0])]
        if kind == "rejects":
            return [decode_rejects(record.body)[0].ingest_ns]
        if kind in ("alarms", "alarm_batches"):
            text = decode_alarms(record.body)[0]["data"]["ingest_time"]
            return [] if text is None else [int(_seconds(text) * 1e9)]
    return []


def _seconds(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp()


def _last_lines(path: Path, limit: int) -> list[bytes]:
    """The last complete lines of a file, newest first, read from its end."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return []
    with file:
        at, body = file.seek(0, 2), b""
        while at > 0 and body.count(b"\n") <= limit:
            size = min(at, TAIL_BYTES)
            at -= size
            file.seek(at)
            body = file.read(size) + body
    lines = body.split(b"\n")[:-1]  # what stands behind the last newline is being written
    return [line for line in reversed(lines[-limit:] if at == 0 else lines[1:][-limit:]) if line]
