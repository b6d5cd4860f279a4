"""Upstream's own package with our codec in it, in the environment of `make upstream`.

`tests/serving/test_upstream.py` runs this. It makes the folders: for each codec a checkpoint as upstream's classes load
it, and both of its graphs.
"""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

qwen_tts = pytest.importorskip("qwen_tts", reason="upstream's package is not here; `make upstream` installs it")
import torch  # noqa: E402
from documents import GUIDE, blocks  # noqa: E402
from qwen_tts.core.models import Qwen3TTSConfig, Qwen3TTSForConditionalGeneration  # noqa: E402
from transformers.masking_utils import create_sliding_window_causal_mask  # noqa: E402
from transformers.models.mimi import modeling_mimi  # noqa: E402

from qwen3_codec import SpeechTokenizer, codes_of, speak  # noqa: E402

FOLDER = Path(os.environ.get("QWEN3_CODEC_UPSTREAM", ""))
TEXTS = ["One short text.", "A second text, which is longer than that.", "Three."]
LIMIT = 5e-5

pytestmark = pytest.mark.skipif(not FOLDER.name, reason="tests/serving/test_upstream.py runs this")


@pytest.fixture(scope="module", params=["demo", "odd"])
def codec(request):
    """Upstream's tokenizer and ours, of one checkpoint."""
    folder = FOLDER / request.param
    return qwen_tts.Qwen3TTSTokenizer.from_pretrained(str(folder)), SpeechTokenizer(folder, threads=1)


def characters(text, **options):
    """In the processor's place: a token for each character."""
    return {"input_ids": torch.tensor([[ord(letter) % 256 for letter in text]])}


def tiny_model(tokenizer, kind):
    """Upstream's classes at small widths with random weights, which speak this codec's codes and soon stop."""
    spec = tokenizer.decoder.spec
    size = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    size |= {"num_key_value_heads": 1, "num_code_groups": spec.num_quantizers}
    control = {name: spec.codebook_size + index for index, name in enumerate(CONTROL)}
    talker = size | {
        "vocab_size": spec.codebook_size + 1024,  # of which upstream lets the first ones alone be written
        "text_hidden_size": 32,
        "text_vocab_size": 260,
        "rope_scaling": {"mrope_section": [4, 2, 2], "interleaved": True, "rope_type": "default"},
        "code_predictor_config": size | {"vocab_size": spec.codebook_size, "head_dim": 16},
        "spk_id": {"vivian": spec.codebook_size + 20},
        "spk_is_dialect": {"vivian": False},
        "codec_language_id": {"english": spec.codebook_size + 21},
    }
    config = Qwen3TTSConfig(
        talker_config=talker | control,
        speaker_encoder_config={"enc_dim": 32, "enc_channels": [16, 16, 16, 16, 48], "enc_attention_channels": 8}
        | {"enc_res2net_scale": 4, "enc_se_channels": 8},
        tts_model_type=kind,
        tts_model_size="1b7",
        tts_pad_token_id=257,
        tts_bos_token_id=258,
        tts_eos_token_id=259,
    )
    torch.manual_seed(0)
    model = Qwen3TTSForConditionalGeneration(config).eval()
    model.speech_tokenizer = tokenizer
    return qwen_tts.Qwen3TTSModel(model, characters)


CONTROL = ("codec_eos_token_id", "codec_think_id", "codec_nothink_id", "codec_think_bos_id", "codec_think_eos_id")
CONTROL += ("codec_pad_id", "codec_bos_id")


class Kept:
    """A tokenizer that keeps the codes it is given to decode."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def decode(self, encoded):
        self.codes = [row["audio_codes"].numpy() for row in encoded]
        return self.tokenizer.decode(encoded)


def said_by(tts, theirs, method, seed=0, **arguments):
    """What upstream generates from a seed: (codes, waveforms of its own decoder)."""
    tts.model.speech_tokenizer = kept = Kept(theirs)
    torch.manual_seed(seed)
    waveforms, _ = getattr(tts, method)(**arguments)
    return kept.codes, waveforms


def near(found, wanted):
    assert found.dtype == np.float32 and found.shape == wanted.shape and np.abs(found - wanted).max() < LIMIT


# ---- the tokenizer -------------------------------------------------------------------------------


def sound(frames, rest, ours, seed=0):
    samples = frames * ours.get_encode_downsample_rate() + rest
    return (0.1 * np.random.default_rng(seed).standard_normal(samples)).astype(np.float32)


def test_it_encodes_and_decodes_as_upstreams_does(codec):
    theirs, ours = codec
    rate = ours.get_input_sample_rate()
    rows = [sound(9, 0, ours), sound(5, 7, ours, 1), sound(1, 0, ours, 2)]
    encoded = ours.encode(rows, sr=rate)
    for row, codes in zip(rows, encoded.audio_codes, strict=True):
        (wanted,) = theirs.encode(row, sr=rate).audio_codes  # alone: a batch changes upstream's last, unfilled frame
        assert codes.dtype == torch.int64 and torch.equal(codes, wanted)
    batch = torch.nn.utils.rnn.pad_sequence(encoded.audio_codes, batch_first=True, padding_value=-1)
    of_theirs, theirs_rate = theirs.decode(encoded)
    dicts = [{"audio_codes": codes} for codes in encoded.audio_codes]
    for given in (encoded, {"audio_codes": encoded.audio_codes}, dicts, {"audio_codes": batch}):
        waveforms, our_rate = ours.decode(given)
        assert our_rate == theirs_rate
        for waveform, wanted in zip(waveforms, of_theirs, strict=True):
            near(waveform, wanted)


def test_codes_are_upstreams_until_the_encoders_window_is_full_and_then_with_that_window(codec, monkeypatch):
    """Under the transformers that upstream pins, its encoder's attention looks at everything."""
    theirs, ours = codec
    full = theirs.model.encoder.config.sliding_window // 2  # two of the transformer's steps are a frame
    audio, rate = sound(full + 10, 0, ours), ours.get_input_sample_rate()
    ((codes,), (wanted,)) = (tokenizer.encode(audio, sr=rate).audio_codes for tokenizer in (ours, theirs))
    assert torch.equal(codes[:full], wanted[:full])
    monkeypatch.setattr(modeling_mimi, "create_causal_mask", create_sliding_window_causal_mask)
    assert torch.equal(codes, theirs.encode(audio, sr=rate).audio_codes[0])


def test_its_numbers_are_upstreams(codec):
    for name in (name for name in dir(codec[0]) if name.startswith("get_")):
        theirs, ours = (getattr(tokenizer, name)() for tokenizer in codec)
        assert (theirs, type(theirs)) == (ours, type(ours)), name


def test_a_long_passage_has_no_seam_here(codec):
    """Upstream decodes pieces of 300 frames with 25 of context; the demo sees more than that."""
    theirs, ours = codec
    spec = ours.decoder.spec
    file = FOLDER / "passage.npy"
    codes = np.load(file)[:340, : spec.num_quantizers] % spec.codebook_size
    with torch.inference_mode():
        whole = theirs.model.decoder(torch.from_numpy(codes.T[None]))[0, 0].numpy()
    (pieces,), _ = theirs.decode({"audio_codes": torch.from_numpy(codes)})
    (streamed,), _ = ours.decode({"audio_codes": codes})
    near(streamed, whole)
    seam = 300 * spec.samples_per_frame
    assert np.array_equal(pieces[:seam], whole[:seam]) or np.abs(pieces - whole)[:seam].max() < LIMIT
    if spec.frames_to_fill > 25:
        assert np.abs(pieces - whole)[seam:].max() > 0.05


# ---- the talker ----------------------------------------------------------------------------------


SAY = {"speaker": "vivian", "language": "english", "max_new_tokens": 30}


@pytest.mark.parametrize("text", [TEXTS[0], TEXTS], ids=["one text", "three texts"])
def test_the_codes_and_the_sound_are_what_upstream_gives(codec, text):
    theirs, ours = codec
    tts = tiny_model(ours, "custom_voice")
    for seed in range(10):
        codes, waveforms = said_by(tts, theirs, "generate_custom_voice", seed, text=text, **SAY)
        if unequal := len({*map(len, codes)}) == len(codes) and max(map(len, codes)) > 8:
            break
    assert unequal, "the texts are of unequal length, and one is long enough for chunks"

    torch.manual_seed(seed)
    with codes_of(tts, text=text, **SAY) as frames:
        batch = np.stack([*frames], axis=1)
    for row, wanted in zip(batch, codes, strict=True):
        assert np.array_equal(row[: len(wanted)], wanted) and (row[len(wanted) :] == -1).all()

    torch.manual_seed(seed)
    chunks = [*speak(tts, ours, text=text, **SAY)]
    rows = zip(*chunks, strict=True) if isinstance(text, list) else [chunks]
    for row, wanted in zip(rows, waveforms, strict=True):
        assert row[0].size == ours.get_decode_upsample_rate(), "the first sound is one frame"
        near(np.concatenate(row), wanted)
    assert not tts.model.talker._forward_hooks

    tts.model.speech_tokenizer = ours  # and upstream's own method goes on with it
    torch.manual_seed(seed)
    again, rate = tts.generate_custom_voice(text=text, **SAY)
    assert rate == theirs.get_output_sample_rate()
    for waveform, wanted in zip(again, waveforms, strict=True):
        near(waveform, wanted)


def test_the_sound_of_the_first_frame_comes_before_the_second_frame(codec):
    _, ours = codec
    tts, heard, order = tiny_model(ours, "custom_voice"), threading.Event(), []

    def second_waits(module, inputs, output):
        if output.hidden_states[-1] is not None:
            assert not order or heard.wait(timeout=60)
            order.append("frame")

    tts.model.talker.register_forward_hook(second_waits)
    for samples in speak(tts, ours, text=TEXTS[0], **SAY):
        order.append(samples.size)
        heard.set()
    assert order[0] == "frame" and order[1] == ours.get_decode_upsample_rate() and order.count("frame") > 1


def test_an_error_reaches_the_listener_and_who_leaves_stops_the_talker(codec):
    _, ours = codec
    tts = tiny_model(ours, "custom_voice")
    with pytest.raises(ValueError, match="Unsupported speakers"):
        next(speak(tts, ours, text=TEXTS[0], speaker="nobody"))
    before = threading.active_count()
    with codes_of(tts, text=TEXTS, speaker="vivian", max_new_tokens=2000) as frames:
        assert next(frames).shape == (3, ours.decoder.spec.num_quantizers)
    assert threading.active_count() == before and not tts.model.talker._forward_hooks
    assert len([*speak(tts, ours, text=TEXTS[0], **SAY)]) > 1, "and the model speaks again"


def test_a_cloned_voice_starts_warm(codec):
    """Its prompt is made by upstream's package with our encoder, and cut off as upstream cuts it."""
    theirs, ours = codec
    tts = tiny_model(ours, "base")
    voice = {"ref_audio": (sound(0, 4800, ours), 24000), "ref_text": "What is said there."}
    prompt = tts.create_voice_clone_prompt(**voice)
    assert prompt[0].ref_code.shape[1] == ours.decoder.spec.num_quantizers
    say = {"language": "english", "max_new_tokens": 12}
    codes, _ = said_by(tts, theirs, "generate_voice_clone", text=TEXTS[:2], voice_clone_prompt=prompt, **say)
    wanted, _ = theirs.decode([{"audio_codes": torch.from_numpy(row)} for row in codes])
    start = len(prompt[0].ref_code) * ours.get_decode_upsample_rate()
    tts.model.speech_tokenizer = ours
    for given in ({"voice_clone_prompt": prompt}, voice):
        torch.manual_seed(0)
        for row, whole in zip(zip(*speak(tts, ours, text=TEXTS[:2], **given, **say), strict=True), wanted, strict=True):
            near(np.concatenate(row), whole[start:])


def test_the_lines_of_the_guide_run(codec, tmp_path, monkeypatch):
    """On a tiny model in the place of the one whose name stands there."""
    _, ours = codec
    (tmp_path / "build").mkdir()
    (tmp_path / "build" / "codec").symlink_to(ours.decoder.path.parent)
    monkeypatch.chdir(tmp_path)
    tts, played, sent = tiny_model(ours, "custom_voice"), [], []
    tts.generate_defaults = {"max_new_tokens": 8}
    monkeypatch.setattr(qwen_tts.Qwen3TTSModel, "from_pretrained", lambda name: tts)
    code = [text for language, text in blocks(GUIDE / "in-your-program.md") if language == "python"]
    names = {"play": played.append, "send": sent.append}
    start = next(index for index, text in enumerate(code) if text.startswith("from qwen_tts"))
    for text in code[start : start + 3]:
        exec(text, names)
    assert tts.model.speech_tokenizer is names["tokenizer"] and len(names["waveforms"]) == 1
    assert played[0].size == ours.get_decode_upsample_rate()
    assert {codes.shape for codes in sent} == {(2, ours.decoder.spec.num_quantizers)}
