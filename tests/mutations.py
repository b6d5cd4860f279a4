"""Faults put into the core one at a time, each of which must turn the tests red: `make mutations` prints the table.

Package and tests are copied first, so that the checkout stays as it is. A fault is a replacement by a regular
expression that must match in one place. The row without a fault must be green: then red means that the fault was found.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Fault:
    """What is wrong, where (a file of the package), and the tests concerned (names of tests/core), quick ones first."""

    name: str
    file: str
    pattern: str
    replacement: str
    tests: tuple[str, ...]


FAULTS = [
    Fault(
        "a text that has ended goes on with what is written behind its stop code",
        "runtime/talker.py",
        r"\(ended if ended\.size else False\)",
        "False",
        ("talker",),
    ),
    Fault(
        "the hook stays on the talker",
        "runtime/talker.py",
        r"hook\.remove\(\)",
        "pass",
        ("talker",),
    ),
    Fault(
        "one channel is taken for the mean of two",
        "runtime/tokenizer.py",
        r"audio\.mean\(axis=1\)",
        "audio[:, 0]",
        ("tokenizer",),
    ),
    Fault(
        "the mask lets one frame too many through",
        "streaming/kv_stack.py",
        r"distance < window",
        "distance <= window",
        ("windowed",),
    ),
    Fault(
        "what pre_conv looks back at is dropped",
        "streaming/windowed.py",
        r"keep_last\(quantized,",
        "0 * keep_last(quantized,",
        ("windowed",),
    ),
    Fault(
        "keys are trimmed too early: one less than attention looks back",
        "streaming/windowed.py",
        r"keep=transformer\.config\.sliding_window",
        r"\g<0> - 2",
        ("windowed",),
    ),
    Fault(
        "an axis is frozen: the number of frames as a Python number",
        "streaming/kv_stack.py",
        r"torch\.arange\(past \+ hidden\.size\(1\)\)",
        "torch.arange(past + int(hidden.size(1)))",
        ("windowed", "export"),
    ),
    Fault(
        "one clamp too many, of the latents",
        "streaming/exact.py",
        r"hidden = latents\.transpose\(1, 2\)",
        r"\g<0>.clamp(-1, 1)",
        ("changes",),
    ),
    Fault(
        "the history is one frame short",
        "streaming/windowed.py",
        r"keep_last\(drop_last\(window, self\.lookahead_frames\), self\.conv_history_frames",
        r"\g<0> - 1",
        ("windowed",),
    ),
    Fault(
        "a transposed convolution adds its bias twice",
        "streaming/layers.py",
        r"conv\.bias\.detach\(\)",
        r"2 * \g<0>",
        ("layers",),
    ),
    Fault(
        "positions saturate where the window is full",
        "streaming/kv_stack.py",
        r"rotary_emb\(hidden, positions\[None\]",
        r"\g<0>.clamp(max=71)",
        ("windowed",),
    ),
    Fault(
        "finish loses a sample",
        "runtime/stream.py",
        r"tail, (stream\.\w+) = \1,",
        r"tail, \1 = \1[:, 1:],",
        ("stream_promises",),
    ),
    Fault(
        "a saved stream is not searched for NaN",
        "runtime/stream_file.py",
        r"if not np\.isfinite\(array\)\.all\(\):",
        "if False:",
        ("stream_promises",),
    ),
]


def run(tree: Path, tests) -> tuple[str, float]:
    """The first test that fails in the copy, or nothing, and the seconds until then."""
    files = [f"tests/core/test_{name}.py" for name in tests]
    command = [sys.executable, "-m", "pytest", "-x", "-m", "not slow", "-p", "no:cacheprovider", *files]
    start = time.perf_counter()
    done = subprocess.run(
        command,
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode not in (0, 1):
        sys.exit(done.stdout + done.stderr)
    failed = re.search(r"^(?:FAILED|ERROR) tests/core/(.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    return failed[1] if failed else "", seconds


def put(fault: Fault, text: str) -> tuple[str, int]:
    """The file's text with the fault in it, and the line."""
    places = [*re.finditer(fault.pattern, text)]
    if len(places) != 1:
        sys.exit(f"{fault.name}: {fault.pattern} is in {len(places)} places of {fault.file}, must be in one")
    return re.sub(fault.pattern, fault.replacement, text), text.count("\n", 0, places[0].start()) + 1


def main(words: list[str]) -> int:
    """Of all faults, or of those with one of `words` in their names."""
    faults = [fault for fault in FAULTS if not words or any(word in fault.name for word in words)]
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        for name in ("qwen3_codec", "tests"):
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("node_modules", "__pycache__"))
        shutil.copy(ROOT / "pyproject.toml", tree)
        mutants = [(fault, *put(fault, (tree / "qwen3_codec" / fault.file).read_text("utf-8"))) for fault in faults]
        print("| fault | place | tests | found by | s |\n|---|---|---|---|---:|")
        found, seconds = run(tree, sorted({name for fault in faults for name in fault.tests}))
        print(f"| none | | {'red' if found else 'green'} | {found} | {seconds:.0f} |", flush=True)
        right = not found
        for fault, text, line in mutants:
            file = tree / "qwen3_codec" / fault.file
            original = file.read_text("utf-8")
            file.write_text(text, "utf-8")
            found, seconds = run(tree, fault.tests)
            file.write_text(original, "utf-8")
            row = f"| {fault.name} | {fault.file}:{line} | {'red' if found else 'GREEN'} | {found} | {seconds:.0f} |"
            print(row, flush=True)
            right &= bool(found)
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
