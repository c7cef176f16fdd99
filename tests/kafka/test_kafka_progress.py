"""How far a Kafka source has read, over kills at any byte that is written."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.errors import ConfigError
from connectors.kafka import progress as module
from connectors.kafka.progress import Part, Progress, Range

PARTS = [Part("a", 0), Part("a", 1), Part("b", 0)]
plans = st.lists(
    st.lists(
        st.tuples(st.sampled_from(range(3)), st.integers(1, 5)),
        min_size=1,
        max_size=3,
        unique_by=lambda one: one[0],
    ),
    min_size=1,
    max_size=3,
)  # of one call: appends, each some partitions and how many messages of them
steps = st.lists(
    st.one_of(st.tuples(st.just("plan"), plans), st.tuples(st.just("done"), st.integers(1, 4))), max_size=12
)


class Model:
    """What must be known: the appends that were planned and are not done, in order, and the offsets of
    those before."""

    def __init__(self) -> None:
        self.next = dict.fromkeys(PARTS, 0)
        self.durable: dict[Part, int] = {}
        self.planned: list[tuple[int, list[Range]]] = []
        self.number = 0

    def plan(self, appends: list[list[tuple[int, int]]]) -> list[list[Range]]:
        made = []
        for append in appends:
            ranges = []
            for which, count in append:
                part = PARTS[which]
                ranges.append(Range(*part, self.next[part], self.next[part] + count))
                self.next[part] += count
            self.number += 1
            self.planned.append((self.number, ranges))
            made.append(ranges)
        return made

    def done(self, count: int) -> list[int]:
        over, self.planned = self.planned[:count], self.planned[count:]
        for _, ranges in over:
            self.durable |= {Part(r.topic, r.partition): r.next for r in ranges}
        return [number for number, _ in over]


@settings(max_examples=60, deadline=None)
@given(steps=steps, data=st.data(), anew=st.sampled_from([1, 200, 1 << 20]))
def test_after_a_kill_what_was_planned_is_known_and_nothing_that_left_is_missing(
    steps: list[tuple[str, object]], data: st.DataObject, anew: int
) -> None:
    """The file is cut at any byte behind the last plan that was on disk, as a kill in the midst of writing
    the next does. What is planned again may be durable already; what is not known never left."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ANEW_BYTES", anew)
        path = Path(folder) / "kafka" / "fleet.jsonl"
        progress, model = Progress(path), Model()
        claim = progress.claim
        progress.move({})
        for what, how in steps:
            if what == "plan":
                assert isinstance(how, list)
                planned = model.plan(how)
                numbers = progress.plan(planned)
                assert numbers == [number for number, _ in model.planned[-len(planned) :]]
            else:
                assert isinstance(how, int)
                progress.done(model.done(how))
            assert progress.durables == model.durable
        whole = path.read_bytes()
        progress.plan([[Range("a", 0, model.next[PARTS[0]], model.next[PARTS[0]] + 1)]])
        written = path.read_bytes()
        if written.startswith(whole):  # else it was written anew, and put in place at once
            path.write_bytes(written[: data.draw(st.integers(len(whole), len(written) - 1))])
        else:
            path.write_bytes(whole)
        again = Progress(path)
        assert again.claim == claim
        known = {line.number: line.ranges for line in again.planned}
        assert [number for number in known if number not in dict(model.planned)] == [
            number for number in known if number < min(dict(model.planned), default=model.number + 1)
        ]  # more may be planned than is, of what the last plan did not know to be durable
        for number, ranges in model.planned:
            assert known[number] == ranges
        behind = {part: at for part, at in model.next.items() if at}
        assert again.offsets == behind
        assert again.plan([[Range("a", 0, 0, 1)]]) == [model.number + 1]


def test_a_file_that_is_none_is_told(tmp_path: Path) -> None:
    path = tmp_path / "fleet.jsonl"
    path.write_text("{}\n")
    with pytest.raises(
        ConfigError, match=r"fleet.jsonl: .*`claim`; remove it, and reading begins where 'start' says"
    ):
        Progress(path)
