"""The template for a codec of one's own runs as it comes, and says so where a state is lost."""

import pytest

from qwen3_codec.course import own_codec


@pytest.mark.slow  # page 11 runs it too
def test_as_it_comes_it_agrees(tmp_path, capsys):
    assert own_codec.main(tmp_path)
    said = capsys.readouterr().out
    assert "causal; does not end: recurrent (gru)" in said and said.count("\npassed") == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dynamo.onnx", "torchscript.onnx"]


def test_a_wrong_step_is_told(tmp_path, capsys, monkeypatch):
    class Forgets(own_codec.Step):
        def forward(self, audio_codes, *states):
            waveform, *after = super().forward(audio_codes, *states)
            return waveform, *after[:-1], 0 * after[-1]

    monkeypatch.setattr(own_codec, "Step", Forgets)
    assert not own_codec.main(tmp_path, exporters=())
    assert "FAILED: PyTorch wrapper, chunks [1]: the first wrong frame is 1" in capsys.readouterr().out
