"""Sound through both halves at once, and the widget that takes a file."""

import datetime
import io
import json
import shutil

import matplotlib
import numpy as np
import pytest
import soundfile

matplotlib.use("agg")

from qwen3_codec import demo
from qwen3_codec.course.lab import experiment
from qwen3_codec.course.lab.voice import FILE_BYTES, Voice, read_upload, round_trip, sessions
from qwen3_codec.exporting.export import exported
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint import CheckpointError
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper

NOW = datetime.datetime.now(datetime.UTC)


@pytest.fixture(scope="module")
def loaded():
    return checkpoint.load("demo")


@pytest.fixture(scope="module")
def audio():
    return demo.recording("en_small")[0]


def wav(samples, rate=24000):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="FLOAT")
    return file.getvalue()


@pytest.fixture(scope="module")
def paths(loaded, demo_graphs):
    wrappers = {"encoder": StreamEncoderWrapper(loaded.encoder), "exact": ExactStreamingWrapper(loaded.decoder)}
    return [exported(loaded, wrapper, demo_graphs / f"{name}.onnx") for name, wrapper in wrappers.items()]


@pytest.mark.parametrize("chunk", [1, 5, 100])
def test_the_loop_in_onnx_runtime_gives_the_shipped_codes_and_their_sound(loaded, audio, paths, chunk):
    trip = round_trip(*(CodecSession(path, 1) for path in paths), audio, chunk)
    np.testing.assert_array_equal(trip.codes, demo.codes("en_small"))
    np.testing.assert_allclose(trip.decoded, one_shot(loaded.decoder, trip.codes[None])[0], atol=MAX_ERROR)
    assert len(trip.encode_ms) == -(-32 // chunk) and trip.chunk_ms == 80 * chunk
    assert trip.first_sound_ms > trip.chunk_ms


def test_sound_that_ends_inside_a_frame_comes_back_as_long(loaded, audio):
    trip = round_trip(*sessions(loaded), audio[:7000])
    assert trip.decoded.shape == (7000,) and trip.codes.shape == (4, 16)


def test_an_upload_is_mixed_and_brought_to_the_rate(audio):
    stereo = np.stack([audio, -audio / 2], axis=1)
    np.testing.assert_allclose(read_upload(wav(stereo), 24000), audio / 4, atol=1e-6)
    slow = read_upload(wav(audio, 12000), 24000)
    assert len(slow) == 2 * len(audio) and slow.dtype == np.float32
    with pytest.raises(ValueError, match="this file: cannot be read as sound: its bytes are of no kind that is known"):
        read_upload(b"no sound", 24000)
    with pytest.raises(ValueError, match="holds no sample"):
        read_upload(wav(audio[:0]), 24000)


def upload(voice, content, name="x.wav", button=None):
    (button or voice.upload).value = (
        {"name": name, "type": "", "size": len(content), "content": content, "last_modified": NOW},
    )


def shown(voice):
    return [bool(part) for part in (voice.result, voice.players.value, voice.picture.value)]


def test_the_widget_shows_what_was_uploaded_or_why_not(loaded, audio):
    voice = Voice(loaded, seconds=1.0)
    upload(voice, wav(audio), "<x>.wav")
    assert voice.result.codes.shape == (13, 16) and "13 frames" in voice.message.value
    assert "<p>&lt;x&gt;.wav, the first 1 of 2.6 s: 13 frames" in voice.message.value
    assert voice.players.value.count("<audio") == 2 and 'alt="codes of 13 frames"' in voice.picture.value
    kept = voice.result
    voice.chunk.value = 1
    assert voice.result is not kept and voice.bar.value == 13 and "x&gt;.wav" in voice.message.value


@pytest.mark.parametrize(
    "content",
    [b"?", wav(np.zeros(0)), wav(np.full(24000, np.nan))],
    ids=["no sound", "no sample", "NaN"],  # pytest would take the bytes, which hold the time
)
def test_what_cannot_be_encoded_is_named_and_takes_the_last_result_away(loaded, audio, content):
    voice = Voice(loaded, seconds=0.1)
    upload(voice, wav(audio))
    assert shown(voice) == [True] * 3
    upload(voice, content, "odd.ogg")
    assert "role='alert'" in voice.message.value and "odd.ogg: " in voice.message.value
    assert shown(voice) == [False] * 3
    voice.chunk.value = 2
    assert "odd.ogg: " in voice.message.value and shown(voice) == [False] * 3


def test_a_file_that_jupyter_does_not_carry_is_named_before_it_is_lost(loaded, audio):
    """The page announces a file beside sending it; see test_lab_browser for the page's part."""
    voice = Voice(loaded, seconds=0.1)
    upload(voice, wav(audio))
    voice.message.coming = [{"name": "small.wav", "size": FILE_BYTES, "content": {}}]
    assert shown(voice) == [True] * 3, "it will come"
    lost = voice.upload
    voice.message.coming = [{"name": "big.wav", "size": FILE_BYTES + 1, "content": {}}]
    assert "big.wav has 10.0 MB, and Jupyter takes at most 10 MB from a page" in voice.message.value
    assert shown(voice) == [False] * 3
    voice.chunk.value = 2
    assert "big.wav" in voice.message.value, "a slider does not bring back the file before"
    assert "10 MB" in voice.upload.description and voice.upload.value == ()
    assert voice.upload is not lost and voice.upload in voice.controls.children and lost not in voice.controls.children


def test_a_server_that_carries_more_is_welcome(loaded, audio):
    voice = Voice(loaded, seconds=0.1)
    content, button = wav(np.resize(audio, FILE_BYTES // 4)), voice.upload
    for when in ("before", "after"):  # the two messages may come in any order
        if when == "after":
            upload(voice, content, button=button)
        voice.message.coming = []
        voice.message.coming = [{"name": "x.wav", "size": len(content), "content": {}}]
        if when == "before":
            assert shown(voice) == [False] * 3
            upload(voice, content, button=button)
        assert shown(voice) == [True] * 3, when


def test_the_widget_says_what_a_header_gets_wrong_and_names_what_it_cannot_read(loaded, audio):
    voice, whole = Voice(loaded, seconds=0.3), bytearray(wav(audio[:7200]))
    place = whole.index(b"data") + 4
    whole[place : place + 4] = bytes(4)  # as a recorder leaves it that was stopped
    upload(voice, bytes(whole), "x<1>.wav")
    words = "<p role='status'>x&lt;1&gt;.wav: its header says 0 bytes of samples, there are 28800; the 7200"
    assert words in voice.message.value
    np.testing.assert_array_equal(voice.result.audio, audio[:7200])
    upload(voice, wav(audio[:7200]), "y.wav")
    assert "header" not in voice.message.value and "4 frames" in voice.message.value
    upload(voice, b"\0\0\0\x20ftypM4A \0\0\0\0", "my voice.m4a")
    message = voice.message.value
    assert "it is MPEG-4" in message
    assert "ffmpeg -i &#x27;my voice.m4a&#x27; -ar 24000 -ac 1 &#x27;my voice.wav&#x27;" in message


def test_a_recording_of_the_users_gives_the_example_codes(audio, tmp_path):
    soundfile.write(tmp_path / "my.wav", audio, 24000, subtype="FLOAT")
    loaded = checkpoint.load("demo", audio=tmp_path / "my.wav")
    codes = checkpoint.example_codes(loaded, 40)
    np.testing.assert_array_equal(codes[0], np.resize(demo.codes("en_small"), (40, 16)))
    assert list(experiment.utterances(loaded)) == ["example codes"]
    np.testing.assert_allclose(checkpoint.example_audio(loaded, 32), audio, atol=1e-6)
    soundfile.write(tmp_path / "my.wav", audio, 16000)
    with pytest.raises(CheckpointError, match=r"my.wav: is at 16000 Hz, the encoder takes 24000; .*my.wav -ar 24000"):
        checkpoint.example_codes(loaded, 40)


def test_halves_that_do_not_fit_say_why(loaded, audio, tmp_path):
    assert loaded.misfit() is None
    small = checkpoint.load("random-small")
    assert small.misfit() is None
    for part in ("config.json", "model.safetensors"):
        shutil.copy(demo.FOLDER / part, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder_valid_num_quantizers": 8}))
    np.save(tmp_path / "my.npy", audio)
    odd = checkpoint.load(tmp_path, audio=tmp_path / "my.npy")
    assert "the encoder has 8 codebooks, the decoder 16" in odd.misfit()
    with pytest.raises(CheckpointError, match="they do not fit each other"):
        checkpoint.example_codes(odd, 5)
