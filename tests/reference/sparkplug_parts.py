"""Metrics of several values as single ones, the plain way, after connectors/mqtt/README.md.

A shape is {"template": [(name, shape), ...]}, {"table": (columns, rows)}, {"array": [...]}, or a value.
"""

from __future__ import annotations


def parts(name, shape):
    """[(name, value)] in their order."""
    if not isinstance(shape, dict):
        return [(name, shape)]
    if "template" in shape:
        return [part for member, below in shape["template"] for part in parts(f"{name}/{member}", below)]
    if "array" in shape:
        return [(f"{name}/{number}", value) for number, value in enumerate(shape["array"])]
    columns, rows = shape["table"]
    found = []
    for number, row in enumerate(rows):
        path = name if number == 0 else f"{name}/{number}"
        found += [(f"{path}/{column}", value) for column, value in zip(columns, row, strict=True)]
    return found


def after(known, told, wholes):
    """What a device has last, where `told` [(name, value)] follows what is known. wholes: names of tables and
    arrays in it: what they had before and have no more is null."""
    now = dict(known)
    for name in known:
        if any(name.startswith(whole + "/") for whole in wholes):
            now[name] = None
    return now | dict(told)
