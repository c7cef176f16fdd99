"""The journal's store: order, refusal at its cap, trimming, what it remembers over a restart."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from connectors.errors import JournalError, JournalGap
from connectors.journal.clock import JournalClock
from connectors.journal.entries import CONTROL, TICK, pack_control, pack_frames
from connectors.journal.kafka_messages import Arrival
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.journal.store import Append, JournalStore, Place
from connectors.journal.wire import WINDOW
from connectors.source import Frame

MAP = 4 << 20
SESSION = b"s" * 16
Open = Callable[..., JournalStore]


class Wall:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.ms = 1_000_500

    def clock(self, at_least: int = 0) -> JournalClock:
        return JournalClock(at_least, lambda: self.ms * 1_000_000, lambda: self.ms * 1_000_000)


@pytest.fixture
def wall() -> Wall:
    return Wall()


@pytest.fixture
def store(tmp_path: Path, wall: Wall) -> Iterator[JournalStore]:
    store = JournalStore(tmp_path / "journal", MAP, wall.clock())
    yield store
    store.close()


def append(sequence: int, *payloads: bytes, session: bytes = SESSION, key: bytes = b"") -> Append:
    return Append(session, sequence, pack_frames("line1", [Frame("t", p) for p in payloads]), key)


def frames(path: Path, start: int = 1) -> list[bytes]:
    with JournalReader(path) as reader:
        read = reader.read(start, 1 << 30, 1 << 30)
        batch = merge([entry for entry in read if entry.kind != CONTROL])
        return [batch.frame(row) for row in range(len(batch))]


def test_a_commit_keeps_the_order_of_appends_and_gives_positions(store: JournalStore) -> None:
    other = b"o" * 16
    places = store.commit([append(1, b"a", b"b"), append(1, b"c", session=other), append(2, b"d")])
    assert places == [Place(0, 2), Place(2, 3), Place(3, 4)]  # entry 1 is the tick
    assert frames(store._environment.path) == [b"a", b"b", b"c", b"d"]
    assert (store.next_position, store.totals["commits"]) == (4, 1)


def test_a_repeated_sequence_is_answered_and_not_appended(store: JournalStore, tmp_path: Path) -> None:
    places = store.commit([append(n, b"%d" % n) for n in range(1, WINDOW + 1)])
    assert store.commit([append(n, b"%d" % n) for n in range(1, WINDOW + 1)]) == places
    store.close()
    again = JournalStore(tmp_path / "journal", MAP)
    assert again.last_sequence(SESSION) == WINDOW
    assert again.commit([append(WINDOW, b"x")]) == [places[-1]]
    assert again.next_position == WINDOW
    again.close()


def test_a_sequence_with_a_hole_before_it_is_refused(store: JournalStore) -> None:
    assert store.commit([append(1, b"a"), append(3, b"c"), append(2, b"b")]) == [
        Place(0, 2),
        None,
        Place(1, 3),
    ]


def test_a_key_is_appended_once_for_ever(store: JournalStore, tmp_path: Path) -> None:
    first = store.commit([append(1, b"a", key=b"file:1"), append(2, b"a", key=b"file:1")])
    assert first == [Place(0, 2), Place(0, 2)]
    store.close()
    again = JournalStore(tmp_path / "journal", MAP)
    assert again.commit([append(1, b"a", session=b"z" * 16, key=b"file:1")]) == [Place(0, 2)]
    again.close()


def test_a_tick_stands_at_each_whole_second_before_what_comes_then(store: JournalStore, wall: Wall) -> None:
    store.commit([append(1, b"a")])
    wall.ms = 1_000_999
    store.commit([])
    wall.ms = 1_001_000
    store.commit([append(2, b"b")])
    wall.ms = 1_007_001
    store.commit([])
    with JournalReader(store._environment.path) as reader:
        read = reader.read(1, 100, 1 << 20)
    assert [(entry.kind == TICK, entry.ms) for entry in read] == [
        (True, 1_000_000),
        (False, 1_000_500),
        (True, 1_001_000),
        (False, 1_001_000),
        (True, 1_007_000),
    ]
    assert [entry.position for entry in read] == [0, 0, 1, 1, 2]


def test_appends_are_refused_at_the_cap_and_taken_again_after_a_trim(store: JournalStore, wall: Wall) -> None:
    payload = bytes(200_000)
    taken = 0
    while store.commit([append(taken + 1, payload)]) != [None]:
        taken += 1
        assert taken < 100
    assert 0.6 * MAP < store.used_bytes <= 0.8 * MAP
    assert store.metrics()["journal_refused_total"] == 1
    wall.ms += 1000
    before = store.next_entry
    store.commit([])
    assert store.next_entry == before + 1  # the clock goes on
    # nothing behind a refused append of the same commit is taken
    small = append(1, b"x", session=b"o" * 16)
    assert store.commit([append(taken + 1, payload), small]) == [None, None]
    while store.trim(store.next_entry - 3):
        pass
    assert store.commit([append(taken + 1, payload)]) == [Place(taken, store.next_entry - 1)]


def test_a_full_journal_is_filled_and_trimmed_over_and_over(store: JournalStore) -> None:
    sequence = 0
    for _ in range(6):
        while store.commit([append(sequence + 1, bytes(30_000), bytes(7_000))]) != [None]:
            sequence += 1
        while store.trim(store.next_entry - 1):
            pass
    assert sequence > 6 * 60
    assert store.next_position == 2 * sequence


def test_a_reader_is_told_of_a_gap_and_of_another_journal(store: JournalStore) -> None:
    for n in range(1, 6):
        store.commit([append(n, b"%d" % n)])
    store.trim(3)
    with JournalReader(store._environment.path) as reader:
        assert (reader.oldest(), reader.last(), reader.next_position()) == (4, 6, 5)
        assert frames(reader.path, 4) == [b"3", b"4", b"5"]
        assert reader.read(7, 10, 10) == []
        with pytest.raises(JournalGap) as caught:
            reader.read(3, 10, 10)
        assert str(caught.value) == "journal entry 3 has been trimmed; the oldest is 4"
        with pytest.raises(JournalGap, match="the journal ends at 6: it is not the journal"):
            reader.read(8, 10, 10)
        store.trim(100)
        assert (reader.oldest(), reader.last()) == (7, 6)
        with pytest.raises(JournalGap, match="the oldest is 7"):
            reader.read(6, 10, 10)
        assert reader.read(7, 10, 10) == []


def test_reading_is_bounded_by_rows_bytes_and_entry(store: JournalStore) -> None:
    store.commit([append(n, b"a" * 100, b"b" * 100) for n in range(1, 11)])
    with JournalReader(store._environment.path) as reader:
        assert [entry.number for entry in reader.read(2, 5, 1 << 20)] == [2, 3]
        assert [entry.number for entry in reader.read(2, 1, 1 << 20)] == [2]
        assert [entry.number for entry in reader.read(2, 100, 1)] == [2]
        assert [entry.number for entry in reader.read(2, 100, 1 << 20, stop_at_entry=4)] == [2, 3, 4]


def test_plants_outlive_trimming(store: JournalStore) -> None:
    import msgspec

    for n, name in enumerate(("aa", "bb", "aa"), 1):
        about = {"apply_id": f"{n:032x}", "by": "kim", "why": f"change {n}"} if n > 1 else {}
        body = pack_control("plant", {"sha256": name, **about})
        bundle = (name.encode(), msgspec.msgpack.encode({"plant.yaml": name.encode()}))
        store.commit([Append(SESSION, 2 * n - 1, body, b"", bundle), append(2 * n, b"x")])
    with JournalReader(store._environment.path) as reader:
        control = reader.control(reader.read(4, 1, 1)[0])
        assert control.data == {
            "sha256": "bb",
            "files": {"plant.yaml": b"bb"},
            "apply_id": f"{2:032x}",
            "by": "kim",
            "why": "change 2",
        }
        assert reader.last_plant() == ("aa", {"plant.yaml": b"aa"}, 6)
        assert reader.last_plant(6) == ("bb", {"plant.yaml": b"bb"}, 4)
        assert reader.last_plant(2) is None
        assert reader.first_plant() == ("aa", {"plant.yaml": b"aa"}, 2)
        store.trim(5)
        assert reader.first_plant() == ("bb", {"plant.yaml": b"bb"}, 4)
        store.trim(6)
        history = reader.history()
        assert [(one.entry, one.sha256, one.by, one.why) for one in history] == [
            (2, "aa", "", ""),
            (4, "bb", "kim", "change 2"),
            (6, "aa", "kim", "change 3"),
        ]
        assert reader.newest_applied() == history[-1]
        assert history[0].ms <= history[1].ms <= history[2].ms
        with pytest.raises(JournalError, match="holds no plant cc"):
            reader.bundle("cc")


def test_a_journal_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot open the journal"):
        JournalReader(tmp_path / "journal")


def test_a_session_that_is_connected_is_not_forgotten_however_long_it_is_silent(
    store: JournalStore, wall: Wall
) -> None:
    other = b"o" * 16
    store.commit([append(1, b"a"), append(1, b"b", session=other)])
    wall.ms += 2 * 86_400_000
    store.forget_sessions({SESSION})
    assert (store.last_sequence(SESSION), store.last_sequence(other)) == (1, 0)
    assert store.commit([append(2, b"c")])[0] is not None


def test_what_stands_in_a_partition_is_the_same_however_it_is_cut(tmp_path: Path, wall: Wall) -> None:
    """Repeats, late copies, clocks that differ, a stop over midnight: in one transaction, or one each."""
    ms = 1_000_000
    arrivals = [
        Arrival(0, ms + 100, Append(SESSION, 1, pack_control("started", {"clean": True}))),
        Arrival(1, ms + 900, append(2, b"a")),
        Arrival(2, ms + 5_000, append(4, b"late")),  # before the one that it comes after
        Arrival(3, ms + 2_000, append(3, b"b")),
        Arrival(4, ms + 2_000, append(3, b"b")),
        Arrival(5, ms + 7_000, None),
        Arrival(6, ms + 7_000, None),
        Arrival(7, ms + 3_000, append(4, b"c", key=b"k")),
        Arrival(8, ms + 7_100, append(9, b"d", session=b"o" * 16), 8),  # begun before this copy
        Arrival(9, ms + 7_200, append(10, b"c", session=b"o" * 16, key=b"k")),
        Arrival(10, ms + 9_000_000, Append(SESSION, 5, pack_control("started", {"clean": False}))),
        Arrival(11, ms + 9_000_100, append(6, b"e")),
    ]
    found = []
    for number, size in enumerate((1, 3, len(arrivals))):
        store = JournalStore(tmp_path / str(number), MAP, wall.clock())
        for at in range(0, len(arrivals), size):
            part = [dataclasses.replace(one, append=copied(one.append)) for one in arrivals[at : at + size]]
            store.replicate(part, str(part[-1].offset).encode())
            if size == 3:  # a process that is killed begins with what is on disk
                store.close()
                store = JournalStore(tmp_path / str(number), MAP, wall.clock())
        assert store.partition_mark == b"11"
        store.close()
        with JournalReader(tmp_path / str(number)) as reader:
            found.append([(e.number, e.kind, e.ms, bytes(e.data)) for e in reader.read(1, 1 << 30, 1 << 30)])
        assert frames(tmp_path / str(number)) == [b"a", b"b", b"c", b"d", b"e"]
    assert found[0] == found[1] == found[2]
    assert [ms for _, kind, ms, _ in found[0] if kind == TICK] == [ms + 5_000, ms + 7_000]


def copied(one: Append | None) -> Append | None:
    return one and dataclasses.replace(one, body=bytearray(one.body))
