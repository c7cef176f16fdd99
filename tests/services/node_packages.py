"""Node.js programs of other makers for tests: installed once by npm, in the versions of a
package-lock.json, into a folder outside the tree."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path


def why_not() -> str | None:
    """What this machine lacks for them, or None."""
    lacking = [name for name in ("node", "npm") if shutil.which(name) is None]
    return f"no {' and no '.join(lacking)} here" if lacking else None


def installed(name: str) -> Path:
    """The folder of the packages of `tests/services/NAME`; they are fetched the first time, into
    PENSTOCK_NAME_CACHE or the user's cache."""
    here = Path(__file__).parent / name
    cache = Path(
        os.environ.get(f"PENSTOCK_{name.upper()}_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "penstock" / name
    )
    lock = (here / "package-lock.json").read_bytes()
    folder = cache / hashlib.sha256(lock).hexdigest()[:12]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as one:
        fcntl.flock(one, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            for file in ("package.json", "package-lock.json"):
                shutil.copy(here / file, folder / file)
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(
                command, cwd=folder, capture_output=True, text=True, timeout=600, check=False
            )
            if done.returncode:
                raise RuntimeError(f"npm ci: {done.stderr[-2000:]}")
            (folder / "ready").touch()
    return folder
