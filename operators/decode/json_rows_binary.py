"""JSON frames whose array holds frames of a binary layout (`rows: "frames[*]"` with `binary: data`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from operators.batch import Float64, FrameBatch, Int64
from operators.decode.columns import Decoded
from operators.decode.json_binary import JsonBinaryDecoder
from operators.decode.json_decoder import details, event_times
from operators.decode.json_rows import JsonRowsDecoder, cut_elements, reading_index, split_device, texts_at
from operators.decode.json_spec import JsonSpec


class JsonRowsBinaryDecoder:
    """Each element is a frame of the layout; one that is refused makes its whole frame a reject. Without
    a time of its own an element has the frame's.

    params: defaults; device_params: device_id -> its own, for payloads that name devices.
    """

    def __init__(
        self,
        spec: JsonSpec,
        metrics: tuple[tuple[str, str], ...],
        *,
        depth: int = 64,
        params: Mapping[str, float] | None = None,
        device_params: Mapping[str, Mapping[str, float]] | None = None,
    ) -> None:
        assert spec.rows is not None
        self.spec, self.rows = spec, spec.rows
        self._array = JsonRowsDecoder(
            replace(spec, binary=None, layout=None, container=None), (), depth=depth
        )
        self._frame_device, self._row_device = split_device(self.rows.device)
        element = replace(spec, timestamp=self.rows.timestamp, hub_timestamp=None, rows=None)
        device = None if self._row_device is None else self._row_device.paths[0]
        self._inner = JsonBinaryDecoder(element, metrics, depth=depth, device=device)
        self.param_names = self._inner.param_names
        self._params, self._device_params = params or {}, device_params or {}

    def decode(self, frames: FrameBatch, rows: Int64, params: Float64) -> Decoded:
        """See `Decoder`."""
        outer = self._array.outer.walk(frames, rows)
        frame_ts, frame_source = event_times(outer, self.spec, frames.ingest_ns[rows])
        details(outer)
        elements = self._array.elements(frames, rows, outer)
        frame = elements.frame
        inside = replace(cut_elements(frames, rows, elements), ingest_ns=frame_ts[frame])
        every = np.arange(len(frame), dtype=np.int64)
        names: list[str] | None = None
        if self._frame_device is not None:
            whole = texts_at(frames, outer.spans[0])
            names = [whole[row] for row in frame.tolist()]
        elif self._row_device is not None:
            names = texts_at(frames, self._inner.walker.walk(inside, every).spans[0])
        found = self._inner.decode(inside, every, self._element_params(params, frame, names))
        for at in np.flatnonzero(found.status > 0).tolist():
            row = int(frame[at])
            if outer.status[row]:
                continue
            here = int(found.place[at])
            outer.status[row], outer.place[row] = found.status[at], here
            outer.detail[row] = f"{elements.where(at)}: {found.detail.get(at, '')}"
        keep = np.flatnonzero(outer.status[frame[found.frame]] == 0)
        element = found.frame[keep]
        of_frame = frame[element].astype(np.int32)
        own = found.time_source[keep] == 0
        if found.unknown_frame is not None:
            outer.unknown_frame[frame[found.unknown_frame != 0]] = 1
        return Decoded(
            frame=of_frame,
            index=reading_index(of_frame),
            ts_ns=found.ts_ns[keep],
            time_source=np.where(own, 0, frame_source[of_frame]).astype(np.uint8),
            value=np.ascontiguousarray(found.value[:, keep]),
            quality=np.ascontiguousarray(found.quality[:, keep]),
            status=outer.status,
            place=outer.place,
            texts=found.texts,
            detail=outer.detail,
            unknown=found.unknown,
            unknown_frame=outer.unknown_frame,
            names=None if names is None else [names[at] for at in element.tolist()],
        )

    def _element_params(self, params: Float64, frame: Int64, names: list[str] | None) -> Float64:
        if names is None or not self.param_names:
            return np.ascontiguousarray(params[:, frame])
        columns = np.empty((len(self.param_names), len(names)))
        for row, param in enumerate(self.param_names):
            default = self._params.get(param, np.nan)
            columns[row] = [self._device_params.get(name, {}).get(param, default) for name in names]
        return columns
