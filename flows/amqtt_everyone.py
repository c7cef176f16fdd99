"""Who may connect to the embedded demo broker: everyone, as the broker listens on loopback alone.

amqtt's own plugin for that marks sessions as anonymous, and keeps no messages for those while they
are away; a receiver's session must outlive its connection.
"""

from __future__ import annotations

from amqtt.plugins.base import BaseAuthPlugin
from amqtt.session import Session


class AcceptEveryone(BaseAuthPlugin):  # type: ignore[misc]  # amqtt is untyped here
    """Accepts every client, with or without a name."""

    async def authenticate(self, *, session: Session) -> bool | None:
        """True."""
        return True
