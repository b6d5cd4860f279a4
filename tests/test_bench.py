"""The benchmark's bookkeeping: every design on the same codes, errors measured, no time asserted."""

import json

import pytest

from qwen3_codec import cli
from qwen3_codec.bench import benchmark, gflop_per_frame
from qwen3_codec.model import checkpoint
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.verify import MAX_ERROR


def test_all_designs_are_there_and_their_errors_are_measured(tiny, tmp_path):
    result = benchmark(tiny, tmp_path, frames=40, chunks=(1, 3), threads=1)
    rows = {(row.design, row.chunk): row for row in result.rows}
    reach = next(
        row.design for row in result.rows if row.design.startswith("windowed") and row.design != "windowed 4+4"
    )
    assert set(rows) == {
        ("PyTorch one-shot", 40),
        ("ONNX one-shot", 40),
        *((design, n) for n in (1, 3) for design in ("ONNX, 25 frames again", "windowed 4+4", reach, "exact")),
    }
    for chunk in (1, 3):
        assert rows["exact", chunk].max_error < MAX_ERROR > rows[reach, chunk].max_error
        assert rows["windowed 4+4", chunk].max_error > MAX_ERROR
        assert len(rows["exact", chunk].call_ms) == -(-40 // chunk)
    frame = result.frame_ms
    assert rows["windowed 4+4", 3].first_audio_ms == pytest.approx(6 * frame + rows["windowed 4+4", 3].median_ms)
    assert rows["exact", 1].first_audio_ms == pytest.approx(frame + rows["exact", 1].median_ms)
    assert rows["exact", 1].state_bytes == ExactStreamingWrapper(tiny.decoder).spec.bytes_per_stream()
    assert json.loads(result.to_json())["gemm_gflops"] > 0 and "exact" in str(result)


def test_operations_by_hand(shallow):
    """Products of the conv stack, counted from the weights, are most of what PyTorch's counter finds."""
    decoder, frames_rate = shallow.decoder, 1
    total = 0
    for name, stage in decoder.stages():
        for module in stage.modules():
            if hasattr(module, "stride") and hasattr(module, "kernel_size"):
                steps = frames_rate if "ConvTranspose" in type(module).__name__ else None
                frames_rate *= module.stride[0]
                total += 2 * module.weight.numel() * (steps or frames_rate)
        assert name
    assert gflop_per_frame(ExactStreamingWrapper(decoder)) * 1e9 == pytest.approx(total, rel=0.7)


def test_the_command(tiny, tmp_path, capsys):
    checkpoint.save(tiny, tmp_path / "weights")
    arguments = ["bench", "--checkpoint", str(tmp_path / "weights"), "--frames", "8", "--chunks", "2", "--threads", "1"]
    assert cli.main([*arguments, "--folder", str(tmp_path / "graphs"), "--json"]) == 0
    entries = json.loads(capsys.readouterr().out)
    assert entries["frames"] == 8 and {row["chunk"] for row in entries["rows"]} == {8, 2}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frames": -3}, "frames is -3, must be at least 1"),
        ({"frames": 0}, "frames is 0"),
        ({"frames": 10, "chunks": (1, 12)}, "a chunk of 12 frames is longer than the codes, which have 10"),
        ({"chunks": (3, 0)}, "a chunk is 0"),
        ({"threads": 0}, "threads is 0"),
    ],
)
def test_what_cannot_be_timed_is_refused(tiny, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        benchmark(tiny, tmp_path, **options)
    assert not [*tmp_path.iterdir()]
