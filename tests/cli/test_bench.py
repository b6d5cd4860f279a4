"""The benchmark's bookkeeping: every design on the same codes, errors measured, no time asserted."""

import json
import shutil
from functools import partial
from importlib.util import find_spec

import pytest

from qwen3_codec.cli import main as cli
from qwen3_codec.exporting.tracing import ExportError
from qwen3_codec.measure import bench, card
from qwen3_codec.measure.bench import CALLS, benchmark
from qwen3_codec.measure.operations import cost_of, gflop_per_frame
from qwen3_codec.model import checkpoint
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.streaming.exact import ExactStreamingWrapper


@pytest.fixture(scope="module", autouse=True)
def small_product():
    """What the machine can do is of no matter here, and takes a second."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(bench, "gemm_gflops", partial(bench.gemm_gflops, size=64))
        yield


@pytest.fixture(scope="module")
def whole(tiny, tmp_path_factory):
    """The benchmark of every design, and the folder of its graphs."""
    folder = tmp_path_factory.mktemp("graphs")
    return benchmark(tiny, folder, frames=40, chunks=(1, 3), threads=1, rounds=2), folder


@pytest.fixture
def some(whole, tmp_path):
    """Some of these graphs in a folder of the test's own."""

    def copied(*names):
        for name in names:
            shutil.copy(whole[1] / f"{name}.onnx", tmp_path)
        return tmp_path

    return copied


def test_all_designs_are_there_and_their_errors_are_measured(tiny, whole):
    result, _ = whole
    rows = {(row.design, row.chunk): row for row in result.rows}
    reach = next(
        row.design for row in result.rows if row.design.startswith("windowed") and row.design != "windowed 4+4"
    )
    exact = ("exact", "exact, float16", "exact, int8")
    assert set(rows) == {
        ("PyTorch one-shot", 40),
        ("ONNX one-shot", 40),
        *((design, n) for n in (1, 3) for design in ("ONNX, 25 frames again", "windowed 4+4", reach, *exact)),
        *((f"{design}, {streams} streams", 1) for design in exact for streams in (4, 16)),
    }
    for chunk in (1, 3):
        assert rows["exact", chunk].max_error < MAX_ERROR > rows[reach, chunk].max_error
        assert rows["windowed 4+4", chunk].max_error > MAX_ERROR
        assert rows["exact", chunk].snr_db > rows["exact, float16", chunk].snr_db > rows["exact, int8", chunk].snr_db
    assert {len(row.call_ms) for row in result.rows} == {2 * CALLS}
    frame = result.frame_ms
    assert rows["windowed 4+4", 3].first_audio_ms == pytest.approx(6 * frame + rows["windowed 4+4", 3].median_ms)
    assert rows["exact", 1].first_audio_ms == pytest.approx(frame + rows["exact", 1].median_ms)
    assert rows["exact", 1].state_bytes == ExactStreamingWrapper(tiny.decoder).spec.bytes_per_stream()
    many = rows["exact, 16 streams", 1]
    assert many.ms_per_frame == pytest.approx(many.median_ms / 16) and many.max_error < MAX_ERROR
    assert json.loads(result.to_json())["gemm_gflops"] > 0 and "exact" in str(result)


def test_some_designs_alone(tiny, some):
    tmp_path = some("exact_int8", "windowed")
    result = benchmark(tiny, tmp_path, frames=8, chunks=(2,), threads=1, rounds=1, designs=("exact_int8", "windowed"))
    assert [row.design for row in result.rows] == [
        "PyTorch one-shot",
        "windowed 4+4",
        "exact, int8",
        "exact, int8, 4 streams",
        "exact, int8, 16 streams",
    ]
    assert {path.stem for path in tmp_path.glob("*.onnx")} == {"windowed", "exact_int8"}
    with pytest.raises(ValueError, match="there is no design 'exakt'; there are one_shot, windowed"):
        benchmark(tiny, tmp_path, frames=8, chunks=(2,), designs=("exakt",))


def test_another_runtime_says_itself_what_it_computes_in(tiny, some):
    """Beside ONNX Runtime in one run, and in the place of it."""
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    folder, few = some("exact", "exact_int8"), {"frames": 8, "chunks": (1, 2), "threads": 1, "rounds": 1, "streams": ()}
    names = ("exact", "exact_openvino_f32", "exact_openvino_bf16", "exact_int8_openvino_f32")
    result = benchmark(tiny, folder, designs=names, **few)
    _, *rows = result.rows
    ran = [row.runtime for row in rows[:4]]
    assert [row.design for row in rows[:4]] == ["exact"] * 3 + ["exact, int8"]
    assert [(row.design, row.runtime) for row in rows[4:]] == [(row.design, row.runtime) for row in rows[:4]]
    assert ran[:2] == ["ONNX Runtime", "OpenVINO, f32"] and ran[2] in ("OpenVINO, bf16", "OpenVINO, f32 (bf16 asked)")
    assert ran[3] == "OpenVINO, f32" and rows[3].snr_db > 20
    assert rows[0].max_error < MAX_ERROR > rows[1].max_error and rows[2].snr_db > 20
    assert rows[2].label == f"exact, {ran[2]}" and len([*folder.glob("*.onnx")]) == 2
    heads, _, *table = [line.split(" | ") for line in result.to_markdown().splitlines()]
    assert heads[1:6] == ["runtime", "processor", "N = 1: ms a call", "N = 2", "first audio, N = 1"]
    assert [row[1:3] for row in table] == [[runtime, result.processor] for runtime in ran]
    result = benchmark(tiny, folder, designs=("exact",), runtime="openvino", **few)
    assert {row.runtime for row in result.rows[1:]} == {"OpenVINO, f32"}
    with pytest.raises(ValueError, match="bf16 is for OpenVINO"):
        benchmark(tiny, folder / "none", precision="bf16", **few)


def test_operations_by_hand(shallow):
    """Products of the convolutional decoder, counted from the weights, are most of what PyTorch's counter finds."""
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


def test_the_cost_of_a_config_is_that_of_its_decoder(other):
    wrapper = ExactStreamingWrapper(other.decoder)
    assert cost_of(other.config) == (gflop_per_frame(wrapper), wrapper.spec)


def test_the_command(tiny, some, capsys):
    tmp_path = some("one_shot", "exact")
    checkpoint.save(tiny, tmp_path / "weights")
    arguments = ["bench", "--checkpoint", str(tmp_path / "weights"), "--frames", "8", "--chunks", "2", "--threads", "1"]
    arguments += ["--rounds", "1", "--figure", str(tmp_path / "cost.png"), "--designs", "one_shot,exact"]
    assert cli.main([*arguments, "--folder", str(tmp_path), "--json"]) == 0
    assert (tmp_path / "cost.png").read_bytes().startswith(b"\x89PNG")
    entries = json.loads(capsys.readouterr().out)
    assert entries["frames"] == 8
    assert {row["chunk"] for row in entries["rows"] if row["streams"] == 1} == {8, 2}
    assert {path.stem for path in tmp_path.glob("*.onnx")} == {"one_shot", "exact"}
    assert cli.main([*arguments[:-1], "fast"]) == 2
    assert "there is no design 'fast'; there are one_shot, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"frames": -3}, "frames is -3, must be at least 1"),
        ({"frames": 0}, "frames is 0"),
        ({"frames": 10, "chunks": (1, 12)}, "a chunk of 12 frames is longer than the codes, which have 10"),
        ({"chunks": (3, 0)}, "a chunk is 0"),
        ({"threads": 0}, "threads is 0"),
        ({"rounds": 0}, "rounds is 0"),
        ({"provider": "abacus"}, "the provider 'abacus' is not in this ONNX Runtime"),
    ],
)
def test_what_cannot_be_timed_is_refused(tiny, tmp_path, options, words):
    with pytest.raises(ValueError, match=words):
        benchmark(tiny, tmp_path, **options)
    assert not [*tmp_path.iterdir()]


@pytest.mark.slow
def test_a_card(tiny, whole):
    """Random weights fall short of any bound; the page says what was measured, and which exports held."""
    made, cost = card.make(tiny, whole[1], frames=8, chunks=(2,), threads=1, exporters=("torchscript",))
    assert [(row.precision, row.verdict) for row in made] == [
        (name, "passed") for name in ("float32", "float16", "int8")
    ]
    assert made[0].snr_db > 80 > made[1].snr_db > made[2].snr_db
    page = card.markdown(tiny, made, cost, "qwen3_codec x")
    assert tiny.fingerprint() in page and "random weights" in page and "| exact, int8 | ONNX Runtime | 2 |" in page
    widths = {line.count("|") for line in page.splitlines() if line.startswith("|")}
    assert widths == {9, 11}  # two tables, no broken line


def test_a_card_says_what_could_not_be_made(tiny, tmp_path, monkeypatch):
    def fails(*arguments, **options):
        raise ExportError("a length was frozen")

    monkeypatch.setattr(card, "export_in", fails)
    made = card._made(tiny, tmp_path, "int8", "dynamo")
    assert made.problem == "a length was frozen" and not [*tmp_path.iterdir()]


def test_the_card_command(tiny, whole, tmp_path, monkeypatch, capsys):
    checkpoint.save(tiny, tmp_path / "tiny")
    monkeypatch.setattr(card, "PRECISIONS", ("float32",))
    monkeypatch.setattr(card, "benchmark", partial(benchmark, rounds=1, designs=("exact",)))
    arguments = ["card", "--checkpoint", str(tmp_path / "tiny"), "--frames", "8", "--chunks", "2", "--threads", "1"]
    arguments += ["--folder", str(whole[1]), "--exporters"]
    page = tmp_path / "card.md"
    assert cli.main([*arguments, "torchscript", "--output", str(page)]) == 0
    assert page.read_text(encoding="utf-8").startswith("# tiny, 20")
    assert "1 exports" in capsys.readouterr().err
    if find_spec("openvino"):
        options = ["--runtime", "openvino", "--precision", "bf16", "--min-snr", "90", "--output", str(page)]
        ran = CodecSession(whole[1] / "exact.onnx", 1, runtime="openvino", precision="bf16").precision
        assert cli.main([*arguments, "torchscript", *options]) == (1 if ran == "bf16" else 0)
        assert page.read_text(encoding="utf-8").count(f"| OpenVINO, {ran}") > 2
    assert cli.main([*arguments, "abacus", "--output", str(page)]) == 2
    assert "exporter is 'abacus'" in capsys.readouterr().err
