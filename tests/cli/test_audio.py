"""Waveforms in files and through a pipe, and the command that writes them."""

import os
import shlex
import struct
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from conftest import random_codes

from qwen3_codec.cli import main as cli
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.audio import pcm16, read_waveform, row_paths, write_waveforms
from qwen3_codec.runtime.player import player
from qwen3_codec.runtime.resampling import check_rates, resample, resampled

STEP = 1 / 32768


@pytest.fixture
def graph(tiny_exact):
    return tiny_exact


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


NUMBERS = np.random.default_rng(0).integers(-32768, 32767, 1001).astype(np.int16)
SAMPLES, TEXT = NUMBERS.tobytes(), b"LIST\x05\0\0\0abcde"
FMT = struct.pack("<HHIIHH", 1, 1, 24000, 48000, 2, 16)
STEREO = struct.pack("<HHIIHH", 1, 2, 24000, 96000, 4, 16)
FLOAT = struct.pack("<HHIIHH", 3, 1, 24000, 96000, 4, 32)
GUID = bytes.fromhex("000000001000800000aa00389b71")  # what follows the number of a format
EXTENSIBLE = struct.pack("<HHIIHHHHIH14s", 0xFFFE, 1, 24000, 48000, 2, 16, 22, 16, 4, 1, GUID)


def wav(samples=SAMPLES, length=None, whole=None, before=b"", behind=b"", form=b"RIFF", fmt=FMT):
    """A WAV of these bytes whose header says `length` of its samples and `whole` of the file."""
    chunk = struct.pack("<4sI", b"data", len(samples) if length is None else length) + samples
    rest = b"WAVE" + struct.pack("<4sI", b"fmt ", len(fmt)) + fmt + before + chunk + behind
    return form + struct.pack("<I", len(rest) if whole is None else whole) + rest


def rf64(length):
    sizes = struct.pack("<4sIQQQI", b"ds64", 28, 2074, length, 1001, 0)
    return wav(form=b"RF64", length=2**32 - 1, whole=2**32 - 1).replace(b"WAVE", b"WAVE" + sizes)


@pytest.fixture(params=["soundfile", "alone"])
def reader(request, monkeypatch):
    """Both ways to read a WAV of 16 bits."""
    if request.param == "alone":
        monkeypatch.setitem(sys.modules, "soundfile", None)


LIES = {
    "a recorder that was stopped": (wav(length=0, whole=0), 1001, "says 0 bytes of samples, there are 2002"),
    "a length of 0 alone": (wav(length=0), 1001, "says 0 bytes"),
    "a length of 0, and a text behind": (
        wav(length=0, behind=TEXT + b"\0"),
        1001,
        "says 0 bytes of samples, there are 2002",
    ),
    "into a pipe, a text behind": (wav(length=2**32 - 1, behind=TEXT + b"\0"), 1001, "there are 2002"),
    "into a pipe": (wav(length=2**32 - 1, whole=2**32 - 1), 1001, "says 4294967295 bytes"),
    "into a pipe, with a text": (wav(length=2**32 - 1, whole=2**32 - 1, before=TEXT + b"\0"), 1001, "4294967295"),
    "2^31 - 1": (wav(length=2**31 - 1, whole=2**31 - 1), 1001, "says 2147483647 bytes"),
    "an old length": (wav(length=1000), 1001, "says 1000 bytes of samples, there are 2002"),
    "an odd byte": (wav(SAMPLES + b"1"), 1001, "its 2003 bytes of samples are no multiple of 2"),
    "an odd length": (wav(length=2001), 1001, "says 2001 bytes of samples, there are 2002"),
    "cut": (wav()[:-1000], 501, "says 2002 bytes of samples, there are 1002"),
    "cut inside a sample": (wav()[:-1001], 500, "says 2002 bytes of samples, there are 1001"),
    "the file's length": (wav(whole=12), 1001, "says that the file has 20 bytes, it has 2046"),
    "RF64, cut": (rf64(2002)[:-1000], 501, "says 2002 bytes of samples, there are 1002"),
    "RF64, into a pipe": (rf64(0), 1001, "says 0 bytes"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_wav_that_is_wrong_about_its_length_gives_its_samples_and_says_so(reader, tmp_path, name):
    content, count, words = LIES[name]
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.warns(UserWarning) as told:
        samples, rate = read_waveform(tmp_path / "x.wav")
    (note,) = [str(each.message) for each in told]
    assert note.startswith(f"{tmp_path / 'x.wav'}: it") and words in note and "\n" not in note
    assert note.endswith(f"the {count} samples that are there are taken") and rate == 24000
    np.testing.assert_array_equal(samples, NUMBERS[:count] / np.float32(32768))


@pytest.mark.parametrize(
    "content",
    [
        wav(),
        wav(before=TEXT + b"\0"),
        wav(before=TEXT),  # without the byte that fills up an odd chunk, as some programs leave it
        wav(behind=TEXT + b"\0"),
        wav(behind=TEXT),
        wav(before=b"fact\4\0\0\0\0\0\0\0"),
        wav(fmt=EXTENSIBLE),
        rf64(2002),
        b"BW64" + rf64(2002)[4:],
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_wav_that_is_right_says_nothing(reader, tmp_path, content):
    (tmp_path / "renamed.npy").write_bytes(content)
    np.testing.assert_array_equal(read_waveform(tmp_path / "renamed.npy")[0], NUMBERS / np.float32(32768))


@pytest.mark.parametrize(
    ("format", "subtype", "within"),
    [
        ("WAV", "PCM_U8", 2**-7),
        ("WAV", "PCM_24", 2**-23),
        ("WAV", "FLOAT", 0),
        ("WAV", "DOUBLE", 0),
        ("WAV", "ULAW", 2**-5),
        ("WAV", "MS_ADPCM", 1),
        ("WAVEX", "PCM_16", 2**-15),
        ("RF64", "FLOAT", 0),
        ("AIFF", "PCM_16", 2**-15),
        ("FLAC", "PCM_24", 2**-23),
        ("OGG", "VORBIS", 1),
        ("OGG", "OPUS", 1),
        ("MP3", "MPEG_LAYER_III", 1),
    ],
)
@pytest.mark.filterwarnings("error")
def test_what_soundfile_reads_is_read(tmp_path, format, subtype, within):
    """`within` a step of the format; the lossy ones are held to their length."""
    sound = NUMBERS.astype(np.float32) / 32768
    with open(tmp_path / "x.bin", "wb") as file:
        soundfile.write(file, sound, 24000, format=format, subtype=subtype)
    samples, rate = read_waveform(tmp_path / "x.bin")
    assert rate == 24000 and len(sound) <= len(samples) < len(sound) + 1100
    assert within == 1 or np.abs(samples - sound).max() <= within


M4A, WEBM = b"\0\0\0\x20ftypM4A \0\0\2\0", b"\x1aE\xdf\xa3\x9fB\x86\x81\x01"
OPUS = b"OggS\0\2" + bytes(20) + b"\x01\x13OpusHead"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.m4a", M4A, "it is MPEG-4 (.m4a, .mp4)"),
        ("x y.webm", WEBM, "it is WebM or Matroska"),
        ("x.opus", OPUS, "it is Opus in Ogg"),
        ("x.mp3", b"ID3\4\0\0\0\0\0\0", "it is MP3"),
        ("x.aac", b"\xff\xf1\x50\x80", "it is AAC"),
        ("x.wav", M4A, "it is MPEG-4 (.m4a, .mp4)"),  # renamed
        ("x.WAV", OPUS, "it is Opus in Ogg"),
        ("x.npy", WEBM, "it is WebM or Matroska"),
        ("x.flac", b"fLaC\0\0\0\x22" + bytes(9), "it is FLAC"),
    ],
)
def test_what_is_not_read_is_named_by_its_kind_with_the_line_that_mends_it(tmp_path, monkeypatch, name, content, words):
    monkeypatch.chdir(tmp_path)
    Path(name).write_bytes(content)
    with pytest.raises(ValueError) as error:
        read_waveform(Path(name), 16000)
    text = str(error.value)
    assert text.startswith(f"{name}: cannot be read as sound: {words} (") and "\n" not in text
    command, target = shlex.split(text.split("ffmpeg makes a WAV of it: ")[1]), Path(name).with_suffix(".wav").name
    target = (
        name.replace("x.", "x_mended.") if name.lower() == "x.wav" else target
    )  # ffmpeg writes to no file that it reads
    assert command == ["ffmpeg", "-i", name, "-ar", "16000", "-ac", "1", target]
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(ValueError, match=r"only WAV of 16 bits is read without soundfile \(.*ffmpeg -i"):
        read_waveform(Path(name), 16000)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty, 0 bytes"),
        (b"Dear diary,\n" * 9, "cannot be read as sound: its bytes are of no kind that is known"),
        (wav(b""), "holds no sample"),
        (wav()[:40], "cannot be read as sound: it is WAV"),
        (wav(fmt=STEREO), r"has the shape \[500, 2\], must hold one channel; ffmpeg makes a WAV of it"),
        (wav(np.float32([0, np.nan]).tobytes(), fmt=FLOAT), "sample 1 is not a number"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no multiple of 4")
def test_what_is_no_sound_is_one_line(tmp_path, content, words):
    (tmp_path / "x.wav").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.wav: {words}"):
        read_waveform(tmp_path / "x.wav", 24000)
    with pytest.raises(ValueError, match="is a folder, must be a file with sound"):
        read_waveform(tmp_path)


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


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000])
def test_a_stream_resampled_is_the_whole_resampled(rate):
    """To the bit: soxr's stream does the same sums in the same order, however it is cut."""
    sound = np.random.default_rng(0).normal(0, 0.1, 24017).astype(np.float32)
    whole = soxr.resample(sound, 24000, rate)
    assert len(whole) == round(len(sound) * rate / 24000)
    for cuts in ([], [1920], range(1, 200), [0, 0, 7, 7, 5767, 24017]):
        parts = [*resampled(np.split(sound, cuts), 24000, rate)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)
        assert len(parts[-1]) > 0, "the filter still holds some at the end"
    np.testing.assert_array_equal(resample(sound, 24000, rate), whole)


def test_a_recordings_end_does_not_come_into_its_start():
    """As it did by its Fourier series, which goes round."""
    sound = np.zeros(24000, np.float32)
    sound[-50:] = 0.5
    assert not resample(sound, 24000, 16000)[:12000].any()


def test_rates_that_cannot_be(monkeypatch):
    for rate in (0, -1, 93, 24000 * 257):  # libsoxr takes Python down with it at 1 Hz to 24,000
        with pytest.raises(ValueError, match=f"24000 Hz cannot become {rate} Hz"):
            check_rates(24000, rate)
    monkeypatch.setitem(sys.modules, "soxr", None)
    with pytest.raises(ValueError, match=r"24000 Hz to 48000 Hz needs the package soxr \(pip install soxr\)"):
        check_rates(24000, 48000)


def test_decode_at_another_rate(graph, codes, tmp_path, capsys, monkeypatch):
    batch = str(codes / "batch.npy")
    decode = ["decode", str(graph), "--codes", batch, "--chunks", "1,4", "--output", str(tmp_path / "x.wav")]
    assert cli.main([*decode, "--resample", "16000"]) == 0
    rows = CodecSession(graph).decode(np.load(batch), [1, 4])
    for row, samples in enumerate(rows):
        wanted = soxr.resample(samples, 24000, 16000)
        found, rate = soundfile.read(tmp_path / f"x_{row}.wav")
        assert rate == 16000 and len(found) == len(wanted)
        np.testing.assert_allclose(found, wanted, atol=STEP)
        assert f"x_{row}.wav: 1 x {len(wanted)} samples ({len(wanted) / 16000:.2f} s)" in capsys.readouterr().out or row
    monkeypatch.setitem(sys.modules, "soxr", None)
    again = [*decode[:-1], str(tmp_path / "again.wav")]
    assert cli.main([*again, "--resample", "24000"]) == 0, "the graph's own rate needs no package"
    assert cli.main([*again[:-1], str(tmp_path / "other.wav"), "--resample", "8000"]) == 2
    assert capsys.readouterr().err.strip().endswith("24000 Hz to 8000 Hz needs the package soxr (pip install soxr)")
    assert cli.main([*again[:-1], str(tmp_path / "other.wav"), "--resample", "0"]) == 2
    assert "24000 Hz cannot become 0 Hz" in capsys.readouterr().err and not [*tmp_path.glob("other*")]


def test_a_pipe_at_another_rate(graph, codes):
    with decode_to_pipe(graph, codes / "single.npy", "--resample", "44100") as process:
        samples, errors = process.communicate()
    expected = soxr.resample(CodecSession(graph).decode(np.load(codes / "single.npy"), [1])[0], 24000, 44100)
    np.testing.assert_array_equal(np.frombuffer(samples, "<f4"), expected)
    assert process.returncode == 0 and b"one channel, 44100 samples a second" in errors


def decode_to_pipe(graph, codes, *options):
    command = [sys.executable, "-m", "qwen3_codec", "decode", graph, "--codes", codes, "--chunks", "1", "--output", "-"]
    command += options
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


class FakeSounddevice:
    """What `player` uses of the package. It hears `samples`, and breaks at the chunk `breaks_at`."""

    class PortAudioError(Exception):
        pass

    def __init__(self, there=True, breaks_at=None):
        self.there, self.breaks_at, self.heard, self.ended, self.rate = there, breaks_at, [], [], None

    def OutputStream(self, samplerate, channels, dtype):
        if not self.there:
            raise self.PortAudioError("Error querying device -1")
        assert (channels, dtype) == (1, "float32")
        self.rate = samplerate
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ended.append("stop")

    def abort(self):
        self.ended.append("abort")

    def write(self, samples):
        assert samples.dtype == np.float32 and samples.ndim == 1 and samples.flags.c_contiguous
        if len(self.heard) == self.breaks_at:
            raise self.PortAudioError("Device unavailable [PaErrorCode -9985]")
        self.heard.append(samples.copy())


@pytest.fixture
def played(graph, codes, monkeypatch):
    """Runs `decode --play` on the rows of the batch with a fake device; (exit code, the device)."""

    def run(*options, **how):
        device = FakeSounddevice(**how)
        monkeypatch.setitem(sys.modules, "sounddevice", device)
        codes_file = str(codes / "batch.npy")
        return cli.main(["decode", str(graph), "--codes", codes_file, "--chunks", "4", "--play", *options]), device

    return run


@pytest.mark.parametrize("rate", [24000, 16000])
def test_decode_is_heard_as_it_is_decoded(graph, codes, tmp_path, played, rate):
    code, device = played("--resample", str(rate))
    rows = [CodecSession(graph).decode(row, [4])[0] for row in np.load(codes / "batch.npy")[[2]]]
    wanted = soxr.resample(rows[0], 24000, rate) if rate != 24000 else rows[0]
    assert code == 0 and device.rate == rate and device.ended == ["stop"]
    sound = np.concatenate(device.heard)
    np.testing.assert_array_equal(sound[-len(wanted) :], wanted)
    assert len(device.heard) >= 2 + 1 + 5, "chunk by chunk"
    assert not [*tmp_path.glob("*.wav")]


def test_decode_is_heard_and_written(tmp_path, played, capsys):
    code, device = played("--output", str(tmp_path / "x.npy"))
    files = [np.load(tmp_path / f"x_{row}.npy")[0] for row in range(3)]
    assert code == 0 and "x_2.npy: 1 x" in capsys.readouterr().out
    np.testing.assert_array_equal(np.concatenate(device.heard), np.concatenate(files))


def test_what_cannot_be_played_is_one_line_and_writes_nothing(tmp_path, played, capsys, monkeypatch):
    def told(code, device):
        assert code == 2 and not [*tmp_path.glob("x*")]
        return capsys.readouterr().err.strip().splitlines()[-1], device

    output = ("--output", str(tmp_path / "x.wav"))
    line, _ = told(*played(*output, there=False))
    assert line == "qwen3_codec decode: no sound device here plays one channel at 24000 Hz: Error querying device -1"
    line, device = told(*played(*output, breaks_at=2))
    assert "Device unavailable" in line and device.ended == ["abort", "stop"] and len(device.heard) == 2
    assert "--output OUT, --output -, --play, or a file and --play" in told(*played("--output", "-"))[0]

    def no_library(name, *rest):
        if name == "sounddevice":
            raise OSError("PortAudio library not found")
        return original(name, *rest)

    monkeypatch.delitem(sys.modules, "sounddevice")
    original = __import__
    monkeypatch.setattr("builtins.__import__", no_library)
    with (
        pytest.raises(
            ValueError, match=r"cannot be loaded \(PortAudio library not found\): install PortAudio, in Debian"
        ),
        player(24000),
    ):
        pass
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(ValueError, match=r"needs the package sounddevice \(pip install sounddevice\)"), player(24000):
        pass


def test_ctrl_c_ends_the_sound_at_once(monkeypatch):
    device = FakeSounddevice()
    monkeypatch.setitem(sys.modules, "sounddevice", device)
    with pytest.raises(KeyboardInterrupt), player(8000) as play:
        play(np.zeros(3, np.float32))
        raise KeyboardInterrupt
    assert device.ended == ["abort", "stop"]


def test_decode_wants_a_place_for_the_sound(graph, codes, capsys):
    assert cli.main(["decode", str(graph), "--codes", str(codes / "single.npy")]) == 2
    assert "say where the sound goes" in capsys.readouterr().err
