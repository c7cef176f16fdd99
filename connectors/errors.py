"""Exceptions of the connectors.

    PenstockError                 what went wrong, and whether trying again can help
    +-- ConfigError               the user's configuration is wrong; never retryable
    +-- ConnectError              the peer cannot be reached, or ended the connection
    |   +-- AuthError             the peer refuses who we are; not retryable
    +-- JournalError              the journal cannot take or give entries
    |   +-- JournalFull           at its cap: stop acknowledging and try again later
    |   +-- JournalGap            the entries asked for have been trimmed
    |   +-- JournalTaken          another machine runs the shard; only people can say who shall
    +-- DeliveryError             a target refused what it was sent
        +-- PermanentDeliveryError  and always will: move it aside and go on

`retryable` is a field, so that a supervisor need not know the classes.
"""

from __future__ import annotations


class PenstockError(Exception):
    """Base of all: `str(error)` is one line that a person can act on."""

    retryable: bool = False


class ConfigError(PenstockError):
    """The configuration is wrong."""


class ConnectError(PenstockError):
    """The peer cannot be reached, or ended the connection."""

    retryable = True


class AuthError(ConnectError):
    """The peer refuses our user, password or certificate."""

    retryable = False


class JournalError(PenstockError):
    """The journal cannot take or give entries."""

    retryable = True


class JournalFull(JournalError):
    """The journal is at its cap; sources stop acknowledging until it has been trimmed."""


class JournalGap(JournalError):
    """The entries asked for have been trimmed away."""

    retryable = False


class JournalTaken(JournalError):
    """Another machine runs the shard of this journal."""

    retryable = False


class DeliveryError(PenstockError):
    """A target refused what it was sent."""

    retryable = True


class PermanentDeliveryError(DeliveryError):
    """A target will never take this; it is moved aside and the rest goes on."""

    retryable = False
