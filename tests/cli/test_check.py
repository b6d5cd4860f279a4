"""`check FILE.py:CLASS`: the user's file is loaded as theirs, and what cannot be used is one line."""

import json

import pytest

from qwen3_codec.cli import main as cli
from qwen3_codec.model import checkpoint

STEP = """
import neighbour
import torch
from qwen3_codec import ExactStreamingWrapper, StatefulCodecONNXWrapper


class Right(ExactStreamingWrapper):
    pass


class Scaled(ExactStreamingWrapper):
    def decode_latents(self, latents, convs):
        return super().decode_latents(neighbour.FACTOR * latents, convs)


class Windowed(StatefulCodecONNXWrapper):
    pass


class Stops(ExactStreamingWrapper):
    def forward(self, *inputs):
        raise KeyError("my own")
"""


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("my steps")
    (folder / "my_step.py").write_text(STEP)
    (folder / "neighbour.py").write_text("FACTOR = 1.25\n")
    (folder / "broken.py").write_text("class Step:\n    def forward(self:\n        pass\n")
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "base.py").write_text("from qwen3_codec import ExactStreamingWrapper as Base\n")
    (folder / "pack" / "mine.py").write_text("from .base import Base\n\n\nclass Mine(Base):\n    spec = None\n")
    (folder / "raises.py").write_text("import torch\nraise RuntimeError('while it is imported')\n")
    checkpoint.save(tiny, folder / "weights")
    return folder


def check(folder, step, *options):
    return cli.main(["check", f"{folder / step}", "--checkpoint", str(folder / "weights"), *options])


def test_a_right_step_passes_and_a_wrong_one_exits_1_with_its_line(folder, capsys):
    assert check(folder, "my_step.py:Right") == 0
    printed = capsys.readouterr().out
    assert "graph against step, torchscript" in printed
    assert printed.splitlines()[-1].startswith("✓ Right: right in 13 checks")
    assert check(folder, "my_step.py:Scaled", "--exporter", "none", "--json") == 1
    entries = json.loads(capsys.readouterr().out)
    assert not entries["passed"] and any("`mul` takes the constant 1.25" in text for text in entries["likely"])
    assert any("my_step.py:13: neighbour.FACTOR * latents" in text for text in entries["observed"])


def test_settings_of_the_windowed_design_reach_the_step(folder, capsys):
    assert check(folder, "my_step.py:Windowed", "--exporter", "none", "--conv-history", "2", "--lookahead", "0") == 0
    assert "windowed, conv history frames 2, lookahead frames 0" in capsys.readouterr().out
    assert check(folder, "my_step.py:Right", "--exporter", "none", "--conv-history", "2") == 1
    assert "unexpected keyword argument 'conv_history_frames'" in capsys.readouterr().out


def test_a_file_in_a_package_imports_its_neighbours(folder, capsys):
    assert check(folder, "pack/mine.py:Mine") == 1
    assert "Mine.spec is a NoneType, must be a StateSpec" in capsys.readouterr().out


def test_what_the_step_raises_is_a_row(folder, capsys):
    assert check(folder, "my_step.py:Stops", "--exporter", "none") == 1
    printed = capsys.readouterr()
    assert "KeyError: 'my own', at my_step.py:22" in printed.out and "Traceback" not in printed.out + printed.err


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("nothing.py:Step", "nothing.py: no such file"),
        ("my_step.py", "name a file and a class in it, FILE.py:CLASS"),
        ("my_step.py:Mine", "has no Mine; it has Right, Scaled, Windowed, Stops"),
        ("neighbour.py:FACTOR", "neighbour.py: FACTOR is no class, it is a float"),
        ("broken.py:Step", "broken.py:2: "),
        ("raises.py:Step", "RuntimeError: while it is imported, at raises.py:2"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_2(folder, capsys, step, words):
    assert check(folder, step) == 2
    err = capsys.readouterr().err.strip()
    assert words in err and err.startswith("qwen3_codec check: ") and len(err.splitlines()) == 1
