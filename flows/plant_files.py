"""Checks of a source of kind files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from connectors.files.config import FilesConfig, encoding_problem, folder_problem
from flows.plant_file import PlantYaml, Product
from operators.decode.csv_spec import CsvSpec
from operators.document import Node, Problems

_CSV_ALONE: Final = ("skip", "skip_after", "comment", "separator", "columns", "join")


def check_files_source(node: Node, source: FilesConfig, problems: Problems) -> None:
    """What types alone do not say."""
    _one(node, "watch", source.watch, _watch_problem, problems)
    _one(node, "pattern", source.pattern, _pattern_problem, problems)
    _one(node, "separator", source.separator, _separator_problem, problems)
    _one(node, "comment", source.comment, _comment_problem, problems)
    _one(node, "encoding", source.encoding, encoding_problem, problems)
    for key in ("done", "failed"):
        _one(node, key, getattr(source, key), folder_problem, problems)
    if source.done.strip("/") == source.failed.strip("/"):
        problems.add(
            node, "'done' and 'failed' are one folder", key="failed" if node.get("failed") else "done"
        )
    for key, least in (("skip", 0), ("skip_after", 0), ("max_unpacked", 1), ("max_ratio", 1)):
        below = node.get(key)
        if below is not None and not below.masked and getattr(source, key) < least:
            problems.add(below, f"a number from {least} is expected")
    for key in ("columns", "join"):
        found = node.get(key)
        if found is None or not (found.is_map or found.is_list):
            continue
        for child in (one for _, one in found.items()) if found.is_map else found:
            named = source.header or (key == "join" and child.value in source.columns)
            _place(child, named, problems)
    columns = node.get("columns")
    for name in source.columns:
        if columns is not None and (not name.strip() or name != name.strip()):
            problems.add(columns, "the name of a column is not empty and has no blanks at its ends", key=name)
    if source.format in ("jsonl", "parquet"):
        for key in _CSV_ALONE:
            if node.get(key) is not None:
                problems.add(node, f"'{key}' is for CSV, not for {source.format}", key=key)


def check_files_products(
    node: Node, config: PlantYaml, products: Mapping[str, Product], problems: Problems
) -> None:
    """What a source of kind files and the product that it names say differently of one file."""
    sources = node.get("sources")
    for name, source in config.sources.items():
        below = sources.get(name) if sources is not None else None
        product = products.get(source.product or "") if isinstance(source, FilesConfig) else None
        layout = None if product is None else product.decode.layout
        if below is None or not isinstance(source, FilesConfig) or not isinstance(layout, CsvSpec):
            continue
        if source.separator is not None and source.separator != layout.separator:
            place = below.get("separator") or below
            told = f"'{source.product}' reads cells between '{_shown(layout.separator)}' (decode.separator)"
            problems.add(place, f"{told}; say the same in both")
        if layout.rows is not None and layout.rows.metric is not None and not source.join:
            problems.warn(
                below.get("product") or below,
                f"each row of the tall '{source.product}' is a reading of one metric; with join: [...], the "
                "columns of time and device, those of one time are one",
            )


def _shown(separator: str) -> str:
    return "\\t" if separator == "\t" else separator


def _one(
    node: Node, key: str, text: str | None, check: Callable[[str], str | None], problems: Problems
) -> None:
    below = node.get(key)
    if below is None or text is None or "${" in text:
        return
    told = check(text)
    if told is not None:
        problems.add(below, told)


def _watch_problem(text: str) -> str | None:
    return None if text else "the folder is empty; write for example inbox/"


def _pattern_problem(text: str) -> str | None:
    if not text or text.startswith("/") or any(part in ("", ".", "..") for part in text.split("/")):
        return 'a pattern of paths below \'watch\' is expected, e.g. "*.csv" or "**/*.csv"'
    return None


def _separator_problem(text: str) -> str | None:
    if len(text) != 1:
        return "one character is expected"
    if text in '"\r\n':
        return 'one character is expected, in quotes, e.g. ";"'
    return None


def _comment_problem(text: str) -> str | None:
    return None if text and "\n" not in text else 'the beginning of a line is expected, e.g. "#"'


def _place(node: Node, named: bool, problems: Problems) -> None:
    value = node.value
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            problems.add(node, "columns are counted from 1")
    elif value == "":
        problems.add(node, "a column is expected: its name in the header line, or its place from 1")
    elif isinstance(value, str) and not named:
        problems.add(node, "without a header line a column is known by its place alone, counted from 1")
