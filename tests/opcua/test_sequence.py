"""Responses that go missing: asked for again, in order, and a gap only where nobody has them any more."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from asyncua import ua
from asyncua.ua.ua_binary import struct_to_binary

from connectors.opcua.changes import Published
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.held import HeldFile
from connectors.opcua.nodes import Item
from connectors.opcua.session import WRAP, Subscription
from tests.waiting import LIMIT_S


def message(number: int, *, keep_alive: bool = False) -> ua.NotificationMessage:
    told = ua.NotificationMessage()
    told.SequenceNumber = ua.UInt32(number)
    if not keep_alive:
        item = ua.MonitoredItemNotification()
        item.Value = ua.DataValue(ua.Variant(float(number), ua.VariantType.Double))
        told.NotificationData = [ua.DataChangeNotification(MonitoredItems=[item])]
    return told


class Session:
    """Answers publish requests from a list, republish requests from what it still has."""

    def __init__(self, answers: list[bytes], has: dict[int, bytes]) -> None:
        self.answers, self.has = answers, has
        self.acknowledged: list[int] = []
        self.asked: list[int] = []

    async def _send_request(self, request: Any, timeout: float | None = None) -> bytes:
        if isinstance(request, ua.RepublishRequest):
            number = request.Parameters.RetransmitSequenceNumber
            self.asked.append(number)
            if number not in self.has:
                raise ua.uaerrors.BadMessageNotAvailable
            return self.has[number]
        self.acknowledged += [one.SequenceNumber for one in request.Parameters.SubscriptionAcknowledgements]
        if not self.answers:
            await asyncio.Event().wait()
        return self.answers.pop(0)


def response(number: int, *, keep_alive: bool = False) -> bytes:
    answer = ua.PublishResponse()
    answer.Parameters.SubscriptionId = ua.UInt32(7)
    answer.Parameters.NotificationMessage = message(number, keep_alive=keep_alive)
    return struct_to_binary(answer)


def again(number: int) -> bytes:
    answer = ua.RepublishResponse()
    answer.NotificationMessage = message(number)
    return struct_to_binary(answer)


@pytest.mark.parametrize(
    ("numbers", "has", "taken", "asked"),
    [
        ([1, 2, 3], (), [1, 2, 3], []),
        ([1, 4], (2, 3), [1, 2, 3, 4], [2, 3]),
        ([1, 4], (3,), [1, "gap", 3, 4], [2, 3]),
        ([1, 4, 5], (), [1, "gap", 4, 5], [2, 3]),
        ([WRAP - 1, 2], (WRAP, 1), [WRAP - 1, WRAP, 1, 2], [WRAP, 1]),
        ([1, -3, 3], (2,), [1, 2, 3], [2]),  # a keep-alive has the number of the next
        ([5, -6, 6], (), [5, 6], []),
        ([1, -4, 4], (), [1, "gap", 4], [2, 3]),
    ],
)
def test_missing_responses(
    tmp_path: Path, numbers: list[int], has: tuple[int, ...], taken: list[Any], asked: list[int]
) -> None:
    answers = [response(abs(number), keep_alive=number < 0) for number in numbers]
    session = Session(answers, {number: again(number) for number in has})
    client: Any = SimpleNamespace(uaclient=SimpleNamespace(session=session))
    config = OpcuaConfig(endpoint="opc.tcp://plc")
    subscription = Subscription(client, config, [Item("i=1", "d", "m")], HeldFile(tmp_path / "held.json"))
    subscription._silence_s = 60.0
    found: list[Any] = []
    names: list[str] = []

    async def play() -> None:
        stop = asyncio.Event()

        async def take(published: Published | bytes, lost: bool, why: str, name: str) -> None:
            assert isinstance(published, Published)
            assert not why
            found.extend((["gap"] if lost else []) + [published.number])
            names.append(name)

        task = asyncio.create_task(subscription.publish(take, stop))
        expected = [number for number in taken if number != "gap"]
        while len(names) < len(expected):
            await asyncio.sleep(0)
        stop.set()
        await asyncio.wait_for(task, LIMIT_S)
        assert session.acknowledged == expected

    asyncio.run(asyncio.wait_for(play(), LIMIT_S))
    assert found == taken
    assert session.asked == asked
    assert len(set(names)) == len(names)


def test_a_subscription_that_is_over(tmp_path: Path) -> None:
    """A bad status ends it; the word that it was taken over, some time ago and by us, does not."""
    from connectors.errors import ConnectError

    def status(number: int, code: int) -> bytes:
        answer = ua.PublishResponse()
        answer.Parameters.NotificationMessage.SequenceNumber = ua.UInt32(number)
        answer.Parameters.NotificationMessage.NotificationData = [
            ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(code)))
        ]
        return struct_to_binary(answer)

    session = Session([status(1, 0x002D0000), response(2), status(3, 0x800A0000)], {})
    client: Any = SimpleNamespace(uaclient=SimpleNamespace(session=session))
    config = OpcuaConfig(endpoint="opc.tcp://plc")
    subscription = Subscription(client, config, [Item("i=1", "d", "m")], HeldFile(tmp_path / "held.json"))
    subscription._silence_s = 60.0
    found: list[int] = []

    async def take(published: Published | bytes, lost: bool, why: str, name: str) -> None:
        assert isinstance(published, Published)
        assert not lost
        found.append(published.number)

    with pytest.raises(ConnectError, match="the subscription is over: BadTimeout"):
        asyncio.run(asyncio.wait_for(subscription.publish(take, asyncio.Event()), LIMIT_S))
    assert found == [2]
