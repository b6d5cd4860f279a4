"""Codes and sound while a talker writes them, on a model with upstream's names. tests/upstream has upstream's own."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import exported

from qwen3_codec import SpeechTokenizer, StatefulCodecONNXWrapper, codes_of, speak
from qwen3_codec.runtime import CodecSession

STOP = 999
FRAMES = np.random.default_rng(0).integers(64, size=(3, 9, 3))  # [B, N, Q]
ENDS = (9, 4, 6)  # frames of each text
AFTER_STOP = 50  # what a row that has ended goes on with, as upstream's codes behind the first


class Talker(torch.nn.Module):
    """Gives what upstream's gives: nothing at the prompt, then a frame a call, beside the hidden states."""

    config = SimpleNamespace(codec_eos_token_id=STOP)

    def forward(self, step):
        codes = None
        if step >= 0:
            codes = torch.from_numpy(FRAMES[:, step].copy())
            for row, end in enumerate(ENDS):
                if step >= end:
                    codes[row] = AFTER_STOP
                    codes[row, 0] = STOP if step == end else AFTER_STOP
        return SimpleNamespace(hidden_states=("states", codes))


class Tts:
    """Upstream's `Qwen3TTSModel` for these tests: one method of the three, which decodes at its end."""

    def __init__(self, kind="custom_voice"):
        self.model = SimpleNamespace(talker=Talker(), tts_model_type=kind, speech_tokenizer=Decoding())
        self.written = []  # each step's codes, as upstream keeps them
        self.said = {}

    def speak(self, text, fails_at=None, wait=lambda step: None, **others):
        self.said.update(others)
        self.written.clear()
        for step in range(-1, 12):
            if step == fails_at:
                raise RuntimeError("out of memory")
            wait(step)
            if step > 8:
                break
            self.written.append(self.model.talker(step).hidden_states[1])
        return self.model.speech_tokenizer.decode([])

    generate_custom_voice = generate_voice_design = generate_voice_clone = speak

    def create_voice_clone_prompt(self, ref_audio, ref_text=None):
        return [SimpleNamespace(ref_code=self.model.speech_tokenizer.encode(ref_audio))]


class Decoding:
    decoded = 0

    def decode(self, encoded):
        self.decoded += 1
        return [], 24000

    def encode(self, audio):
        return torch.from_numpy(audio)


@pytest.fixture
def tokenizer(tiny_exact):
    return SpeechTokenizer(CodecSession(tiny_exact, threads=1))


def untouched(tts):
    """Nothing of ours is left behind, and what upstream keeps of its codes is as it wrote it."""
    talkers = [thread for thread in threading.enumerate() if thread.name == "talker"]
    for step, codes in enumerate(tts.written[1:]):
        assert torch.equal(codes, Talker()(step).hidden_states[1])
    return not talkers and not tts.model.talker._forward_hooks and not tts.model.speech_tokenizer.decoded


def test_each_frame_is_handed_out_while_the_talker_goes_on():
    tts, taken = Tts(), threading.Semaphore(0)

    def wait(step):
        """The next frame is not written before the one before it was taken."""
        assert step < 1 or taken.acquire(timeout=30)

    with codes_of(tts, text="", wait=wait) as frames:
        found = []
        for frame in frames:
            found.append(frame)
            taken.release()
    batch = np.stack(found, axis=1)
    assert batch.dtype == np.int64 and batch.shape == (3, 9, 3)
    for row, end in enumerate(ENDS):
        assert np.array_equal(batch[row, :end], FRAMES[row, :end]) and (batch[row, end:] == -1).all()
    assert untouched(tts)


def test_every_kind_of_model_has_its_method_and_another_may_be_named():
    for kind in ("custom_voice", "voice_design", "base"):
        with codes_of(Tts(kind), text="", speaker="anna") as frames:
            assert len([*frames]) == 9
    tts = Tts("a fork's")
    tts.talk = tts.speak
    inner = SimpleNamespace(talker=tts.model.talker, generate=tts.speak, tts_model_type="base")  # no `model` inside
    for named in (codes_of(tts, "talk", text=""), codes_of(inner, text="")):
        with named as frames:
            assert len([*frames]) == 9
    with pytest.raises(ValueError, match='kind "a fork\'s" is none of custom_voice'), codes_of(tts, text=""):
        pass


def test_an_error_of_the_talker_comes_after_the_frames_before_it():
    tts, found = Tts(), []
    with pytest.raises(RuntimeError, match="out of memory"), codes_of(tts, text="", fails_at=4) as frames:
        found.extend(frames)
    with pytest.raises(TypeError, match="missing 1 required"), codes_of(tts, nothing=1) as frames:
        next(frames)
    assert untouched(tts)


def test_who_leaves_stops_the_talker_and_an_error_in_the_block_too(tokenizer):
    tts, step = Tts(), threading.Event()
    with codes_of(tts, text="", wait=lambda number: number < 2 or step.wait(0.2)) as frames:
        next(frames)
    assert len(tts.written) < 6 and untouched(tts)
    with pytest.raises(ZeroDivisionError), codes_of(tts, text=""):
        _ = 1 / 0
    assert untouched(tts)
    sound = speak(tts, tokenizer, ["", "", ""])
    next(sound)
    sound.close()
    assert untouched(tts)


def test_another_generation_on_the_same_model_is_not_heard():
    tts = Tts()

    def meanwhile(step):
        if step == 3:
            thread = threading.Thread(target=tts.model.talker, args=(0,))
            thread.start()
            thread.join()

    with codes_of(tts, text="", wait=meanwhile) as frames:
        assert len([*frames]) == 9


@pytest.mark.parametrize("length", [1, 4])
def test_the_chunks_joined_are_the_sound_of_the_whole_codes(tokenizer, length):
    tts = Tts()
    chunks = [*speak(tts, tokenizer, ["", "", ""], frames=length)]
    assert [[samples.size // 6 for samples in chunk] for chunk in chunks[:2]] == [
        [1, 1, 1],
        [length, min(length, 3), length],
    ]
    for row, end, sound in zip(FRAMES, ENDS, zip(*chunks, strict=True), strict=True):
        wanted = tokenizer.decoder.decode(row[:end])[0]
        assert np.abs(np.concatenate(sound) - wanted).max() < 1e-6 and sound[0].dtype == np.float32
    assert untouched(tts)
    with pytest.raises(ValueError, match="frames is 0"):
        next(speak(tts, tokenizer, "", frames=0))


def test_a_voice_starts_warm_from_its_prompts_codes(tokenizer):
    """One prompt for all texts, one for each, none, and one that upstream makes of a recording."""
    prompts = [np.random.default_rng(seed).integers(64, size=(5 + seed, 3)) for seed in range(3)]
    items = [SimpleNamespace(ref_code=torch.from_numpy(codes)) for codes in prompts]
    cases = [
        ({"voice_clone_prompt": items[:1]}, prompts[:1] * 3),
        ({"voice_clone_prompt": items}, prompts),
        ({"voice_clone_prompt": {"ref_code": [items[0].ref_code, None, None]}}, [prompts[0], None, None]),
        ({"voice_clone_prompt": [SimpleNamespace(ref_code=None)]}, [None] * 3),
        ({"ref_audio": prompts[0], "ref_text": "what is said"}, prompts[:1] * 3),
    ]
    for given, heard_before in cases:
        tts = Tts("base")
        sound = [*zip(*speak(tts, tokenizer, ["", "", ""], **given), strict=True)]
        assert "ref_audio" not in tts.said and len(tts.said) == 1
        for row, end, before, chunks in zip(FRAMES, ENDS, heard_before, sound, strict=True):
            codes = row[:end] if before is None else np.concatenate([before, row[:end]])
            wanted = tokenizer.decoder.decode(codes)[0][-end * 6 :]
            assert np.abs(np.concatenate(chunks) - wanted).max() < 1e-6


def test_a_graph_that_buffers_frames_gives_the_rest_at_the_end(tiny, graphs_folder):
    wrapper = StatefulCodecONNXWrapper(tiny.decoder, conv_history_frames=4, lookahead_frames=2)
    session = CodecSession(exported(tiny, wrapper, graphs_folder / "tiny_buffering.onnx"))
    chunks = [*speak(Tts(), SpeechTokenizer(session), ["", "", ""], frames=3)]
    assert [sum(samples.size for samples in row) for row in zip(*chunks, strict=True)] == [6 * end for end in ENDS]
