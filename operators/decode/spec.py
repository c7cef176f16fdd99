"""What a product's `decode:` section says."""

from __future__ import annotations

from typing import Any

import msgspec


class DecodeSpec(msgspec.Struct, kw_only=True):
    """A decode section that has passed its checks; `plain` is the section as written."""

    format: str
    plain: dict[str, Any]
