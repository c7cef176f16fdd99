"""What one message tells of one device, metric by metric. Those that hold several values are taken apart
(Sparkplug 3.0, section 6.4): a template's members are `NAME/MEMBER`; a data set's first row is
`NAME/COLUMN`, each further one `NAME/ROW/COLUMN` with rows counted from 0; an array's elements are
`NAME/0`, `NAME/1` and so on.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from connectors.mqtt.sparkplug import values
from connectors.mqtt.sparkplug.nodes import Device
from connectors.mqtt.sparkplug.sparkplug_b_pb2 import DataType, Payload
from connectors.mqtt.sparkplug.values import LAST_MS, SCALARS, Metric, UnreadableError, Value
from connectors.typed import TypedValue
from operators.batch import GOOD, UNCERTAIN

MOST_VALUES: Final = 200_000  # of one message, and so many of a backlog
MOST_DEEP: Final = 8  # templates in templates
SEVERAL: Final = frozenset((int(DataType.Template), int(DataType.DataSet), *values.ELEMENTS))
"""Types of metrics that are taken apart."""


class _Above(NamedTuple):
    """What the metrics of a template have from it."""

    path: str = ""
    time_ms: int = 0
    historical: bool = False
    quality: int = GOOD
    depth: int = 0


_TOP: Final = _Above()


class Told:
    """Read by `take`, once.

    device: as it is known so far, which is not changed. birth: the message tells names and types; its
    values are of its own time. live, backlog: the values, in the order of the message; names: metric ->
    datatype, of a birth all, else those that are otherwise than known; aliases: of a birth. strangers: what
    cannot be named; problems: what cannot be read, for a person; skipped: how many values are none that
    is taken; unknown: whether a metric is named that no birth told of.
    """

    __slots__ = (
        *("live", "backlog", "names", "aliases", "strangers", "problems", "skipped", "unknown"),
        *("_device", "_at_ms", "_birth", "_best", "_whole"),
    )

    def __init__(self, device: Device, at_ms: int, *, birth: bool, doubtful: bool) -> None:
        self._device, self._at_ms, self._birth = device, min(at_ms, LAST_MS), birth
        self._best = UNCERTAIN if doubtful else GOOD
        self.live: list[TypedValue] = []
        self.backlog: list[TypedValue] = []
        self.names: dict[str, int] = {}
        self.aliases: dict[int, str] = {}
        self.strangers: list[str] = []
        self.problems: list[str] = []
        self.skipped = 0
        self.unknown = False
        # prefix of parts that are all told, or null: those that are not told here are null
        self._whole: dict[str, _Above] = {}

    def take(self, metrics: Iterable[Metric]) -> None:
        """Raises `UnreadableError` for a message that tells nothing that could be trusted."""
        if self._birth:
            for metric in metrics:
                self._metric(metric, _TOP)
            return
        self._data(metrics)
        if self._whole:
            self._end_parts()

    def _data(self, metrics: Iterable[Metric]) -> None:
        """Most metrics of data are plain values of now, of a type that a birth told: these in a few steps."""
        names, aliases, live, best = self._device.names, self._device.aliases, self.live, self._best
        for metric in metrics:
            name = metric.name or (aliases.get(metric.alias, "") if metric.HasField("alias") else "")
            datatype = names.get(name, 0) if name.__class__ is str else 0
            if (
                datatype not in values.PLAIN
                or metric.is_null
                or metric.is_historical
                or metric.HasField("properties")
                or metric.datatype not in (0, datatype)
            ):
                self._metric(metric, _TOP)
                continue
            which = metric.WhichOneof("value")
            time_ms = metric.timestamp or self._at_ms
            time_ns = (time_ms if time_ms < LAST_MS else LAST_MS) * 1_000_000
            if which == "double_value" and datatype != values.BOOLEAN:
                live.append(TypedValue(name, metric.double_value, time_ns, 0, best))
            elif which in SCALARS:
                self._scalar(name, metric, which, datatype, min(time_ms, LAST_MS), False, GOOD)
            else:
                self._metric(metric, _TOP)
        if len(live) > MOST_VALUES:
            raise _too_many()

    def why(self, of: str) -> str:
        """What is wrong with the message, "" for nothing. of: the device."""
        found = []
        if self.strangers:
            found.append(f"{_and_more(self.strangers)}: no birth of {of} told of it")
        if self.problems:
            found.append(_and_more(self.problems))
        return "; ".join(found)

    def _metric(self, metric: Metric, above: _Above) -> None:
        name = metric.name
        if name.__class__ is not str:  # the library leaves what is no UTF-8 as it came
            raise UnreadableError("the name of a metric is not valid UTF-8")
        if name:
            name = above.path + name
            if self._birth and metric.HasField("alias"):
                self.aliases[int(metric.alias)] = name
        else:
            told = metric.HasField("alias")
            name = self._device.aliases.get(int(metric.alias), "") if told and not self._birth else ""
            if not name:
                self.strangers.append(f"alias {metric.alias}" if told else "a metric without a name")
                return
        if above is _TOP and values.is_protocols_own(name):
            return
        datatype = int(metric.datatype)
        if self._birth:
            self.names[name] = datatype
        else:
            known = self._device.names.get(name)
            datatype = datatype or known or 0
            self.unknown |= known is None
            if datatype != known:
                self.names[name] = datatype
        historical = above.historical or bool(metric.is_historical)
        time_ms = min(int(metric.timestamp), LAST_MS) or above.time_ms
        if self._birth and self._at_ms and not historical:
            time_ms = self._at_ms
        elif not self._birth:
            time_ms = time_ms or self._at_ms
        quality = (
            max(above.quality, values.quality_of(metric)) if metric.HasField("properties") else above.quality
        )
        which = metric.WhichOneof("value")
        if which is None or metric.is_null:
            if datatype in SEVERAL:
                self._whole[name + "/"] = _Above("", time_ms, historical, quality)
            elif datatype in values.NOT_TAKEN:
                self.skipped += 1
            else:
                self._add(name, None, time_ms, historical, quality)
        elif which in SCALARS and datatype not in SEVERAL:
            self._scalar(name, metric, which, datatype, time_ms, historical, quality)
        else:
            below = _Above(name + "/", time_ms, historical, quality, above.depth + 1)
            if which == "template_value":
                self._template(metric.template_value, below)
            elif which == "dataset_value":
                self._data_set(metric.dataset_value, below)
            elif which == "bytes_value" and datatype in values.ELEMENTS:
                self._array(metric.bytes_value, datatype, below)
            else:
                self.skipped += 1

    def _scalar(
        self,
        name: str,
        holder: Metric | Payload.DataSet.DataSetValue,
        which: str,
        datatype: int,
        time_ms: int,
        historical: bool,
        quality: int,
    ) -> None:
        try:
            value = values.value_of(holder, which, datatype)
        except UnreadableError as error:
            self.problems.append(f"the text of metric '{name}' {error}")
        except values.SkippedError:
            self.skipped += 1
        else:
            self._add(name, value, time_ms, historical, quality)

    def _add(self, name: str, value: Value, time_ms: int, historical: bool, quality: int) -> None:
        found = self.backlog if historical else self.live
        if len(found) >= MOST_VALUES:
            raise _too_many()
        best = self._best if quality == GOOD else quality
        found.append(TypedValue(name, value, time_ms * 1_000_000, 0, best))

    # metrics of several values

    def _template(self, template: Payload.Template, below: _Above) -> None:
        """A definition holds no values, an instance those of some members or of all. Its parameters are not
        measured, and are left out."""
        if template.is_definition:
            return
        if below.depth > MOST_DEEP:
            self.problems.append(f"metric '{below.path[:-1]}' is a template within {MOST_DEEP} others")
            return
        for metric in template.metrics:
            self._metric(metric, below)

    def _data_set(self, table: Payload.DataSet, below: _Above) -> None:
        columns, types = list(table.columns), list(table.types)
        name = below.path[:-1]
        if any(column.__class__ is not str for column in columns):
            self.problems.append(f"a column of data set '{name}' is not valid UTF-8")
            return
        if len(types) != len(columns):
            self.problems.append(f"data set '{name}' has {len(columns)} columns and {len(types)} types")
            return
        for number, row in enumerate(table.rows):
            if len(row.elements) != len(columns):
                held = f"{len(row.elements)} values in {len(columns)} columns"
                self.problems.append(f"row {number} of data set '{name}' has {held}")
                return
        self._whole[below.path] = below
        for number, row in enumerate(table.rows):
            path = f"{below.path}{number}/" if number else below.path
            for at, element in enumerate(row.elements):
                part = path + (columns[at] or str(at))
                self._part(part, types[at])
                which = element.WhichOneof("value")
                if which is None:
                    self._add(part, None, below.time_ms, below.historical, below.quality)
                elif which not in SCALARS:
                    self.skipped += 1
                else:
                    self._scalar(
                        part, element, which, types[at], below.time_ms, below.historical, below.quality
                    )

    def _array(self, data: bytes, datatype: int, below: _Above) -> None:
        try:
            found = values.array_of(data, datatype)
        except UnreadableError as error:
            self.problems.append(f"array '{below.path[:-1]}' {error}")
            return
        self._whole[below.path] = below
        for number, value in enumerate(found):
            part = f"{below.path}{number}"
            self._part(part, values.ELEMENTS[datatype])
            self._add(part, value, below.time_ms, below.historical, below.quality)

    def _part(self, name: str, datatype: int) -> None:
        if self._birth or self._device.names.get(name) != datatype:
            self.names[name] = datatype

    def _end_parts(self) -> None:
        """Parts that a data set, an array or a null has no more are null."""
        told = {value.metric for value in (*self.live, *self.backlog)}
        for name, datatype in self._device.names.items():
            if name in told or datatype in SEVERAL or datatype in values.NOT_TAKEN:
                continue
            at = name.find("/")
            while at >= 0:
                whole = self._whole.get(name[: at + 1])
                if whole is not None:
                    self._add(name, None, whole.time_ms, whole.historical, whole.quality)
                    break
                at = name.find("/", at + 1)


def _too_many() -> UnreadableError:
    return UnreadableError(f"it has more than {MOST_VALUES} values")


def _and_more(told: list[str]) -> str:
    return told[0] + (f" and {len(told) - 1} more" if len(told) > 1 else "")
