"""The shipped demo: a checkpoint like any other, and a decoder that says its sentences as recorded."""

import json

import numpy as np
import pytest

from qwen3_codec import demo
from qwen3_codec.model import checkpoint
from qwen3_codec.model.checkpoint import config
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.session import TorchSession

soundfile = pytest.importorskip("soundfile")

RECORDS = demo.utterances()
SHORT, PASSAGE = RECORDS[:-1], RECORDS[-1]


@pytest.fixture(scope="module")
def loaded() -> checkpoint.Checkpoint:
    return checkpoint.load("demo")


def each_utterance(records=RECORDS):
    return pytest.mark.parametrize("record", records, ids=lambda record: record.name)


class TestFiles:
    def test_sizes(self):
        assert (demo.FOLDER / "model.safetensors").stat().st_size <= 5.5e6  # decoder 3.3, encoder 1.7
        assert sum(record.path.stat().st_size for record in RECORDS) <= 2e6

    def test_config_is_the_official_one_at_small_widths(self, loaded):
        official = config.OFFICIAL_CONFIG
        assert loaded.config.keys() >= official.keys() | {"encode_downsample_rate", "input_sample_rate"}
        assert loaded.config["decoder_config"].keys() == official["decoder_config"].keys()
        decoder_config = loaded.decoder.config
        assert (decoder_config.num_quantizers, decoder_config.num_hidden_layers, decoder_config.sliding_window) == (
            16,
            8,
            72,
        )
        assert loaded.decoder.samples_per_frame == 1920
        assert loaded.sample_rate == 24000
        assert decoder_config.head_dim != decoder_config.hidden_size // decoder_config.num_attention_heads

    def test_codebook_counts_are_the_uses_of_each_code(self, loaded):
        codes = np.concatenate([record.codes for record in RECORDS])
        usage = loaded.decoder.quantizer.rvq_first.vq.layers[0]._codebook.cluster_usage.numpy()
        np.testing.assert_array_equal(usage, np.bincount(codes[:, 0], minlength=64).clip(1))

    def test_short_utterances_in_both_languages(self):
        assert len(SHORT) >= 6
        assert {record.language for record in SHORT} == {"en", "zh"}
        assert all(2 <= len(record.codes) * 0.08 <= 5 for record in SHORT)

    def test_passage_is_longer_than_upstreams_own_chunk(self):
        assert len(PASSAGE.codes) > 300
        assert len(PASSAGE.codes) * 0.08 >= 30

    @each_utterance()
    def test_codes(self, record, loaded):
        assert record.codes.dtype == np.int64
        assert record.codes.shape == (len(record.codes), loaded.decoder.config.num_quantizers)
        assert record.codes.min() >= 0 and record.codes.max() < loaded.decoder.config.codebook_size

    @each_utterance()
    def test_recording(self, record, loaded):
        info = soundfile.info(record.path)
        assert (info.format, info.subtype, info.channels) == ("FLAC", "PCM_16", 1)
        assert info.samplerate == loaded.sample_rate
        assert info.frames == len(record.codes) * loaded.decoder.samples_per_frame
        samples, rate = demo.recording(record.name)
        assert samples.dtype == np.float32 and samples.shape == (info.frames,) and rate == info.samplerate
        assert record.text and record.voice

    def test_no_leftover_files(self):
        names = {record["name"] for record in json.loads((demo.FOLDER / "utterances.json").read_text("utf-8"))}
        assert {path.stem for path in (demo.FOLDER / "codes").iterdir()} == names
        assert {path.stem for path in (demo.FOLDER / "recordings").iterdir()} == names


class TestSpeech:
    @each_utterance()
    def test_one_shot_decode_says_what_was_recorded(self, record, loaded):
        pytest.importorskip("pystoi")
        from qwen3_codec.demo.training import evaluate

        result = evaluate.score(loaded.decoder, record.name, record.codes, demo.FOLDER)
        assert result.clipped == 0
        assert result.stoi >= 0.96
        assert result.estoi >= 0.93

    @each_utterance()
    def test_the_encoder_finds_the_shipped_codes_in_the_recording(self, record, loaded):
        """In one shot and as a stream of single frames. It knows these seven recordings, and was asked for no more."""
        torch = pytest.importorskip("torch")
        audio, _ = demo.recording(record.name)
        found = loaded.encoder(torch.from_numpy(audio)[None])[0].numpy()
        assert (found == record.codes)[:, 0].mean() >= 0.98 and (found == record.codes).mean() >= 0.98
        stream = TorchSession(StreamEncoderWrapper(loaded.encoder)).stream()
        pieces = stream.run(audio[: 40 * 1920], [1])
        assert (pieces[0] == found[:40]).mean() >= 0.999

    def test_the_round_trip_says_what_was_recorded(self, loaded):
        pytest.importorskip("pystoi")
        from qwen3_codec.demo.training import evaluate

        assert all(row.stoi >= 0.93 and row.codes >= 0.98 for row in evaluate.round_trips(loaded))

    def test_evaluate_fails_where_the_limits_are_not_reached(self, tmp_path, capsys):
        pytest.importorskip("pystoi")
        from qwen3_codec.demo.training import evaluate

        record = SHORT[0]
        for part in ("codes", "recordings"):
            (tmp_path / part).mkdir()
        np.save(tmp_path / "codes" / f"{record.name}.npy", record.codes[::-1], allow_pickle=False)
        (tmp_path / "recordings" / record.path.name).write_bytes(record.path.read_bytes())
        entry = {"name": record.name, "language": record.language, "text": record.text, "voice": record.voice}
        (tmp_path / "utterances.json").write_text(json.dumps([entry]), encoding="utf-8")
        checkpoint.save(checkpoint.load(demo.FOLDER), tmp_path)
        assert evaluate.main(["--folder", str(tmp_path)]) == 1
        assert f"not reached by {record.name}" in capsys.readouterr().out


class TestCodeMaker:
    """Features and codes of made-up sound; needs the extra [train]."""

    RATE, FRAME = 24000, 1920

    @pytest.fixture
    def features(self):
        pytest.importorskip("librosa")
        pytest.importorskip("sklearn")
        from qwen3_codec.demo.training import features

        return features

    def tone(self, pitch: float, frames: int) -> np.ndarray:
        """A buzz of ten harmonics."""
        time = np.arange(frames * self.FRAME) / self.RATE
        return sum(0.05 * np.sin(2 * np.pi * pitch * k * time) for k in range(1, 11)).astype(np.float32)

    def test_one_row_per_frame_and_the_floor_for_silence(self, features):
        silence = np.zeros(5 * self.FRAME, np.float32)
        rows = features.frame_features(silence, self.RATE, self.FRAME)
        assert rows.shape == (5, features.SUBFRAMES * features.MEL_BANDS + 2)
        assert np.allclose(rows[:, :-2], features.FLOOR_DB)
        assert np.all(rows[:, -2] == 0)

    def test_a_frame_sees_its_own_80_ms(self, features):
        sound = np.concatenate([np.zeros(4 * self.FRAME, np.float32), self.tone(150, 4)])
        rows = features.frame_features(sound, self.RATE, self.FRAME)[:, :-2]
        assert np.allclose(rows[:3], features.FLOOR_DB)
        assert rows[4:].max(axis=1).min() > -40

    def test_an_octave_is_an_octave(self, features):
        low, high = (
            features.frame_features(self.tone(pitch, 8), self.RATE, self.FRAME)[2:6, -2:] for pitch in (110, 220)
        )
        assert np.allclose((high - low)[:, 0], features.PITCH_WEIGHT, atol=0.02 * features.PITCH_WEIGHT)
        assert np.all(low[:, 1] == features.PITCH_WEIGHT)

    def test_part_of_a_frame_is_refused(self, features):
        with pytest.raises(ValueError, match="whole number of frames"):
            features.frame_features(np.zeros(self.FRAME + 1, np.float32), self.RATE, self.FRAME)

    def test_residual_codes(self, features):
        points = np.random.default_rng(0).normal(size=(200, 12))
        codes, tables = features.quantize(points, stages=6, codebook_size=8, dim=4, seed=0)
        assert codes.shape == (200, 6) and codes.dtype == np.int64
        assert tables.shape == (6, 8, 4) and tables.dtype == np.float32
        assert codes.min() >= 0 and codes.max() < 8
        # Every stage still finds something: its entries differ.
        assert all(len(np.unique(stage)) == 8 for stage in codes.T)
        again, _ = features.quantize(points, stages=6, codebook_size=8, dim=4, seed=0)
        np.testing.assert_array_equal(codes, again)


class TestCrops:
    """What the training compares is what the decoder will be asked for."""

    def test_a_crop_decodes_as_the_whole_utterance_does(self, loaded):
        torch = pytest.importorskip("torch")
        from qwen3_codec.demo.training import crops

        corpus = crops.Corpus(demo.FOLDER, loaded.decoder.samples_per_frame)
        late = len(PASSAGE.codes) - crops.LENGTH
        chosen = [crops.Crop(len(SHORT), late), crops.Crop(0, 0), crops.Crop(len(SHORT), 5)]
        with torch.no_grad():
            parts = corpus.cut(loaded.decoder.decode_latent(corpus.latents(loaded.decoder, chosen)), chosen)
            for part, crop in zip(parts, chosen, strict=True):
                whole = loaded.decoder(corpus.codes[crop.index][None])[0]
                expected = whole[crop.start * corpus.frame :][: crops.LENGTH * corpus.frame]
                assert torch.allclose(part[: len(expected)], expected, atol=1e-4)
                assert not part[len(expected) :].any()

    def test_late_and_early_frames_are_drawn(self, loaded):
        from qwen3_codec.demo.training import crops

        corpus = crops.Corpus(demo.FOLDER, loaded.decoder.samples_per_frame)
        drawn = np.zeros(len(PASSAGE.codes), int)
        for crop in corpus.draw(np.random.default_rng(0), 2000):
            if crop.index == len(SHORT):
                drawn[crop.start : crop.start + crops.LENGTH] += 1
        assert drawn.min() > drawn.mean() / 3

    def test_an_utterance_of_weight_zero_is_not_drawn(self, loaded):
        from qwen3_codec.demo.training import crops

        corpus = crops.Corpus(demo.FOLDER, loaded.decoder.samples_per_frame)
        drawn = corpus.draw(np.random.default_rng(0), 50, [1.0] * len(SHORT) + [0.0])
        assert {crop.index for crop in drawn} == set(range(len(SHORT)))


class TestEncoderTraining:
    def test_two_steps_that_can_be_continued(self, tmp_path):
        """Loss falls, the state is taken up again, and what is written loads with both halves."""
        torch = pytest.importorskip("torch")
        import shutil

        from qwen3_codec.demo.training import train_encoder

        for name in ("config.json", "model.safetensors", "utterances.json"):
            shutil.copy(demo.FOLDER / name, tmp_path)
        keep = json.loads((tmp_path / "utterances.json").read_text("utf-8"))[:3]
        (tmp_path / "utterances.json").write_text(json.dumps(keep), "utf-8")
        for part in ("codes", "recordings"):
            (tmp_path / part).mkdir()
            for record in keep:
                (file,) = (demo.FOLDER / part).glob(f"{record['name']}.*")
                shutil.copy(file, tmp_path / part)
        before = checkpoint.load(tmp_path).fingerprint("encoder")
        train_encoder.add_encoder(tmp_path, tmp_path / "state", steps=2, seed=0)
        loaded = checkpoint.load(tmp_path)
        assert loaded.fingerprint("encoder") != before and loaded.fingerprint() == checkpoint.load("demo").fingerprint()
        assert torch.isfinite(loaded.encoder(torch.zeros(1, 3000)).float()).all()
