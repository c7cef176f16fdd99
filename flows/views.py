"""Looking at a plant: what stands in its data directory, as plain JSON objects.

`Views` only reads: the output store that the flow commits, the journal, the status files and
alarms.jsonl. It keeps no state of its own but caches, so that the server, `penstock top` and a test
see the same, and a plant that does not run can be looked at as well. Nothing it gives is older
than half a second beyond the flow's last commit. Its methods may be called from any thread.
"""

from __future__ import annotations

import datetime
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
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
from flows.alarm_figures import FigureEvent, figures, read_history
from flows.alarm_filters import SEVERITIES, AlarmFilters
from flows.health import is_running, readiness
from flows.master_rows import with_changes
from flows.plant_file import Plant
from flows.plant_reader import load_bundle
from flows.rule_status import rule_rows
from flows.status import read_status
from flows.submodel_index import SubmodelIndex
from operators.batch import Ledger, Waiting
from operators.contract.messages import time_text
from operators.state.store import DeviceState, RecordReader

PLANT_S: Final = 0.5  # how long an applied plant is taken for the newest
TAIL_BYTES: Final = 1 << 16
HISTORY: Final = 10_000  # events that are looked through
SHADOW_RECORDS: Final = 1_000
ALL_ALARMS: Final = AlarmFilters()
Found = TypeVar("Found")


class Views:
    """A read-only view of the data directory `data`, which need not be complete (yet)."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self._lock = threading.Lock()
        self._output: OutputReader | None = None
        self._journal: JournalReader | None = None
        self._plant: Plant | None = None
        self._plant_now: tuple[str, Any, Plant] | None = None
        self._plant_at = float("-inf")
        self._index: SubmodelIndex | None = None
        self._frames_entry = (0, 0)  # last entry looked at, last entry of frames up to it
        self._devices = RecordReader(
            lambda identifier: self._read(lambda output: output.state_layout(identifier)),
            lambda code: self._read(lambda output: output.state_text(code)),
        )

    def close(self) -> None:
        """Let go of the stores."""
        with self._lock:
            for store in (self._output, self._journal):
                if store is not None:
                    store.close()
            self._output = self._journal = None

    # -- stores

    def output(self) -> OutputReader | None:
        """The output store, once the flow has made it."""
        with self._lock:
            if self._output is None and (self.data / "output" / "data.mdb").exists():
                try:
                    self._output = OutputReader(self.data / "output")
                except JournalError:
                    return None
            return self._output

    def journal(self) -> JournalReader | None:
        """The journal, once it has been made."""
        with self._lock:
            if self._journal is None and (self.data / "journal" / "data.mdb").exists():
                try:
                    self._journal = JournalReader(self.data / "journal")
                except JournalError:
                    return None
            return self._journal

    def plant(self) -> Plant | None:
        """The newest applied plant; None before the first."""
        journal = self.journal()
        with self._lock:
            if journal is None or time.monotonic() - self._plant_at < PLANT_S:
                return self._plant
            applied = journal.last_plant()
            if applied is not None and (self._plant is None or self._plant.sha256 != applied.sha256):
                self._plant = load_bundle(applied.files)
            self._plant_at = time.monotonic()
            return self._plant

    def plant_now(self) -> Plant | None:
        """The same, with master data as changes have made them."""
        plant = self.plant()
        changed = self._read(OutputReader.master) if plant is not None else None
        if plant is None or not changed:
            return plant
        with self._lock:
            if self._plant_now is None or self._plant_now[:2] != (plant.sha256, changed):
                self._plant_now = plant.sha256, changed, with_changes(plant, changed)
            return self._plant_now[2]

    def master(self, table: str) -> list[dict[str, str]]:
        """Rows of devices, sites or customers as they are, in their order."""
        plant = self.plant_now()
        return [] if plant is None else [dict(row) for row in getattr(plant.master, table).values()]

    def _read(self, read: Callable[[OutputReader], Found]) -> Found | None:
        output = self.output()
        return None if output is None else read(output)

    # -- counts

    def ledger(self) -> Ledger:
        """{(source, product): {term: count}} since the plant's first frame."""
        return self._read(OutputReader.ledger) or {}

    def ledger_rows(self) -> list[dict[str, Any]]:
        """The ledger as a list of objects."""
        return [
            {"source": source, "productId": product, **terms}
            for (source, product), terms in sorted(self.ledger().items())
        ]

    def rejects_by_reason(self) -> dict[tuple[str, str, str], int]:
        """{(source, product, reason): count} since the plant's first frame."""
        return self._read(OutputReader.reject_counts) or {}

    def alarms_by_transition(self) -> dict[str, int]:
        """{transition: count} since the plant's first frame."""
        return self._read(OutputReader.alarm_counts) or {}

    def status(self) -> dict[str, Any]:
        """Everything that `top` shows: health, ledger, counts, lag, what waits for each target."""
        status = read_status(self.data)
        plant = self.plant()
        return {
            "at_ms": int(time.time() * 1000),
            "plant": plant.name if plant else None,
            "running": is_running(status),
            "health": readiness(self.data),
            "ledger": self.ledger_rows(),
            "rejects": [
                {"source": source, "productId": product, "reason": reason, "count": count}
                for (source, product, reason), count in sorted(self.rejects_by_reason().items())
            ],
            "alarms": self.alarms_by_transition(),
            "open_alarms": len(self._read(OutputReader.open_alarms) or []),
            "devices": len(self._read(OutputReader.devices) or []),
            "lag": self.lag(),
            "waiting": self.waiting(),
        }

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
        for name, cursor in read_cursors(self.data, output.identity).items():
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
        cursors = read_cursors(self.data, output.identity)
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

    # -- alarms, devices, rejects, rules

    def open_alarms(self, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        """Alarms that are not closed, the gravest and then the newest first."""
        found = filters.rows(_alarm_row(event) for event in (self._read(OutputReader.open_alarms) or []))
        found.sort(key=lambda row: (row["since"], row["subject"]), reverse=True)
        found.sort(key=lambda row: _rank(row["severity"]))
        return found

    def alarm_history(self, limit: int, filters: AlarmFilters = ALL_ALARMS) -> list[dict[str, Any]]:
        """The newest events of alarms.jsonl, newest first; with filters those among the newest
        10,000."""
        looked = limit if filters == ALL_ALARMS else HISTORY
        lines = _last_lines(self.data / "alarms.jsonl", looked)
        return filters.events(msgspec.json.decode(line) for line in lines)[:limit]

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

    def alarm_figures(self, start_ms: int | None, end_ms: int | None) -> dict[str, Any]:
        """Alarm-system figures of the events in alarms.jsonl; end_ms None: now, or, of a plant that does
        not run, the last event."""
        history = read_history(_events(self.data / "alarms.jsonl"))
        if end_ms is None:
            last = history.last if history.last is not None and not self.is_running() else None
            end_ms = int(time.time() * 1000) if last is None else last + 1
        return figures(history, start_ms, end_ms)

    def is_running(self) -> bool:
        """Whether the plant's supervisor is there."""
        return is_running(read_status(self.data))

    def devices(self) -> list[dict[str, Any]]:
        """Devices of the master data in file order, then others that have been heard, then those that
        frames wait for until they are known."""
        plant = self.plant_now()
        heard = {record.device_id: record for record in self._records()}
        rows = plant.master.devices if plant else {}
        found = [_device_row(name, row, heard.pop(name, None)) for name, row in rows.items()]
        found.extend(_device_row(name, {}, heard[name]) for name in sorted(heard))
        waiting = self._read(OutputReader.waiting) or []
        found.extend(_held_row(one) for one in waiting)
        missing = {
            one["device_id"]: one["missing"]
            for one in read_status(self.data).get("flow", {}).get("missing", [])
        }
        for one in found:
            one["missing"] = missing.get(one["device_id"], 0)
        return found

    def state(self, device_id: str) -> dict[str, Any] | None:
        """{metric: {"value", "quality", "time", "position"}}; None for a device never heard."""
        record = self._record(device_id)
        return None if record is None else _state_object(record)

    def states(self) -> dict[str, dict[str, Any]]:
        """`state` of every device that has been heard, by name."""
        return {one.device_id: _state_object(one) for one in sorted(self._records(), key=_name)}

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

    def rules(self) -> list[dict[str, Any]]:
        """Rules of the applied plant, with what the flow has told of each: `counts` by product, and how
        many occurrences are active now."""
        plant = self.plant()
        status = read_status(self.data).get("flow", {})
        active = Counter(row["ruleId"] for row in self.open_alarms() if row["active"])
        counts: dict[str, list[dict[str, Any]]] = {}
        for row in rule_rows(status):
            counts.setdefault(row.pop("ruleId"), []).append(row)
        return [
            {
                "ruleId": rule.ruleId,
                "productId": list(rule.products),
                "type": rule.type,
                "condition": "; ".join(rule.conditions.values()),
                "severity": rule.severity_of(next(iter(rule.conditions), "")),
                "rule_version": rule.version,
                "mode": rule.mode,
                "active": active[rule.ruleId],
                "counts": counts.get(rule.ruleId, []),
            }
            for rule in (plant.rules if plant else [])
        ]

    def _record(self, device_id: str) -> DeviceState | None:
        body = self._read(lambda output: output.state(device_id))
        return None if body is None else self._devices.read(body)

    def _records(self) -> Iterator[DeviceState]:
        return map(self._devices.read, self._read(OutputReader.states) or [])

    # -- submodels

    def submodels(self, start: int, limit: int, id_short: str | None = None) -> list[dict[str, Any]]:
        """Submodels from ordinal `start` on, by product, device and the mapping's order."""
        index = self._submodel_index()
        return [] if index is None else index.page(start, limit, id_short, self._record)

    def submodel(self, identifier: str) -> dict[str, Any] | None:
        """The submodel of an id; None where there is none."""
        index = self._submodel_index()
        return None if index is None else index.find(identifier, self._record)

    def _submodel_index(self) -> SubmodelIndex | None:
        plant = self.plant_now()
        if plant is None:
            return None
        index = self._index
        if index is None or not index.holds(plant):
            heard = plant.devices.unknown == "accept"
            others = {one.device_id: one.productId for one in self._records()} if heard else {}
            index = self._index = SubmodelIndex(plant, others)
        return index


def _name(record: DeviceState) -> str:
    return record.device_id


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def _alarm_row(event: Mapping[str, Any]) -> dict[str, Any]:
    data = event["data"]
    return {
        "subject": event["subject"],
        "device_id": data["device_id"],
        "ruleId": data["ruleId"],
        "productId": data["productId"],
        "severity": data["severity"],
        "hub_id": data["hub_id"],
        "site_id": data["site_id"],
        **data["state"],
        "since": data["onset_time"],
        "event_time": data["event_time"],
        "transition": data["transition"],
        "actor": data["actor"],
        "comment": data["comment"],
        "message": data["message"],
        "alarm_id": data["alarm_id"],
    }


def _device_row(name: str, row: Mapping[str, str], record: DeviceState | None) -> dict[str, Any]:
    newest = max((metric.time_ns for metric in record.metrics.values()), default=None) if record else None
    return {
        "device_id": name,
        "productId": row.get("productId") or (record.productId if record else None),
        "hub_id": row.get("hub_id") or None,
        "site_id": row.get("site_id") or None,
        "name": row.get("name") or None,
        "status": (row.get("status") or "in_service") if row else "unlisted",
        "last_heard": None if newest is None else time_text(newest),
        "metrics": len(record.metrics) if record else 0,
        "alarms": record.alarms if record else [],
        "held": 0,
    }


def _held_row(one: Waiting) -> dict[str, Any]:
    return {
        **_device_row(one.device_id, {}, None),
        "productId": one.productId or None,
        "status": "held",
        "held": one.frames,
        "held_since": time_text(one.since_ns),
        "source": one.source,
        "topic": one.topic,
    }


def _state_object(record: DeviceState) -> dict[str, Any]:
    return {
        name: {
            "value": metric.value,
            "quality": metric.quality_name,
            "time": time_text(metric.time_ns),
            "position": metric.position,
        }
        for name, metric in sorted(record.metrics.items())
    }


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


def _events(path: Path) -> Iterator[FigureEvent]:
    """The complete lines of an alarms file; none where there is no such file."""
    decoder = msgspec.json.Decoder(FigureEvent)
    with suppress(FileNotFoundError), path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield decoder.decode(line)


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
