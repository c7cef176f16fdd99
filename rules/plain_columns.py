"""What plain transitions of a slice are written from, as columns."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt

from operators.batch import Bytes, Int64
from operators.growing import grown
from rules import event_kernels as k
from rules import lifecycle_table as t
from rules.alarm import Message, Subject
from rules.event_pieces import Pieces
from rules.place import Transition
from rules.product import ProductRules
from rules.transitions import Transitions

_json: Final = msgspec.json.Encoder().encode
_NOT_MADE: Final = -1


class ProductPieces:
    """One product's alarms. plain: bool[P], whether a part's transitions may be plain; count: how many
    metrics its condition has, which stand in `metrics` from `start` on; flags: of a new occurrence;
    piece: the first of its pieces, -1 where none is made; who: of each device."""

    def __init__(self, product: ProductRules, plain: Sequence[bool]) -> None:
        self.product = product
        self.looked = product.looked
        of = product.evidence_of
        self.alarms = [part.alarm for part in product.parts]
        self.count = np.array([len(one) for one in of], np.int64)
        self.plain = np.array(plain, np.bool_) & (self.count > 0)
        self.start = np.cumsum(self.count) - self.count
        self.metrics = np.array([j for one in of for _, j in one], np.int64)
        self.number = np.array([kind == "number" for kind in product.types], np.bool_)
        self.flags = np.array(
            [
                t.OPEN
                | t.ACTIVE
                | (0 if one.to_acknowledge(one.severity) else t.ACKNOWLEDGED)
                | (t.LATCHED if one.latch else 0)
                for one in self.alarms
            ],
            np.int64,
        )
        self.own_message = np.array([one.message is None for one in self.alarms], np.bool_)
        self.piece = np.full(len(of), _NOT_MADE, np.int32)
        self.who = np.full(0, _NOT_MADE, np.int32)

    def make(self, pieces: Pieces, found: Transitions, plain: Int64, subjects: Sequence[Subject]) -> None:
        """The pieces that plain transitions need."""
        product = self.product
        numbers, devices = found.number[plain], found.device[plain]
        for number in dict.fromkeys(numbers[self.piece[numbers] < 0].tolist()):
            metrics = [name for name, _ in product.evidence_of[number]]
            self.piece[number] = pieces.alarm(self.alarms[number], metrics)
        self.who = grown(self.who, product.capacity, _NOT_MADE)
        missing = self.who[devices] < 0
        new = dict(zip(devices[missing].tolist(), plain[missing].tolist(), strict=True))
        if new:
            first = pieces.devices([subjects[at] for at in new.values()])
            self.who[list(new)] = np.arange(first, first + k.WHO_PIECES * len(new), k.WHO_PIECES)


class PlainColumns:
    """E transitions of a slice in the order of their places, those that are not plain among them.

    columns: arrays of length E: plain (bool), kind, time_ns, onset_ns, ingest_ns, position, alarm, who
    (first pieces), values (how many), token (the first of them), quality, message (-1: its rule's), flags.
    tokens, messages: JSON arrays, with the bounds of their elements (`event_kernels.split_values`).
    """

    def __init__(self, pieces: Pieces, products: Sequence[tuple[ProductPieces, Transitions]]) -> None:
        self.found = [found for _, found in products]
        values: list[Any] = []
        texts: list[Message] = []
        made = [_columns(pieces, *one, values, texts) for one in products]
        self.subjects: list[Subject] = list(chain.from_iterable(subjects for subjects, _ in made))
        self.columns = made[0][1]
        self.sources: list[tuple[int, int]] | None = None
        if len(made) > 1:
            places = np.concatenate([found.places for found in self.found], axis=1)
            order = np.lexsort(places[::-1])
            self.columns = {
                name: np.concatenate([columns[name] for _, columns in made])[order] for name in self.columns
            }
            places_of = [(of, at) for of, found in enumerate(self.found) for at in range(len(found))]
            self.sources = [places_of[at] for at in order.tolist()]
            self.subjects = [self.subjects[at] for at in order.tolist()]
        self.tokens, self.token_bounds = _split(values)
        self.messages, self.message_bounds = _split(texts)

    def __len__(self) -> int:
        return len(self.subjects)

    def one(self, at: int) -> Transition:
        """One of them by itself."""
        of, place = (0, at) if self.sources is None else self.sources[at]
        return self.found[of].one(place)


def _columns(
    pieces: Pieces, known: ProductPieces, found: Transitions, values: list[Any], texts: list[Message]
) -> tuple[list[Subject], dict[str, npt.NDArray[Any]]]:
    """Subjects and columns of one product's transitions; what they show is appended to `values` and
    `texts`."""
    product = found.product
    plain = known.plain[found.number]
    for column in (found.time_ns, found.onset_ns, found.ingest_ns, found.position):
        plain &= column >= 0
    numbers, devices = found.number.tolist(), found.device.tolist()
    if product.attributes.dated:
        names, slots = product.devices.names, product.slots
        for at in np.flatnonzero(plain).tolist():
            plain[at] = not product.attributes.is_past(names[slots[devices[at]]], int(found.time_ns[at]))
        subjects = list(map(product.subject, numbers, devices, found.time_ns.tolist()))
    else:
        at_hand = product.subjects.get
        subjects = [at_hand(key) or product.subject_now(*key) for key in zip(numbers, devices, strict=True)]
    chosen = np.flatnonzero(plain)
    known.make(pieces, found, chosen, subjects)

    count = np.where(plain, known.count[found.number], 0)
    token = np.cumsum(count) - count
    row = np.repeat(np.arange(len(found)), count)
    within = np.arange(len(row)) - token[row]
    metric = known.metrics[known.start[found.number[row]] + within]
    quality = np.zeros(len(found), np.uint8)
    if len(row):
        quality[chosen] = np.maximum.reduceat(found.qualities[row, metric], token[chosen])
    shown = found.values[row, metric].tolist()
    for at in np.flatnonzero(~known.number[metric]).tolist():
        shown[at] = product.plain(int(metric[at]), shown[at])
    token += len(values)
    values += shown

    message = np.full(len(found), _NOT_MADE, np.int32)
    for at in np.flatnonzero(plain & known.own_message[found.number]).tolist():
        alarm = known.alarms[numbers[at]]
        message[at] = len(texts)
        texts.append(subjects[at].filled(alarm.expression, found.lookup(at) if alarm.varies else None))
    return subjects, {
        "plain": plain,
        "kind": found.kind,
        "time_ns": found.time_ns,
        "onset_ns": found.onset_ns,
        "ingest_ns": found.ingest_ns,
        "position": found.position,
        "alarm": known.piece[found.number],
        "who": known.who[found.device],
        "values": count,
        "token": token,
        "quality": quality,
        "message": message,
        "flags": known.flags[found.number],
    }


def _split(values: Sequence[Any]) -> tuple[Bytes, Int64]:
    """Plain values as a JSON array, and the bounds of its elements."""
    text = np.frombuffer(_json(values), np.uint8)
    bounds = np.zeros(len(values) + 1, np.int64)
    if values:
        k.split_values(text, bounds)
    return text, bounds
