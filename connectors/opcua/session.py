"""One session with an OPC UA server: connected, subscribed, its publish responses as bytes.

asyncua makes the channel and the session. The publish requests are our own, so that the answers stay
bytes, none is acknowledged before the journal has it, and nothing is done a value in Python.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import UaError

from connectors.errors import ConnectError
from connectors.opcua.browse import node_id
from connectors.opcua.changes import Published, UnreadableError, read_published
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.nodes import Item

AT_ONCE: Final = 2  # publish requests that the server holds
KEEP_ALIVE_S: Final = 5.0  # a server with nothing to tell says so this often
LIFETIME: Final = 600  # publishings without a request, after which the server gives a subscription up
ITEMS_A_REQUEST: Final = 1000
WATCHDOG_S: Final = 15.0  # asyncua's own probe; also its time-out, so a second would be too short

log = logging.getLogger(__name__)

Take = Callable[[Published | bytes, bool, str], Awaitable[None]]
"""(a response, whether responses before it are lost, why it cannot be read); durable when it returns."""


class Subscription:
    """The monitored items of one session. `take` is awaited for each response, in order; the response is
    acknowledged with the next request after it."""

    def __init__(self, client: Client, config: OpcuaConfig, items: Sequence[Item]) -> None:
        self.client, self.config, self.items = client, config, items
        self.missing: dict[int, str] = {}  # item -> why the server does not tell of it
        self.gaps = 0
        self._session: Any = client.uaclient.session
        self._id = 0
        self._server_items: dict[int, int] = {}
        self._last = 0  # sequence number of the last response
        self._silence_s = 0.0

    async def create(self, namespaces: list[str]) -> None:
        """Ask for the subscription and all items."""
        interval_ms = self.config.publishing / 1e6
        request = ua.CreateSubscriptionRequest()
        given = request.Parameters
        given.RequestedPublishingInterval = interval_ms
        given.RequestedMaxKeepAliveCount = max(1, math.ceil(KEEP_ALIVE_S * 1000 / interval_ms))
        given.RequestedLifetimeCount = max(LIFETIME, 3 * given.RequestedMaxKeepAliveCount)
        given.MaxNotificationsPerPublish = 0
        given.PublishingEnabled = True
        data = await self._session._send_request(request)
        answer = struct_from_binary(ua.CreateSubscriptionResponse, data)
        answer.ResponseHeader.ServiceResult.check()
        revised = answer.Parameters
        self._id = revised.SubscriptionId
        self._silence_s = 3 * revised.RevisedPublishingInterval * revised.RevisedMaxKeepAliveCount / 1000 + 5
        await self.watch(range(len(self.items)), namespaces)

    async def watch(self, which: Sequence[int], namespaces: list[str]) -> None:
        """Ask for items; those that the server refuses are in `missing`."""
        for item in which:
            self.missing.pop(item, None)
        old = [self._server_items.pop(item) for item in which if item in self._server_items]
        if old:
            with suppress(UaError):
                await self._session.delete_monitored_items(ua.DeleteMonitoredItemsParameters(self._id, old))
        asked: list[tuple[int, Any]] = []
        for item in which:
            node = node_id(self.items[item].node, namespaces)
            if node is None:
                self.missing[item] = "BadNoNamespace"
            else:
                asked.append((item, self._request(item, node)))
        for first in range(0, len(asked), ITEMS_A_REQUEST):
            part = asked[first : first + ITEMS_A_REQUEST]
            parameters = ua.CreateMonitoredItemsParameters()
            parameters.SubscriptionId = self._id
            parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            parameters.ItemsToCreate = [one for _, one in part]
            results = await self._session.create_monitored_items(parameters)
            for (item, _), result in zip(part, results, strict=True):
                if result.StatusCode.is_good():
                    self._server_items[item] = result.MonitoredItemId
                else:
                    self.missing[item] = result.StatusCode.name

    def _request(self, item: int, node: Any) -> Any:
        said = self.items[item]
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor.NodeId = node
        request.ItemToMonitor.AttributeId = AttributeIds.Value
        request.ItemToMonitor.IndexRange = said.place
        request.MonitoringMode = ua.MonitoringMode.Reporting
        wanted = request.RequestedParameters
        wanted.ClientHandle = item
        sampling = said.sampling_ms if said.sampling_ms >= 0 else self.config.sampling / 1e6
        wanted.SamplingInterval = sampling
        wanted.QueueSize = max(1, self.config.queue)
        wanted.DiscardOldest = True
        if said.deadband > 0:
            wanted.Filter = ua.DataChangeFilter(
                ua.DataChangeTrigger.StatusValue,
                int(ua.DeadbandType.Percent if said.percent else ua.DeadbandType.Absolute),
                said.deadband,
            )
        return request

    async def publish(self, take: Take, stop: asyncio.Event) -> None:
        """Ask and take until `stop`. Raises `ConnectError` when the server answers no more or the
        subscription is over."""
        acknowledged: list[Any] = []
        waiting: deque[asyncio.Task[bytes]] = deque()
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                while len(waiting) < AT_ONCE:
                    waiting.append(asyncio.create_task(self._ask(acknowledged)))
                    acknowledged = []
                first = waiting[0]
                await asyncio.wait(
                    {first, stopping}, timeout=self._silence_s, return_when=asyncio.FIRST_COMPLETED
                )
                if stopping.done():
                    break
                if not first.done():
                    raise ConnectError(f"no answer for {self._silence_s:.0f} s")
                waiting.popleft()
                try:
                    body = first.result()
                except ua.uaerrors.BadTimeout:
                    continue
                number = await self._taken(body, take)
                if number:
                    acknowledged.append(
                        ua.SubscriptionAcknowledgement(SubscriptionId=self._id, SequenceNumber=number)
                    )
            if acknowledged:  # what is durable shall not come again
                waiting.append(asyncio.create_task(self._ask(acknowledged)))
                await asyncio.sleep(0)
        finally:
            stopping.cancel()
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _ask(self, acknowledged: list[Any]) -> bytes:
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = acknowledged
        return bytes(await self._session._send_request(request, timeout=0))

    async def _taken(self, body: bytes, take: Take) -> int:
        """Hand one response on; its number, if it is to be acknowledged."""
        try:
            published = read_published(body)
        except UnreadableError as error:
            await take(body, False, str(error))
            return 0
        if published.status is not None:
            raise ConnectError(f"the subscription is over: {ua.StatusCode(ua.UInt32(published.status)).name}")
        if not published.changes:  # a keep-alive: the number of the next
            self._gap(published.number)
            return 0
        lost = self._gap(published.number)
        self._last = published.number
        await take(published, lost, "")
        return published.number

    def _gap(self, number: int) -> bool:
        expected = self._last % 0xFFFFFFFF + 1
        if number == expected or not self._last:
            return False
        self.gaps += 1
        log.warning("notifications %d to %d are lost", expected, number - 1)
        self._last = (number - 1) or 0xFFFFFFFF
        return True
