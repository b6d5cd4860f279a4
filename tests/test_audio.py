"""Waveforms in files and through a pipe, and the command that writes them."""

import os
import subprocess
import sys
import wave

import numpy as np
import pytest
import soundfile
from conftest import random_codes

from qwen3_codec import cli
from qwen3_codec.audio import pcm16, read_waveform, row_paths, write_waveforms
from qwen3_codec.export import export
from qwen3_codec.runtime import CodecSession
from qwen3_codec.streaming.exact import ExactStreamingWrapper

STEP = 1 / 32768


@pytest.fixture(scope="module")
def graph(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "exact.onnx"
    return export(tiny, ExactStreamingWrapper(tiny.decoder), path).path


@pytest.fixture
def codes(tiny, tmp_path):
    """A folder with a padded batch and a single row; the rows are 7, 3 and 20 frames long."""
    batch = random_codes(tiny.decoder, 20, batch=3)
    batch[0, 7:], batch[1, 3:] = -1, -1
    (tmp_path / "codes").mkdir()
    np.save(tmp_path / "codes" / "batch.npy", batch)
    np.save(tmp_path / "codes" / "single.npy", batch[2])
    return tmp_path / "codes"


def test_sixteen_bits_round_to_the_nearest_and_clip_at_the_ends():
    values = [-2, -1, -1 + STEP, -1.5 * STEP - 1e-6, -0.4 * STEP, 0, 0.6 * STEP, 1 - STEP, 1 - STEP / 2, 1, 2]
    wanted = [-32768, -32768, -32767, -2, 0, 0, 1, 32767, 32767, 32767, 32767]
    np.testing.assert_array_equal(pcm16(np.array(values, np.float32)), wanted)
    everything = np.arange(-32768, 32768)
    np.testing.assert_array_equal(pcm16((everything * STEP).astype(np.float32)), everything)
    for wrong in (np.nan, np.inf):
        with pytest.raises(ValueError, match=r"sample \[1\] is (nan|inf)"):
            pcm16(np.array([0, wrong], np.float32))


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".npy"])
def test_what_is_written_is_read_back(tmp_path, suffix):
    waveform = np.random.default_rng(0).uniform(-1, 1, (1, 1000)).astype(np.float32)
    waveform[0, :2] = 1, -1
    path = tmp_path / f"sound{suffix}"
    write_waveforms([path], [waveform], 22050)
    samples, rate = read_waveform(path)
    assert samples.shape == (1000,) and samples.dtype == np.float32
    if suffix == ".npy":
        np.testing.assert_array_equal(samples, waveform[0])
        assert rate is None
    else:
        assert rate == 22050 and soundfile.info(path).subtype == "PCM_16"
        np.testing.assert_array_equal(samples, pcm16(waveform[0]) * np.float32(STEP))


def test_wav_needs_the_standard_library_alone(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    waveform = np.linspace(-1, 1, 50, dtype=np.float32)[None]
    write_waveforms([tmp_path / "sound.wav"], [waveform], 16000)
    with wave.open(str(tmp_path / "sound.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate(), file.getnframes()) == (1, 2, 16000, 50)
    samples, rate = read_waveform(tmp_path / "sound.wav")
    assert rate == 16000 and np.abs(samples - waveform[0]).max() <= STEP
    with wave.open(str(tmp_path / "deep.wav"), "wb") as file:
        file.setparams((1, 3, 16000, 1, "NONE", ""))
        file.writeframes(bytes(3))
    with pytest.raises(ValueError, match=r"only WAV of 16 bits is read without soundfile \(24 bits\); pip install"):
        read_waveform(tmp_path / "deep.wav")
    with pytest.raises(ValueError, match=r"sound.flac: needs the package soundfile \(pip install soundfile\)"):
        row_paths(tmp_path / "sound.flac", 1)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((2, 9)), r"has the shape \[2, 9\], must hold one channel"),
        (np.zeros(0), "holds no sample"),
        (np.zeros(9, np.int64), "holds int64, must be floats or int16"),
        (np.array([0, 0, np.nan]), "sample 2 is not a number"),
    ],
)
def test_waveforms_that_cannot_be_compared(tmp_path, array, words):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(ValueError, match=words):
        read_waveform(tmp_path / "a.npy")


def test_int16_in_a_npy_is_taken_at_full_scale(tmp_path):
    np.save(tmp_path / "a.npy", np.array([-32768, 16384], np.int16))
    np.testing.assert_array_equal(read_waveform(tmp_path / "a.npy")[0], [-1, 0.5])


def test_names_of_rows(tmp_path):
    def names(rows):
        return [path.name for path in row_paths(tmp_path / "a.b.wav", rows)]

    assert names(1) == ["a.b.wav"] and names(2) == ["a.b_0.wav", "a.b_1.wav"]
    assert names(11)[1] == "a.b_01.wav" and names(11) == sorted(names(11))
    (tmp_path / "a.b_1.wav").mkdir()
    with pytest.raises(ValueError, match=r"a\.b_1\.wav: is a folder"):
        names(2)


def test_all_rows_or_none(tmp_path):
    def failing():
        yield np.zeros((1, 9), np.float32)
        assert not list(tmp_path.glob("out*")), "nothing appears before all is decoded"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_waveforms(row_paths(tmp_path / "out.wav", 2), failing(), 24000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".wav", ".npy", ".flac"])
def test_decode_gives_each_row_a_file(graph, codes, tmp_path, capsys, suffix):
    out = tmp_path / "out" / f"speech{suffix}"
    files = [str(codes / "batch.npy"), str(codes / "single.npy")]
    assert cli.main(["decode", str(graph), "--codes", *files, "--chunks", "4", "--output", str(out)]) == 0
    paths = [out.with_stem(f"speech_{row}") for row in range(4)]
    assert sorted(out.parent.iterdir()) == paths and str(paths[3]) in capsys.readouterr().out
    batch = np.load(codes / "batch.npy")
    expected = [*CodecSession(graph).decode(batch, [5]), CodecSession(graph).decode(batch[2], [5])[0]]
    for path, samples in zip(paths, expected, strict=True):
        np.testing.assert_allclose(read_waveform(path)[0], samples, atol=1e-5 if suffix == ".npy" else STEP)


def test_decode_needs_neither_tqdm_nor_soundfile(graph, codes, tmp_path, monkeypatch):
    for name in ("tqdm", "soundfile"):
        monkeypatch.setitem(sys.modules, name, None)
    out = tmp_path / "speech.wav"
    assert cli.main(["decode", str(graph), "--codes", str(codes / "single.npy"), "--output", str(out)]) == 0
    assert read_waveform(out)[0].any()


@pytest.mark.parametrize(
    ("files", "output", "words"),
    [
        (["bad.npy"], "x.wav", r"bad.npy: code 2150 at row 0, frame 2, codebook 0 is outside 0..63"),
        (["single.npy", "bad.npy"], "x.wav", "bad.npy: code 2150"),
        (["single.npy"], "x.mp3", "must end in .npy, .wav or .flac"),
        (["batch.npy"], "-", "--output - is one stream, the codes have 3 rows"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(graph, codes, tmp_path, capsys, files, output, words):
    bad = np.load(codes / "single.npy")
    bad[2, 0] = 2150
    np.save(codes / "bad.npy", bad)
    target = output if output == "-" else str(tmp_path / output)
    arguments = ["decode", str(graph), "--codes", *(str(codes / name) for name in files), "--output", target]
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and words in err[0]
    assert [path.name for path in tmp_path.iterdir()] == ["codes"]


def decode_to_pipe(graph, codes):
    command = [sys.executable, "-m", "qwen3_codec", "decode", graph, "--codes", codes, "--chunks", "1", "--output", "-"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_pipe_gets_samples_alone_while_they_are_decoded(graph, codes):
    with decode_to_pipe(graph, codes / "single.npy") as process:
        samples, errors = process.communicate()
    expected = CodecSession(graph).decode(np.load(codes / "single.npy"), [1])[0]
    np.testing.assert_array_equal(np.frombuffer(samples, "<f4"), expected)
    assert process.returncode == 0 and b"float32, little-endian, one channel, 24000 samples a second" in errors


def test_a_listener_may_leave(graph, tiny, tmp_path):
    np.save(tmp_path / "long.npy", random_codes(tiny.decoder, 5000)[0])
    with decode_to_pipe(graph, tmp_path / "long.npy") as process:
        assert len(process.stdout.read(4)) == 4  # comes long before the last chunk
        assert process.poll() is None
        process.stdout.close()
        errors = process.stderr.read().decode()
        assert process.wait() == 0
    assert "Error" not in errors and "Traceback" not in errors and "100%" not in errors


def test_samples_are_not_poured_into_a_terminal(graph, codes, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["decode", str(graph), "--codes", str(codes / "single.npy"), "--output", "-"]) == 2
    assert "pipe them into a player" in capsys.readouterr().err
    assert not os.path.exists("-")
