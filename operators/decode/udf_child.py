"""The process in which a plant's own Python decodes frames: `python -P udf_child.py`, driven by `udf.Child`.

Messages on standard input and output: eight bytes of length, then MessagePack. What the function prints
goes to standard error.
"""

from __future__ import annotations

import inspect
import os
import re
import resource
import struct
import sys
import traceback
from collections.abc import Callable
from types import FrameType
from typing import Any, BinaryIO

import msgspec

ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")
LONGEST = 300  # characters of a sentence


def main() -> int:
    """Load, then answer one call after another until standard input ends."""
    inward, outward = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    task = receive(inward)
    if task is None:
        return 0
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (task["memory"], task["memory"]))
    module: dict[str, Any] = {"__name__": "udf", "__file__": task["file"]}
    try:
        exec(compile(task["source"], task["file"], "exec"), module)  # noqa: S102  # the integrator's own code
        function = module[task["function"]]
        wanted = list(inspect.signature(function).parameters)
    except BaseException as error:
        send(outward, {"kind": "load", "error": sentence(error, task["file"])})
        return 0
    send(outward, {"ready": True})
    while (call := receive(inward)) is not None:
        arguments = {name: call[name] for name in wanted}
        send(outward, answer(function, arguments, task["file"], call["lines"], outward))
    return 0


def answer(
    function: Callable[..., Any], arguments: dict[str, Any], file: str, lines: int, outward: BinaryIO
) -> dict[str, Any]:
    """{"answers": one for each frame}, or {"kind", "error"}. lines: of Python, 0 = not counted."""
    try:
        if lines:
            sys.settrace(counting(lines, outward))
        try:
            found = function(**arguments)
        finally:
            sys.settrace(None)
        if not isinstance(found, list) or len(found) != len(arguments["frames"]):
            count = f"a list of {len(found)}" if isinstance(found, list) else type(found).__name__
            frames = len(arguments["frames"])
            wrong = f"a list with an answer for each of {frames} frames is expected, not {count}"
            return {"kind": "raised", "error": wrong}
        packed = msgspec.msgpack.encode(found, enc_hook=plain)
    except MemoryError:
        return {"kind": "memory", "error": "no memory is left"}
    except BaseException as error:
        return {"kind": "raised", "error": sentence(error, file)}
    return {"answers": msgspec.Raw(packed)}


def counting(most: int, outward: BinaryIO) -> Callable[..., Any]:
    """A trace function that ends the process after `most` lines, so that no `except` can go on."""
    count = 0

    def trace(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal count
        if event == "line":
            count += 1
            if count > most:
                send(outward, {"kind": "lines", "error": ""})
                os._exit(0)
        return trace

    return trace


def plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's."""
    for name in ("item", "tolist"):
        convert = getattr(value, name, None)
        if convert is not None and (name == "tolist" or getattr(value, "shape", None) == ()):
            return convert()
    raise TypeError(f"a {type(value).__name__} is no value of a reading")


def sentence(error: BaseException, file: str) -> str:
    """`ValueError: no such mode (products/torano.py:14)`, equal in every process."""
    lines = [one.lineno for one in traceback.extract_tb(error.__traceback__) if one.filename == file]
    if isinstance(error, SyntaxError) and not lines:
        lines = [error.lineno]
    place = f" ({file}:{lines[-1]})" if lines else ""
    try:
        text = ADDRESS.sub("0x..", str(error))[:LONGEST]
    except BaseException:
        text = ""
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def receive(stream: BinaryIO) -> Any:
    """The next message; None at the end."""
    head = stream.read(8)
    if len(head) < 8:
        return None
    return msgspec.msgpack.decode(stream.read(struct.unpack("<Q", head)[0]))


def send(stream: BinaryIO, message: Any) -> None:
    """Write one message."""
    body = msgspec.msgpack.encode(message)
    stream.write(struct.pack("<Q", len(body)) + body)
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
