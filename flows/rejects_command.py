"""`penstock rejects resubmit`: refused frames once more through the current specs, each once.

A frame goes into the journal again as it stood there: source, address, flags and bytes, and a header
that says where it was refused, when it arrived, and, if one of several readings was refused, which.
Its append has a key of its own (`resubmit:POSITION.INDEX`), under which the journal takes it once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from connectors.errors import ConfigError, JournalFull, JournalGap, PenstockError
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.columns import decode_rejects
from connectors.journal.entries import FRAMES, Entry
from connectors.journal.lines import iso_time
from connectors.journal.merging import Merger
from connectors.journal.output_store import OutputReader
from connectors.journal.reader import JournalReader
from connectors.source import Frame
from flows import specs
from flows.plant_reader import load_bundle
from flows.shards import shard_folders
from operators.batch import Address, FrameBatch
from operators.convert import parse_duration
from operators.decode.routing import RESUBMITTED, Resubmitted, resubmitted
from operators.decode.spec import ProductDecode
from operators.rejects import Reason, Reject

RECORDS: Final = 10_000  # of the output log that are looked through
FULL_WAIT_S: Final = 0.5
_NO_FRAME: Final = (Reason.resync, Reason.too_large)  # what is left of these is no whole frame
_OF_A_DEVICE: Final = (Reason.unknown_device, Reason.no_product, Reason.device_limit)


@dataclass(frozen=True, slots=True)
class Filters:
    """Which rejects are meant; None: any. since_ns: ingest time, nanoseconds since 1970."""

    reason: str | None = None
    product: str | None = None
    device: str | None = None
    source: str | None = None
    since_ns: int | None = None

    def take(self, reject: Reject) -> bool:
        """Whether a reject is meant."""
        return (
            (self.reason is None or reject.reason.name == self.reason)
            and (self.product is None or reject.productId == self.product)
            and (self.device is None or reject.device_id == self.device)
            and (self.source is None or reject.source == self.source)
            and (self.since_ns is None or reject.ingest_ns >= self.since_ns)
        )

    def take_line(self, line: Mapping[str, Any]) -> bool:
        """The same for an object of rejects.jsonl."""
        return (
            (self.reason is None or line["reason"] == self.reason)
            and (self.product is None or line["productId"] == self.product)
            and (self.device is None or line["device_id"] == self.device)
            and (self.source is None or line["source"] == self.source)
            and (self.since_ns is None or line["ingest_time"] >= iso_time(self.since_ns))
        )


def since_ns(text: str, now_ns: int) -> int:
    """`2h` before now, or `2026-03-01T09:00:00Z`. Raises `ConfigError`."""
    from flows.plant_tests import parse_time

    duration = parse_duration(text)
    if isinstance(duration, int):
        return now_ns - duration
    at = None if text.startswith("+") else parse_time(text, 0)
    if at is None:
        raise ConfigError(f"--since {text}: write a duration (2h) or a time (2026-03-01T09:00:00Z)")
    return at * 1_000_000


class Original(NamedTuple):
    """A frame as it stands in the journal."""

    address: Address
    payload: bytes
    flags: int
    ingest_ns: int
    line: int = 0


class Originals:
    """Frames of a journal by position."""

    def __init__(self, reader: JournalReader) -> None:
        self._reader = reader
        self._entry: Entry | None = None
        self._batch: FrameBatch | None = None

    def find(self, position: int) -> Original | None:
        """The frame at a position; None where it has been trimmed."""
        entry = self._entry
        if entry is None or not entry.position <= position < entry.next_position:
            entry = self._search(position)
            if entry is None:
                return None
            self._entry, self._batch = entry, Merger().merge([entry])
        assert self._batch is not None
        row, batch = position - entry.position, self._batch
        address = batch.addresses[int(batch.address[row])]
        return Original(
            address, batch.frame(row), int(batch.flags[row]), int(batch.ingest_ns[row]), batch.line(row)
        )

    def _search(self, position: int) -> Entry | None:
        low, high = self._reader.oldest(), self._reader.last()
        while low <= high:
            middle = (low + high) // 2
            try:
                found = self._reader.read(middle, 1, 1)
            except JournalGap:  # trimmed meanwhile
                low = middle + 1
                continue
            if not found:
                return None
            entry = found[0]
            if entry.kind == FRAMES and entry.position <= position < entry.next_position:
                return entry
            if entry.next_position <= position:
                low = middle + 1
            else:
                high = middle - 1
        return None


class Again(NamedTuple):
    """What is to be appended for one reject."""

    source: str
    key: str
    frame: Frame


@dataclass(slots=True)
class Outcome:
    """resubmitted: appended now; already: had been before; skipped: no whole frame is left of them."""

    resubmitted: int = 0
    already: int = 0
    skipped: int = 0


def chosen(output: OutputReader, filters: Filters) -> list[Reject]:
    """Rejects that the output log still holds, oldest first, each place once."""
    found: dict[tuple[int, int], Reject] = {}
    for record in reversed(output.newest("rejects", RECORDS)):
        for reject in decode_rejects(record.body):
            if filters.take(reject):
                found[reject.position, reject.index] = reject
    return [found[place] for place in sorted(found)]


def again(reject: Reject, original: Original | None, products: Mapping[str, ProductDecode]) -> Again | None:
    """The frame of a reject as it is sent once more; None where it is no whole frame.

    original: None where the journal no longer holds it; what the reject knows of its address (no
    port, no headers) then has to do.
    """
    if reject.reason in _NO_FRAME:
        return None
    if original is None:
        address = Address(reject.source, reject.topic)
        original = Original(address, reject.payload, 0, reject.ingest_ns)
    before = resubmitted(original.address.headers)
    reading, arrived = _reading(reject, products), original.ingest_ns // 1_000_000
    if before is not None:
        reading, arrived = before.reading if before.reading >= 0 else reading, before.arrived_ms
    headers = tuple(pair for pair in original.address.headers if pair[0] != RESUBMITTED)
    mark = (RESUBMITTED, Resubmitted(reject.position, reading, arrived).text())
    frame = Frame(
        topic=original.address.topic,
        payload=original.payload,
        flags=original.flags,
        port=original.address.port,
        headers=(*headers, mark),
        line=original.line,
    )
    return Again(original.address.source, f"resubmit:{reject.position}.{reject.index}", frame)


def _reading(reject: Reject, products: Mapping[str, ProductDecode]) -> int:
    """Which reading alone was refused; -1: the whole frame."""
    if Reason.type <= reject.reason <= Reason.timestamp_past or reject.index > 0:
        return reject.index
    product = products.get(reject.productId)
    if reject.reason in _OF_A_DEVICE and product is not None and product.names_devices:
        return reject.index
    return -1


def resubmit(data: Path, filters: Filters, *, dry_run: bool = False) -> Outcome:
    """Append the chosen rejects' frames to the journal of a running plant, each once for ever, and to the
    shard where it stood: the same address is the same shard."""
    outcome = Outcome()
    for folder in shard_folders(data):
        if (folder / "output" / "data.mdb").exists():
            _resubmit(folder, filters, outcome, dry_run)
    return outcome


def _resubmit(folder: Path, filters: Filters, outcome: Outcome, dry_run: bool) -> None:
    with closing(OutputReader(folder / "output")) as output:
        rejects = chosen(output, filters)
    with closing(JournalReader(folder / "journal")) as reader:
        plant = reader.last_plant()
        products = specs.decode(load_bundle(plant.files)).products if plant is not None else {}
        begin = reader.next_position()
        found = _frames(rejects, Originals(reader), products, outcome)
        if dry_run:
            outcome.resubmitted += sum(1 for _ in found)
        else:
            _append(folder, found, begin, outcome)


def _frames(
    rejects: Iterable[Reject],
    originals: Originals,
    products: Mapping[str, ProductDecode],
    outcome: Outcome,
) -> Iterator[Again]:
    for reject in rejects:
        one = again(reject, originals.find(reject.position), products)
        if one is None:
            outcome.skipped += 1
        else:
            yield one


def _append(folder: Path, frames: Iterable[Again], begin: int, outcome: Outcome) -> None:
    with BlockingJournalClient(folder, "resubmit") as client:
        for one in frames:
            while True:
                try:
                    position = client.append([one.frame], one.key, source=one.source)
                    break
                except JournalFull:
                    time.sleep(FULL_WAIT_S)
            if position >= begin:
                outcome.resubmitted += 1
            else:
                outcome.already += 1


def check_running(data: Path) -> None:
    """Raises `PenstockError` where there is nothing to resubmit from."""
    if not any((folder / "output" / "data.mdb").exists() for folder in shard_folders(data)):
        raise PenstockError(f"{data} holds no results of a plant; run it first: penstock run PLANT")
