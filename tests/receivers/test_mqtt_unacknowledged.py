"""What is in the journal and was not acknowledged when the receiver was killed is no second entry."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import numpy as np
import pytest

from connectors.errors import ConfigError
from connectors.fakes import MemoryAppender
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.source import MqttReceiver
from connectors.mqtt.unacknowledged import Unacknowledged
from connectors.source import FrameRows, Leaving
from tests.receivers.running import running, until
from tests.receivers.test_mqtt_publishes import Broker, publish


class Killed(MemoryAppender):
    """A journal that takes what comes, of which the receiver never hears."""

    async def append_rows(
        self, rows: FrameRows, key: str | None = None, leaving: Leaving | None = None
    ) -> int:
        """See `connectors.source.Appender`."""
        await super().append_rows(rows, key, leaving)
        return await asyncio.Future()


def packets(start: int, end: int, dup: bool = False, size: int = 0) -> bytes:
    return b"".join(
        publish(("plant/a", b"%d" % n + b"x" * size, 1, False, n, [], None, None), False, dup)
        for n in range(start, end)
    )


@pytest.mark.parametrize(
    ("size", "durable"),
    [(0, 3), (700_000, 1)],  # by the kernel, and the way of large packets, each an append
)
def test_repeats_after_a_kill_are_acknowledged_without_a_second_entry(
    tmp_path: Path, size: int, durable: int
) -> None:
    async def scene() -> None:
        broker = Broker()
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = MqttConfig(host="127.0.0.1", port=port, subscribe=["plant/#"])
        killed = Killed()
        first = MqttReceiver("line", config, plant="works", data=tmp_path)
        task = asyncio.create_task(first.run(killed, asyncio.Event()))
        await until(lambda: first.status.state == "connected")
        broker.connections[0].write(packets(1, 4, size=size))
        await until(lambda: len(killed.frames) == durable and first.status.frames == 3)
        broker.connections[0].write(packets(4, 6, size=size))
        await until(lambda: first.status.frames == 5)
        task.cancel()
        await asyncio.wait({task})
        broker.connections[0].transport.abort()
        assert broker.acknowledged == []

        after = MemoryAppender(numbers=dict(killed.numbers))
        second = MqttReceiver("line", config, plant="works", data=tmp_path)
        async with running(second, after):
            await until(lambda: len(broker.connections) == 2 and second.status.state == "connected")
            broker.connections[1].write(packets(1, 6, dup=True, size=size) + packets(6, 8, size=size))
            await until(lambda: len(broker.acknowledged) == 7)
            # its id is free again: the same content under it is another message
            broker.connections[1].write(packets(2, 3, dup=True, size=size))
            await until(lambda: len(broker.acknowledged) == 8)
        texts = [frame.payload.rstrip(b"x") for frame in after.frames]
        assert texts == [b"%d" % n for n in range(durable + 1, 8)] + [b"2"]
        assert broker.acknowledged == [*range(1, 8), 2]
        server.close()

    asyncio.run(scene())


def test_a_new_session_at_the_broker_forgets_all(tmp_path: Path) -> None:
    async def scene() -> None:
        broker = Broker()
        server = await asyncio.start_server(broker.serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        config = MqttConfig(host="127.0.0.1", port=port, subscribe=["plant/#"])
        kept, one = Unacknowledged(tmp_path / "mqtt" / "line.unacknowledged"), np.array([1])
        kept.leaving(one, np.array([5], np.uint64), np.array([True]), b"s" * 16, 1)
        appender = MemoryAppender(numbers={b"s" * 16: 1})
        source = MqttReceiver("line", config, plant="works", data=tmp_path)
        async with running(source, appender):  # the broker's first connection has no session
            await until(lambda: source.status.state == "connected")
        assert not (await kept.recover(appender.appended)).any()
        server.close()

    asyncio.run(scene())


def test_what_is_recovered_is_what_the_journal_has(tmp_path: Path) -> None:
    """Against a plain table, over restarts at any moment and several shards' sessions."""

    async def scene() -> None:
        chance = random.Random(5)
        has: dict[bytes, int] = {}  # the journal: session -> last number
        plain: dict[int, tuple[int, bytes, int, bool]] = {}  # id -> mark, session, number, unique

        async def appended(session: bytes) -> int:
            return has.get(session, 0)

        number = 0
        for _ in range(40):
            kept = Unacknowledged(tmp_path / "kept")
            found = await kept.recover(appended)
            plain = {mid: one for mid, one in plain.items() if one[2] <= has.get(one[1], 0)}
            assert {int(mid): int(found[mid]) for mid in np.flatnonzero(found)} == {
                mid: one[0] for mid, one in plain.items()
            }
            sessions = [chance.randbytes(16) for _ in range(3)]
            for _ in range(chance.randrange(12)):
                session, number = chance.choice(sessions), number + 1
                mids = chance.sample(range(1, 30), chance.randrange(1, 6))
                marks = [chance.getrandbits(62) | 1 for _ in mids]
                alone = [chance.random() < 0.5 for _ in mids]
                kept.leaving(np.array(mids), np.array(marks, np.uint64), np.array(alone), session, number)
                told = zip(mids, marks, alone, strict=True)
                plain.update({mid: (mark, session, number, one) for mid, mark, one in told})
                if chance.random() < 0.7:
                    has[session] = number
                done = [mid for mid in plain if chance.random() < 0.3 and has.get(plain[mid][1]) is not None]
                of_others = [mid for mid in done if chance.random() < 0.2]  # of a message that did not leave
                marks = [plain[mid][0] + (2 if mid in of_others else 0) for mid in done]
                gone = kept.acknowledged(np.array(done, np.int64), np.array(marks, np.uint64))
                assert gone.tolist() == [mid for mid in done if mid in of_others or not plain[mid][3]]
                for mid in gone.tolist():
                    del plain[mid]

    asyncio.run(scene())


def test_a_file_that_is_none_of_ours_tells_nothing(tmp_path: Path) -> None:
    path = tmp_path / "kept"

    async def scene() -> None:
        path.write_bytes(b"something else")
        assert not (await Unacknowledged(path).recover(_none)).any()
        path.write_bytes(b"\x01" * path.stat().st_size)
        assert not (await Unacknowledged(path).recover(_none)).any()

    asyncio.run(scene())
    with pytest.raises(ConfigError, match="Is a directory"):
        Unacknowledged(tmp_path)


async def _none(session: bytes) -> int:
    raise AssertionError(session)
