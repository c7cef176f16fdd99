"""Units as OPC UA servers name them, in UCUM.

A server gives the common code of UNECE Recommendation 20 as a number, the code's ASCII bytes one behind
the other (OPC 10000-8, 5.6.3), and a text for people.
"""

from __future__ import annotations

from typing import Final

UCUM: Final = {
    "CEL": "Cel", "KEL": "K", "FAH": "[degF]", "BAR": "bar", "MBR": "mbar", "PAL": "Pa", "A97": "hPa",
    "KPA": "kPa", "MPA": "MPa", "PS": "[psi]", "RPM": "{rev}/min", "RPS": "{rev}/s", "HTZ": "Hz",
    "KHZ": "kHz", "MHZ": "MHz", "WTT": "W", "KWT": "kW", "MAW": "MW", "WHR": "W.h", "KWH": "kW.h",
    "MWH": "MW.h", "D46": "V.A", "KVA": "kV.A", "JOU": "J", "KJO": "kJ", "3B": "MJ", "VLT": "V", "2Z": "mV",
    "KVT": "kV", "AMP": "A", "4K": "mA", "B84": "uA", "OHM": "Ohm", "B49": "kOhm", "SIE": "S", "D10": "S/m",
    "FAR": "F",
    "C26": "ms", "SEC": "s", "MIN": "min", "HUR": "h", "DAY": "d", "B98": "us",
    "MTR": "m", "CMT": "cm", "MMT": "mm", "4H": "um", "KMT": "km", "INH": "[in_i]", "FOT": "[ft_i]",
    "MTK": "m2", "CMK": "cm2", "MMK": "mm2", "MTQ": "m3", "LTR": "L", "MLT": "mL", "CMQ": "cm3",
    "KGM": "kg", "GRM": "g", "MGM": "mg", "TNE": "t", "KMQ": "kg/m3", "23": "g/cm3",
    "MTS": "m/s", "C16": "mm/s", "KMH": "km/h", "2X": "m/min", "MSK": "m/s2",
    "MQH": "m3/h", "MQS": "m3/s", "L2": "L/min", "G51": "L/s", "E32": "L/h", "KGS": "kg/s", "E93": "kg/h",
    "NEW": "N", "B47": "kN", "NU": "N.m", "DD": "deg", "C81": "rad", "P1": "%", "59": "[ppm]", "LUX": "lx",
    "C45": "nm", "C65": "Pa.s", "C24": "mPa.s", "B43": "kJ/(kg.K)", "D33": "T", "Q30": "[pH]", "2N": "dB",
}  # fmt: skip


def unece_code(number: int) -> str:
    """The common code that a number stands for; "" where it stands for none."""
    if not 0 < number < 1 << 32:
        return ""
    code = number.to_bytes(4, "big").lstrip(b"\0")
    return code.decode("ascii") if code.isalnum() else ""
