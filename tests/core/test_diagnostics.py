"""What is said in a block is collected from all four places, and nothing of the process is changed by it."""

import logging
import os
import sys
import warnings

import pytest
import torch

from qwen3_codec.exporting.diagnostics import STDERR, STDOUT, Diagnostic, captured, is_advice


def settings():
    loggers = [logging.getLogger(), *(logging.getLogger(name) for name in [*logging.root.manager.loggerDict])]
    return sys.stdout, sys.stderr, [*warnings.filters], warnings.showwarning, [[*each.handlers] for each in loggers]


def test_all_four_places(capfd):
    with captured() as said:
        warnings.warn_explicit("frozen", UserWarning, "step.py", 14)
        logging.getLogger("some.exporter").warning("%d specialized", 3)
        logging.getLogger("some.exporter").info("not from WARNING up")
        print("python out")
        os.write(1, b"process out\n")
        os.write(2, b"process err\n")
    assert said[:2] == [
        Diagnostic("UserWarning", "frozen", "step.py", 14),
        Diagnostic("WARNING", "3 specialized", "some.exporter"),
    ]
    assert {each.category: each.text for each in said[2:]} == {
        STDOUT: "python out\nprocess out\n",
        STDERR: "process err\n",
    }
    assert capfd.readouterr() == ("", "")


def test_what_was_shown_before_is_collected_again():
    for _ in range(2):
        with captured() as said:
            torch.jit.trace(lambda x: x * int(x.size(0)), torch.zeros(3), check_trace=False)
        assert [each.line for each in said if each.category == "TracerWarning"] == [said[-1].line]


def test_the_settings_are_as_before_also_after_an_error():
    before = settings()
    with pytest.raises(ValueError, match="in the block"), captured() as said:
        warnings.warn("before it", stacklevel=1)
        raise ValueError("in the block")
    assert [each.text for each in said] == ["before it"]
    assert settings() == before


def test_advice_is_known_by_its_words_and_a_warning_of_the_tracer_is_none():
    assert is_advice(Diagnostic("WARNING", "torchvision is not installed. Skipping torchvision::nms", "torch.onnx"))
    with captured() as said:
        torch.jit.trace(lambda x: x * int(x.size(0)), torch.zeros(3), check_trace=False)
    assert said and not any(map(is_advice, said))
