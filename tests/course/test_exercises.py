"""The exercises: as shipped they fail, solved they pass, and what people do wrong is called by its name."""

import json
import os
import re
import time
from pathlib import Path

import jupytext
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qwen3_codec.course import exercises
from qwen3_codec.course.exercises import EXERCISES, check, parity_test, progress, solution
from qwen3_codec.course.exercises.attention import rotate, window_attention
from qwen3_codec.course.exercises.exercise import Case, Exercise, grade
from qwen3_codec.course.exercises.parity_test import CLOSE, schedules

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
# What the notebooks import before the exercises.
NAMES = {"np": np, "torch": torch, "F": F, "rotate": rotate, "window_attention": window_attention}
NAMES |= {"schedules": schedules, "CLOSE": CLOSE}
SECONDS = 20  # a check takes 2; a machine under load must not fail a test


@pytest.fixture(autouse=True)
def own_progress(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN3_CODEC_BUILD", str(tmp_path))


def cells():
    """{exercise: (notebook, the cell's code)} of all cells with the tag, but for the page with a check of its own."""
    found = {}
    for path in sorted(set(NOTEBOOKS.glob("[0-9]*.py")) - {NOTEBOOKS / "01_streaming_by_hand.py"}):
        for cell in jupytext.read(path).cells:
            if "exercise" in cell.metadata.get("tags", []):
                (name,) = re.findall(r'^check\("(.*?)", ', cell.source, re.MULTILINE)
                found[name] = path.stem, cell.source
    return found


CELLS = cells()


def run(source):
    """The verdict of a cell's last line."""
    code, last = source.rsplit("\n", 1)
    names = dict(NAMES, check=check)
    exec(code, names)
    return eval(last, names)


def mistakes():
    return [
        pytest.param(e, wrong, id=f"{e.name}: {wrong.__name__}") for e in EXERCISES.values() for wrong in e.mistakes
    ]


def said(mistake):
    return " ".join(mistake.__doc__.split())


def test_each_exercise_stands_in_its_notebook_once():
    assert len(EXERCISES) >= 12
    assert {name: notebook for name, (notebook, _) in CELLS.items()} == {e.name: e.notebook for e in EXERCISES.values()}
    for notebook in {e.notebook for e in EXERCISES.values()}:
        source = (NOTEBOOKS / f"{notebook}.py").read_text(encoding="utf-8")
        wanted = [e.name for e in EXERCISES.values() if e.notebook == notebook]
        assert re.findall(r'^solution\("(.*?)"\)$', source, re.MULTILINE) == wanted


@pytest.mark.parametrize("name", EXERCISES)
def test_as_shipped_it_fails_and_says_why(name):
    verdict = run(CELLS[name][1])
    assert not verdict.passed and verdict.off and verdict.hint == EXERCISES[name].hints[0]
    assert verdict.likely, "what ships is a typical mistake, so it should be recognised"
    again = run(CELLS[name][1])
    assert again.hint == verdict.hint, "the page's own code, run again, is no try"
    assert [check(name, lambda *_: None).hint for _ in range(2)] == [EXERCISES[name].hints[0]] * 2, "one try, run twice"
    assert check(name, lambda *_: 1).hint == EXERCISES[name].hints[1]
    assert bool(verdict.said) == (name in ("the if", "lengths baked in", "valid samples"))
    assert str(again).startswith(f"✗ {name}: not yet.") and again._repr_markdown_().startswith("**✗")


@pytest.mark.parametrize("name", EXERCISES)
def test_the_solution_passes_in_its_cell(name):
    """As a reader would: the folded code in place of the cell's."""
    import html

    shown = html.unescape(re.search(r"<pre>(.*)</pre>", solution(name).data, re.DOTALL)[1])
    start = time.perf_counter()
    verdict = run(f"{shown}\n{CELLS[name][1].splitlines()[-1]}")
    assert verdict.passed, verdict
    assert time.perf_counter() - start < SECONDS
    assert f"✓ {name}: right in all {verdict.cases} cases." in str(verdict)


def test_a_warning_of_the_exporter_about_the_answer_is_shown():
    """With the line of the answer; warnings about other lines are not, and a right answer causes none."""
    exercise = EXERCISES["the if"]
    wrong = grade(exercise, exercise.mistakes[0])
    assert re.fullmatch(r"TracerWarning: Converting .*, of your line `if is_last.item\(\) > 0.5:`", wrong.said)
    assert f"- said: {wrong.said}\n" in str(wrong) and not grade(exercise, exercise.solution).said


@pytest.mark.parametrize(("exercise", "mistake"), mistakes())
def test_a_known_mistake_is_called_by_its_name(exercise, mistake):
    verdict = grade(exercise, mistake)
    assert not verdict.passed and verdict.case and verdict.off
    assert verdict.likely == said(mistake)


def test_three_mistakes_an_exercise_at_least():
    for exercise in EXERCISES.values():
        assert len({said(mistake) for mistake in exercise.mistakes}) >= 3, exercise.name


# Written otherwise than the package's own: what counts is what an answer does, not how it is written.
OTHERWISE = {
    "head_dim": [
        (
            "lambda c, b, f: torch.zeros(b, c.num_key_value_heads, f, c.hidden_size // c.num_attention_heads).shape",
            "most",
        ),
        ("lambda c, b, f: [b, c.num_attention_heads, f, c.head_dim]", "fewer keys than queries"),
        ("lambda c, b, f: (b, f, c.num_key_value_heads, c.head_dim)", "axis of time"),
    ],
    "left context": [
        ("lambda conv, x, past: (conv(F.pad(x, (past.shape[2], 0))), past * 1)", "begins with zeros"),
        ("lambda conv, x, past: (conv(torch.cat((past, x), -1)), past.clone())", "move on"),
        (
            "lambda conv, x, past: (conv(torch.cat((past, x), -1)), x[..., max(0, x.size(2) - past.size(2)):])",
            "new samples",
        ),
    ],
    "the if": [
        ("lambda x, is_last: x / 2 if bool(is_last > 0.5) else x", "Python `if`"),
        ("lambda x, is_last: x - x * is_last / 2", "computes with the flag"),
        ("lambda x, is_last: torch.where(is_last <= 0.5, x / 2, x)", "wrong way round"),
    ],
    "empty is not zero": [
        ("lambda q, k, v, r: torch.softmax(q @ k.mT / k.shape[-1] ** 0.5, -1) @ v", "count is not used"),
        (
            "lambda q, k, v, r: torch.softmax((q @ k.mT / 2).masked_fill((k == 0).all(-1)[:, None], -1e9), -1) @ v",
            "zero too",
        ),
    ],
    "lengths baked in": [
        (
            "lambda x, past: (x + torch.arange(x.size(1)) * 0.1, torch.cat([past, x], 1)[:, -4:], "
            "torch.cat([past, x], 1).sum(1, keepdim=True) / float(past.shape[1] + x.shape[1]))",
            "int(…)",
        )
    ],
    "valid samples": [
        ("lambda p, last, a: (p, torch.full((1,), p.shape[1]) - a * (last < 0.5).long())", "clamp it at 0"),
        ("lambda p, last, a: (p, torch.where(last > 0.5, p.size(1), max(0, p.size(1) - a)))", "decided in Python"),
        ("lambda p, last, a: (p, torch.where(last > 0.5, len(p[0]), torch.tensor(len(p[0]) - a).clamp(0)))", ""),
    ],
    "rows at different offsets": [
        (
            "lambda past, new, window, valid: torch.stack([torch.tensor([[0 <= past + q - k < window and "
            "(k < r or k >= past) for k in range(past + new)] for q in range(new)]) for r in valid.tolist()])",
            "The valid ones are the last",
        ),
        (
            "lambda past, new, window, valid: torch.stack([torch.tensor([[0 <= past + q - k < window and "
            "k > past - r for k in range(past + new)] for q in range(new)]) for r in valid.tolist()])",
            "One valid key is hidden",
        ),
    ],
    "length of the left context": [
        ("lambda k, d, s: k - s", "dilation is missing"),
        ("lambda k, d, s: (k - 1) * d", "stride is missing"),
    ],
    "steps and frames": [
        ("lambda p, n, s, w: (p * s, (p + n).clamp(max=-(-(w - 1) // s)))", "More steps are counted as valid"),
        ("lambda p, n, s, w: (p, (p + n).clamp(max=w - 1))", "as if they were"),
    ],
    "gate order": [
        ("lambda w, r, b, c: tuple(x.unsqueeze(0) for x in (w, r, torch.cat((b, c))))", "still in torch's order"),
    ],
    "names that pair": [
        (
            "lambda c, n: [('frames', 'next_frames')] + [(f'conv_{i}', f'conv_{i}_next') for i in range(c)] + "
            "[(f'{k}_{i:02}', f'{k}_{i:02}_next') for k in ('key', 'value') for i in range(n)]",
            "",
        )
    ],
}


@pytest.mark.parametrize(("name", "code", "words"), [(n, c, w) for n, all_of in OTHERWISE.items() for c, w in all_of])
def test_the_same_mistake_in_other_words(name, code, words):
    verdict = check(name, eval(code, dict(NAMES)))
    assert not verdict.passed and words in verdict.likely, verdict


class Remembers:
    """A convolution's step that keeps its past to itself."""

    def __init__(self):
        self.past = None

    def __call__(self, conv, x, past):
        mine = past if self.past is None or self.past.shape != past.shape else self.past
        joined = torch.cat([mine, x], dim=2)
        self.past = joined[:, :, joined.size(2) - past.size(2) :]
        return conv(joined), past


class OneShotInDisguise:
    """Decodes everything that came so far, all at once, each time."""

    def __init__(self, block):
        self.block, self.seen = block, []

    def start(self, batch):
        return torch.zeros(batch, 3, 6), torch.zeros(batch, 3, 1)

    def __call__(self, x, past, before):
        self.seen.append(x)
        return self.block(torch.cat(self.seen, dim=2))[:, :, -2 * x.size(2) :], past, before


CHEATS = [
    ("head_dim", lambda c, b, f: (2, 16, 5, 64)),
    ("left context", Remembers()),
    ("left context", lambda conv, x, past: (conv(F.pad(x, (past.size(2), 0))), past)),
    ("the if", lambda x, is_last: x[:, :4]),
    ("axis baked in", lambda graph, module, example: {("x", 0)}),
    ("empty is not zero", lambda q, k, v, r: v[:, -1:]),
    ("length of the left context", lambda k, d, s: 54),
    ("lengths baked in", lambda x, past: (x + torch.arange(3) * 0.1, past, x.mean(1, keepdim=True))),
    ("names and axes", lambda layers: EXERCISES["names and axes"].solution(3)),
    ("valid samples", lambda p, last, a: (p, torch.tensor([3]))),
    ("transposed", lambda conv: lambda x, past: (conv(x), past)),
    ("keys and positions", lambda q, k, v, pk, pv, w: (window_attention(q, k, v, w), pk, pv)),
    ("rows at different offsets", lambda past, new, window, valid: torch.ones(len(valid), new, past + new).bool()),
    ("steps and frames", lambda p, n, s, w: (p * 0, p)),
    ("names that pair", lambda convs, layers: EXERCISES["names that pair"].solution(3, 2)),
    ("two terms", lambda x: (x.round(), torch.zeros_like(x), torch.ones(*x.shape[:-1], 1))),
    ("gate order", lambda *w: EXERCISES["gate order"].solution(*(w if len(w[0]) == 20 else map(torch.zeros_like, w)))),
    ("streaming counterpart", OneShotInDisguise),
    ("parity test", lambda run, zeros, x, wanted: [2]),
    ("parity test", lambda run, zeros, x, wanted: None),
]


def test_every_exercise_has_a_cheat():
    assert {name for name, _ in CHEATS} == set(EXERCISES)


@pytest.mark.parametrize(("name", "answer"), CHEATS)
def test_what_fits_one_case_does_not_pass(name, answer):
    assert not check(name, answer).passed


def test_an_answer_that_remembers_is_told_so():
    verdict = check("streaming counterpart", OneShotInDisguise)
    assert not verdict.passed and verdict.case
    block = EXERCISES["streaming counterpart"]
    turn = next(case for case in block.cases() if case.label == "two streams in turn")
    assert "must go in and come out" in turn.means


@pytest.mark.parametrize("answer", [None, lambda *a: 1 / 0, lambda *a: None, lambda *a: exit(), dict])
@pytest.mark.parametrize("name", EXERCISES)
def test_nothing_comes_out_of_a_check_but_a_verdict(name, answer):
    verdict = check(name, answer)
    assert not verdict.passed and verdict.off and "Traceback" not in str(verdict)


def test_an_error_names_the_readers_own_line():
    def mine(kernel, dilation, stride):
        return kernel.no_such_thing

    verdict = check("length of the left context", mine)
    assert "AttributeError" in verdict.off and "in your line `return kernel.no_such_thing`" in verdict.off


def test_a_number_of_nan_is_wrong():
    assert not check("length of the left context", lambda k, d, s: float("nan")).passed


def test_a_mask_says_where_it_is_wrong():
    verdict = check("rows at different offsets", lambda p, n, w, r: torch.ones(len(r), n, p + n).bool())
    assert re.match(r"at \[\d+, \d+, \d+\] it is True, must be False", verdict.off)


def test_what_is_right_in_pytorch_and_wrong_as_a_graph_is_told_so():
    verdict = check("valid samples", lambda p, last, a: (p, torch.where(last > 0.5, 0, 0) + max(0, len(p[0]) - a)))
    assert not verdict.passed
    verdict = check(
        "lengths baked in", lambda x, past: EXERCISES["lengths baked in"].solution(x[:, : int(x.size(1))], past)
    )
    assert "as a graph" not in verdict.case and verdict.case.startswith("graph of torchscript")
    assert "the graph kept something of its example" in verdict.likely


def test_an_unknown_name_lists_those_there_are():
    verdict = check("no such", len)
    assert "no exercise of that name" in str(verdict) and "parity test" in str(verdict)


def test_progress_is_kept_and_shown(tmp_path):
    name, exercise = "length of the left context", EXERCISES["length of the left context"]
    check(name, len)
    check(name, exercise.solution)
    check(name, len)  # whoever has solved it keeps that
    kept = json.loads((tmp_path / "exercises.json").read_text())
    assert list(kept) == [name] and (kept[name]["tries"], kept[name]["passed"]) == (2, True)
    assert f"| {name} | [02_inspect_dims](02_inspect_dims.ipynb) | ●○○ | 5 | 2 | ✓ |" in progress().data
    assert progress().data.count("\n") == 1 + len(EXERCISES)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"left context": 3}', '{"left context": {"tries": "x", "passed": 1}}']
)
def test_a_record_that_cannot_be_read_is_begun_anew(tmp_path, text):
    (tmp_path / "exercises.json").write_text(text)
    assert check("head_dim", EXERCISES["head_dim"].solution).passed
    (entry,) = json.loads((tmp_path / "exercises.json").read_text()).values()
    assert (entry["tries"], entry["passed"]) == (1, True)


def test_a_record_that_cannot_be_kept_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("QWEN3_CODEC_BUILD", os.path.join(tmp_path, "file"))
    (tmp_path / "file").write_text("")
    verdict = check("head_dim", EXERCISES["head_dim"].solution)
    assert verdict.passed and "not kept in exercises.json" in str(verdict)


def test_a_mistake_has_to_say_what_is_wrong():
    with pytest.raises(ValueError, match="silent does not say what is wrong"):

        def silent():
            pass

        Exercise("x", "x", silent, list, (silent,), ("", ""), 1, 5)


def test_a_slow_case_is_played_last_and_its_meaning_told():
    def slow(answer):
        return [np.asarray(answer())]

    cases = [Case("slow", slow, [np.asarray(2)], "what that means", slow=True), Case("quick", slow, [np.asarray(1)])]
    exercise = Exercise("x", "x", lambda: 1, lambda: cases, (), ("first", "second"), 1, 5)
    verdict = grade(exercise, lambda: 1)
    assert (verdict.case, verdict.likely, verdict.cases) == ("slow", "what that means", 2)


class TestTheTenGraphs:
    def test_two_are_right_and_eight_show_within_few_frames(self):
        shortest = {kind.__name__: parity_test.shortest(kind) for kind in parity_test.GRAPHS}
        assert [name for name, frames in shortest.items() if not frames] == ["OtherOrder", "Toy"]
        assert len(shortest) == 10 and max(shortest.values()) <= parity_test.FEW

    def test_the_one_shot_result_is_the_modules(self):
        """numpy and loops against the module, all at once and with state."""
        x, wanted = parity_test.sound(), parity_test.one_shot(parity_test.sound())
        for kind in parity_test.RIGHT:
            states = [torch.from_numpy(array) for array in parity_test.zeros(2)]
            found, *_ = kind()(torch.from_numpy(x), *states)
            np.testing.assert_allclose(found.numpy(), wanted, atol=1e-5)
            assert not any(
                parity_test.shows(parity_test.graph(kind), schedule) for schedule in ([1], [24], [7, 1, 2], [1] * 24)
            )

    def test_schedules_are_all_there_are(self):
        every = [*schedules(6)]
        assert len(every) == len({tuple(cut) for cut in every}) == 2**6 - 1
        assert [sum(cut) for cut in every] == sorted(sum(cut) for cut in every)


def test_notebook_11_runs_with_all_solutions_put_in(monkeypatch, tmp_path):
    """Cell by cell, as a reader who has solved everything; each check passes."""
    import html

    passed = []

    def noted(name, answer):
        verdict = check(name, answer)
        passed.append((name, verdict.passed))
        return verdict

    names = {}
    for cell in jupytext.read(NOTEBOOKS / "12_capstones.py").cells:
        if cell.cell_type != "code":
            continue
        source = cell.source
        if "exercise" in cell.metadata.get("tags", []):
            name = re.search(r'^check\("(.*?)", ', source, re.MULTILINE)[1]
            shown = html.unescape(re.search(r"<pre>(.*)</pre>", solution(name).data, re.DOTALL)[1])
            source = f"{shown}\n{source.splitlines()[-1]}"
            names["check"] = noted
        exec(source, names)
    assert passed == [(e.name, True) for e in EXERCISES.values() if e.notebook == "12_capstones"]
    assert progress().data.count("✓") == len(passed)


def test_the_wing_says_what_it_offers():
    assert sorted(exercises.__all__) == ["EXERCISES", "check", "progress", "solution"]
