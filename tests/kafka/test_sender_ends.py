"""What is left of a producer that was given up with messages on their way."""

from __future__ import annotations

import gc
import weakref

from connectors.journal.kafka_config import JournalConfig, PartitionConfig
from connectors.journal.kafka_sender import Sender
from tests.ports import free_port


def test_a_sender_that_is_closed_leaves_nothing_behind() -> None:
    """A producer that failed is followed by another: none may keep its threads and connections."""
    journal = JournalConfig(kind="kafka", bootstrap=f"127.0.0.1:{free_port()}", topic="frames")
    sender = Sender(PartitionConfig(journal=journal), print, print, print)
    for number in range(10):
        sender.send(number, b"frame", [])
    sender.close()
    left = weakref.ref(sender)
    del sender
    gc.collect()
    assert left() is None
