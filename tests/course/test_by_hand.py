"""The page on streaming by hand: short, of nothing but PyTorch and ONNX Runtime, and right beyond what it shows."""

import ast
import re
from itertools import pairwise

import jupytext
import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from test_notebooks import FOLDER
from torch.nn import functional as F

CELLS = jupytext.read(FOLDER / "01_streaming_by_hand.py").cells
CODE = [cell for cell in CELLS if cell.cell_type == "code"]
ALLOWED = {"functools", "io", "logging", "sys", "warnings", "matplotlib", "numpy", "onnxruntime", "torch"}


def executed(seed=0):
    """The page's names after all its cells but the one for the slower exporter; each cell holds its own asserts."""
    names = {}
    with torch.set_grad_enabled(True):  # what the page sets ends with it
        for cell in CODE:
            if "dynamo=True" not in cell.source:
                exec(cell.source.replace("SEED = 0", f"SEED = {seed}"), names)
    plt.close("all")
    return names


@pytest.fixture(scope="module")
def page():
    return executed()


def quick(test):
    return settings(max_examples=25, deadline=None, derandomize=True)(test)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


lengths = some.lists(some.integers(1, 6), min_size=1, max_size=6)
sizes = some.integers(1, 5)


def test_it_uses_nothing_of_the_project_and_is_short():
    tree = ast.parse("\n".join(cell.source for cell in CODE))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in imported} <= ALLOWED
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in ast.walk(tree))
    assert len([line for cell in CODE for line in cell.source.splitlines() if line.strip()]) <= 250


@quick
@given(lengths=lengths, kernel=sizes, dilation=sizes, bias=some.booleans())
def test_a_causal_convolution_equals_its_full_sequence(page, lengths, kernel, dilation, bias):
    x, weight, bias = normal(2, 3, sum(lengths)), normal(4, 3, kernel, seed=1), normal(4, seed=2) if bias else None
    before = dilation * (kernel - 1)
    full = F.conv1d(F.pad(x, (before, 0)), weight, bias, dilation=dilation)
    state = torch.zeros(2, 3, before)

    def step(chunk, state):
        y, state = page["causal_step"](chunk, state, weight, bias, dilation=dilation)
        assert state.size(2) == before
        return y, state

    assert torch.allclose(page["stream"](step, x, state, lengths), full, atol=1e-4)


@quick
@given(lengths=lengths, stride=sizes, more=some.integers(0, 4))
def test_a_strided_convolution_takes_chunks_of_any_length(page, lengths, stride, more):
    x, weight = normal(2, 3, sum(lengths)), normal(4, 3, stride + more, seed=1)
    padded = F.pad(x, (more, 0))
    full = F.conv1d(padded, weight, stride=stride) if padded.size(2) >= stride + more else torch.zeros(2, 4, 0)

    def step(chunk, state):
        y, state = page["strided_step"](chunk, state, weight, stride)
        assert more <= state.size(2) < more + stride
        return y, state

    assert torch.allclose(page["stream"](step, x, torch.zeros(2, 3, more), lengths), full, atol=1e-4)


@quick
@given(lengths=lengths, stride=sizes, more=some.integers(0, 7))
def test_a_transposed_convolution_equals_its_full_sequence(page, lengths, stride, more):
    x, weight, bias = normal(2, 3, sum(lengths)), normal(3, 4, stride + more, seed=1), normal(4, seed=2)
    full = F.conv_transpose1d(x, weight, bias, stride=stride)[:, :, : stride * x.size(2)]

    def step(chunk, state):
        y, state = page["transposed_step"](chunk, state, weight, bias, stride)
        assert state.size(2) == more
        return y, state

    assert torch.allclose(page["stream"](step, x, torch.zeros(2, 4, more), lengths), full, atol=1e-4)


def attention(q, k, v, window):
    """Frame by frame, at absolute positions: what the page does at positions within a call, without its mask."""
    angles = torch.arange(q.size(1))[:, None] * 0.1 ** torch.arange(q.size(2) // 2)
    turn = torch.polar(torch.ones_like(angles), angles)
    q, k = (torch.complex(*x.chunk(2, dim=-1)) * turn for x in (q, k))
    rows = []
    for frame in range(q.size(1)):
        seen = slice(max(0, frame - window + 1), frame + 1)
        scores = (q[:, frame : frame + 1] * k[:, seen].conj()).real.sum(-1) / (2 * q.size(2)) ** 0.5
        rows.append((scores.softmax(-1)[:, None] @ v[:, seen]).squeeze(1))
    return torch.stack(rows, dim=1)


@quick
@given(lengths=lengths, window=some.integers(2, 6))
def test_attention_is_right_past_the_window_for_rows_at_different_offsets(page, lengths, window):
    names = dict(page, WINDOW=window)
    for name in ("rotate", "masked", "attend", "attention_step"):
        source = next(cell.source for cell in CODE if f"def {name}(" in cell.source)
        function = next(node for node in ast.parse(source).body if getattr(node, "name", "") == name)
        exec(ast.unparse(function), names)
    total, ahead = sum(lengths), 3
    q, k, v = (3 * normal(2, total + ahead, 6, seed=seed) for seed in range(3))

    def step(chunk, state):
        y, *state = names["attention_step"](*chunk.transpose(1, 2).chunk(3, dim=-1), *state)
        return y.transpose(1, 2), state

    def start(batch):
        empty = torch.zeros(batch, window - 1, 6)
        return [empty, empty, torch.zeros(batch, 1, 1, dtype=torch.int64)]

    joined = torch.cat([q, k, v], dim=2).transpose(1, 2)
    _, old = step(joined[:1, :, :ahead], start(1))  # row 0 has three frames behind it, row 1 none
    state = [torch.cat(rows) for rows in zip(old, start(1), strict=True)]
    chunks = torch.cat([joined[:1, :, ahead:], joined[1:, :, :total]])
    y = page["stream"](step, chunks, state, lengths).transpose(1, 2)
    full = attention(q, k, v, window)
    assert torch.allclose(y[0], full[0, ahead:], atol=1e-4) and torch.allclose(y[1], full[1, :total], atol=1e-4)


@quick
@given(lengths=lengths)
def test_the_graph_equals_the_toy_for_any_schedule(page, lengths):
    codes = torch.randint(0, 16, (1, sum(lengths)), generator=torch.Generator().manual_seed(len(lengths)))

    def step(chunk, state):
        return page["run"](chunk, state, page["graph"])

    streamed = page["stream"](step, codes, page["START"], lengths)
    assert torch.allclose(streamed, page["toy"](codes), atol=1e-5)


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_what_it_says_holds_for_other_weights(seed):
    executed(seed)


def test_a_row_has_a_star_where_a_number_is_wrong_or_missing(page, capsys):
    right = torch.tensor([[[1.0, 2, 3, 4]]])
    assert page["print_row"]("same", right, right, [1, 3])
    assert not page["print_row"]("other", right + torch.tensor([0.0, 0, 1, 0]), right, [1, 3])
    assert not page["print_row"]("short", right[:, :, :3], right, [1, 3])
    same, other, short = capsys.readouterr().out.splitlines()
    assert same.split() == ["same", "1", "|", "2", "3", "4"]
    assert other.split() == ["other", "1", "|", "2", "4*", "4"] and short.split()[-1] == "nan*"


# ---- the exercises --------------------------------------------------------------------------------


def exercises():
    """{name: (the cell as shipped, the folded solution)}"""
    found = {}
    for cell, after in pairwise(CELLS):
        if "exercise" in cell.metadata.get("tags", []):
            (name,) = re.findall(r'^check\("(.*?)"', cell.source, re.MULTILINE)
            solution = re.search(r"```python\n(.*?)```", after.source, re.DOTALL)[1]
            assert after.source.startswith("<details><summary>Solution</summary>")
            found[name] = cell.source, solution
    return found


EXERCISES = exercises()


def verdict(page, source, capsys):
    capsys.readouterr()
    exec(source, dict(page))
    return capsys.readouterr().out.strip()


@pytest.mark.parametrize("name", EXERCISES)
def test_an_exercise_is_not_yet_right_and_its_solution_is(page, capsys, name):
    shipped, solution = EXERCISES[name]
    assert verdict(page, shipped, capsys).startswith(f"✗ {name}: not yet. Case: chunks of 4. Found: frame 4 is wrong.")
    *code, check = shipped.splitlines()
    answered = "\n".join([*code, solution, check])
    assert verdict(page, answered, capsys) == f"✓ {name}: right in all cases."


@pytest.mark.parametrize(
    ("right", "wrong", "found", "likely"),
    [
        ("zeros(1, 1, 2), ", "ones(1, 1, 2), ", "chunks of 12. Found: frame 0 is wrong", "the state at the start"),
        ("(first, second)", "(first,)", "chunks of 4. Found: IndexError: tuple index", "not all is carried over"),
        ("(first, second)", "(first, 0 * second)", "chunks of 4. Found: frame 4 is wrong", "not all is carried over"),
        (
            "(first, second)",
            "(first, F.elu(h)[:, :, -2:])",
            "chunks of 1. Found: RuntimeError: Calculated padded",
            "a chunk is shorter",
        ),
    ],
)
def test_the_checker_tells_typical_mistakes_apart(page, capsys, right, wrong, found, likely):
    shipped, solution = EXERCISES["residual block"]
    assert right in solution
    answer = solution.replace("y, first =", "h, first =").replace("F.elu(y)", "F.elu(h)").replace(right, wrong)
    *code, check = shipped.splitlines()
    said = verdict(page, "\n".join([*code, answer, check]), capsys)
    assert found in said and f"Likely: {likely}" in said
