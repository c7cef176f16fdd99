"""Changes of master data that people make: checked, journaled, and answered by the flow.

They stand in the journal as an action of kind `master`, `{"id", "kind", "changes": [...], "by", "why"}`, and
count from there on, all of one action or nothing.
"""

from __future__ import annotations

from typing import Any, Final

from connectors.errors import ConfigError
from flows.alarm_actions import BY_MOST, WHY_MOST, checked_text
from operators.master import ChangeError, read_changes

CHANGES_MOST: Final = 10_000


def checked_changes(changes: Any, by: str, why: str | None) -> dict[str, Any]:
    """The action without its id. Raises `ConfigError` that says what is wrong with it; what only the
    plant can tell (a product, a number) its answer says."""
    if not isinstance(changes, list) or not changes:
        raise ConfigError("changes: a list of at least one change is expected")
    if len(changes) > CHANGES_MOST:
        raise ConfigError(f"changes: {len(changes)} at once; at most {CHANGES_MOST}")
    try:
        read_changes(changes)
    except ChangeError as error:
        raise ConfigError(f"changes{error.message}") from error
    return {
        "kind": "master",
        "changes": changes,
        "by": checked_text("by", by, BY_MOST),
        "why": None if why is None or not why.strip() else checked_text("why", why, WHY_MOST),
    }
