"""A process that stands back where processors are short, among the others of its plant too."""

from __future__ import annotations

import os
from pathlib import Path

from flows.processes import Child
from tests.waiting import until


def test_a_child_stands_back_alone_and_as_a_session(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time\nprint('up', flush=True)\ntime.sleep(600)\n", "utf-8")
    child = Child("sleeper", "sleeper", [], 0, tmp_path / "sleeper.log", nice=5)
    child.start({**os.environ, "PYTHONPATH": str(tmp_path)})
    try:
        until(lambda: child.log.read_text("utf-8") == "up\n", "the child to run", told=child.log.read_text)
        assert child.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, child.pid) == min(19, os.nice(0) + 5)
        group = Path(f"/proc/{child.pid}") / "autogroup"  # by which a kernel may share processors out
        if group.exists():
            assert group.read_text("ascii").endswith(" nice 5\n")
    finally:
        assert child.process is not None
        child.process.kill()
        child.process.wait()
