"""The encoder outside PyTorch: exported by both exporters, streamed by the client, and told what it cannot take."""

import json
import shutil

import numpy as np
import pytest
import torch
from test_encoder import FOLDER, NEAR_TIE, noise

from qwen3_codec.cli import main as cli
from qwen3_codec.exporting.export import export
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint import CheckpointError
from qwen3_codec.model.checkpoint.config import small_config
from qwen3_codec.model.checkpoint.encoder_config import ENCODER_DEFAULTS
from qwen3_codec.model.code_gap import code_gap
from qwen3_codec.runtime import CodecSession, CodesError, EncoderStream, GraphError
from qwen3_codec.runtime import self_test as selftest
from qwen3_codec.runtime.audio import write_waveforms
from qwen3_codec.runtime.codes import read_codes
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.fixed import FixedAxes
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.verification.encoder import verify_encoder
from qwen3_codec.verification.graph import wrapper_like

FRAME = 1920


@pytest.fixture(scope="module")
def upstream():
    return checkpoint.load(FOLDER)


@pytest.fixture(scope="module")
def audio():
    return np.load(FOLDER / "audio.npy")


@pytest.fixture(scope="module")
def encoded():
    return np.load(FOLDER / "encoded.npy")


@pytest.fixture(scope="module")
def wrapper(upstream):
    return StreamEncoderWrapper(upstream.encoder)


@pytest.fixture(scope="module")
def graph_file(tmp_path_factory):
    """The command's graph, in all that follows."""
    path = tmp_path_factory.mktemp("encoder") / "encoder.onnx"
    assert cli.main(["export", "--checkpoint", str(FOLDER), "--part", "encoder", "--output", str(path)]) == 0
    return path


@pytest.fixture(scope="module")
def session(graph_file):
    return CodecSession(graph_file, threads=1)


@pytest.mark.parametrize("schedule", [[1], [3], [7, 1, 2], [1000]], ids=str)
def test_upstreams_codes_from_the_graph(session, audio, encoded, schedule):
    np.testing.assert_array_equal(session.encode(audio, schedule)[0], encoded)


def test_any_number_of_samples_at_a_time(session, audio, encoded):
    stream = session.stream()
    assert isinstance(stream, EncoderStream)
    codes = [stream.push(audio[start : start + 1000]) for start in range(0, len(audio), 1000)]
    assert codes[0].shape == (1, 0, 16) and codes[1].shape == (1, 1, 16)
    np.testing.assert_array_equal(np.concatenate([*codes, stream.finish()], axis=1)[0], encoded)
    assert stream.frames.tolist() == [len(encoded)]
    with pytest.raises(RuntimeError, match="finished"):
        stream.push(audio[:10])


def test_rows_of_unequal_length_get_the_codes_that_they_have_alone(session, audio):
    """To the bit, whatever fills up a shorter row: what stands behind its end would change its last frame's codes."""
    rows = [audio[:5000], audio[2000 : 2000 + 3 * FRAME], audio[:700]]
    alone = [session.encode(row, [2])[0] for row in rows]
    filled = np.full((3, 3 * FRAME), 0.3, np.float32)
    for place, row in zip(filled, rows, strict=True):
        place[: len(row)] = row
    lengths = [len(row) for row in rows]
    for found in (
        session.encode(rows, [2]),
        session.encode([rows[0].astype(np.float64), *rows[1:]], [2]),
        session.encode(filled, [2], lengths=lengths),
        session.encode([*filled], [2], lengths=np.array(lengths)),
    ):
        assert isinstance(found, list) and [len(codes) for codes in found] == [3, 3, 1]
        for codes, wanted in zip(found, alone, strict=True):
            np.testing.assert_array_equal(codes, wanted)
    assert (session.encode(filled, [2])[2, :1] != alone[2]).any(), "the filling is heard, where nobody says the end"
    both = session.encode(rows[:2], [2])
    assert both.shape == (2, 3, 16), "as many frames, though not as many samples"
    np.testing.assert_array_equal(both, alone[:2])
    as_one = session.encode(audio[:5000].tolist(), [2]), session.encode(audio[None, :5000], [2])
    np.testing.assert_array_equal(as_one, [alone[:1], alone[:1]])


def test_rows_of_unequal_length_with_a_fixed_batch(upstream, wrapper, audio):
    """A graph that takes two rows in a call, here in PyTorch: each row is given to it twice."""
    fixed, rows = TorchSession(FixedAxes(wrapper, batch=2)), [audio[:5000], audio[:700]]
    free = TorchSession(wrapper)
    for session in (fixed, free):
        session.path, session.encode = "x", CodecSession.encode.__get__(session)
    for found, wanted in zip(fixed.encode(rows), free.encode(rows), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("rows", "lengths", "words"),
    [
        (lambda a: [a[:9], a[:0]], None, "row 1 of the audio holds no sample"),
        (lambda a: [a[:9], np.stack([a[:7], a[:7]])], None, r"row 1 of the audio has the shape \[2, 7\].*channels"),
        (lambda a: [a[:9], (a[:7] * 9).astype(np.int16)], None, "row 1 of the audio is int16, must be floats"),
        (lambda a: [a[:9], np.where(np.arange(7) == 5, np.nan, a[:7])], None, "audio at row 1, sample 5 is nan"),
        (lambda a: [], None, "audio holds no"),
        (lambda a: a[None, :0], None, "row 0 of the audio holds no sample"),
        (lambda a: np.zeros((0, 9), np.float32), None, "audio holds no row"),
        (lambda a: [a[:9], a[:7]], [9, 8], r"the length of row 1 is 8, must be in 1..7"),
        (lambda a: [a[:9], a[:7]], [9, 0], r"the length of row 1 is 0, must be in 1..7"),
        (lambda a: [a[:9], a[:7]], [9], r"lengths are \[9\], must be 2 integers"),
        (lambda a: [a[:9], a[:7]], [9.0, 7.0], "must be 2 integers"),
    ],
)
def test_what_is_no_row_of_sound_is_named(session, audio, rows, lengths, words):
    with pytest.raises(ValueError, match=words) as told:
        session.encode(rows(audio), lengths=lengths)
    assert not isinstance(told.value, CodesError)


def test_the_graph_keeps_its_word(session, upstream):
    assert session.spec.part == session.metadata["part"] == "encoder" and session.spec.design == "exact"
    assert session.metadata["weights_sha256"] == upstream.fingerprint("encoder") != upstream.fingerprint()
    names = [(before.name, after.name) for before, after in session.spec.states]
    assert all(after == f"next_{before}" for before, after in names)
    assert sorted(before for before, _ in names) == sorted(after.removeprefix("next_") for _, after in names)
    outcome = selftest.replay(session)
    assert outcome.passed and outcome.errors == {"1": 0.0, "2": 0.0, "6": 0.0}


def test_report(session, upstream, wrapper, audio):
    report = verify_encoder(upstream, wrapper_like(upstream, session), audio, [[1], [3], [7, 1, 2]], session)
    assert report.passed and all(result.agreement == 1 for result in report.results), report
    assert len(report.results) == 6 and report.latent_error < 5e-6
    entries = json.loads(report.to_json())
    assert entries["verdict"] == "passed" and len(entries["results"][0]["by_codebook"]) == 16

    class Meddled(TorchSession):
        def run(self, feeds):
            outputs = super().run(feeds)
            return outputs | {"next_conv_02": outputs["next_conv_02"] * 0.9}

    failed = verify_encoder(upstream, wrapper, audio, [[3]], Meddled(wrapper))
    assert not failed.passed and "ONNX Runtime, chunks [3]" in failed.failures[0] and "FAILED" in str(failed)
    assert not verify_encoder(upstream, wrapper, audio, []).passed


def test_a_gap_is_how_much_farther_the_found_entry_is(upstream, audio):
    encoder = upstream.encoder
    with torch.no_grad():
        latents = encoder.latents(torch.from_numpy(audio[None, : 10 * FRAME]))
        codes = encoder.codes(latents)
        assert code_gap(encoder, latents, codes, codes.clone()) == 0
        other = codes.clone()
        other[0, 4, 3] = (other[0, 4, 3] + 1) % 64
        group, tables = encoder.groups()[1]
        residual = group.input_proj(latents).transpose(1, 2)[0, 4] - tables[0][codes[0, 4, 1]]
        residual = residual - tables[1][codes[0, 4, 2]]
        near, far = ((residual - tables[2][c[0, 4, 3]]).square().sum() for c in (codes, other))
        assert code_gap(encoder, latents, codes, other) == pytest.approx(float((far - near) / near), rel=1e-5)
        other[0, 4, 9] = 0  # behind the one that differs nothing is comparable
        assert code_gap(encoder, latents, codes, other) == pytest.approx(float((far - near) / near), rel=1e-5)


def test_rows_join_fork_save_and_go_on(session, upstream, tmp_path):
    sound = noise(2, 40 * FRAME + 100, seed=3).numpy()
    wanted = upstream.encoder(torch.from_numpy(sound)).numpy()
    old, young = session.stream(), session.stream()
    first = old.push(sound[0, : 11 * FRAME + 300])
    young.push(sound[1, :300])
    both = old.join(young)
    second = both.push(np.stack([sound[0, 11 * FRAME + 300 : 25 * FRAME], sound[1, 300 : 14 * FRAME]]))
    both.save(tmp_path / "stream.npz")
    again = session.load_stream(tmp_path / "stream.npz")
    assert isinstance(again, EncoderStream)
    rest = again.fork([1])
    third = rest.push(sound[1, 14 * FRAME :])
    codes = np.concatenate([second[1:], third, rest.finish()], axis=1)
    assert (codes == wanted[1:]).mean() > 0.999
    assert (np.concatenate([first, second[:1]], axis=1) == wanted[:1, :25]).mean() > 0.999
    with pytest.raises(ValueError, match="buffer different numbers of samples"):
        uneven = session.stream()
        uneven.push(sound[0, :7])
        uneven.join(session.stream())


@pytest.mark.slow
def test_a_stream_of_two_thousand_frames(wrapper, upstream):
    """160 s, in chunks of 40 frames, past the window ten times; against one shot over the whole."""
    sound = noise(1, 2000 * FRAME, seed=5)
    found = TorchSession(wrapper).stream().run(sound.numpy(), [40])
    with torch.no_grad():
        latents = upstream.encoder.latents(sound)
        wanted = upstream.encoder.codes(latents)
        gap = code_gap(upstream.encoder, latents, wanted, torch.from_numpy(found))
    assert (wanted.numpy() == found).mean() >= 0.999 and gap < 10 * NEAR_TIE


@pytest.mark.slow  # `torch.export` takes long; of a decoder test_tools.py and page 4 have it
def test_dynamo_writes_the_same_codes(tmp_path):
    """One layer of attention, two strided convolutions, four codebooks: with all of upstream's it takes 18 s."""
    few = {"num_hidden_layers": 1, "upsampling_ratios": [3, 2], "num_quantizers": 4}
    config = small_config(num_quantizers=4)
    config["encoder_config"] = {**ENCODER_DEFAULTS, **config["encoder_config"], **few}
    config |= {"encoder_valid_num_quantizers": 4, "encode_downsample_rate": 12}
    few = checkpoint.random_checkpoint(config, source="few")
    wrapper = StreamEncoderWrapper(few.encoder)
    done = export(few, wrapper, tmp_path / "x.onnx", "dynamo")
    assert done.warnings == ()
    session = CodecSession(done.path)
    audio = noise(1, 40 * few.encoder.samples_per_frame + 5)
    report = verify_encoder(few, wrapper_like(few, session), audio[0].numpy(), [[1], [7, 1, 2]], session)
    assert report.passed and selftest.replay(session).passed, report
    assert (session.encode(audio.numpy(), [3]) == few.encoder(audio).numpy()).mean() >= 0.99
    rows = noise(2, 9 * few.encoder.samples_per_frame + 5, seed=4)
    assert (session.encode(rows.numpy(), [2]) == few.encoder(rows).numpy()).mean() >= 0.99


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda a: (a * 32767).astype(np.int16), ValueError, "audio is int16, must be floats"),
        (lambda a: np.stack([a, a]), ValueError, r"must be \[M\] or \[B, M\] with 1 rows; several channels"),
        (lambda a: np.stack([a, a], axis=1), ValueError, "several channels"),
        (lambda a: np.where(np.arange(len(a)) == 5, np.nan, a), ValueError, "row 0, sample 5 is nan"),
    ],
)
def test_what_is_no_sound_is_named_and_changes_nothing(session, audio, change, error, words):
    stream, untouched = session.stream(), session.stream()
    for each in (stream, untouched):
        each.push(audio[:5000])
    with pytest.raises(error, match=words):
        stream.push(change(audio[5000:9000]))
    np.testing.assert_array_equal(stream.push(audio[5000:9000]), untouched.push(audio[5000:9000]))


def test_too_loud_is_a_warning_that_says_the_peak(session, audio):
    with pytest.warns(UserWarning, match=r"audio reaches 2, beyond \[-1, 1\]"):
        session.encode(2 * audio[:4000] / np.abs(audio[:4000]).max())


def test_each_graph_says_what_it_is_not(session, graph, audio):
    with pytest.raises(GraphError, match="is an encoder; encode"):
        session.decode(np.zeros((3, 16), np.int64))
    with pytest.raises(GraphError, match="is a decoder; an encoder's graph makes codes"):
        CodecSession(graph).encode(audio)
    with pytest.raises(ValueError, match=r"shape \[96000, 2\]: more rows than samples; channels"):
        session.encode(np.zeros((96000, 2), np.float32))
    with pytest.raises(ValueError, match="audio holds no sample"):
        session.encode(audio[:0])
    with pytest.raises(ValueError, match="an encoder's number of frames cannot be fixed"):
        FixedAxes(StreamEncoderWrapper(checkpoint.load(FOLDER).encoder), frames=3)
    assert issubclass(CodesError, ValueError)


class TestCheckpoint:
    @pytest.fixture
    def folder(self, tmp_path):
        return shutil.copytree(FOLDER, tmp_path / "checkpoint")

    def test_without_an_encoder_it_still_decodes(self, folder):
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        save_file({n: t for n, t in tensors.items() if not n.startswith("encoder.")}, folder / "model.safetensors")
        loaded = checkpoint.load(folder)
        assert loaded.decoder.samples_per_frame == 1920
        with pytest.raises(CheckpointError, match=r"model.safetensors: has no encoder, no tensor"):
            _ = loaded.encoder

    @pytest.mark.parametrize(
        ("fields", "words"),
        [
            ({"hidden_size": 0}, "encoder_config: hidden_size is 0"),
            ({"use_causal_conv": False}, "encoder_config: use_causal_conv is False, this encoder has True"),
            ({"hidden_act": "swoosh"}, "encoder_config: hidden_act is 'swoosh'"),
            ({"num_key_value_heads": 3}, "does not divide"),
            ({"upsampling_ratios": [8, 6, 5, 3]}, "encode_downsample_rate is 1920, but in encoder_config"),
            ({"sampling_rate": 16000, "_frame_rate": None}, "input_sample_rate is 24000, encoder_config has 16000"),
            ({"num_quantizers": 12}, "encoder_valid_num_quantizers is 16, must be above"),
            ({"rope_scaling": {"type": "linear"}}, "rope_scaling is"),
            ({"hidden_size": 64}, "has the shape"),
        ],
    )
    def test_a_wrong_config_is_told_when_the_encoder_is_asked_for(self, folder, fields, words):
        config = json.loads((folder / "config.json").read_text())
        config["encoder_config"] |= fields
        (folder / "config.json").write_text(json.dumps(config))
        loaded = checkpoint.load(folder)
        with pytest.raises(CheckpointError, match=words):
            _ = loaded.encoder

    def test_save_keeps_both_halves(self, tmp_path):
        made = checkpoint.random_checkpoint(small_config(), source="x")
        checkpoint.save(made, tmp_path)
        again = checkpoint.load(tmp_path)
        assert [again.fingerprint(part) for part in ("decoder", "encoder")] == [
            made.fingerprint(part) for part in ("decoder", "encoder")
        ]

    def test_what_equals_upstreams_defaults_may_be_left_out(self, tmp_path, folder, upstream):
        config = json.loads((folder / "config.json").read_text())
        defaults = ENCODER_DEFAULTS | {"_frame_rate": 12.5}
        fields = {n: v for n, v in config["encoder_config"].items() if defaults.get(n) != v}
        del config["encode_downsample_rate"], config["encoder_valid_num_quantizers"], config["input_sample_rate"]
        (folder / "config.json").write_text(json.dumps(config | {"encoder_config": fields}))
        assert checkpoint.load(folder).fingerprint("encoder") == upstream.fingerprint("encoder")


class TestCommandLine:
    def test_encode(self, graph_file, tmp_path, audio, encoded, capsys):
        write_waveforms([tmp_path / "x.wav"], [audio[None]], 24000)
        np.save(tmp_path / "x.npy", audio)
        for name in ("x.npy", "x.wav"):
            output = tmp_path / "codes.npy"
            assert cli.main(["encode", str(graph_file), "--audio", str(tmp_path / name), "--output", str(output)]) == 0
            found, least = np.load(output), 0.999 if name == "x.npy" else 0.5  # 16 bits move some choices
            assert found.shape == encoded.shape and (found == encoded).mean() > least
        assert f"{len(encoded)} frames of 16 codes" in capsys.readouterr().out

    def test_encode_several_files(self, graph_file, tmp_path, audio, encoded, capsys):
        """Each gets codes of its own; where one cannot be read, no file appears at all."""
        ends = {"a.npy": 5000, "b.npy": 2 * FRAME}
        for name, end in ends.items():
            np.save(tmp_path / name, audio[:end])
        files, codes = [str(tmp_path / name) for name in ends], tmp_path / "codes.npy"
        encode = ["encode", str(graph_file), "--output", str(codes), "--audio", *files]
        assert cli.main([*encode, str(tmp_path / "none.npy")]) == 2
        assert {path.name for path in tmp_path.iterdir()} == {*ends}
        assert cli.main(encode) == 0 and not codes.exists()
        session = CodecSession(graph_file)
        for index, end in enumerate(ends.values()):
            np.testing.assert_array_equal(np.load(tmp_path / f"codes_{index}.npy"), session.encode(audio[:end])[0])
        assert "codes_1.npy: 2 frames of 16 codes, of 3840 samples" in capsys.readouterr().out
        assert cli.main([*encode[:3], str(tmp_path / "codes.rvq"), *encode[4:]]) == 0
        bits = 2 * 16 * (session.spec.codebook_size - 1).bit_length()
        assert (tmp_path / "codes_1.rvq").stat().st_size == bits // 8
        for index in range(len(ends)):
            codes = read_codes(tmp_path / f"codes_{index}.rvq", session.spec)
            np.testing.assert_array_equal(codes, np.load(tmp_path / f"codes_{index}.npy"))

    def test_another_rate_is_an_error_until_it_is_said(self, graph_file, tmp_path, audio, capsys):
        write_waveforms([tmp_path / "x.wav"], [audio[None]], 16000)
        output = tmp_path / "codes.npy"
        encode = ["encode", str(graph_file), "--audio", str(tmp_path / "x.wav"), "--output", str(output)]
        assert cli.main(encode) == 2
        assert "is at 16000 Hz, the encoder takes 24000; encode has --resample" in capsys.readouterr().err
        assert cli.main([*encode, "--resample"]) == 0
        assert len(np.load(output)) == -(-round(len(audio) * 1.5) // FRAME)

    def test_errors(self, graph_file, tmp_path, audio, capsys):
        np.save(tmp_path / "stereo.npy", np.stack([audio, audio], axis=1))
        (tmp_path / "cut.wav").write_bytes(b"RIFF1234WAVE")
        np.save(tmp_path / "empty.npy", audio[:0])
        for name, words in (
            ("stereo.npy", "must hold one channel"),
            ("cut.wav", "cannot be read as sound"),
            ("empty.npy", "holds no sample"),
            ("none.npy", "No such file"),
        ):
            output = tmp_path / "codes.npy"
            assert cli.main(["encode", str(graph_file), "--audio", str(tmp_path / name), "--output", str(output)]) == 2
            assert words in capsys.readouterr().err and not output.exists()

    def test_verify_describe_selftest_inspect(self, graph_file, capsys):
        options = ["--checkpoint", str(FOLDER), "--audio", str(FOLDER / "audio.npy")]
        assert cli.main(["verify", str(graph_file), *options]) == 0
        assert "100.00%" in capsys.readouterr().out
        assert cli.main(["selftest", str(graph_file)]) == 0 and cli.main(["describe", str(graph_file)]) == 0
        assert "encoder graph" in capsys.readouterr().out
        assert cli.main(["inspect", "--checkpoint", str(FOLDER), "--part", "encoder"]) == 0
        out = capsys.readouterr().out
        assert "encoder" in out and "conv_00" in out and "num_filters" in out

    def test_flags_that_an_encoder_does_not_have(self, tmp_path, capsys):
        export_ = ["export", "--checkpoint", str(FOLDER), "--part", "encoder", "--output", str(tmp_path / "x.onnx")]
        assert cli.main([*export_, "--state", "windowed"]) == 2 and "no --state windowed" in capsys.readouterr().err
        assert cli.main([*export_, "--frames", "3"]) == 2 and "cannot be fixed" in capsys.readouterr().err
