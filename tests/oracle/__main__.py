"""`python -m tests.oracle --examples 5000 --seed 1`: the long form of the comparison. The first recording
that differs is cut down to few lines and printed with its plant."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from random import Random
from typing import Any

from tests.oracle.comparison import differences
from tests.oracle.plants import make_lines, make_plant


def compared(plant: dict[str, Any], lines: list[dict[str, Any]], cut: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        return differences(Path(folder), plant, lines, cut)


def cut_down(plant: dict[str, Any], lines: list[dict[str, Any]], cut: int) -> list[dict[str, Any]]:
    """Fewer lines that still differ: halves, then smaller pieces are taken out while that is so."""
    size = len(lines) // 2
    while size:
        start = 0
        while start < len(lines):
            fewer = lines[:start] + lines[start + size :]
            if fewer and compared(plant, fewer, cut):
                lines = fewer
            else:
                start += size
        size //= 2
    return lines


def example(seed: int) -> tuple[dict[str, Any], list[dict[str, Any]], int]:
    random = Random(seed)
    plant = make_plant(random)
    return plant, make_lines(random, plant, random.choice([20, 60, 150])), random.choice([1, 7, 10_000])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.oracle")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep-going", action="store_true")
    parser.add_argument("--whole", action="store_true", help="do not cut a recording that differs down")
    options = parser.parse_args()
    failed = 0
    for seed in range(options.seed, options.seed + options.examples):
        plant, lines, cut = example(seed)
        found = compared(plant, lines, cut)
        if not found:
            continue
        failed += 1
        print(f"seed {seed}: {len(found)} differences; " + found[0], flush=True)
        if options.keep_going:
            continue
        if not options.whole:
            lines = cut_down(plant, lines, cut)
        print("plant:", json.dumps(plant))
        print("\n".join(json.dumps(line) for line in lines))
        print("\n".join(compared(plant, lines, cut)))
        break
    print(f"{options.examples} examples from seed {options.seed}: {failed} differ")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
