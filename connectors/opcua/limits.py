"""How much a server takes in one request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError

T = TypeVar("T")

MOST: Final = 1000  # of anything in one request, whatever the server says
_LIMITS: Final = (
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
    ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
)


class Limits(NamedTuple):
    """OPC 10000-5, 6.3.11 OperationLimits: 0 and nothing are no limit."""

    items_called: int = MOST
    nodes_read: int = MOST
    nodes_browsed: int = 100

    @classmethod
    async def read(cls, client: Client) -> Limits:
        """What a connected server says."""
        try:
            answers = await client.uaclient.session.read_attributes(
                [ua.NodeId(ua.Int32(one)) for one in _LIMITS], AttributeIds.Value
            )
        except UaError:
            return cls()
        said = [one.Value.Value if one.Value is not None else None for one in answers]
        return cls(*(
            min(own, value) if isinstance(value, int) and value > 0 else own
            for own, value in zip(cls(), said, strict=True)
        ))  # fmt: skip

    def items(self, several: Sequence[T]) -> Iterator[Sequence[T]]:
        """Parts of monitored items, one a request."""
        return parts(several, self.items_called)


def parts(several: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    """Parts of at most so many."""
    for first in range(0, len(several), most):
        yield several[first : first + most]
