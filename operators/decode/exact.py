"""Arithmetic that rounds once: scaling by a fraction, and rounding to decimal places.

Small and stable, so kernels of other files call it (see `operators.jit`). Double-double steps
are those of T. J. Dekker, "A floating-point technique for extending the available precision",
Numer. Math. 18 (1971), 224-242.
"""

from __future__ import annotations

import math

from operators.jit import inline

EXACT = 9007199254740992.0  # 2**53: every smaller whole number is a double
_SPLIT = 134217729.0  # 2**27 + 1


@inline
def two_sum(a: float, b: float) -> tuple[float, float]:
    """(s, e): s = fl(a + b) and s + e = a + b exactly."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


@inline
def two_product(a: float, b: float) -> tuple[float, float]:
    """(p, e): p = fl(a * b) and p + e = a * b exactly, if nothing overflows."""
    p = a * b
    t = _SPLIT * a
    ah = t - (t - a)
    al = a - ah
    t = _SPLIT * b
    bh = t - (t - b)
    bl = b - bh
    return p, ((ah * bh - p) + ah * bl + al * bh) + al * bl


@inline
def scaled_exactly(
    high: float, low: float, a_high: float, a_low: float, b_high: float, b_low: float, d: float
) -> float:
    """((high + low) * (a_high + a_low) + (b_high + b_low)) / d, rounded once (to within 2**-100)."""
    p, e = two_product(high, a_high)
    if not math.isfinite(p) or not math.isfinite(e):
        return (high * a_high + b_high) / d
    e += high * a_low + low * a_high
    s, t = two_sum(p, b_high)
    t += e + b_low
    s, t = two_sum(s, t)
    q = s / d
    if not math.isfinite(q):
        return q
    p, e = two_product(q, d)
    rest = ((s - p) - e) + t
    return q + rest / d


@inline
def scaled(value: float, a_high: float, a_low: float, b_high: float, b_low: float, d: float) -> float:
    """(value * a + b) / d in one rounding, for a whole value, a and b where that fits a double."""
    product = value * a_high
    if (
        a_low == 0.0
        and b_low == 0.0
        and math.fabs(product) + math.fabs(b_high) < EXACT
        and math.floor(value) == value
    ):
        return (product + b_high) / d
    return scaled_exactly(value, 0.0, a_high, a_low, b_high, b_low, d)


@inline
def ten_to(n: int) -> float:
    """10**n for 0 <= n <= 22, exactly."""
    power = 1.0
    for _ in range(n):
        power *= 10.0
    return power


@inline
def rounded(value: float, digits: int) -> float:
    """`value` to `digits` decimals (-15..15), half away from zero on its shortest decimal: 4.475 to
    two is 4.48. A tie (2k + 1) / (2 * 10**digits) of at most 15 digits is the only such decimal of
    its double, so comparing doubles decides; larger values have no such decimals left.
    """
    size = math.fabs(value)
    if not size < 4503599627370496.0 and (digits >= 0 or not math.isfinite(value)):
        return value
    if digits >= 0:
        power = ten_to(digits)
        guess = size * power
        if guess >= 4503599627370496.0:
            return value
        start = math.floor(guess) - 1.0
        best = start
        for step in range(3):
            whole = start + step
            if (2.0 * whole + 1.0) / (2.0 * power) <= size:
                best = whole + 1.0
        result = max(best, 0.0) / power
    else:
        power = ten_to(-digits)
        start = math.floor(size / power) - 1.0
        best = start
        for step in range(3):
            whole = start + step
            if (2.0 * whole + 1.0) * (power / 2.0) <= size:
                best = whole + 1.0
        result = max(best, 0.0) * power
    return -result if value < 0.0 else result
