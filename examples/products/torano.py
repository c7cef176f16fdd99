"""Torano TH-7: values in text, packed by a run-length code of the maker's own, which no layout can say.

`T+214;H55;X3*A` is a temperature in tenths, a humidity, and the letter A three times: one letter for
each hour that the door stood open. `!E12` is a fault.
"""


def decode(frames, ports, received):
    """An answer for each frame: a list of readings, a text that refuses the frame, or None for nothing.

    frames: list of bytes. ports: list of int or None. received: list of ms since 1970.
    """
    return [one(frame, port, at) for frame, port, at in zip(frames, ports, received, strict=True)]


def one(frame, port, at):
    text = frame.decode("ascii")
    if port == 99:
        return None  # a frame of the network itself
    if text.startswith("!"):
        return f"the device reports fault {text[1:]}"
    metrics = {}
    for part in text.split(";"):
        if part[0] == "T":
            metrics["temperature"] = int(part[1:]) / 10
        elif part[0] == "H":
            metrics["humidity"] = int(part[1:])
        elif part[0] == "X":
            count, letter = part[1:].split("*")
            metrics["doorOpenHours"] = int(count)
            metrics["door"] = {"A": "front", "B": "back"}[letter]
    return [{"time": None, "metrics": metrics}]
