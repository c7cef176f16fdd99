"""A flow that broke: whether it did so twice at one place, and the search for the frame on which it does."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from connectors.errors import JournalError
from connectors.journal.blocking import BlockingJournalClient
from connectors.journal.output_store import OutputReader
from flows.processes import Child, exit_words, last_error
from flows.quarantine import Trials, has_room, is_crash


class BrokenFlow:
    """The supervisor's memory of how the flow of one shard ended; `step` never blocks.

    data: the shard's folder. log: of the trials. say: words for the operator.
    """

    def __init__(
        self, data: Path, environment: dict[str, str], log: Path, say: Callable[[str], None]
    ) -> None:
        self.data = data
        self.trials: Trials | None = None
        self._environment = environment
        self._log = log
        self._say = say
        self._broke_at = self._tried_at = -1  # the last entry applied when the flow broke
        self._why = ""

    def ended(self, flow: Child) -> None:
        """The second time in a row that the flow broke without getting on, look for the frame."""
        if not is_crash(flow.last_exit):
            return
        if not has_room(self.data):
            self._say(f"the disk of {self.data} is nearly full; make room")
            return
        try:
            with closing(OutputReader(self.data / "output")) as output:
                applied = output.applied()
        except JournalError:
            applied = 0
        if applied == self._broke_at and applied != self._tried_at:
            self._say(f"the {flow.name} broke twice at one place; looking for the frame")
            self._tried_at = applied
            self._why = f"{exit_words(flow.last_exit)}: {last_error(flow.log)}".rstrip(": ")
            try:
                self.trials = Trials(self.data, self._environment, self._log)
            except OSError as error:
                self._tried_at = -1
                self._say(f"the frame cannot be looked for: {error.strerror or 'its state cannot be copied'}")
        self._broke_at = applied

    def step(self, flow: Child, journal: Callable[[], BlockingJournalClient]) -> None:
        """Once the trials are over, the frame that they found is set aside, and the flow goes on."""
        trials = self.trials
        if trials is None or not trials.step():
            return
        self.trials, found = None, trials.found
        if found is None:
            self._say(f"the frame was not found: the {flow.name} did not break again in a trial")
        else:
            with journal() as client:
                body = {"entry": found.entry, "position": found.position, "why": self._why}
                client.control("quarantine", body)
            self._say(f"the frame at position {found.position} is set aside: reject engine_error")
        flow.next_start = 0.0

    def close(self) -> None:
        """End what still runs."""
        if self.trials is not None:
            self.trials.close()
