"""The content of a file as UTF-8: unpacked and transcoded, piece by piece in bounded memory."""

from __future__ import annotations

import bz2
import codecs
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Final

from connectors.files.config import FilesConfig

PIECE: Final = 256 << 10
UNPACKED_PIECE: Final = 1 << 20
ZSTD_PIECE: Final = 1 << 10  # its unpacker has no bound for what it gives: 128 KB for 4 bytes at most
XZ_MEMORY: Final = 256 << 20
ZSTD_WINDOW: Final = 128 << 20
RATIO_FROM: Final = 64_000_000
BOM: Final = b"\xef\xbb\xbf"
SUFFIXES: Final = {".gz": "gz", ".zst": "zst", ".bz2": "bz2", ".xz": "xz"}
BAD: Final = b"\xff"  # in the place of what is no text of the encoding: never UTF-8, so the row is rejected
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


class BrokenFileError(Exception):
    """Why nothing more can be read of a file that is there: the sentence of its reject."""


def packing(name: str, config: FilesConfig) -> str:
    """`none`, `gz`, `zst`, `bz2` or `xz`: as configured, else by the file's name."""
    if config.compressed != "auto":
        return config.compressed
    return next((kind for suffix, kind in SUFFIXES.items() if name.lower().endswith(suffix)), "none")


def plain_name(name: str, config: FilesConfig) -> str:
    """A file's name without the ending of its packing."""
    kind = packing(name, config)
    return name[: -len(kind) - 1] if name.lower().endswith("." + kind) else name


class Content:
    """The bytes of UTF-8 of one open file.

    is_plain: they are the file's own, so that `start_at` is cheap. Iterating gives pieces of at
    most 1 MiB (32 MB where zstd packed zeroes); raises OSError, and BrokenFileError for a packed
    file that is damaged, cut short, or larger than `max_unpacked` and `max_ratio` allow.
    """

    def __init__(self, file: BinaryIO, name: str, config: FilesConfig) -> None:
        self._file = file
        self._config = config
        self._packing = packing(name, config)
        head = file.read(4) if self._packing == "none" else b""
        self.encoding = _encoding(config.encoding, head)
        self.is_plain = self._packing == "none" and self.encoding == "utf-8"
        self.at = len(BOM) if self.is_plain and head.startswith(BOM) else 0  # offset of the next piece
        file.seek(self.at)

    def start_at(self, offset: int) -> None:
        """Begin there; of plain content only."""
        assert self.is_plain
        self.at = offset
        self._file.seek(offset)

    def __iter__(self) -> Iterator[bytes]:
        if self._packing == "none":
            pieces = iter(lambda: self._file.read(PIECE), b"")
        else:
            pieces = self._unpacked()
        if self.is_plain:
            return pieces
        return self._transcoded(pieces)

    def _unpacked(self) -> Iterator[bytes]:
        size, total = 0, 0
        unpack: Any = None
        kind, limit, ratio = self._packing, self._config.max_unpacked, self._config.max_ratio
        while data := self._file.read(ZSTD_PIECE if kind == "zst" else PIECE):
            size += len(data)
            while data:
                if unpack is None:
                    data = data.lstrip(b"\0") if total else data  # padding between and behind streams
                    if not data:
                        break
                    unpack = _unpacker(kind)
                try:
                    for piece in _pieces(kind, unpack, data):
                        total += len(piece)
                        if total > limit:
                            raise BrokenFileError(f"unpacks to more than {limit} bytes (max_unpacked)")
                        if total > RATIO_FROM and total > ratio * size:
                            raise BrokenFileError(f"unpacks to more than {ratio} times its size (max_ratio)")
                        yield piece
                except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError) as error:
                    raise BrokenFileError(f"is no {kind} file, or damaged: {error}") from error
                except Exception as error:  # zstandard's own, which is loaded only with its first file
                    if type(error).__name__ != "ZstdError":
                        raise
                    raise BrokenFileError(f"is no {kind} file, or damaged: {error}") from error
                data = unpack.unused_data if unpack.eof else b""
                if unpack.eof:
                    unpack = None
        if unpack is not None:
            raise BrokenFileError(f"its {kind} stream ends too early")

    def _transcoded(self, pieces: Iterator[bytes]) -> Iterator[bytes]:
        first = b""
        if self._packing != "none" and self._config.encoding is None:
            # enough for a byte order mark
            while len(first) < 4 and (piece := next(pieces, b"")):
                first += piece
            self.encoding = _encoding(None, first)
        if self.encoding == "utf-8":
            yield first.removeprefix(BOM) if first else b""
            begun = bool(first)
            for piece in pieces:
                yield piece if begun else piece.removeprefix(BOM)
                begun = True
            return
        decoder = codecs.getincrementaldecoder(self.encoding)("penstock-bad")
        begun = False
        for data in _and_last(first, pieces):
            text = decoder.decode(data or b"", data is None)
            if not begun and text:
                begun, text = True, text.removeprefix("\ufeff")
            if text:
                yield text.encode("utf-8", "surrogateescape")


def _and_last(first: bytes, pieces: Iterator[bytes]) -> Iterator[bytes | None]:
    """All pieces, and None behind them."""
    if first:
        yield first
    yield from pieces
    yield None


def _encoding(named: str | None, head: bytes) -> str:
    if named is not None:
        name = codecs.lookup(named).name
        return "utf-8" if name == "utf-8-sig" else name
    return next((name for mark, name in _MARKS if head.startswith(mark)), "utf-8")


def _bad(error: UnicodeError) -> tuple[str, int]:
    """What is no text, as a character that `surrogateescape` writes as BAD."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff", error.end


codecs.register_error("penstock-bad", _bad)


def _unpacker(kind: str) -> Any:
    if kind == "gz":
        return zlib.decompressobj(wbits=31)
    if kind == "bz2":
        return bz2.BZ2Decompressor()
    if kind == "xz":
        return lzma.LZMADecompressor(memlimit=XZ_MEMORY)
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=ZSTD_WINDOW).decompressobj()


def _pieces(kind: str, unpack: Any, data: bytes) -> Iterator[bytes]:
    """All that `data` unpacks to."""
    call: Callable[..., bytes] = unpack.decompress
    if kind == "zst":
        yield call(data)
        return
    while True:
        piece = call(data, UNPACKED_PIECE)
        if piece:
            yield piece
        if unpack.eof:
            return
        if kind == "gz":
            data = unpack.unconsumed_tail
            if not data and len(piece) < UNPACKED_PIECE:
                return
        elif unpack.needs_input:
            return
        else:
            data = b""
