"""One session with an OPC UA server: subscribed, its publish responses as bytes.

asyncua makes the channel and the session. The publish requests are our own, so that the answers stay
bytes, none is acknowledged before the journal has it, and nothing is done a value in Python.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.ua_binary import struct_from_binary
from asyncua.ua.uaerrors import UaError

from connectors.errors import ConnectError
from connectors.opcua.browse import node_id
from connectors.opcua.changes import NODE_GONE, Published, UnreadableError, read_published
from connectors.opcua.config import OpcuaConfig
from connectors.opcua.held import Held, HeldFile, asked_for, server_run
from connectors.opcua.limits import Limits
from connectors.opcua.nodes import Item

AT_ONCE: Final = 2  # publish requests that the server holds
KEEP_ALIVES: Final = 2  # a server with nothing to tell says so this often in the time of an answer
VALUES: Final = 20_000  # of one response; there are more at once where more are waiting
LIFETIME_S: Final = 300.0  # without a request; then the server gives a subscription up
MOST_MISSING: Final = 1000  # responses that are asked for again one by one
TRIES: Final = 5  # to take a subscription over, at a server that ends the connection for it
STOP_S: Final = 1.0  # for a response that is on its way into the journal
WRAP: Final = 0xFFFFFFFF  # sequence numbers go from 1 to this

log = logging.getLogger(__name__)

Take = Callable[[Published | bytes, bool, str, str], Awaitable[None]]
"""(a response, whether responses before it are lost, why it cannot be read, its name for ever); durable when
it returns."""


class Subscription:
    """The monitored items of one session. `take` is awaited for each response, in order; the response is
    acknowledged with the next request after it.

    A subscription outlives its session: the server keeps it for `LIFETIME_S`, with what was not
    acknowledged, and the next session takes it over (`file` says which it was)."""

    def __init__(self, client: Client, config: OpcuaConfig, items: Sequence[Item], file: HeldFile) -> None:
        self.client, self.config, self.items, self.file = client, config, items, file
        self.missing: dict[int, str] = {}  # item -> why the server does not tell of it
        self.resumed = False  # there was one before
        self.taken_over = False  # and nothing of it is lost
        self.slower: dict[int, float] = {}  # item -> milliseconds between samples, where more than asked for
        self.shorter: dict[int, int] = {}  # item -> values that the server keeps, where fewer than asked for
        self._session: Any = client.uaclient.session
        self._id = 0
        self._name = ""
        self.held: Held | None = None  # what the next session may take over
        self._limits = Limits()
        self._namespaces: list[str] = []
        self._server_items: dict[int, int] = {}
        self._last = 0  # sequence number of the last response; 0: unknown
        self._gap = False  # responses behind it are lost
        self._again: list[int] = []  # responses that the server has sent before, and still has
        self._silence_s = 0.0
        self._looked = 0

    async def create(self, held: Held | None) -> None:
        """Take over what an earlier session left (`held`, else what the file says), or ask for the
        subscription and all items."""
        self._limits = await Limits.read(self.client)
        self._namespaces = await self.client.get_namespace_array()
        (started,) = await self._session.read_attributes(
            [ua.NodeId(ua.Int32(ObjectIds.Server_ServerStatus_StartTime))], AttributeIds.Value
        )
        server = server_run(self.config.endpoint, started.Value.Value if started.Value else None)
        asked = asked_for(self.config, self.items, self._namespaces)
        held = held or self.file.read()
        self.resumed = held is not None
        if held is not None and held.server == server:
            self.taken_over = await self._take_over(held, held.asked == asked)
        if not self.taken_over:
            self.held = await self._create(server, asked)
        self._keep(0)

    async def _take_over(self, held: Held, wanted: bool) -> bool:
        if held.tries >= TRIES:
            return False
        held.tries += 1
        self._write(held, held.last)
        given = ua.TransferSubscriptionsParameters()
        given.SubscriptionIds, given.SendInitialValues = [ua.UInt32(held.subscription)], False
        try:
            (result,) = await self._session.transfer_subscriptions(given)
            if not result.StatusCode.is_good():
                return False
            if not wanted:
                await self._session.delete_subscriptions([held.subscription])
                return False
        except UaError:
            return False
        held.tries = 0
        self.held, self._id, self._name = held, held.subscription, held.name
        self._silence_s, self._last = held.silence_s, held.last
        self.missing, self._server_items = dict(held.missing), dict(held.server_items)
        sent = sorted(result.AvailableSequenceNumbers or (), key=lambda number: (number - held.last) % WRAP)
        self._again = [number for number in sent if not held.last or 0 < number - held.last < WRAP // 2]
        return True

    async def _create(self, server: str, asked: str) -> Held:
        interval_ms = self.config.publishing / 1e6
        request = ua.CreateSubscriptionRequest()
        given = request.Parameters
        given.RequestedPublishingInterval = interval_ms
        timeout_s = self.config.timeout / 1e9
        given.RequestedMaxKeepAliveCount = max(1, math.ceil(timeout_s * 1000 / KEEP_ALIVES / interval_ms))
        given.RequestedLifetimeCount = max(
            math.ceil(LIFETIME_S * 1000 / interval_ms), 3 * given.RequestedMaxKeepAliveCount
        )
        given.MaxNotificationsPerPublish = VALUES
        given.PublishingEnabled = True
        data = await self._session._send_request(request)
        answer = struct_from_binary(ua.CreateSubscriptionResponse, data)
        answer.ResponseHeader.ServiceResult.check()
        revised = answer.Parameters
        self._id, self._name = revised.SubscriptionId, os.urandom(8).hex()
        keep_alive_s = revised.RevisedPublishingInterval * revised.RevisedMaxKeepAliveCount / 1000
        self._silence_s = 3 * keep_alive_s + timeout_s / 2
        held = Held(self._id, server, asked, self._name, self._silence_s, self.missing, self._server_items)
        await self.watch(range(len(self.items)))
        return held

    def _keep(self, last: int) -> None:
        """Write down what the next process needs to take the subscription over."""
        if self.held is None:
            return
        self.held.missing, self.held.server_items = self.missing, self._server_items
        self._write(self.held, last)

    def _write(self, held: Held, last: int) -> None:
        try:
            self.file.write(held, last)
        except OSError as error:
            log.warning("%s: %s; a restart will not go on where it was", self.file.path, error.strerror)

    async def watch(self, which: Iterable[int]) -> None:
        """Ask for items; those that the server refuses are in `missing`."""
        which = list(which)
        for item in which:
            self.missing.pop(item, None)
        old = [self._server_items.pop(item) for item in which if item in self._server_items]
        for part in self._limits.items(old):
            with suppress(UaError):
                await self._session.delete_monitored_items(
                    ua.DeleteMonitoredItemsParameters(self._id, list(part))
                )
        asked: list[tuple[int, Any]] = []
        for item in which:
            node = node_id(self.items[item].node, self._namespaces)
            if node is None:
                self.missing[item] = "BadNoNamespace"
            else:
                asked.append((item, self._request(item, node)))
        for some in self._limits.items(asked):
            parameters = ua.CreateMonitoredItemsParameters()
            parameters.SubscriptionId = self._id
            parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
            parameters.ItemsToCreate = [one for _, one in some]
            results = await self._session.create_monitored_items(parameters)
            for (item, request), result in zip(some, results, strict=True):
                if result.StatusCode.is_good():
                    self._server_items[item] = result.MonitoredItemId
                    self._revised(item, request.RequestedParameters, result)
                else:
                    self.missing[item] = self._why(item, result.StatusCode.name)

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

    def _revised(self, item: int, wanted: Any, result: Any) -> None:
        """What the server grants instead of what was asked for: less of either loses values in silence."""
        self.slower.pop(item, None)
        self.shorter.pop(item, None)
        if result.RevisedSamplingInterval > max(wanted.SamplingInterval, 0.0) * 1.01:
            self.slower[item] = float(result.RevisedSamplingInterval)
        if result.RevisedQueueSize < wanted.QueueSize:
            self.shorter[item] = int(result.RevisedQueueSize)

    def _why(self, item: int, refused: str) -> str:
        """A refusal with what it means for this item."""
        said = self.items[item]
        if "Filter" in refused and said.deadband > 0:
            needed = "an EURange at the node" if said.percent else "a number"
            return f"{refused}: a deadband of {said.deadband:g}{'%' * said.percent} needs {needed}"
        if "IndexRange" in refused:
            return f"{refused}: index {said.place} is no place in its array"
        return refused

    def absent(self, statuses: Mapping[int, int]) -> None:
        """Items of which the server has told that there is nothing to tell."""
        for item, status in statuses.items():
            self.missing.setdefault(item, self._why(item, ua.StatusCode(ua.UInt32(status)).name))

    async def look(self) -> None:
        """Whether the server still has the nodes of the next items: not every server tells by itself."""
        told = [
            item for item in sorted(self._server_items)
            if node_id(self.items[item].node, self._namespaces) is not None
        ]  # fmt: skip
        if not told:
            return
        if self._looked >= len(told):
            self._looked = 0
        part = told[self._looked : self._looked + self._limits.nodes_read]
        self._looked += len(part)
        nodes = [node_id(self.items[item].node, self._namespaces) for item in part]
        answers = await self._session.read_attributes(nodes, AttributeIds.NodeClass)
        found = [0 if one.StatusCode is None else one.StatusCode.value for one in answers]
        self.absent({item: one for item, one in zip(part, found, strict=True) if one in NODE_GONE})

    async def again(self) -> None:
        """Ask again for what is missing; a namespace may have come."""
        if not self.missing:
            return
        self._namespaces = await self.client.get_namespace_array()
        before = dict(self.missing)
        await self.watch(sorted(self.missing))
        if self.missing != before:
            self._keep(0)

    async def publish(self, take: Take, stop: asyncio.Event) -> None:
        """Ask and take until `stop`. Raises `ConnectError` when the server answers no more or the
        subscription is over."""
        acknowledged: list[Any] = []
        waiting: deque[asyncio.Task[bytes]] = deque()
        stopping = asyncio.create_task(stop.wait())
        try:
            for number in self._again:
                if (body := await self._sent_before(number)) is not None:
                    await self._until(self._taken(body, take, acknowledged), stopping)
            self._again = []
            while not stop.is_set():
                while len(waiting) < AT_ONCE:
                    waiting.append(asyncio.create_task(self._ask(acknowledged)))
                    acknowledged = []
                first = waiting[0]
                await asyncio.wait(
                    {first, stopping}, timeout=self._silence_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not first.done():
                    if stopping.done():
                        break
                    raise ConnectError(f"no answer for {self._silence_s:.0f} s")
                waiting.popleft()
                try:
                    body = first.result()
                except ua.uaerrors.BadTimeout:
                    continue
                await self._until(self._taken(body, take, acknowledged), stopping)
            if acknowledged:  # what is durable shall not come again
                waiting.append(asyncio.create_task(self._ask(acknowledged)))
                await asyncio.sleep(0)
        finally:
            stopping.cancel()
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            self._keep(self._last)

    async def _until(self, work: Awaitable[None], stopping: asyncio.Task[Any]) -> None:
        """Await it; after the stop only for a moment. What is then on its way into the journal is not
        acknowledged, comes again, and is known there by its name."""
        task = asyncio.ensure_future(work)
        try:
            await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait({task}, timeout=STOP_S if stopping.done() else None)
            if not task.done():
                log.warning("stopped with a response that the journal does not take")
        finally:
            if not task.done():
                task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    async def _ask(self, acknowledged: list[Any]) -> bytes:
        request = ua.PublishRequest()
        request.Parameters.SubscriptionAcknowledgements = acknowledged
        return bytes(await self._session._send_request(request, timeout=0))

    async def _sent_before(self, number: int) -> bytes | None:
        """A response once more; None where the server does not have it any more."""
        request = ua.RepublishRequest()
        request.Parameters.SubscriptionId = self._id
        request.Parameters.RetransmitSequenceNumber = number
        try:
            return bytes(await self._session._send_request(request))
        except UaError:
            return None

    async def _taken(self, body: bytes, take: Take, acknowledged: list[Any]) -> None:
        """Hand one response on, after those before it that did not come; what is then in the journal is
        added to `acknowledged`."""
        try:
            published = read_published(body)
        except UnreadableError as error:
            await take(body, False, str(error), "")
            return
        if published.status is not None and published.status >> 30:
            self.held = None
            self.file.forget()
            raise ConnectError(f"the subscription is over: {ua.StatusCode(ua.UInt32(published.status)).name}")
        await self._fill(published.number, take, acknowledged)
        await self._hand(published, take, acknowledged)

    async def _hand(self, published: Published, take: Take, acknowledged: list[Any]) -> None:
        if published.changes:
            await take(published, self._gap, "", f"opcua:{self._name}:{published.number}")
            self._gap = False
        elif published.status is None:  # a keep-alive, which has the number of the next
            return
        # a good status tells that another session has taken the subscription over: us, some time ago
        self._last = published.number
        if self.held is not None:
            self.held.last = self._last
        acknowledged.append(
            ua.SubscriptionAcknowledgement(SubscriptionId=self._id, SequenceNumber=published.number)
        )

    async def _fill(self, number: int, take: Take, acknowledged: list[Any]) -> None:
        """Ask for the responses between the last and this one; those that are lost are a gap before the
        next that is handed on."""
        if not self._last:
            return
        expected = self._last % WRAP + 1
        count = (number - expected) % WRAP
        if not 0 < count < WRAP // 2:
            return
        lost = max(0, count - MOST_MISSING)
        for missing in range(expected, expected + min(count, MOST_MISSING)):
            body = await self._sent_before((missing - 1) % WRAP + 1)
            if body is None:
                self._gap = True
                lost += 1
                continue
            try:
                published = read_published(body)
            except UnreadableError as error:
                await take(body, self._gap, str(error), "")
            else:
                await self._hand(published, take, acknowledged)
        self._gap |= count > MOST_MISSING
        if lost:
            log.warning("%d notifications between %d and %d are lost", lost, expected, number)
        self._last = (number - 2) % WRAP + 1
