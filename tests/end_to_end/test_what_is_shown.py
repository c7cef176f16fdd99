"""What people read first: links lead somewhere, every page is reached, and commands shown are commands."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import click
import pytest

from flows.cli import cli

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("bench", "connectors", "deploy", "docs", "examples")
FENCED = re.compile(r"^[ ]*```.*?^[ ]*```", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?penstock (.*)$")


def pages() -> list[Path]:
    below = [page for name in FOLDERS for page in (ROOT / name).rglob("*.md")]
    return sorted([ROOT / "README.md", *(page for page in below if ".penstock" not in page.parts)])


@cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", FENCED.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


def links(page: Path) -> list[tuple[str, Path, str]]:
    """(as written, file, anchor) of each link to something here."""
    found = []
    for written in LINK.findall(FENCED.sub("", page.read_text("utf-8"))):
        if not re.match(r"[a-z]+:", written):
            path, _, anchor = written.partition("#")
            found.append((written, (page.parent / path).resolve() if path else page, anchor))
    return found


def test_links_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {written}"
        for page in pages()
        for written, target, anchor in links(page)
        if not target.exists() or (anchor and anchor not in anchors(target))
    ]
    assert broken == []


def test_every_page_is_reached_from_the_first() -> None:
    reached, ahead = set[Path](), [ROOT / "README.md"]
    while ahead:
        page = ahead.pop()
        reached.add(page)
        ahead += [target for _, target, _ in links(page) if target.suffix == ".md" and target not in reached]
    assert {page.relative_to(ROOT) for page in pages() if page.is_relative_to(ROOT / "docs")} <= {
        page.relative_to(ROOT) for page in reached
    }


def shown() -> list[tuple[str, str]]:
    """(page, what stands behind `penstock`) of every command line in a block."""
    found = []
    for page in pages():
        for block in FENCED.findall(page.read_text("utf-8")):
            for line in block.splitlines():
                for part in line.partition("  #")[0].split(";"):
                    if told := COMMAND.match(part):
                        found.append((str(page.relative_to(ROOT)), told[1]))
    return found


@pytest.mark.parametrize(("page", "line"), shown())
def test_a_command_that_is_shown_is_one(page: str, line: str) -> None:
    """Its name, its group's action and its options are known; [..], | and ... are not part of it."""
    words = shlex.split(re.sub(r"[\[\]|]", " ", line).replace("(", " ").replace(")", " "), comments=True)
    context = click.Context(cli)
    command = cli.get_command(context, words.pop(0))
    assert command is not None
    known = [command]
    if isinstance(command, click.Group):
        action = words[0] if words[0] in command.commands else "show"
        known.append(command.commands[action])
    options = {name for one in known for parameter in one.params for name in parameter.opts}
    assert {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1} <= options
