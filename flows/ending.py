"""The end of a process that is done, and of one that is in a call which no signal interrupts."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """End this process, which has closed what it held, with that exit code. The interpreter is not taken
    down: that takes up to 0.3 s of processor time a process (modules, the compiler), all of a plant's at
    the same moment, and threads of libraries that outlive it would abort the process."""
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def end_at_signals(stop: threading.Event, within: float, late: Callable[[], None]) -> None:
    """SIGTERM and SIGINT set `stop`. Where the process has not ended `within` seconds after that, `late` is
    called and it ends at once with 0, so whoever calls this bears being killed at any moment. To be called in
    the main thread."""
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    signal.set_wakeup_fd(tell)  # written at the signal; a handler waits for the main thread's next step
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(told, 1)
        stop.set()
        threading.Event().wait(within)
        late()
        os._exit(0)

    threading.Thread(target=wait, name="ending", daemon=True).start()
