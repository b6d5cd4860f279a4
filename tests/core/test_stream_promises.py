"""What every method of a stream guarantees: one caller at a time, all or nothing; in files and in coroutines too."""

import asyncio
import copy
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import random_codes, small_checkpoint

from qwen3_codec.exporting.precision.int8 import Int8StreamingWrapper
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint.config import small_config
from qwen3_codec.model.checkpoint.encoder_config import ENCODER_DEFAULTS
from qwen3_codec.runtime import AsyncStream, CodesError, stream
from qwen3_codec.runtime import stream_file as saved
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.runtime.stream import CodecStream
from qwen3_codec.spec import windowed_spec
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.streaming.fixed import FixedAxes
from qwen3_codec.streaming.session import TorchSession
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper

SECONDS = 30  # until a test that hangs is a failure


class Gated:
    """A session whose calls begin only when they are let in."""

    def __init__(self, session):
        self.session, self.spec, self.weights_sha256 = session, session.spec, session.weights_sha256
        self.entered, self.open, self.left = (threading.Event() for _ in range(3))

    def run(self, feeds):
        self.entered.set()
        assert self.open.wait(SECONDS)
        outputs = self.session.run(feeds)
        self.left.set()
        return outputs


class FailsAt:
    """A session whose calls of these numbers (from 1 on) fail."""

    def __init__(self, session, *calls):
        self.session, self.spec, self.calls, self.count = session, session.spec, calls, 0

    def run(self, feeds):
        self.count += 1
        if self.count in self.calls:
            raise MemoryError
        return self.session.run(feeds)


@pytest.fixture(scope="module")
def encoding():
    """An encoder of one layer, two strided convolutions and four codebooks: 12 samples for a frame."""
    few = {"num_hidden_layers": 1, "upsampling_ratios": [3, 2], "num_quantizers": 4}
    config = small_config(num_quantizers=4) | {"encoder_valid_num_quantizers": 4, "encode_downsample_rate": 12}
    config["encoder_config"] = {**ENCODER_DEFAULTS, **config["encoder_config"], **few}
    return TorchSession(StreamEncoderWrapper(checkpoint.random_checkpoint(config, source="few").encoder))


@pytest.fixture(scope="module")
def decoding(tiny):
    """The windowed design with two frames of look-ahead, so that something is held back."""
    return TorchSession(StatefulCodecONNXWrapper(tiny.decoder, 4, 2))


@pytest.fixture(params=["decoding", "encoding"])
def session(request):
    return request.getfixturevalue(request.param)


def some(session, frames, batch=1, seed=0):
    """Codes, or samples that end inside a frame: what the session's stream takes."""
    if session.spec.part == "decoder":
        return np.random.default_rng(seed).integers(session.spec.codebook_size, size=(batch, frames, 3))
    samples = frames * session.spec.samples_per_frame - 5
    return (0.1 * np.random.default_rng(seed).standard_normal((batch, samples))).astype(np.float32)


def fields(stream):
    return {name: value for name, value in vars(stream).items() if name not in ("_busy", "session")}


def assert_same(mine, other):
    np.testing.assert_equal(fields(mine), fields(other))


def test_a_push_has_the_stream_to_itself(session, tmp_path):
    gated, data, plain = Gated(session), some(session, 6), session.stream()
    going, other = stream.stream_of(gated), stream.stream_of(gated)
    before = fields(going)
    calls = {
        "push": lambda: going.push(data),
        "pushes": lambda: next(going.pushes(data)),
        "finish": going.finish,
        "reset": going.reset,
        "fork": going.fork,
        "onto": lambda: going.move_to(session),
        "join": lambda: going.join(other),
        "joined": lambda: other.join(going),
        "save": lambda: going.save(tmp_path / "x.npz"),
        "pickle": lambda: pickle.dumps(going),
        "copy": lambda: copy.copy(going),
        "deepcopy": lambda: copy.deepcopy(going),
    }
    if session.spec.part == "decoder":
        calls["prime"] = lambda: going.prime(data)
    with ThreadPoolExecutor(1) as pool:
        pushed = pool.submit(going.push, data)
        assert gated.entered.wait(SECONDS)
        for call in calls.values():
            with pytest.raises(RuntimeError, match="another thread is in a call of this stream"):
                call()
        assert fields(going) == before and not (tmp_path / "x.npz").exists()
        gated.open.set()
        np.testing.assert_array_equal(pushed.result(), plain.push(data))
    assert_same(going, plain)
    for name, call in calls.items():  # afterwards each of them is let in
        if name not in ("deepcopy", "pickle"):  # this session's events cannot be copied
            call()


def test_until_a_push_returns_nothing_of_it_is_seen(exact, shallow, monkeypatch):
    monkeypatch.setattr(stream, "PIECE_FRAMES", 4)
    seen = []

    class Looking(FailsAt):
        def run(self, feeds):
            seen.append((going.frames.tolist(), going.finished, going.state["past_frames"].tolist()))
            return super().run(feeds)

    going = CodecStream(Looking(exact))
    going.push(random_codes(shallow.decoder, 10), last=True)
    assert seen == [([0], False, [[0]])] * 3 and going.frames.tolist() == [10] and going.finished


def test_a_stream_that_has_ended_has_no_more_to_give(session):
    data = some(session, 6)
    for end in (lambda each: each.finish(), lambda each: each.push(data, last=True), lambda each: [*each.pushes(data)]):
        going = session.stream()
        going.push(data)
        end(going)
        ended = copy.copy(going)
        for _ in range(2):
            assert going.finish().shape[:2] == (1, 0)
        assert_same(going, ended)
        with pytest.raises(RuntimeError, match=r"the stream is finished; reset\(\) starts a new one"):
            going.push(data)
        going.reset()
        assert_same(going, session.stream())


def test_two_who_finish_at_once_do_not_both_hear_the_end(decoding):
    """Each of many threads asks; the samples held back are given out once."""
    for _ in range(20):
        going = decoding.stream()
        going.push(some(decoding, 6))
        together = threading.Barrier(4)

        def end(going=going, together=together):
            together.wait(SECONDS)
            try:
                return going.finish().shape[1]
            except RuntimeError:
                return 0

        with ThreadPoolExecutor(4) as pool:
            assert sum(each.result() for each in [pool.submit(end) for _ in range(4)]) == 2 * 6


def test_the_last_samples_pushed_as_the_last_are_what_finish_gives(encoding):
    audio, one, two = some(encoding, 9, batch=2), encoding.stream(2), encoding.stream(2)
    codes = np.concatenate([one.push(audio[:, :50]), one.push(audio[:, 50:]), one.finish()], axis=1)
    np.testing.assert_array_equal(
        np.concatenate([two.push(audio[:, :50]), two.push(audio[:, 50:], last=True)], 1), codes
    )
    assert codes.shape == (2, 9, 4) and one.finished and two.finished


def test_a_failure_at_the_end_takes_the_last_chunk_back(session):
    data = some(session, 9)
    wanted = [*session.stream().pushes(data, [4])]
    failing = stream.stream_of(FailsAt(session, 3))
    pushes = failing.pushes(data, [4])
    heard = [next(pushes), next(pushes)]
    with pytest.raises(MemoryError):
        next(pushes)
    assert failing.frames.tolist() == [8] and not failing.finished
    part, last = failing.parts(data, [4])[-1]
    np.testing.assert_array_equal(np.concatenate([*heard, failing.push(part, last)], 1), np.concatenate(wanted, 1))


def test_pushes_that_nobody_hears_to_the_end(session):
    data, going, plain = some(session, 9), session.stream(), session.stream()
    for part, _ in going.parts(data, [2])[:3]:
        plain.push(part)
    pushes = going.pushes(data, [2])
    for _ in range(3):
        next(pushes)
    pushes.close()
    assert_same(going, plain)


def test_pushes_look_at_all_codes_before_the_first_is_decoded(decoding):
    codes, going = some(decoding, 9), decoding.stream()
    codes[0, 7, 1] = 10**6
    with pytest.raises(CodesError, match="code 1000000 at row 0, frame 7, codebook 1"):
        next(going.pushes(codes, [2]))
    assert_same(going, decoding.stream())


def test_no_sample_at_all_ends_an_encoders_stream_too(encoding):
    going, audio = encoding.stream(), some(encoding, 3)
    going.push(audio)
    codes = [*going.pushes(audio[:, :0])]
    assert codes[0].shape == (1, 1, 4) and going.finished


@pytest.fixture(scope="module")
def others():
    """`tiny` with other weights."""
    fields = {"num_hidden_layers": 1, "num_quantizers": 3, "upsample_rates": [3], "upsampling_ratios": [2]}
    return small_checkpoint("tiny", 1, **fields).decoder


def test_streams_of_other_weights_share_no_call(tiny, others):
    others = small_checkpoint(
        "other", 1, num_hidden_layers=1, num_quantizers=3, upsample_rates=[3], upsampling_ratios=[2]
    )
    mine, other, same = (TorchSession(ExactStreamingWrapper(each.decoder)) for each in (tiny, others, tiny))
    with pytest.raises(ValueError, match="the streams cannot share a call: a graph has another weights sha256"):
        mine.stream().join(other.stream())
    assert mine.stream().join(same.stream()).batch == 2
    with pytest.raises(ValueError, match="has another weights sha256"):
        mine.stream().move_to(other)


class TestSaved:
    """A file is taken whole or not at all."""

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "stream.npz"

    def test_from_pytorch_to_the_graph_and_back(self, exact, shallow, path):
        codes = random_codes(shallow.decoder, 30)
        wrappers = ExactStreamingWrapper(shallow.decoder), Int8StreamingWrapper(shallow.decoder)
        (torch_session, in_8_bits), sessions = map(TorchSession, wrappers), [exact]
        assert exact.weights_sha256 == torch_session.weights_sha256 == in_8_bits.weights_sha256 != ""
        sessions += [torch_session]
        for one, two in (sessions, sessions[::-1]):
            going = one.stream()
            going.push(codes[:, :20])
            going.save(path)
            np.testing.assert_allclose(
                two.load_stream(path).push(codes[:, 20:]), going.push(codes[:, 20:]), atol=MAX_ERROR
            )
        assert in_8_bits.load_stream(path).frames.tolist() == [20]

    def test_the_graphs_fingerprint_whatever_the_wrapper(self, tiny, encoding):
        decoder = tiny.decoder
        wrappers = (
            ExactStreamingWrapper(decoder),
            StatefulCodecONNXWrapper(decoder),
            FixedAxes(ExactStreamingWrapper(decoder), frames=2),
        )
        assert {TorchSession(wrapper).weights_sha256 for wrapper in wrappers} == {tiny.fingerprint()}
        assert encoding.weights_sha256 == checkpoint.fingerprint(encoding.wrapper.encoder) != tiny.fingerprint()

    def test_other_weights_are_refused_in_pytorch(self, tiny, others, path):
        TorchSession(ExactStreamingWrapper(others)).stream().save(path)
        with pytest.raises(ValueError, match=r"stream.npz: was saved from a graph with another weights sha256"):
            TorchSession(ExactStreamingWrapper(tiny.decoder)).load_stream(path)
        changed = ExactStreamingWrapper(copy.deepcopy(others))
        TorchSession(changed).load_stream(path)
        changed.decoder.pre_conv.conv.bias.add_(1e-3)
        with pytest.raises(ValueError, match="another weights sha256"):
            TorchSession(changed).load_stream(path)

    @pytest.mark.parametrize(
        ("part", "change", "words"),
        [
            ("decoding", {"frames": np.array(5)}, r"frames has the shape \(\), must be \[batch\]"),
            ("decoding", {"frames": np.array([5.0])}, "frames is float64, must be int64"),
            ("decoding", {"frames": np.array([-1])}, r"frames are \[-1\], must be at least one number from 0 on"),
            ("decoding", {"frames": np.zeros(0, np.int64)}, "must be at least one number from 0 on"),
            ("decoding", {"frames": np.array([5, 5])}, "pre_conv_h has 1 rows, must have 2"),
            ("decoding", {"held_back": np.zeros((1, 12))}, "held_back is float64, must be float32"),
            ("decoding", {"held_back": np.zeros(12, np.float32)}, r"held_back has the shape \(12,\), must be \[batch"),
            ("decoding", {"held_back": np.zeros((2, 12), np.float32)}, "held_back has 2 rows, must have 1"),
            ("decoding", {"held_back": np.zeros((1, 13), np.float32)}, r"axis 1 \(samples\) is 13 long, at most 12"),
            ("decoding", {"held_back": np.full((1, 12), np.nan, np.float32)}, r"held_back holds nan at \[0, 0\]"),
            ("decoding", {"state.conv_h": np.inf}, r"conv_h holds inf at \[0, 0, 0\]"),
            (
                "decoding",
                {"state.past_key_0": np.zeros((1, 4, 6, 16), np.float32)},
                "past_value_0: axis 2 .* is 7 long",
            ),
            ("decoding", {"unheard": 1}, r"unheard is 1, must be a number of samples in 0..0"),
            ("decoding", {"unheard": -1}, "unheard is -1"),
            ("decoding", {"unheard": 0.0}, "unheard is 0.0"),
            ("decoding", {"unheard": True}, "unheard is True"),
            ("decoding", {"finished": "no"}, "finished is 'no', must be true or false"),
            ("decoding", {"finished": 1}, "finished is 1, must be true or false"),
            ("decoding", {"finished": True}, "the stream is finished and buffers 12 samples"),
            ("decoding", {"state_spec": "{}"}, "not a saved stream, or truncated"),
            ("decoding", {"state_spec": 5}, "not a saved stream, or truncated"),
            ("decoding", {"weights_sha256": None}, "another weights sha256"),
            ("encoding", {"held_back": np.zeros((1, 12), np.float32)}, r"axis 1 \(samples\) is 12 long, at most 11"),
            ("encoding", {"unheard": 1}, r"unheard is 1, must be a number of samples in 0..0"),
            ("encoding", {"state.past_frames": np.array([[-1]])}, "past_frames is outside 0.."),
            ("encoding", {"state.key_00": np.nan}, r"key_00 holds nan at \[0, 0, 0, 0\]"),
        ],
    )
    def test_each_field_is_looked_at(self, request, part, change, words, path):
        session = request.getfixturevalue(part)
        going = session.stream()
        going.push(some(session, 7))
        going.save(path)
        arrays = dict(np.load(path))
        header = json.loads(str(arrays["header"]))
        assert change.keys() <= {*arrays, *header}
        for name, value in change.items():
            if name in header:
                header[name] = value
            elif isinstance(value, float):
                arrays[name].flat[0] = value
            else:
                arrays[name] = value
        np.savez(path, **arrays | {"header": np.array(json.dumps(header))})
        with pytest.raises(ValueError, match=words) as told:
            session.load_stream(path)
        assert str(told.value).startswith(str(path))
        untouched = copy.copy(going)
        with pytest.raises(ValueError):
            saved.read_into(going, path)
        assert_same(going, untouched)

    def test_a_file_from_before_fields_were_checked(self):
        """`saved/windowed.npz` was written by the code of version 0.1.0 before that: it loads as it was."""
        sizes = {"codebook_dim": 4, "latent_dim": 3, "num_hidden_layers": 1, "sliding_window": 3, "head_dim": 2}
        sizes |= {"num_key_value_heads": 1, "output_sample_rate": 24000, "codebook_size": 8, "num_quantizers": 2}
        spec = windowed_spec(SimpleNamespace(**sizes), 6, 2, 3, 1)
        session = SimpleNamespace(spec=spec, weights_sha256="0123abcd")
        file = Path(__file__).parents[1] / "saved" / "windowed.npz"
        back = stream.load_stream(session, file)
        assert back.frames.tolist() == [9, 5] and not back.finished and back._suppressed == 0
        arrays = np.load(file)
        np.testing.assert_array_equal(back._pending, arrays["held_back"])
        assert {f"state.{name}" for name in back.state} | {"header", "frames", "held_back"} == set(arrays)
        for name, array in back.state.items():
            np.testing.assert_array_equal(array, arrays[f"state.{name}"])


class TestAsync:
    """A test is a coroutine, run by `run`: no plugin is needed."""

    @staticmethod
    def run(coroutine):
        async def in_time():
            async with asyncio.timeout(SECONDS):
                return await coroutine

        return asyncio.run(in_time())

    @staticmethod
    async def entered(gated):
        await asyncio.to_thread(gated.entered.wait, SECONDS)
        gated.entered.clear()

    def test_the_same_to_the_bit(self, session):
        data, plain = some(session, 9), session.stream()

        async def main():
            voice = AsyncStream(session.stream())
            if session.spec.part == "decoder":
                await voice.prime(data)
                plain.prime(data)
            np.testing.assert_array_equal(await voice.push(data), plain.push(data))
            pieces = [piece async for piece in voice.pushes(data, [2])]
            np.testing.assert_array_equal(np.concatenate(pieces, 1), np.concatenate([*plain.pushes(data, [2])], 1))
            assert_same(voice.stream, plain)
            await voice.reset()
            np.testing.assert_array_equal(await voice.push(data), session.stream().push(data))
            assert (await voice.finish()).shape[1] > 0 == (await voice.finish()).shape[1]

        self.run(main())

    def test_the_loop_goes_on_during_a_push(self, session):
        gated = Gated(session)

        async def main():
            pushed = asyncio.create_task(AsyncStream(stream.stream_of(gated)).push(some(session, 3)))
            await self.entered(gated)
            for _ in range(100):  # as many turns of the loop as one likes, while the call waits
                await asyncio.sleep(0)
            assert not pushed.done()
            gated.open.set()
            return await pushed

        np.testing.assert_array_equal(self.run(main()), session.stream().push(some(session, 3)))

    def test_a_cancelled_push_leaves_the_stream_as_it_was(self, session):
        gated, (first, second) = Gated(session), (some(session, 4), some(session, 4, seed=1))

        async def main():
            gated.open.set()
            voice = AsyncStream(stream.stream_of(gated))
            heard = [await voice.push(first)]
            gated.open.clear()
            gated.entered.clear()
            before = copy.copy(voice.stream)
            pushed = asyncio.create_task(voice.push(first))
            await self.entered(gated)
            pushed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pushed
            # The thread of the cancelled call still waits. Another call goes by, and then that one ends.
            again = asyncio.create_task(voice.push(second))
            await self.entered(gated)
            assert_same(voice.stream, before)
            gated.open.set()
            heard += [await again, await voice.finish()]
            return voice, heard

        voice, heard = self.run(main())  # asyncio.run waits for all threads
        plain = session.stream()
        wanted = [plain.push(first), plain.push(second), plain.finish()]
        np.testing.assert_array_equal(np.concatenate(heard, 1), np.concatenate(wanted, 1))
        assert_same(voice.stream, plain)

    def test_cancelled_in_the_moment_in_which_it_is_done(self, session):
        """The thread has ended and the loop has not yet heard of it: who was told "cancelled" finds nothing changed."""
        gated = Gated(session)

        async def main():
            voice = AsyncStream(stream.stream_of(gated))
            before = copy.copy(voice.stream)
            pushed = asyncio.create_task(voice.push(some(session, 3)))
            await self.entered(gated)
            gated.open.set()
            assert gated.left.wait(SECONDS)  # without an await, so that the loop hears nothing of it
            pushed.cancel()
            with pytest.raises(asyncio.CancelledError):
                await pushed
            assert_same(voice.stream, before)

        self.run(main())

    def test_a_second_call_is_told_and_the_first_goes_on(self, session):
        gated, data = Gated(session), some(session, 4)

        async def main():
            voice = AsyncStream(stream.stream_of(gated))
            pushed = asyncio.create_task(voice.push(data))
            await self.entered(gated)
            for call in (voice.push(data), voice.finish(), voice.reset(), anext(voice.pushes(data))):
                with pytest.raises(RuntimeError, match="another call of this stream has not come back"):
                    await call
            gated.open.set()
            np.testing.assert_array_equal(await pushed, session.stream().push(data))
            return await voice.finish()

        plain = session.stream()
        plain.push(data)
        np.testing.assert_array_equal(self.run(main()), plain.finish())

    def test_a_push_that_fails_and_one_that_is_refused(self, session):
        data = some(session, 4)

        async def main():
            voice = AsyncStream(stream.stream_of(FailsAt(session, 2)))
            await voice.push(data)
            before = copy.copy(voice.stream)
            with pytest.raises(MemoryError):
                await voice.push(data)
            with pytest.raises(ValueError):
                await voice.push(data[..., None, :1])
            assert_same(voice.stream, before)
            return await voice.push(data)

        plain = session.stream()
        plain.push(data)
        np.testing.assert_array_equal(self.run(main()), plain.push(data))

    def test_the_stream_that_was_given_stays(self, session):
        given = session.stream()

        async def main():
            await AsyncStream(given).push(some(session, 4))

        self.run(main())
        assert_same(given, session.stream())
