"""The embedded ClickHouse engine (chDB) behind the part of ClickHouse's HTTP interface that clients use.

`Engine` runs statements, several at once, each on a connection of its own; `Statement` is one
request: what the URL, the headers and the body of the HTTP interface say (ClickHouse
documentation, "HTTP Interface"). What it cannot do is an error with ClickHouse's own code, never
ignored. Of settings, those that concern the transport alone have no meaning here and are dropped.
"""

from __future__ import annotations

import gzip
import queue
import re
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import chdb
import lz4.frame

CONNECTIONS: Final = 4
MAX_BODY: Final = 1 << 30  # bytes of one request after decompression

TRANSPORT: Final = frozenset(
    {
        "query",
        "query_id",
        "database",
        "default_format",
        "session_id",
        "session_timeout",
        "session_check",
        "user",
        "password",
        "quota_key",
        "role",
        "compress",
        "decompress",
        "buffer_size",
        "wait_end_of_query",
        "enable_http_compression",
        "http_zlib_compression_level",
        "client_protocol_version",
        "send_progress_in_http_headers",
        "http_headers_progress_interval_ms",
        "cancel_http_readonly_queries_on_client_close",
        "http_write_exception_in_output_format",
        "async_insert",
        "wait_for_async_insert",
    }
)
UNKNOWN_DATABASE: Final = 81
BAD_ARGUMENTS: Final = 36
TOO_LARGE: Final = 307
UNKNOWN_COMPRESSION: Final = 89

_CODE = re.compile(r"Code: (\d+)")
_COMMENT = re.compile(r"\A(?:\s+|--[^\n]*\n|/\*.*?\*/)+", re.DOTALL)
_FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z0-9_]+)\s*;?\s*\Z", re.IGNORECASE)
_INSERT_FORMAT = re.compile(r"\bFORMAT\s+([A-Za-z0-9_]+)[ \t]*(?:\r?\n|\Z|[ \t;])", re.IGNORECASE)
_VALUES = re.compile(r"\bVALUES\b", re.IGNORECASE)
_SETTINGS = re.compile(r"\bSETTINGS\b", re.IGNORECASE)
_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")


class EngineError(Exception):
    """A statement that failed; `code` is ClickHouse's error code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(slots=True)
class Statement:
    """One request. data: rows of an INSERT; settings: of the statement; params: `{name:Type}`."""

    sql: str
    data: bytes = b""
    default_format: str = "TabSeparated"
    settings: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)


def read_statement(arguments: Mapping[str, str], body: bytes) -> Statement:
    """The statement of a request: `query` in the URL, else the body; with both, the body goes on where
    the query ends, which for an INSERT is its data. Raises `EngineError`."""
    database = arguments.get("database", "default")
    if database not in ("default", ""):
        raise EngineError(UNKNOWN_DATABASE, f"Database {database} does not exist; it is 'default'")
    settings: dict[str, str] = {}
    params: dict[str, str] = {}
    for name, value in arguments.items():
        if name.startswith("param_"):
            params[name.removeprefix("param_")] = value
        elif name not in TRANSPORT:
            if not _NAME.match(name):
                raise EngineError(BAD_ARGUMENTS, f"'{name}' is no setting")
            settings[name] = value
    form = arguments.get("default_format", "TabSeparated")
    query = arguments.get("query", "")
    if query and is_insert(query):
        return Statement(query, body, form, settings, params)
    try:
        text = body.decode("utf-8") if not is_insert_bytes(body) else ""
    except UnicodeDecodeError as error:
        raise EngineError(BAD_ARGUMENTS, f"the query is not UTF-8 at byte {error.start}") from error
    if text or not body:
        return Statement(f"{query}\n{text}".strip() if query else text, b"", form, settings, params)
    sql, data = split_insert(body)
    return Statement(sql, data, form, settings, params)


def is_insert(sql: str) -> bool:
    """Whether a statement is an INSERT (comments before it do not count)."""
    return _COMMENT.sub("", sql)[:6].upper() == "INSERT"


def is_insert_bytes(body: bytes) -> bool:
    """The same for a body whose data may be binary."""
    return is_insert(body[:4096].decode("utf-8", "replace"))


def split_insert(body: bytes) -> tuple[str, bytes]:
    """An INSERT statement with its data behind it: `INSERT INTO t FORMAT CSV\\n1,2`; without FORMAT, the
    whole body is the statement (VALUES or SELECT)."""
    head = body[:65_536].decode("latin-1")
    found = _INSERT_FORMAT.search(head)
    if found is None:
        return body.decode("utf-8", "replace"), b""
    return head[: found.end(1)], body[found.end() :]


def inflate(body: bytes, encoding: str) -> bytes:
    """A request body without its Content-Encoding; at most MAX_BODY bytes. Raises `EngineError`."""
    if encoding in ("", "identity"):
        return body
    try:
        if encoding in ("gzip", "deflate"):
            unzip = zlib.decompressobj(47)
            plain = unzip.decompress(body, MAX_BODY)
            whole = not unzip.unconsumed_tail
        elif encoding == "lz4":
            unlz4 = lz4.frame.LZ4FrameDecompressor()
            plain = unlz4.decompress(body, MAX_BODY)
            whole = unlz4.eof
        elif encoding == "zstd":
            plain, whole = _unzstd(body)
        else:
            raise EngineError(UNKNOWN_COMPRESSION, f"unknown Content-Encoding '{encoding}'")
    except (zlib.error, RuntimeError, ValueError, OSError) as error:
        raise EngineError(UNKNOWN_COMPRESSION, f"the body is not {encoding}: {error}") from error
    if not whole:
        raise EngineError(TOO_LARGE, f"the body is larger than {MAX_BODY} bytes, or cut short")
    return plain


def _unzstd(body: bytes) -> tuple[bytes, bool]:
    from backports.zstd import ZstdDecompressor

    unzstd = ZstdDecompressor()
    return unzstd.decompress(body, MAX_BODY), unzstd.eof


def deflate(body: bytes, accepted: str) -> tuple[bytes, str]:
    """A response body in the first encoding that the client takes and we do (gzip), and its name."""
    if len(body) > 1024 and "gzip" in accepted:
        return gzip.compress(body, 1, mtime=0), "gzip"
    return body, ""


class Engine:
    """The engine over one folder; one process may open a folder at a time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._all = [chdb.connect(str(folder)) for _ in range(CONNECTIONS)]
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for connection in self._all:
            self._free.put(connection)

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        connection = self._free.get()
        try:
            yield connection
        finally:
            self._free.put(connection)

    def run(self, statement: Statement) -> tuple[bytes, str]:
        """Run a statement; returns the result and its format. Raises `EngineError`."""
        sql = statement.sql.strip()
        if not sql:
            raise EngineError(62, "Code: 62. DB::Exception: Empty query. (SYNTAX_ERROR)")
        try:
            with self._connection() as connection:
                if is_insert(sql) and statement.data:
                    return self._insert(connection, statement), "TabSeparated"
                form = _FORMAT.search(sql)
                sql = with_settings(sql, statement.settings)
                found = connection.query(sql, statement.default_format, params=statement.params or None)
                body = found.bytes()
                return bytes(body), form[1] if form else statement.default_format
        except EngineError:
            raise
        except Exception as error:  # chDB raises plain RuntimeError too
            text = str(error)
            code = _CODE.search(text)
            raise EngineError(int(code[1]) if code else 1002, text) from error

    def _insert(self, connection: Any, statement: Statement) -> bytes:
        found = _FORMAT.search(statement.sql)
        form = found[1] if found else "Values"
        sql = statement.sql[: found.start()] if found else statement.sql
        if statement.settings:
            sql = f"{sql.rstrip()} SETTINGS {written(statement.settings)}"
        insert = connection.send_insert(sql, form)
        insert.append(statement.data)
        insert.finish()
        return b""

    def close(self) -> None:
        """Close every connection; what was inserted is on disk already."""
        for connection in self._all:
            connection.close()


def with_settings(sql: str, settings: Mapping[str, str]) -> str:
    """The statement with `SETTINGS`, before its FORMAT or VALUES; one that has its own keeps it alone."""
    head = _COMMENT.sub("", sql)[:6].upper()
    if not settings or _SETTINGS.search(sql) or not head.startswith(("SELECT", "WITH", "INSERT")):
        return sql
    before = (_VALUES if head == "INSERT" else _FORMAT).search(sql)
    if before is None:
        return f"{sql.rstrip().rstrip(';')} SETTINGS {written(settings)}"
    return f"{sql[: before.start()]} SETTINGS {written(settings)} {sql[before.start() :]}"


def written(settings: Mapping[str, str]) -> str:
    """`a = '1', b = 'x'`, quoted."""
    quoted = ((name, value.replace("\\", "\\\\").replace("'", "\\'")) for name, value in settings.items())
    return ", ".join(f"{name} = '{value}'" for name, value in quoted)
