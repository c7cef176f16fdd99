"""`derive:` of JSON and CSV products, run over the columns of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from operators.batch import Bytes, Float64
from operators.decode.derive_spec import Derived
from operators.decode.evaluate import BOOL, FLOAT, INT, TEXT, derive_columns

_KINDS = {"number": FLOAT, "integer": INT, "boolean": BOOL, "string": TEXT}


class Deriving:
    """Derived columns of one product, and the end of the internal ones.

    metrics: (name, type) in file order; internals: `_x` columns that decoding puts behind them.
    """

    def __init__(
        self, metrics: Sequence[tuple[str, str]], internals: Sequence[str], derive: Sequence[Derived]
    ) -> None:
        names = [name for name, _ in metrics] + list(internals)
        self.metrics = len(metrics)
        self.columns = (
            derive_columns({line.name: line.expression for line in derive}, names) if derive else None
        )
        self.param_names: tuple[str, ...] = self.columns.param_names if self.columns else ()
        extra = len(self.columns.names) - len(names) if self.columns else 0
        kinds = [_KINDS[kind] for _, kind in metrics] + [FLOAT] * (len(internals) + extra)
        self._kinds = np.array(kinds, np.uint8)
        self._extra = extra

    def run(
        self, value: Float64, quality: Bytes, params: Float64, texts: dict[int, str]
    ) -> tuple[Float64, Bytes]:
        """value float64[C, N], quality uint8[C, N] of metrics and internals, params float64[P, N];
        returns the metrics' alone, derived ones filled in; adds to `texts` what derive can say."""
        if self.columns is None:
            return value[: self.metrics], quality[: self.metrics]
        if self._extra:
            shape = (self._extra, value.shape[1])
            value = np.concatenate((value, np.full(shape, np.nan)))
            quality = np.concatenate((quality, np.full(shape, 3, np.uint8)))
        value, quality = self.columns.run(value, quality, params, self._kinds)
        texts.update(self.columns.texts)
        return value[: self.metrics], quality[: self.metrics]
