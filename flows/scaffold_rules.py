"""Rules that a plant can start from: `rules/templates/`, each a commented rule and its test."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import rules
from connectors.errors import ConfigError

FOLDER: Final = Path(rules.__file__).parent / "templates"
PRODUCT: Final = "device-v1"
"""The product that the templates are written for: that of the starter plant."""

TEMPLATES: Final[Mapping[str, str]] = {
    "over-temperature": "too hot for a while, with a gap before it clears",
    "stuck-sensor": "a value that has not moved for ten minutes",
    "rate-of-rise": "still cool, but rising fast",
    "drift": "the last minutes differ from the longer past",
    "silence": "a device that does not report",
    "flapping": "a state that changes to and fro",
    "two-out-of-three": "two devices of a hub at once",
    "dry-start": "started, and does not turn",
}
"""Every template, and what it is for in a few words."""


def template_files(folder: Path, names: Iterable[str], product: str) -> dict[Path, str]:
    """The files of some templates in a plant folder, for a product: rules/NAME.yaml and tests/NAME.yaml.

    Raises `ConfigError` rather than overwrite anything.
    """
    found: dict[Path, str] = {}
    for name in dict.fromkeys(names):
        for below, file in (("rules", f"{name}.yaml"), ("tests", f"{name}.test.yaml")):
            text = (FOLDER / file).read_text(encoding="utf-8")
            path = folder / below / f"{name}.yaml"
            if path.exists():
                raise ConfigError(f"{path} exists already; it is left as it is")
            found[path] = re.sub(rf"\b{PRODUCT}\b", product, text)
    return found
