"""Exported graphs behind upstream's interface. tests/upstream compares them with upstream's own classes."""

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qwen3_codec import SpeechTokenizer
from qwen3_codec.cli.main import main
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint.config import small_config
from qwen3_codec.runtime import CodecSession, CodesError, GraphError
from qwen3_codec.runtime.audio import write_waveforms

RATE = 16000  # of the encoder alone; the decoder's is 24000


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Both halves of a codec of 3 codebooks and 6 samples a frame, as the command writes them."""
    folder = tmp_path_factory.mktemp("both")
    fields = {"num_hidden_layers": 1, "num_quantizers": 3, "upsample_rates": [3], "upsampling_ratios": [2]}
    config = small_config(**fields) | {"encode_downsample_rate": 6, "encoder_valid_num_quantizers": 3}
    config["encoder_config"] = config["encoder_config"] | {"upsampling_ratios": [3], "sampling_rate": RATE}
    checkpoint.save(checkpoint.random_checkpoint(config | {"input_sample_rate": RATE}), folder / "weights")
    assert main(["export", "--part", "both", "--checkpoint", str(folder / "weights"), "--output", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return SpeechTokenizer(folder, threads=1)


def sound(samples, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def test_a_folder_or_its_files_and_the_getters(folder, tokenizer):
    sessions = CodecSession(folder / "decoder.onnx"), CodecSession(folder / "encoder.onnx")
    for same in (
        tokenizer,
        SpeechTokenizer(folder / "decoder.onnx", folder / "encoder.onnx"),
        SpeechTokenizer(*sessions),
    ):
        assert same.get_model_type() == "qwen3_tts_tokenizer_12hz"
        assert (same.get_input_sample_rate(), same.get_output_sample_rate()) == (RATE, 24000)
        assert (same.get_encode_downsample_rate(), same.get_decode_upsample_rate()) == (6, 6)


def test_sound_of_any_kind_becomes_the_codes_that_each_has_alone(tokenizer, tmp_path):
    rows = [sound(60), sound(34, 1), sound(1, 2)]
    wanted = [tokenizer.encoder.encode(row)[0] for row in rows]
    assert [*map(len, wanted)] == [10, 6, 1]
    np.save(tmp_path / "b.npy", rows[1])
    stereo = np.stack([rows[0] + 0.25, rows[0] - 0.25], axis=1)  # their mean is the sound
    lists = [rows, [*map(torch.from_numpy, rows)], [stereo, str(tmp_path / "b.npy"), rows[2].astype(np.float64)]]
    for given in [*lists, rows[0], torch.from_numpy(rows[0]).requires_grad_()]:
        encoded = tokenizer.encode(given, sr=RATE)
        (codes,) = encoded  # upstream's callers have it as a tuple too
        assert codes is encoded.audio_codes and len(codes) == (3 if isinstance(given, list) else 1)
        for row, one in zip(codes, wanted, strict=False):
            assert row.dtype == torch.int64 and np.array_equal(row, one)


def test_a_file_says_its_own_rate_and_another_is_brought_to_the_encoders(tokenizer, tmp_path):
    pytest.importorskip("soxr")
    from qwen3_codec.runtime.resampling import resample

    low = np.round(sound(90) * 32768).astype(np.float32) / 32768
    write_waveforms([tmp_path / "low.wav"], [low[None]], 8000)
    wanted = tokenizer.encoder.encode(resample(low, 8000, RATE))[0]
    for given, rate in ((tmp_path / "low.wav", 24000), (low, 8000)):
        (codes,) = tokenizer.encode(given, sr=rate).audio_codes
        assert np.array_equal(codes, wanted)


def test_a_stereo_file_is_mixed(tokenizer, tmp_path):
    soundfile = pytest.importorskip("soundfile")
    mono = np.round(sound(60) * 4096).astype(np.float32) / 32768
    soundfile.write(tmp_path / "two.wav", np.stack([mono * 0, mono * 2], axis=1), RATE)
    (codes,) = tokenizer.encode(str(tmp_path / "two.wav")).audio_codes
    assert np.array_equal(codes, tokenizer.encoder.encode(mono)[0])


def test_codes_in_every_form_become_the_same_sound(tokenizer):
    rng = np.random.default_rng(0)
    rows = [rng.integers(64, size=(frames, 3)) for frames in (40, 7, 1)]
    wanted = [tokenizer.decoder.decode(row)[0] for row in rows]
    batch = np.full((3, 40, 3), -1)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    tensors = [*map(torch.from_numpy, rows)]
    forms = [SimpleNamespace(audio_codes=tensors), {"audio_codes": rows}, {"audio_codes": batch.astype(np.int32)}]
    forms += [[{"audio_codes": row} for row in tensors], {"audio_codes": torch.from_numpy(batch)}]
    for given in [*forms, {"audio_codes": rows[0]}, {"audio_codes": tensors[0][None]}]:
        waveforms, rate = tokenizer.decode(given)
        assert rate == 24000 and len(waveforms) in (1, 3)
        for waveform, one in zip(waveforms, wanted, strict=False):
            assert type(waveform) is np.ndarray and waveform.dtype == np.float32
            assert waveform.shape == one.shape and np.abs(waveform - one).max() < 1e-6
    sound_again = tokenizer.decode(tokenizer.encode([sound(60), sound(34)], sr=RATE))[0]
    assert [*map(len, sound_again)] == [60, 36]


def test_what_is_in_memory_at_once_does_not_grow_with_rows_or_frames(tokenizer, monkeypatch):
    sizes, run = [], tokenizer.decoder.run
    monkeypatch.setattr(
        tokenizer.decoder, "run", lambda feeds: [sizes.append(feeds["audio_codes"].shape), run(feeds)][1]
    )
    tokenizer.decode({"audio_codes": np.zeros((5, 100, 3), np.int64)})
    assert {(batch, frames <= 12) for batch, frames, _ in sizes} == {(1, True)}


def test_a_graph_of_two_rows_serves_one(folder, tokenizer):
    path = folder / "two.onnx"
    assert not main(["export", "--batch", "2", "--checkpoint", str(folder / "weights"), "--output", str(path)])
    codes = {"audio_codes": np.zeros((5, 3), np.int64)}
    (waveform,), _ = SpeechTokenizer(path).decode(codes)
    assert np.abs(waveform - tokenizer.decode(codes)[0][0]).max() < 1e-6


def test_what_cannot_be_done_says_why(folder, tokenizer, tiny_exact, tmp_path):
    decoder, encoder = (SpeechTokenizer(**{part: folder / f"{part}.onnx"}) for part in ("decoder", "encoder"))
    codes = {"audio_codes": np.zeros((2, 3), np.int64)}
    cases = {
        "an array does not say its rate": lambda: tokenizer.encode(sound(9)),
        "row 1 of the audio is int16": lambda: tokenizer.encode([sound(9), np.ones(9, np.int16)], sr=RATE),
        r"\[2, 9\], must be \[M\] or \[M, channels\]": lambda: tokenizer.encode(sound(18).reshape(2, 9), sr=RATE),
        "what is behind a URL": lambda: tokenizer.encode(["https://localhost/speech.wav"]),
        "has no encoder": lambda: decoder.encode(sound(9), sr=RATE),
        "has no decoder: SpeechTokenizer.decoder=": lambda: encoder.decode(codes),
        "no decoder": encoder.get_output_sample_rate,
        "no encoder": decoder.get_input_sample_rate,
        "needs a decoder, an encoder": SpeechTokenizer,
    }
    for words, act in cases.items():
        with pytest.raises(ValueError, match=words):
            act()
    with pytest.raises(CodesError, match="code 64 at row 1, frame 1, codebook 2"):
        tokenizer.decode([codes, {"audio_codes": np.array([[0, 0, 0], [0, 0, 64]])}])
    with pytest.raises(TypeError, match="a list of such dicts, not ndarray"):
        tokenizer.decode(codes["audio_codes"])
    with pytest.raises(GraphError, match="holds neither decoder"):
        SpeechTokenizer(tmp_path)
    with pytest.raises(GraphError, match="is an encoder's graph, given as the decoder"):
        SpeechTokenizer(folder / "encoder.onnx")


def test_halves_of_two_codecs_are_refused(folder, exact):
    with pytest.raises(GraphError, match=r"has num_quantizers 3, .* has 16: they are of two codecs"):
        SpeechTokenizer(exact, folder / "encoder.onnx")


def test_without_torch_its_codes_are_numpys(folder):
    code = f"""
import sys
import numpy as np
from qwen3_codec import SpeechTokenizer, codes_of, speak
tokenizer = SpeechTokenizer({str(folder)!r})
codes, = tokenizer.encode(np.zeros(60, np.float32), sr={RATE}).audio_codes
waveform, = tokenizer.decode({{"audio_codes": codes}})[0]
print(type(codes).__module__, codes.dtype, waveform.shape, "torch" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.stdout == "numpy int64 (60,) False\n", run.stdout + run.stderr
