"""A plant's own Python as a decoder: its answers, its mistakes, and what breaches a limit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from operators.batch import Address
from operators.contract.spec import Metric
from operators.decode.columns import IGNORED, Decoded
from operators.decode.decoders import build_decoder
from operators.decode.spec import ProductDecode, parse_decode
from operators.document import Problems, load_yaml
from operators.rejects import Reason
from tests.decode_json.frames import INGEST_NS, batch

ROOT = Path(__file__).parents[2]
KINDS = {"t": "number", "n": "integer", "on": "boolean", "mode": "string"}
TYPES = tuple(KINDS.items())
TRICKS = """
import sys, os, time, random
kept = []
def decode(frames, ports, addresses, received, params):
    return [one(*each) for each in zip(frames, ports, addresses, received, params)]
def one(frame, port, address, received, params):
    word = frame.decode()
    kind, _, rest = word.partition(" ")
    if kind == "n":
        return [{"metrics": {"n": int(rest)}}]
    if kind == "all":
        metrics = {"t": params.get("k"), "n": port, "mode": address, "on": True}
        return [{"time": received - 1, "metrics": metrics}]
    if kind == "two":
        return [{"metrics": {"n": 1}, "time": 1.5}, {"metrics": {"other": 2, "t": None}}]
    if kind == "none":
        return None
    if kind == "refuse":
        return rest
    if kind == "loop":
        while True:
            pass
    if kind == "stubborn":
        while True:
            try:
                while True:
                    pass
            except BaseException:
                pass
    if kind == "slow":  # beyond what a call may take, within what a frame may
        total = 0
        for i in range(3_000_000):
            total += i
        return [{"metrics": {"n": total % 1000}}]
    if kind == "memory":
        return [{"metrics": {"n": len(bytearray(1 << 40))}}]
    if kind == "leave":
        os._exit(3)
    if kind == "crash":
        os.kill(os.getpid(), 11)
    if kind == "deep":
        return one(frame, port, address, received, params)
    if kind == "print":
        print("noise on standard output", flush=True)
        return [{"metrics": {"n": 7}}]
    return eval(rest)
"""


def sections(text: str, source: str = TRICKS, params: dict[str, float | str] | None = None) -> Any:
    problems = Problems()
    metrics = {name: Metric(name=name, type=kind) for name, kind in KINDS.items()}  # type: ignore[arg-type]
    (node,) = load_yaml(text, "products/p.yaml", problems)
    spec = parse_decode(node, metrics, params or {}, problems, {"products/u.py": source})
    return spec, problems.render()


def decoder(source: str = TRICKS, text: str = "udf: products/u.py:decode", params: Any = None) -> Any:
    spec, told = sections(text, source, params)
    assert told == ""
    return build_decoder(ProductDecode("p", spec, TYPES), 64)


def run(made: Any, words: list[str], params: Any = None) -> Decoded:
    frames = batch([word.encode() for word in words])
    frames.addresses = (Address("line1", "a/b", 4),)
    given_params = np.empty((0, len(words))) if params is None else params
    found: Decoded = made.decode(frames, np.arange(len(words)), given_params)
    return found


def told(found: Decoded) -> list[Any]:
    """Each frame: its rejects' sentence, None for ignored, or the readings' first metrics."""
    frames: list[Any] = [None] * len(found.status)
    for at, status in enumerate(found.status.tolist()):
        frames[at] = (
            None if status == IGNORED else [] if not status else (Reason(status).name, found.detail[at])
        )
    for row, at in enumerate(found.frame.tolist()):
        values = {
            name: (float(found.value[m, row]) if found.quality[m, row] == 0 else f"q{found.quality[m, row]}")
            for m, name in enumerate(KINDS)
            if found.quality[m, row] != 3
        }
        frames[at].append(values)
    return frames


@pytest.fixture(scope="module")
def tricks() -> Any:
    return decoder()


def test_answers(tricks: Any) -> None:
    made = decoder(params={"k": 1.0, "name": "x"})
    assert made.param_names == ("k",)
    found = run(made, ["all", "two", "none", "refuse door broken", "n 5"], np.array([[2.5, np.nan, 1, 1, 1]]))
    assert told(found)[1:] == [[{"n": 1.0}, {"t": "q2"}], None, ("udf", "door broken"), [{"n": 5.0}]]
    first = {name: float(found.value[m, 0]) for m, name in enumerate(KINDS)}
    assert (first["t"], first["n"], first["on"]) == (2.5, 4.0, 1.0)
    assert found.texts[int(first["mode"])] == "a/b"
    assert found.ts_ns.tolist()[:3] == [INGEST_NS - 1_000_000, 1_500_000, INGEST_NS + 1_000_000]
    assert found.time_source.tolist() == [0, 0, 2, 2]
    assert found.index.tolist() == [0, 0, 1, 0]
    assert found.unknown == {"other": 1}
    assert run(tricks, []).status.tolist() == []
    assert told(run(tricks, ["print", "n 1"])) == [[{"n": 7.0}], [{"n": 1.0}]]


@pytest.mark.parametrize(
    ("answer", "reason", "sentence"),
    [
        ("5", "udf", "the answer of a frame is a list of readings, a text or None, not int"),
        (
            "[5]",
            "udf",
            "a reading is a mapping with 'metrics', a mapping by name, and 'time', ms since 1970 or None",
        ),
        ("[{'metrics': {}, 'at': 5}]", "udf", "a reading has 'metrics' and 'time', not 'at'"),
        ("[{'metrics': {}, 'time': '5'}]", "udf", "time: milliseconds since 1970 are expected, not '5'"),
        (
            "[{'metrics': {'t': float('nan')}}]",
            "bad_number",
            "t: nan is no number; None says that there is none",
        ),
        ("object()", "udf", "products/u.py:decode: TypeError: a object is no value of a reading"),
        ("{}['x']", "udf", "products/u.py:decode: KeyError: 'x' (products/u.py:46)"),
        ("sys.exit(object())", "udf", None),
        ("''", "udf", "refused without a reason"),
    ],
)
def test_wrong_answers(tricks: Any, answer: str, reason: str, sentence: str | None) -> None:
    found = run(tricks, ["n 1", f"eval {answer}", "n 2"])
    assert told(found)[::2] == [[{"n": 1.0}], [{"n": 2.0}]]
    assert Reason(int(found.status[1])).name == reason
    if sentence is not None:
        assert found.detail[1] == sentence
    assert "0x7" not in found.detail[1]


def test_types_are_those_of_json(tricks: Any) -> None:
    found = run(tricks, ["eval [{'metrics': {'t': True, 'n': 'x', 'on': 1, 'mode': 5}}]"])
    assert told(found) == [[{"t": "q4", "n": "q4", "on": "q4", "mode": "q4"}]]


def test_breaches_reject_the_guilty_frame_alone(tricks: Any) -> None:
    words = ["n 1", "loop", "n 2", "memory", "n 3", "leave", "n 4", "crash", "n 5", "slow", "deep", "n 6"]
    found = run(tricks, words)
    frames = told(found)
    assert [frames[at][0] for at in (0, 2, 4, 6, 8, 11)] == [{"n": float(n)} for n in range(1, 7)]
    assert frames[1] == ("udf", "products/u.py:decode: more than 20 million lines of Python for one frame")
    assert frames[3] == ("udf", "products/u.py:decode: more memory than 512MB")
    assert frames[5] == ("udf", "products/u.py:decode: its process ended with 3")
    assert frames[7] == ("udf", "products/u.py:decode: signal 11 ended it")
    assert frames[9] == [{"n": float(sum(range(3_000_000)) % 1000)}]
    assert frames[10][1].startswith("products/u.py:decode: RecursionError")


def test_a_function_that_catches_everything_is_ended(tricks: Any) -> None:
    assert told(run(tricks, ["stubborn", "n 1"])) == [
        ("udf", "products/u.py:decode: more than 20 million lines of Python for one frame"),
        [{"n": 1.0}],
    ]


CUT: list[Any] = []  # one process for all examples
WORDS = st.sampled_from(["n 1", "n 2", "none", "refuse x", "eval 1/0", "two", "n x"])


@settings(max_examples=8, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=90), st.integers(1, 100))
def test_the_cut_does_not_matter(words: list[str], cut: int) -> None:
    if not CUT:
        CUT.append(decoder())
    (made,) = CUT
    whole = told(run(made, words))
    parts = [one for at in range(0, len(words), cut) for one in told(run(made, words[at : at + cut]))]
    assert parts == whole


@pytest.mark.parametrize(
    ("text", "source", "message"),
    [
        (
            "udf: u.py",
            TRICKS,
            "1:6  udf: a file of the plant and a function in it are expected, e.g. products/torano.py:decode",
        ),
        (
            "udf: products/v.py:decode",
            TRICKS,
            "1:6  udf: no file products/v.py in the plant; did you mean 'products/u.py'?",
        ),
        ("udf: products/u.py:decod", TRICKS, "no function 'decod' in products/u.py; did you mean 'decode'?"),
        (
            "udf: products/u.py:decode",
            "def decode(frames:\n",
            "products/u.py:1:11 is no Python: '(' was never closed",
        ),
        (
            "udf: products/u.py:decode",
            "\ndef decode(frames, port): ...",
            "products/u.py:2  argument 'port' of decode is not known; did you mean 'ports'?",
        ),
        (
            "udf: products/u.py:decode",
            "def decode(ports): ...",
            "products/u.py:1  decode has no argument 'frames'",
        ),
        (
            "udf: products/u.py:decode\nmemory: 1MB",
            TRICKS,
            "2:9  memory: 1MB is less than Python itself needs; 64MB or more",
        ),
        ("udf: products/u.py:decode\nmemory: much", TRICKS, "2:9  memory: "),
        (
            "udf: products/u.py:decode\nfields: {}",
            TRICKS,
            "2:1  fields: unknown key; beside 'udf' stands 'memory' alone",
        ),
    ],
)
def test_mistakes_are_told(text: str, source: str, message: str) -> None:
    spec, problems = sections(text, source)
    assert spec is None
    assert message in problems, problems


def test_a_file_that_cannot_be_loaded_refuses_every_frame() -> None:
    made = decoder("import nothing_like_this\ndef decode(frames): return []")
    assert (
        told(run(made, ["a", "b"]))
        == [
            (
                "udf",
                "products/u.py:decode: ModuleNotFoundError: No module named 'nothing_like_this'"
                " (products/u.py:1)",
            )
        ]
        * 2
    )


def test_too_few_answers() -> None:
    made = decoder("def decode(frames): return frames[1:]")
    assert told(run(made, ["a"])) == [
        (
            "udf",
            "products/u.py:decode: a list with an answer for each of 1 frames is expected, not a list of 0",
        )
    ]


def test_nothing_of_the_environment_reaches_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "x")
    made = decoder("import os\ndef decode(frames): return [os.environ.get('SECRET', 'none') for f in frames]")
    assert told(run(made, ["a"])) == [("udf", "none")]


def test_no_process_outlives_its_parent() -> None:
    """A parent that is killed leaves no child: its standard input ends."""
    code = (
        "import os, signal\nfrom tests.decode_udf.test_udf import decoder, run\n"
        "made = decoder(); run(made, ['n 1']); print(made._child._process.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    pid = int(ran.stdout)
    for _ in range(100):
        try:
            os.kill(pid, 0)
            with open(f"/proc/{pid}/stat") as file:
                if file.read().rpartition(")")[2].split()[0] == "Z":
                    return
        except OSError:
            return
        subprocess.run(["sleep", "0.05"], check=True)
    pytest.fail("the child is still there")


def test_answers_that_depend_on_other_frames_fail_the_check(tmp_path: Path) -> None:
    (tmp_path / "u.py").write_text(
        "seen = []\ndef decode(frames):\n"
        "    return [[{'metrics': {'n': seen.append(f) or len(seen)}}] for f in frames]\n"
    )
    (tmp_path / "p.yaml").write_text(
        "productId: p\nversion: 1\ndecode: {udf: 'products/u.py:decode'}\nmetrics: {n: {}}\n"
        "vectors: [{text: a, values: {n: 1}}, {text: b, values: {n: 2}}]\n"
    )
    code = "import sys; from flows.cli import main; sys.exit(main())"
    ran = subprocess.run(
        [sys.executable, "-c", code, "check", "p.yaml", "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 1, ran.stderr
    problems = [one["text"] for one in json.loads(ran.stdout)["problems"]]
    assert (
        problems[0] == "the answer depends on the frames around it; keep nothing from one frame to the next"
    )
