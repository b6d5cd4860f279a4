"""`compare` on made cases: each known cause really made, then found and measured."""

import json
import sys

import numpy as np
import pytest
import soundfile
import soxr
from scipy.signal import resample, resample_poly

from qwen3_codec.cli import main as cli
from qwen3_codec.course.pitfalls.state import dropped
from qwen3_codec.demo import codes as codes_of
from qwen3_codec.model import checkpoint
from qwen3_codec.model.decoder import CausalTransConv
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.verification.alignment import best_lag
from qwen3_codec.verification.compare import both_sides_cut, compare

FRAMES = 60


@pytest.fixture(scope="module")
def demo():
    return checkpoint.load("demo")


@pytest.fixture(scope="module")
def codes():
    return codes_of("en_passage")[None, :FRAMES]


@pytest.fixture(scope="module")
def mine(demo, codes):
    return one_shot(demo.decoder, codes)[0]


@pytest.fixture
def cut_on_both_sides(demo, codes, monkeypatch):
    """Decode in pieces, with 25 frames of context, by transposed convolutions as Omni has them."""

    def forward(self, x):
        cut = self.conv.kernel_size[0] - self.conv.stride[0]
        y = self.conv(x)
        return y[..., cut : y.shape[-1] - cut]

    def decode(piece):
        monkeypatch.setattr(CausalTransConv, "forward", forward)
        pieces = []
        for start in range(0, codes.shape[1], piece):
            before = min(25, start)
            samples = one_shot(demo.decoder, codes[:, start - before : start + piece])[0]
            pieces.append(samples[before * demo.decoder.samples_per_frame :])
        return np.concatenate(pieces)

    return decode


def found(result, *words):
    assert len(result.findings) == len(words), result.findings
    for finding, each in zip(result.findings, words, strict=True):
        assert each in finding, result.findings


def test_equal_and_nearly_equal(demo, mine):
    result = compare(mine, mine, demo.config, [7, 1])
    assert (result.lag, result.max_error, result.snr_db, result.first) == (0, 0, np.inf, None)
    assert [chunk.frames for chunk in result.chunks] == [7, 1] * 7 + [4]
    found(result)
    assert json.loads(result.to_json())["snr_db"] is None and "agrees: no chunk differs" in str(result)
    result = compare(mine, mine + np.float32(1e-5), demo.config)
    assert result.max_error == pytest.approx(1e-5, rel=0.01) and result.first is None


def test_the_first_and_the_worst_chunk(demo, mine):
    spoiled = mine.copy()
    spoiled[20 * 1920 + 3] += 0.001
    spoiled[45 * 1920 + 3] -= 0.1
    result = compare(mine, spoiled, demo.config, [10])
    assert (result.first.start_frame, result.worst.start_frame) == (20, 40)
    assert result.worst.max_error == pytest.approx(0.1, rel=1e-4) and result.max_error == result.worst.max_error
    errors = [chunk.max_error for chunk in result.chunks]
    assert errors[2] == pytest.approx(0.001, rel=1e-3) and errors[0] == errors[1] == errors[3] == errors[5] == 0
    found(result, "no known cause explains the difference")
    # 16 bits explain no more than their rounding.
    sixteen = (np.rint(spoiled * np.float32(32768)) / 32768).astype(np.float32)
    found(compare(mine, sixteen, demo.config), "theirs has 16 bits", "no known cause explains the difference")
    assert "found: no known cause" in str(result)


@pytest.mark.parametrize(("piece", "starts"), [(FRAMES, "0"), (20, "0, 20, 40"), (30, "0, 30")])
def test_transposed_convolutions_cut_on_both_sides(demo, mine, cut_on_both_sides, piece, starts):
    theirs, pieces = cut_on_both_sides(piece), -(-FRAMES // piece)
    assert len(mine) - len(theirs) == 555 * pieces
    result = compare(mine, theirs, demo.config)
    found(result, f"{555 * pieces} samples are missing, {pieces} x 555:")
    assert result.findings[0].endswith(f"near frame {starts}")
    assert [result.chunks[0].lag, result.chunks[-1].lag] == [555, 555 * pieces]
    if pieces == 1:
        assert result.lag == 555 and result.snr_db > 40


def test_pieces_of_one_frame_are_told_by_their_length_alone(demo, mine, cut_on_both_sides):
    found(
        compare(mine, cut_on_both_sides(1), demo.config),
        "not the same sound",
        f"but {FRAMES * 555} samples are missing",
    )


@pytest.mark.parametrize(("rates", "lost"), [([8, 5, 4, 3], 555), ([3], 3), ([6, 5], 35), ([], 0)])
def test_what_is_lost_follows_from_the_rates(rates, lost):
    assert both_sides_cut(rates) == lost


def test_other_rates_lose_another_number(shallow, monkeypatch):
    """[5, 3] lose 18; the sound is noise, so that the border is found in it as well."""
    noise = np.random.default_rng(0).normal(0, 0.1, shallow.decoder.samples_per_frame * 30).astype(np.float32)
    half = len(noise) // 2
    theirs = np.concatenate([noise[18:half], noise[half + 18 :]])
    result = compare(noise, theirs, shallow.config)
    found(result, "36 samples are missing, 2 x 18:")
    assert result.findings[0].endswith("near frame 0, 15")


@pytest.mark.parametrize("rate", [8000, 16000, 22050, 44100, 48000])
@pytest.mark.parametrize("told", [True, False])
def test_another_rate(demo, mine, rate, told):
    theirs = resample(mine.astype(np.float64), round(len(mine) * rate / 24000)).astype(np.float32)
    result = compare(mine, theirs, demo.config, their_rate=rate if told else None)
    found(result, f"theirs is at {rate} Hz by its {'header' if told else 'length and its sound'}")
    assert result.their_samples == len(mine) and result.lag == 0
    assert (f"nothing is left above {rate // 2} Hz" in result.findings[0]) == (rate < 24000)
    # What is left is how a Fourier series and soxr fade out below half the lower rate, and the Fourier's ends; mine is
    # brought to theirs and back, so that what theirs cannot hold is not counted (it was, as 22 to 33 dB).
    assert result.snr_db > 50


RESAMPLERS = {  # by their filters: soxr's default, scipy's windowed sinc of 21 taps, the whole spectrum
    "soxr": lambda x, rate: soxr.resample(x, 24000, rate),
    "poly": lambda x, rate: resample_poly(x, rate // 1000, 24),
    "fourier": lambda x, rate: resample(x, round(len(x) * rate / 24000)),
}


@pytest.mark.parametrize(("name", "rate"), [("soxr", 8000), ("soxr", 48000), ("poly", 16000), ("fourier", 48000)])
def test_chunks_resampled_on_their_own(demo, mine, name, rate):
    """Whatever the resampler; and where another loudness, a lag and 16 bits come to it."""
    resampler = RESAMPLERS[name]
    parts = np.split(mine, range(12 * 1920, len(mine), 12 * 1920))
    theirs = np.concatenate([resampler(part, rate) for part in parts]).astype(np.float32)
    by_header, clicks = f"theirs is at {rate} Hz by its header", "4 ms on both sides of where a frame begins, at frame"
    result = compare(mine, theirs, demo.config, their_rate=rate)
    found(result, by_header, clicks)
    assert "at frame 12, 24, 36, 48: each chunk was resampled" in result.findings[-1]
    found(compare(mine, resampler(mine, rate).astype(np.float32), demo.config, their_rate=rate), by_header)
    if name == "soxr":
        found(compare(mine, theirs, demo.config), f"{rate} Hz by its length and its sound", clicks)
        late = np.rint(theirs[rate // 10 :] * 16384).astype(np.float32) / 32768
        found(compare(mine, late, demo.config, their_rate=rate), "16 bits", by_header, "too few", "times 0.5", clicks)


@pytest.mark.parametrize(("name", "rate"), [("soxr", 16000), ("soxr", 48000), ("poly", 16000)])
def test_chunks_brought_to_a_rate_and_back_on_their_own(demo, mine, name, rate):
    """Theirs is at its own rate, and nothing says which one it had in between."""

    def there_and_back(x):
        if name == "soxr":
            return soxr.resample(soxr.resample(x, 24000, rate), rate, 24000)
        return resample_poly(resample_poly(x, rate // 1000, 24), 24, rate // 1000)

    parts = np.split(mine, range(12 * 1920, len(mine), 12 * 1920))
    theirs = np.concatenate([there_and_back(part) for part in parts]).astype(np.float32)
    found(compare(mine, theirs, demo.config), "at frame 12, 24, 36, 48: each chunk was resampled")
    found(compare(mine, there_and_back(mine).astype(np.float32), demo.config), "no known cause")


def test_borders_that_are_faded_are_told_as_chunks_on_their_own(demo, mine):
    faded = mine.copy()
    for border in range(12 * 1920, len(mine), 12 * 1920):
        faded[border - 48 : border + 48] *= np.abs(np.linspace(-1, 1, 96, dtype=np.float32))
    found(compare(mine, faded, demo.config), "at frame 12, 24, 36, 48: each chunk was resampled (or filtered, or")


@pytest.mark.parametrize("rate", [24000, 8000, 48000])
def test_what_is_wrong_at_borders_for_another_reason(demo, codes, mine, rate):
    """A decoder's lost state shows behind a border alone; those of its last convolutions for 6 samples, not more."""

    def findings(theirs):
        theirs = soxr.resample(theirs.astype(np.float32), 24000, rate)
        return compare(mine, theirs, demo.config, their_rate=rate).findings

    one_click, muted = mine.copy(), mine.copy()
    one_click[24 * 1920] += 0.5
    for border in range(12 * 1920, len(mine), 12 * 1920):
        muted[border : border + 20] = 0
    stream, lossy = TorchSession(ExactStreamingWrapper(demo.decoder)).stream(), []
    for piece in stream.pushes(codes, [20]):
        lossy.append(piece[0])
        stream.state = dropped("conv_20")(stream.state)
    alone = [one_shot(demo.decoder, codes[:, start : start + 20])[0] for start in range(0, FRAMES, 20)]
    for theirs in (one_click, muted, np.concatenate(lossy), np.concatenate(alone)):
        assert "both sides" not in " ".join(findings(theirs))


def test_without_soxr_another_rate_says_what_to_install(demo, mine, monkeypatch):
    theirs = soxr.resample(mine, 24000, 16000)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ValueError, match=r"16000 Hz to 24000 Hz needs the package soxr \(pip install soxr\)"):
        compare(mine, theirs, demo.config, their_rate=16000)
    found(
        compare(mine, theirs, demo.config),
        "may be at 16000 Hz by its length: 16000 Hz to 24000 Hz",
        "not the same sound",
    )
    found(compare(mine, mine, demo.config))


@pytest.mark.parametrize("scale", [32768, 32767])
def test_sixteen_bits(demo, mine, scale):
    theirs = (np.rint(mine * np.float32(scale)) / scale).astype(np.float32)
    result = compare(mine, theirs, demo.config)
    found(result, f"theirs has 16 bits, multiples of 1/{scale}")
    assert result.first is None and 0.9 < result.max_error * 2 * scale <= 1.001
    found(compare(theirs, mine, demo.config), "mine has 16 bits")
    found(compare(theirs, theirs, demo.config))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x * 0.5, "mine times 0.5 (-6.0 dB); with that taken out the max error is 0.0e+00"),
        (lambda x: -x, "mine times -1 (+0.0 dB, upside down)"),
        (lambda x: np.clip(x, -0.2, 0.2), "theirs is clipped at 0.2"),
        (lambda x: np.clip(3 * x, -0.9, 0.9), "mine times 3 (+9.5 dB) and clipped at 0.9"),
    ],
)
def test_another_loudness(demo, mine, change, words):
    result = compare(mine, change(mine).astype(np.float32), demo.config)
    found(result, words)
    assert result.lag == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[777:], ["777 samples too few from frame 0 on"]),
        (lambda x: np.pad(x, (777, 0)), ["777 samples too many from frame 0 on"]),
        (lambda x: x[: -4 * 1920], ["7680 samples too few at its end"]),
        (lambda x: np.pad(x, (0, 100)), ["100 samples too many at its end"]),
        (lambda x: np.delete(x, slice(50 * 1920, 50 * 1920 + 100)), ["100 samples too few from frame 50 on"]),
        (lambda x: np.insert(x, 30 * 1920, np.zeros(70)), ["70 samples too many from frame 30 on"]),
        (lambda x: np.zeros_like(x), ["not the same sound: theirs is silent"]),
        (lambda x: np.random.default_rng(0).normal(0, 0.1, len(x)), ["not the same sound: no lag"]),
    ],
)
def test_samples_too_few_or_too_many(demo, mine, change, words):
    found(compare(mine, change(mine).astype(np.float32), demo.config), *words)


def test_several_causes_at_once(demo, mine, cut_on_both_sides):
    cut = cut_on_both_sides(FRAMES)
    theirs = np.rint(resample(cut.astype(np.float64), 2 * len(cut)) * 16384) / 32768
    result = compare(mine, theirs.astype(np.float32), demo.config, their_rate=48000)
    found(result, "16 bits", "48000 Hz by its header", "555 samples are missing", "mine times 0.5")


@pytest.mark.parametrize(("mine_length", "their_length", "lag"), [(1, 1, 0), (50, 20, 7), (20, 50, -7)])
def test_the_lag_against_a_search_by_hand(mine_length, their_length, lag):
    long = np.random.default_rng(1).normal(size=200)
    mine, theirs = long[100 : 100 + mine_length], 3 * long[100 + lag : 100 + lag + their_length]
    assert best_lag(mine, theirs) == lag
    assert best_lag(mine, np.zeros(their_length)) == 0


def test_two_silences_agree(demo):
    result = compare(np.zeros(3000, np.float32), np.zeros(3000, np.float32), demo.config)
    assert result.max_error == 0 and len(result.chunks) == 1
    found(result)


def test_the_command(demo, mine, cut_on_both_sides, tmp_path, capsys):
    np.save(tmp_path / "mine.npy", mine[None])
    soundfile.write(tmp_path / "theirs.wav", cut_on_both_sides(FRAMES), 24000, subtype="PCM_16")
    arguments = ["compare", str(tmp_path / "mine.npy"), str(tmp_path / "theirs.wav")]
    assert cli.main(arguments) == 0
    out = capsys.readouterr().out
    assert (
        "theirs 114645 (555 fewer)" in out and "best lag: 555 samples" in out and "worst chunk: frames 0 to 11" in out
    )
    assert "found: theirs has 16 bits" in out and "found: 555 samples are missing" in out
    assert cli.main([*arguments, "--chunks", "20", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["lag"] == 555 and [chunk["start_frame"] for chunk in report["chunks"]] == [0, 20, 40]


def test_the_command_takes_rates_from_a_graph(shallow, tmp_path, capsys):
    from qwen3_codec.exporting.export import export
    from qwen3_codec.streaming.exact import ExactStreamingWrapper

    graph = export(shallow, ExactStreamingWrapper(shallow.decoder), tmp_path / "graph.onnx").path
    noise = np.random.default_rng(0).normal(0, 0.1, 900).astype(np.float32)
    np.save(tmp_path / "mine.npy", noise)
    np.save(tmp_path / "theirs.npy", noise[18:])
    places = [str(tmp_path / "mine.npy"), str(tmp_path / "theirs.npy")]
    assert cli.main(["compare", *places, "--graph", str(graph)]) == 0
    assert "18 samples are missing, 1 x 18" in capsys.readouterr().out


def test_a_header_that_is_wrong_is_a_line_beside_the_answer(mine, tmp_path, capsys):
    soundfile.write(tmp_path / "mine.wav", mine[:19200], 24000, subtype="PCM_16")
    content = bytearray((tmp_path / "mine.wav").read_bytes())
    content[40:44] = b"\xff" * 4  # as ffmpeg leaves it that writes into a pipe
    (tmp_path / "pipe.wav").write_bytes(content)
    assert cli.main(["compare", str(tmp_path / "mine.wav"), str(tmp_path / "pipe.wav"), "--json"]) == 0
    out, err = capsys.readouterr()
    (line,) = err.strip().splitlines()[:1]
    assert line.startswith(
        f"{tmp_path / 'pipe.wav'}: its header says 4294967295 bytes of samples, there are 38400; the"
    )
    assert json.loads(out)["max_error"] == 0 and json.loads(out)["their_samples"] == 19200


def test_one_sample_at_a_high_rate_is_compared(demo, mine):
    assert compare(mine[:3000], mine[:1], demo.config, their_rate=192000).their_samples == 1


def test_what_cannot_be_compared_is_one_line(mine, tmp_path, capsys):
    np.save(tmp_path / "mine.npy", mine)
    soundfile.write(tmp_path / "mine.wav", mine, 48000)
    soundfile.write(tmp_path / "two.wav", np.zeros((9, 2)), 24000)
    (tmp_path / "text.wav").write_text("RIFF")
    for first, second, words in (
        ("mine.wav", "mine.npy", "is at 48000 Hz, the decoder's rate is 24000"),
        ("mine.npy", "two.wav", "has the shape [9, 2], must hold one channel"),
        ("mine.npy", "text.wav", "cannot be read as sound"),
        ("mine.npy", "none.wav", "No such file"),
    ):
        assert cli.main(["compare", str(tmp_path / first), str(tmp_path / second)]) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1 and words in lines[0]
