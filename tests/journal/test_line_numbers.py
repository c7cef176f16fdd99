"""Frames that know their line: in the journal, a batch, a capture, an archive; the frame itself is bare."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.files.capture import RecordingWriter
from connectors.files.recording import read_recording
from connectors.journal.archive import entries_table
from connectors.journal.archive_reader import frames_of
from connectors.journal.entries import Addresses, Entry, check_frames, decode_entry, pack_frames, stamp
from connectors.journal.merging import merge
from connectors.source import Frame
from operators.batch import FRAME_HISTORICAL, FRAME_NUMBERED, Address, FrameBatch
from operators.decode.cuts import late_batch
from operators.decode.held import HeldFrame, HeldFrames

Seen = list[tuple[bytes, int, int]]

FRAMES = st.lists(
    st.builds(
        Frame,
        topic=st.sampled_from(["a.csv", "b.csv"]),
        payload=st.binary(max_size=12),
        flags=st.sampled_from([0, FRAME_HISTORICAL, FRAME_NUMBERED]),
        line=st.sampled_from([0, 1, 77, 2**32 - 1]),
    ),
    min_size=1,
    max_size=20,
)


def entries(frames: list[Frame]) -> list[Entry]:
    """Two entries."""
    found = []
    for number, run in enumerate((frames[: len(frames) // 2], frames[len(frames) // 2 :]), 1):
        if run:
            body = pack_frames("drops", run)
            assert check_frames(body, Addresses()) == len(run)
            stamp(body, 1_772_355_600_000, 0 if number == 1 else len(frames) // 2)
            found.append(decode_entry(number, bytes(body)))
    return found


def seen(batch: FrameBatch) -> Seen:
    return [(batch.frame(row), batch.line(row), int(batch.flags[row])) for row in range(len(batch))]


def expected(frames: list[Frame]) -> Seen:
    """The flag says that there is a line, whatever the frame said of it before."""
    return [(f.payload, f.line, f.flags & ~FRAME_NUMBERED | FRAME_NUMBERED * (f.line > 0)) for f in frames]


@settings(deadline=None, derandomize=True, max_examples=60)
@given(FRAMES)
def test_the_line_goes_everywhere_with_the_frame(frames: list[Frame]) -> None:
    made = entries(frames)
    assert seen(merge(made)) == expected(frames)
    assert seen(frames_of(entries_table(made, None))) == expected(frames)


@settings(deadline=None, derandomize=True, max_examples=20)
@given(FRAMES, st.sampled_from([1, 3, 10_000]))
def test_a_capture_keeps_it(tmp_path_factory: pytest.TempPathFactory, frames: list[Frame], cut: int) -> None:
    out = io.BytesIO()
    RecordingWriter(out, _NoControls()).write(entries(frames))
    path = tmp_path_factory.mktemp("capture") / "x.jsonl"
    path.write_bytes(out.getvalue())
    found: Seen = []
    for made in read_recording([path], cut):
        found += seen(made.frames)
    assert found == expected(frames)


class _NoControls:
    def control(self, entry: Entry) -> Any:
        raise AssertionError("there are none")


def test_a_csv_of_recorded_input_has_lines_for_every_cut(tmp_path: Path) -> None:
    from connectors.files.config import FilesConfig
    from connectors.files.recording import CsvInput

    path = tmp_path / "x.csv"
    path.write_bytes(b"h\n1\n\n\n2\n" + b'"3\n3"\n4\n')
    for cut in (1, 2, 100):
        found: Seen = []
        for made in read_recording([path], cut, CsvInput("drops", FilesConfig(watch="in"))):
            found += seen(made.frames)
        assert [(frame, line) for frame, line, _ in found] == [
            (b"1", 2),
            (b"2", 5),
            (b'"3\n3"', 6),
            (b"4", 8),
        ]


def test_what_is_said_of_a_frame() -> None:
    batch = merge(entries([Frame("a.csv", b"1", line=3), Frame("a.csv", b"1")]))
    assert [batch.told(row, "no number") for row in range(2)] == ["line 3: no number", "no number"]


def test_a_frame_that_waits_for_its_device_keeps_it() -> None:
    address = Address("drops", "a.csv")
    waiting = [
        HeldFrame(7, 0, "a", "", address, FRAME_NUMBERED, b"1,2", 12),
        HeldFrame(8, 0, "a", "", address, FRAME_HISTORICAL, b"3,4"),
    ]
    kept, again = HeldFrames(), HeldFrames()
    for frame in waiting:
        kept.hold(frame)
    again.load(msgspec.msgpack.decode(msgspec.msgpack.encode(kept.export())))
    assert seen(late_batch(again.release(["a"]), 5)) == [
        (b"1,2", 12, FRAME_NUMBERED),
        (b"3,4", 0, FRAME_HISTORICAL),
    ]
