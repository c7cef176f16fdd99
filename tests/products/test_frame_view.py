"""`penstock decode` for people: each field's bytes, value and unit, and what a check says."""

from __future__ import annotations

import io
from pathlib import Path

from click.testing import CliRunner
from rich.console import Console

from flows.decode_command import decode, open_spec
from flows.frame_answers import answers_of
from flows.frame_view import show
from operators.decode.explain import Frame

LIBRARY = Path(__file__).parents[2] / "examples" / "products"
RTU = "11 03 12 80 00 43 66 48 00 C4 9C CD 15 07 5B 13 86 FF DD 00 05 00 61"


def decoded(product: str, *arguments: str) -> list[str]:
    path = str(LIBRARY / f"{product}.yaml")
    ran = CliRunner().invoke(decode, [path, *arguments], standalone_mode=False)
    assert ran.exception is None, ran.exception
    return [" ".join(line.split()) for line in ran.output.splitlines()]


def test_bytes_values_units_and_the_check() -> None:
    lines = decoded("modbus-rtu-meter", "--hex", RTU)
    assert lines[:4] == [
        "23 bytes",
        "0000 11 03 12 80 00 43 66 48 00 c4 9c cd 15 07 5b 13 .....CfH......[.",
        "0010 86 ff dd 00 05 00 61 ......a",
        "reading at its time of arrival",
    ]
    assert "3..6 80 00 43 66 voltage 230.5 V" in lines
    assert lines[-1] == "crc16 at 21..22 fits"


def test_a_check_that_does_not_fit() -> None:
    lines = decoded("modbus-rtu-meter", "--hex", RTU.replace("66 48", "67 48"))
    assert lines[3] == "rejected: check: the check at byte 21 does not fit the bytes that it covers"
    assert lines[4].startswith("crc16 over bytes 0..20 is ")
    assert lines[4].endswith("the frame says 00 61")
    lines = decoded("mbus-heat-meter", "--hex", "68 03 03 68 08 02 72 7D 16")
    assert lines[-1] == "sum8 over bytes 4..6 is 7c, the frame says 7d"


def test_derived_values_ranges_and_text(tmp_path: Path) -> None:
    lines = decoded(
        "modbus-tcp-drive", "--hex", "0007 0000 0013 01 04 10 0000 4291 0000 4050 9C40 8003 5180 0001"
    )
    assert "13..16 00 00 40 50 current 3.25 A" in lines
    assert "17..18 9c 40 speed 40000 {rev}/min outside 0..6000" in lines
    assert '- mode "fault"' in lines
    lines = decoded("modbus-tcp-drive", "--hex", "0008 0000 0003 01 84 02")
    assert lines[-1] == "no reading: the layout ignores this frame"
    lines = decoded("senml-pack", "--hex", b'[{"bt": 1772355600, "n": "voltage", "v": 3.5}]'.hex())
    assert lines[1:3] == [
        '[{"bt": 1772355600, "n": "voltage", "v": 3.5}]',
        "reading at 2026-03-01T09:00:00.000Z",
    ]


def test_fields_and_their_bytes_share_a_colour() -> None:
    given = open_spec(LIBRARY / "modbus-rtu-meter.yaml", None)
    payload = bytes.fromhex(RTU)
    (answer,) = answers_of(given, [Frame(payload)], point=True)
    out = io.StringIO()
    show(
        Console(file=out, force_terminal=True, color_system="standard", width=120), payload, -1, answer, given
    )
    yellow = "\x1b[33m"
    assert f"{yellow}80\x1b[0m" in out.getvalue()
    assert f"{yellow}voltage" in out.getvalue()
    assert "\x1b[30;42m61\x1b[0m" in out.getvalue()
