"""Cells of CSV rows: what stands between separators, numbers and times as people write them."""

from __future__ import annotations

import csv
import datetime
import io
import re
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np

from operators.decode import json_kernels as k
from operators.decode.csv_spec import EXCEL, TIME_UNITS, TimeColumn
from operators.rejects import Reason

_NUMBER: Final = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?\Z")
_NO_NUMBER: Final = re.compile(r"[-+]?(?:nan|inf|infinity)\Z", re.IGNORECASE)
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_EXCEL_DAY_0: Final = datetime.datetime(1899, 12, 30)
_EXCEL_DAYS: Final = 2_958_466  # of the year 10000
_PLAIN_FORMATS: Final = {"%Y-%m-%d %H:%M:%S": " ", "%Y-%m-%dT%H:%M:%S": "T"}
_PLAIN_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}:[0-9]{2}\Z", re.ASCII)
_WITH_ZONE: Final = re.compile(r"(?:[zZ]|[-+][0-9]{2}(?::?[0-9]{2})?)\Z")
_ALIKE: Final = {" ": " \u00a0\u202f", "'": "'\u2019"}  # thousands separators that look the same


class RowError(Exception):
    """Why a row is a reject."""

    def __init__(self, reason: Reason, place: int, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.place = place
        self.detail = detail


def rows_of(raw: bytes, separator: str) -> list[list[str]]:
    """The rows of one frame (one, unless its source joined several) as cells after RFC 4180; raises
    RowError."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RowError(Reason.encoding, error.start, f"not valid UTF-8 at byte {error.start}") from error
    if '"' not in text:
        return [line.removesuffix("\r").split(separator) for line in text.split("\n")]
    try:
        return list(csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True))
    except csv.Error as error:
        raise RowError(Reason.malformed, -1, f"not CSV: {error}") from error


def cells_of(raw: bytes, separator: str) -> list[str]:
    """The cells of a header line; raises RowError."""
    rows = rows_of(raw, separator)
    if len(rows) != 1:
        raise RowError(Reason.malformed, -1, "not CSV: more than one row")
    return rows[0]


def number_reader(decimal: str, thousands: str | None) -> Callable[[str], float | None]:
    """Text -> the nearest double; None where it is no number; raises RowError where it is not finite.

    thousands: what may stand between groups of three digits before the decimal mark.
    """
    grouped = None
    if thousands is not None:
        one = "[" + re.escape(_ALIKE.get(thousands, thousands)) + "]"
        after = f"(?:{re.escape(decimal)}[0-9]*)?"
        grouped = (re.compile(rf"[-+]?[0-9]{{1,3}}(?:{one}[0-9]{{3}})+{after}\Z", re.ASCII), re.compile(one))

    def number(text: str) -> float | None:
        plain = text
        if grouped is not None and grouped[0].match(text):
            plain = grouped[1].sub("", text)
        if decimal != ".":
            plain = plain.replace(".", "\0").replace(decimal, ".")
        if _NUMBER.match(plain) is None:
            if _NO_NUMBER.match(plain):
                raise RowError(Reason.bad_number, -1, f"'{text}' is no usable number")
            return None
        value = float(plain)
        if value in (np.inf, -np.inf):
            raise RowError(Reason.bad_number, -1, f"'{text[:40]}' is beyond the range of a double")
        return value

    return number


def time_reader(spec: TimeColumn, decimal: str = ".") -> Callable[[str], int | None]:
    """Text -> nanoseconds since 1970, cut down; None where it is no such time. Raises RowError for a
    local time that is not one moment, where `ambiguous` is reject."""
    zone = ZoneInfo(spec.zone)
    unit = TIME_UNITS[spec.unit]

    def bounded(ns: int) -> int:
        return max(k.EARLIEST_NS, min(k.LATEST_NS, ns))

    def since_epoch(moment: datetime.datetime) -> int:
        past = moment - _EPOCH
        return (past.days * 86_400 + past.seconds) * 10**9 + past.microseconds * 1000

    def nanoseconds(moment: datetime.datetime, text: str) -> int:
        if moment.tzinfo is not None:
            return bounded(since_epoch(moment))
        first = since_epoch(moment.replace(tzinfo=zone))
        second = since_epoch(moment.replace(tzinfo=zone, fold=1))
        if first == second or (spec.ambiguous == "earlier" or (first > second and spec.ambiguous == "later")):
            return bounded(first)  # left out by daylight saving: by the offset that was in force before
        if spec.ambiguous == "later":
            return bounded(second)
        times = "stands twice" if first < second else "does not exist"
        raise RowError(Reason.malformed, -1, f"'{text[:40]}' {times} in {spec.zone} (daylight saving)")

    def counted(text: str) -> int | None:
        try:
            value = Decimal(text)
        except InvalidOperation:
            return None
        if spec.unit == EXCEL:
            if not 0 <= value < _EXCEL_DAYS:
                return None
            # a day's fraction as a double is some microseconds off
            milliseconds = int((value * 86_400_000).to_integral_value("ROUND_HALF_EVEN"))
            return nanoseconds(_EXCEL_DAY_0 + datetime.timedelta(milliseconds=milliseconds), text)
        if value.adjusted() > 40:
            return k.LATEST_NS if value > 0 else k.EARLIEST_NS
        size = abs(value)
        scale = unit or (
            10**9 if size < 10**11 else 10**6 if size < 10**14 else 10**3 if size < 10**17 else 1
        )
        return bounded(int((value * scale).to_integral_value("ROUND_FLOOR")))

    def iso(text: str) -> int | None:
        plain = text.replace(decimal, ".")
        if _NUMBER.match(plain):
            return counted(plain)
        data = np.frombuffer(text.encode("utf-8"), np.uint8).copy()
        good, ns = k.read_iso_time(data)
        if not good:
            return None
        if spec.zone != "UTC" and not _WITH_ZONE.search(text[11:]):
            local = _EPOCH.replace(tzinfo=None) + datetime.timedelta(seconds=ns // 10**9)
            return bounded(nanoseconds(local, text) + ns % 10**9)
        return int(ns)

    form = spec.format
    if form is None:
        return iso

    def formatted(text: str) -> int | None:
        try:
            if form in _PLAIN_FORMATS and _PLAIN_TIME.match(text) and text[10] == _PLAIN_FORMATS[form]:
                return nanoseconds(datetime.datetime.fromisoformat(text), text)
            return nanoseconds(datetime.datetime.strptime(text, form), text)
        except (ValueError, OverflowError):
            return None

    return formatted
