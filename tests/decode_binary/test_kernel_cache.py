"""A kernel whose helper stands in another file is compiled anew when that file changes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HELPER = "from operators.jit import inline\n@inline\ndef helper(x):\n    return x + {}\n"
KERNEL = (
    "from operators.jit import kernel\nfrom helper_of_test import helper\n"
    "@kernel\ndef run(x):\n    return helper(x)\nprint(run(1))\n"
)


def test_an_edited_helper_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "kernel_of_test.py").write_text(KERNEL)
    root = Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{tmp_path}:{root}", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    for add in (1, 20):
        (tmp_path / "helper_of_test.py").write_text(HELPER.format(add))
        done = subprocess.run(
            [sys.executable, "-B", "kernel_of_test.py"],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=250,
        )
        assert done.stdout.strip() == str(1 + add), done.stderr
