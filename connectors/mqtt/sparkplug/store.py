"""What a receiver keeps of Sparkplug's births beside the journal, so that aliases mean something
after a restart: an LMDB environment of its own, a record for each edge node and device."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import lmdb
import msgspec

from connectors.errors import ConfigError
from connectors.mqtt.sparkplug.nodes import Device, Node

MAP_BYTES: Final = 1 << 30  # of address space; the file grows with what is in it
_SEQUENCES: Final = b"sequences"

log = logging.getLogger(__name__)


Birth = tuple[bytes, bytes]  # a record and its key, see `birth_of`


class _Record(msgspec.Struct, array_like=True):
    """One device; of a node (device "") also what is known of its session."""

    group: str
    node: str
    device: str
    state: Device
    bd_seq: int | None = None
    there: bool = False


class BirthStore:
    """Durable when `keep` returns. Raises `ConfigError` where it cannot be opened."""

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._environment = lmdb.open(str(folder), map_size=MAP_BYTES)
        except (OSError, lmdb.Error) as error:
            raise ConfigError(f"{folder}: {error}") from error

    def load(self) -> dict[tuple[str, str], Node]:
        """The nodes by group and name. Their sequence numbers are known only after an orderly end,
        and only once: what comes after that is not."""
        nodes: dict[tuple[str, str], Node] = {}
        with self._environment.begin(write=True) as transaction:
            after = transaction.pop(_SEQUENCES)
            for _, data in transaction.cursor():
                try:
                    one = msgspec.msgpack.decode(data, type=_Record)
                except msgspec.MsgspecError:  # of another version: its births are asked for
                    log.warning("a birth that was kept cannot be read; it is as if never heard")
                    continue
                node = nodes.setdefault((one.group, one.node), Node(one.group, one.node))
                node.devices[one.device] = one.state
                if not one.device:
                    node.bd_seq, node.there = one.bd_seq, one.there
        sequences = msgspec.msgpack.decode(after or b"\x90", type=list[tuple[str, str, int]])
        for group, name, expected in sequences:
            if (group, name) in nodes:
                nodes[group, name].expected = expected
                nodes[group, name].doubtful = False
        return nodes

    def keep(self, births: Iterable[Birth]) -> None:
        """In this order, in one commit."""
        try:
            with self._environment.begin(write=True) as transaction:
                for key, record in births:
                    transaction.put(key, record, overwrite=True)
        except lmdb.MapFullError:
            log.error("the births of edge nodes are beyond %d MB; they are not kept", MAP_BYTES >> 20)

    def close(self, nodes: Iterable[Node]) -> None:
        """An orderly end: sequence numbers are kept, those that have no gap."""
        whole = [
            (one.group, one.name, one.expected)
            for one in nodes
            if one.expected is not None and not one.doubtful and not one.missing
        ]
        with self._environment.begin(write=True) as transaction:
            transaction.put(_SEQUENCES, msgspec.msgpack.encode(whole))
        self._environment.close()


def birth_of(node: Node, name: str) -> Birth:
    """A device as its births and deaths so far have left it."""
    record = _Record(node.group, node.name, name, node.devices[name], node.bd_seq, node.there)
    return _key(node.group, node.name, name), msgspec.msgpack.encode(record)


def _key(*names: str) -> bytes:
    # names may be longer than a key of LMDB
    return hashlib.sha256("/".join(names).encode("utf-8", "surrogatepass")).digest()
