"""Who runs the shard whose journal a partition is: the machine that started it last, as long as it lives.

`started` in the partition is the claim. Whoever runs the shard and meets another's looks whether that one
lives: it sends a tick at least every two seconds. If it does, this process ends, and what stands
behind the claim never comes into its copy; so nothing is worked on twice. If it does not, its claim was
of the past, and this process goes on, with a claim of its own. Where two claim at once the later one
stays, as the partition has them in one order for both.
"""

from __future__ import annotations

import os
import socket
from typing import Final

from connectors.errors import JournalTaken
from connectors.journal.kafka_config import PartitionConfig
from connectors.journal.kafka_follower import Follower
from connectors.journal.kafka_messages import Arrival, By
from connectors.journal.store import JournalStore

BEAT_S: Final = 2.0  # between two ticks of the one who runs the shard
LIFE_S: Final = 6.0  # without a tick: it does not live


class Claim:
    """What one process knows of who runs its shard; it never stops where the shard does not run here."""

    def __init__(self, config: PartitionConfig, store: JournalStore) -> None:
        self._config = config
        self._store = store
        self.by = By(store.identity, socket.gethostname(), os.getpid())
        self.is_made = False  # sent, so whoever claimed before gives way to us
        self.is_under_way = False  # sent and not in the copy: what is met meanwhile came before it
        self.lost: JournalTaken | None = None
        self._looked_to = 0  # claims before this offset are known to be of the past

    def is_met_in(self, arrival: Arrival) -> bool:
        """Whether another claims the shard with it, and it is not known to be of the past."""
        if not self._config.runs or self.is_under_way or arrival.offset < self._looked_to:
            return False
        append = arrival.append
        if append is None or not self.by.is_another(arrival.claims):
            return False
        return append.sequence > self._store.known_sequence(append.session)  # else it was counted before

    def look(self, follower: Follower) -> None:
        """Blocking: raises `JournalTaken` where another lives that runs the shard, and `ConnectError`."""
        other, self._looked_to = follower.other_alive(self.by, LIFE_S)
        if other is not None:
            raise JournalTaken(self._words(other))

    def _words(self, other: By) -> str:
        where = f"{self._config.journal.topic}/{self._config.partition}"
        who = other.host if other.host != self.by.host else f"process {other.pid} of this machine"
        mend = "stop the plant on one of them"
        if self._config.partitions > 1:
            mend = "name other shards in journal.shards_here on one of them"
        return (
            f"shard {self._config.partition} ({where}) is run by {who} now, and two must not run one shard;"
            f" {mend}, then start this one again"
        )
