"""Recorded input: ingest times, ticks and cuts as FORMATS says; captures replay as they were."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.files.capture import RecordingWriter
from connectors.files.config import FilesConfig
from connectors.files.recorded_lines import has_tick
from connectors.files.recording import CsvInput, read_recording
from connectors.journal.entries import decode_entry, pack_control, pack_frames, pack_tick, stamp
from connectors.journal.merging import Merger
from connectors.journal.source import slices
from connectors.source import Frame
from operators.batch import FRAME_HISTORICAL, FRAME_RETAINED, Address, Control, Slice
from tests.reference import recording_reference

CUTS = (1, 7, 10_000)


def unfold(read: list[Slice]) -> tuple[list[Any], list[tuple[int, int]], list[Any]]:
    """Frames, ticks (at frames before it; of a run the last) and controls of slices."""
    frames: list[Any] = []
    ticks: dict[int, int] = {}
    controls: list[Any] = []
    for number, item in enumerate(read, 1):
        assert item.last_entry == number
        batch = item.frames
        if item.control is not None:
            assert not len(batch)
            control = item.control
            controls.append((len(frames), control.kind, dict(control.data), control.at_ns // 1_000_000))
        for row, ns in zip(batch.ticks.row.tolist(), batch.ticks.ns.tolist(), strict=True):
            ticks[len(frames) + row] = ns // 1_000_000
        for row in range(len(batch)):
            address = batch.addresses[batch.address[row]]
            frames.append(
                {
                    "position": int(batch.position[row]),
                    "ms": int(batch.ingest_ns[row]) // 1_000_000,
                    **dict(zip(("source", "topic", "port", "headers"), address, strict=True)),
                    "payload": batch.frame(row),
                }
            )
        if frames:
            assert item.position == frames[-1]["position"] + 1
    return frames, sorted(ticks.items()), controls


TIMES = st.integers(0, 9000) | st.integers(0, 4_000_000)
FRAME_LINES = st.fixed_dictionaries(
    {
        "ingest_ts": TIMES,
        "source": st.sampled_from(["line1", "app"]),
        "topic": st.text(max_size=4),
    },
    optional={
        "port": st.integers(0, 255),
        "headers": st.dictionaries(st.text(max_size=3), st.text(max_size=3), max_size=2),
    },
).flatmap(
    lambda line: st.one_of(
        st.text(max_size=6).map(lambda text: {**line, "payload": text}),
        st.binary(max_size=6).map(lambda data: {**line, "payload_hex": data.hex()}),
    )
)
OTHERS = st.one_of(
    st.builds(lambda at: {"connected": "line1", "at": at}, TIMES),
    st.builds(lambda at: {"clock_step": 5000, "at": at}, TIMES),
)


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(FRAME_LINES | OTHERS, max_size=25), st.integers(0, 500) | st.none())
def test_without_ticks_every_whole_second_has_one(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any]], first: int | None
) -> None:
    check(tmp_path_factory, entries, first)


@settings(deadline=None, max_examples=50, derandomize=True)
@given(st.lists(FRAME_LINES | OTHERS | st.integers(0, 3), max_size=25))
def test_with_ticks_there_are_no_others(
    tmp_path_factory: pytest.TempPathFactory, entries: list[dict[str, Any] | int]
) -> None:
    clock, ticked = 0, []
    for entry in entries:
        if isinstance(entry, int):
            clock += entry * 1000
        ticked.append({"tick": clock} if isinstance(entry, int) else entry)
    check(tmp_path_factory, ticked, None)


def check(factory: pytest.TempPathFactory, entries: list[dict[str, Any]], first: int | None) -> None:
    """All cuts of a recording give what the reference gives."""
    lines = [json.dumps(entry) for entry in entries]
    if first is not None:
        lines.insert(0, json.dumps({"capture": 1, "position": first}))
    path = factory.mktemp("recording") / "r.jsonl"
    path.write_text("\n".join(lines) + "\n")
    frames, ticks, controls = recording_reference.interpret(lines)
    expected = frames, recording_reference.last_of_each_run(ticks), controls
    for cut in CUTS:
        read = list(read_recording([path], cut))
        assert unfold(read) == expected
        assert all(len(item.frames) <= cut for item in read)


def test_several_files_are_one_recording_whatever_their_line_ends(tmp_path: Path) -> None:
    line = '{"ingest_ts": %d, "source": "a", "topic": "t", "payload": "%d"}'
    (tmp_path / "1.jsonl").write_bytes(b"\r\n\r\n" + (line % (5500, 1)).encode() + b"\r\n")
    (tmp_path / "2.json").write_bytes((line % (5100, 2)).encode() + b"\n\n" + (line % (7000, 3)).encode())
    frames, ticks, _ = unfold(list(read_recording([tmp_path / "1.jsonl", tmp_path / "2.json"])))
    assert [(f["position"], f["ms"], f["payload"]) for f in frames] == [
        (0, 5500, b"1"),
        (1, 5500, b"2"),
        (2, 7000, b"3"),
    ]
    assert ticks == [(0, 5000), (2, 7000)]


def test_a_payload_that_speaks_of_ticks_is_no_tick(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    frame = {"ingest_ts": 1, "source": "a", "topic": "t", "payload": '{"tick": 5}', "headers": {"tick": "5"}}
    path.write_text(json.dumps(frame))
    assert not has_tick(path)
    path.write_text(json.dumps(frame) + '\n{"tick": 1000}\n')
    assert has_tick(path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("?", "not a JSON object: JSON is malformed: invalid character (byte 0)"),
        ('{"ingest_ts": 1', "not a JSON object: Input data was truncated"),
        ("[1]", "expected `object`, got `array`"),
        ('{"ingest_ts": "x"}', "ingest_ts: expected `int | null`, got `str`"),
        (
            '{"ingest_ts": 1, "payload": ""}',
            "a frame needs source, the name of the source that it came through",
        ),
        ('{"ingest_ts": 1, "source": "a"}', "a frame needs payload (text) or payload_hex"),
        ('{"ingest_ts": 1, "source": "a", "payload": {}}', "payload: expected `str | null`, got `object`"),
        (
            '{"ingest_ts": 1, "source": "a", "payload": "", "payload_hex": ""}',
            "a frame has payload or payload_hex, not both",
        ),
        (
            '{"ingest_ts": 1, "source": "a", "payload_hex": "0g"}',
            "payload_hex: not hexadecimal: non-hexadecimal number found in fromhex() arg at position 1",
        ),
        ('{"source": "a", "payload": ""}', "a frame needs ingest_ts, milliseconds since 1970"),
        ('{"capture": 2}', "capture: version 2 is not known; this version reads 1"),
        ("{}", "no entry of a recording: neither a frame (ingest_ts) nor tick, connected, ..."),
    ],
)
def test_a_bad_line_is_told_with_its_place(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "r.jsonl"
    good = '{"ingest_ts": 1, "source": "a", "topic": "t", "payload": ""}'
    path.write_text(f"{good}\n\n{line}\n{good}\n")
    with pytest.raises(ConfigError) as caught:
        list(read_recording([path]))
    assert str(caught.value).lower() == f"{path}:3  {told}".lower()


def test_rows_of_a_csv_are_frames_of_its_source(tmp_path: Path) -> None:
    path = tmp_path / "oven.csv"
    path.write_text("time,t\n5,1.5\n3,2.5\n6,\n")
    csv = CsvInput("drops", FilesConfig(watch="inbox/"), lambda frame: int(frame.payload[:1]) * 1000)
    frames, ticks, _ = unfold(list(read_recording([path], 2, csv)))
    header = (("csv", "time,t"),)
    assert [(f["source"], f["topic"], f["headers"]) for f in frames] == [("drops", "oven.csv", header)] * 3
    assert [(f["ms"], f["payload"]) for f in frames] == [(5000, b"5,1.5"), (5000, b"3,2.5"), (6000, b"6,")]
    assert ticks == [(0, 5000), (2, 6000)]
    with pytest.raises(ConfigError, match="the plant has none"):
        list(read_recording([path]))


def test_a_capture_replays_as_it_was(tmp_path: Path) -> None:
    class Reader:
        def control(self, entry: Any) -> Control:
            control = entry.control()
            if control.kind == "plant":
                return control._replace(data={**control.data, "files": {"plant.yaml": b"\xff\x00"}})
            return control

    frames = [
        Frame("a/b", b'{"t": 1}', FRAME_RETAINED),
        Frame("a/c", b"\xff\x00", FRAME_HISTORICAL, 2, (("x", "1"), ("x", "2"))),
        Frame("peer", "text \u0000 \u2028 \u00e9".encode(), 0, -1, (("h", "v"),)),
        Frame("", b""),
    ]
    packed = [
        pack_control("started", {"clean": True}),
        pack_control("plant", {"sha256": "ab", "apply_id": "0a", "by": "kim", "why": "x"}),
        pack_control("connected", {"source": "line1"}),
        pack_frames("line1", frames[:3]),
        bytearray(pack_tick(0, 0)),
        pack_frames("app", frames[3:]),
        pack_control("clock_step", {"step_ms": -7}),
        pack_control("action", {"do": "ack", "n": [1, None]}),
        pack_control("disconnected", {"source": "line1"}),
        pack_control("stopped", {}),
    ]
    entries, position = [], 41
    for number, body in enumerate(packed, 1):
        stamp(body, 3000 + number, position)
        entry = decode_entry(number, bytes(body))
        position = entry.next_position
        entries.append(entry)
    file = io.BytesIO()
    writer = RecordingWriter(file, Reader())
    assert writer.write(entries[:4]) + writer.write(entries[4:]) == 4
    assert file.getvalue().startswith(b'{"capture":1,"position":41}\n')

    live = slices(Reader(), entries, Merger())
    path = tmp_path / "capture.jsonl"
    path.write_bytes(file.getvalue())
    for cut in CUTS:
        again = list(read_recording([path], cut))
        assert unfold(again) == unfold(
            [Slice(n, s.position, s.frames, s.control) for n, s in enumerate(live, 1)]
        )
        assert [int(f) for item in again for f in item.frames.flags] == [frame.flags for frame in frames]
        assert {a for item in again for a in item.frames.addresses} >= {
            Address("line1", "a/c", 2, (("x", "1"), ("x", "2")))
        }
