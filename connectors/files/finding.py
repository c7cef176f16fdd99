"""Which files below a watched folder match, and have not changed for a while."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from connectors.files.config import FilesConfig
from connectors.files.progress import Identity, identity_of
from connectors.files.putting_away import PuttingAway


def matches(name: str, pattern: str) -> bool:
    """Whether a path below `watch` matches: level by level, `**` standing for any number of folders."""
    return _levels(name.split("/"), pattern.split("/"))


def _levels(names: Sequence[str], patterns: Sequence[str]) -> bool:
    if not patterns:
        return not names
    if patterns[0] == "**":
        return any(_levels(names[at:], patterns[1:]) for at in range(len(names) + 1))
    return bool(names) and fnmatch.fnmatchcase(names[0], patterns[0]) and _levels(names[1:], patterns[1:])


class Finder:
    """Looks at a folder again and again. present: the names of the last look."""

    def __init__(self, watch: Path, config: FilesConfig, away: PuttingAway) -> None:
        self._watch = watch
        self._pattern = config.pattern
        self._settle = config.settle / 1e9
        self._away = away
        self._seen: dict[str, tuple[Identity, float]] = {}  # and since when it has been so

    @property
    def present(self) -> dict[str, tuple[Identity, float]]:
        return self._seen

    def look(self, now: float, aside: Iterable[str] = ()) -> list[Identity]:
        """The files that have not changed for `settle` seconds of `now`'s clock. aside: the names of files
        that were set aside. Raises OSError when the folder itself cannot be read."""
        found: dict[str, tuple[Identity, float]] = {}
        names = [
            name for name in self._names() if matches(name, self._pattern) and not self._away.is_mark(name)
        ]
        for name in (*names, *aside):
            try:
                identity = identity_of(self._watch, name)
            except OSError:
                continue  # moved away between the listing and the look
            before = self._seen.get(name)
            found[name] = before if before is not None and before[0] == identity else (identity, now)
        self._seen = found
        settled = [identity for identity, since in found.values() if now - since >= self._settle]
        return [identity for identity in settled if not self._away.is_done(identity)]

    def forget(self, name: str) -> None:
        """It is put away."""
        self._seen.pop(name, None)

    def _names(self) -> Iterator[str]:
        """Files below the folder as far down as the pattern asks, but not hidden ones and not those that
        were put away."""
        deep = "/" in self._pattern
        folders = [""]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(self._watch / folder) as entries:
                    listed = sorted(entries, key=lambda entry: entry.name)
            except OSError:
                if not folder:
                    raise
                continue
            for entry in listed:
                name = f"{folder}{entry.name}"
                if entry.name.startswith("."):
                    continue
                try:
                    if entry.is_file():
                        yield name
                    elif deep and entry.is_dir(follow_symlinks=False) and not self._away.is_folder(name):
                        folders.append(f"{name}/")
                except OSError:
                    continue
