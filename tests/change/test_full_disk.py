"""A disk without room ends processes at any frame: none is blamed, and nothing acknowledged is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from connectors.journal.entries import FRAMES, pack_frames
from connectors.journal.merging import merge
from connectors.journal.reader import JournalReader
from connectors.journal.store import Append, JournalStore
from connectors.source import Frame
from flows.broken_flow import BrokenFlow
from flows.processes import Child


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Four megabytes, one of which is taken."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, capture_output=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("waived: a small disk needs the right to mount one")
    (folder / "ballast").write_bytes(bytes(1 << 20))
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("size", [100, 3_000, 30_000, 200_000])
def test_the_journal_refuses_until_there_is_room(disk: Path, size: int) -> None:
    with closing(JournalStore(disk / "journal", 1 << 30)) as store:
        taken: list[bytes] = []

        def fill() -> None:
            for number in range(100_000):
                payload = b"%d %d" % (len(taken), number) + bytes(size)
                frames = [Frame("t", payload)] * max(1, 20_000 // size)
                append = Append(b"s" * 16, len(taken) + 1, pack_frames("line", frames), b"")
                if store.commit([append]) == [None]:
                    return
                taken.append(payload)

        fill()
        assert store.full
        full = len(taken)
        (disk / "ballast").unlink()
        fill()
        assert len(taken) > full
    with closing(JournalReader(disk / "journal")) as reader:
        read = [entry for entry in reader.read(reader.oldest(), 1 << 30, 1 << 30) if entry.kind == FRAMES]
        batch = merge(read)
        assert list(dict.fromkeys(batch.frame(row) for row in range(len(batch)))) == taken


def test_no_frame_is_looked_for(disk: Path) -> None:
    """Not while there is no room, nor where the state cannot be copied for it; else at the next crash."""
    said: list[str] = []
    flow = cast(Child, SimpleNamespace(name="flow", last_exit=1, log=disk / "flow.jsonl"))
    for data in (disk, disk.parent / "plant"):
        (data / "recovery").mkdir(parents=True)
        broken = BrokenFlow(data, {}, disk.parent / "trials.jsonl", said.append)
        (data / "recovery" / "part-0.sqlite3").symlink_to(data / "nowhere")
        for _ in range(3):
            broken.ended(flow)
            assert broken.trials is None
    assert said == [
        *[f"the disk of {disk} is nearly full; make room"] * 3,
        *[
            "the flow broke twice at one place; looking for the frame",
            "the frame cannot be looked for: its state cannot be copied",
        ]
        * 2,
    ]
