"""The demo's speech and its codes: spoken by Debian's synthesisers, written as FLAC, coded by `features`.

Needs the programs festival (with festvox-us-slt-hts), flite and espeak-ng. The same program versions say the same
samples each time.
"""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import librosa
import numpy as np
import soundfile

from ...files import written_whole
from .features import frame_features, quantize

LEVEL = 10 ** (-22 / 20)  # root mean square of every recording, re full scale
PEAK_LIMIT = 0.7  # leaves the decoder room to overshoot without clipping
SILENCE_DB = 45  # quieter than this below the loudest part is cut from both ends
MARGIN = 0.05  # seconds of it that stay

PROGRAMS = "text2wave", "flite", "espeak-ng"
DEBIAN_PACKAGES = "festival, festvox-us-slt-hts, flite and espeak-ng"
ENGLISH_WOMAN = "festival cmu_us_slt_arctic_hts"
ENGLISH_MAN = "flite rms"
MANDARIN_WOMAN = "espeak-ng cmn-latn-pinyin+f2"

# name, language, voice, text, and what the synthesiser is given where that is not the text. espeak-ng reads
# pinyin: given Hanzi, it speaks the punctuation.
SCRIPT = [
    ("en_small", "en", ENGLISH_WOMAN, "This voice comes out of a very small decoder.", None),
    ("en_past", "en", ENGLISH_WOMAN, "A causal filter hears only the past.", None),
    ("en_state", "en", ENGLISH_MAN, "Every stream carries its own state.", None),
    ("zh_weather", "zh", MANDARIN_WOMAN, "今天天气很好。", "jin1tian1 tian1qi4 hen3 hao3"),
    ("zh_again", "zh", MANDARIN_WOMAN, "请把这段话再读一遍。", "qing3 ba3 zhe4 duan4 hua4 zai4 du2 yi2 bian4"),
    (
        "zh_model",
        "zh",
        MANDARIN_WOMAN,
        "这个声音来自一个很小的模型。",
        "zhe4ge5 sheng1yin1 lai2zi4 yi2ge4 hen3 xiao3 de5 mo2xing2",
    ),
    (
        "en_passage",
        "en",
        ENGLISH_WOMAN,
        "Speech begins as air, and ends as numbers. A codec listens to the air in pieces of eighty milliseconds, and "
        "writes sixteen small numbers for each piece. A decoder turns the numbers, one piece after another, back "
        "into sound. On a stream, it cannot wait for the end of the sentence. So it must remember what it has heard: a "
        "few samples for every filter, and a short history for every layer of attention. If it forgets, the voice "
        "begins to click. If it remembers well, nobody can tell where one piece ends and the next begins.",
        None,
    ),
]


def prepare(folder: Path, config: dict, seed: int = 0) -> np.ndarray:
    """Write recordings, codes and `utterances.json` into `folder`; returns the starting codebooks [Q, entries, dim].

    `config` is a whole config.json; it gives the rates and the sizes of the codebooks.
    """
    rate, frame = config["output_sample_rate"], config["decode_upsample_rate"]
    if missing := [program for program in PROGRAMS if not shutil.which(program)]:
        raise FileNotFoundError(f"{', '.join(missing)} not found; Debian has them as {DEBIAN_PACKAGES}")
    features = {}
    for name, _, voice, text, spelling in SCRIPT:
        samples = level(trim(speak(voice, spelling or text, rate), rate), frame)
        path = folder / "recordings" / f"{name}.flac"
        with written_whole(path) as draft:
            soundfile.write(draft, samples, rate, "PCM_16", format="FLAC")
        # From the file, as everybody else will read it: 16 bits.
        features[name] = frame_features(soundfile.read(path, dtype="float32")[0], rate, frame)
    sizes = config["decoder_config"]
    codes, tables = quantize(
        np.vstack(list(features.values())),
        sizes["num_quantizers"],
        sizes["codebook_size"],
        sizes["codebook_dim"] // 2,
        seed,
    )
    ends = np.cumsum([len(part) for part in features.values()])[:-1]
    for name, part in zip(features, np.split(codes, ends), strict=True):
        with written_whole(folder / "codes" / f"{name}.npy") as draft, draft.open("wb") as file:
            np.save(file, part, allow_pickle=False)
    records = [{"name": name, "language": lang, "text": text, "voice": voice} for name, lang, voice, text, _ in SCRIPT]
    lines = json.dumps(records, indent=2, ensure_ascii=False) + "\n"
    with written_whole(folder / "utterances.json") as draft:
        draft.write_bytes(lines.encode())
    return tables


def speak(voice: str, text: str, rate: int) -> np.ndarray:
    """`text` spoken by one of the voices of SCRIPT, as float32 samples [T] at `rate` Hz."""
    program, name = voice.split(maxsplit=1)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "text"), Path(folder, "speech.wav")
        source.write_text(text + "\n", encoding="utf-8")
        command = {
            "festival": ["text2wave", "-eval", f"(voice_{name})", "-o", target, source],
            "flite": ["flite", "-voice", name, "-f", source, "-o", target],
            "espeak-ng": ["espeak-ng", "-v", name, "-s", "150", "-f", source, "-w", target],
        }[program]
        subprocess.run(command, check=True, capture_output=True)
        samples, source_rate = soundfile.read(target, dtype="float32")
    return librosa.resample(samples, orig_sr=source_rate, target_sr=rate)


def trim(samples: np.ndarray, rate: int) -> np.ndarray:
    """Cut the silence at both ends down to MARGIN."""
    _, (start, end) = librosa.effects.trim(samples, top_db=SILENCE_DB, frame_length=1024, hop_length=256)
    margin = int(MARGIN * rate)
    return samples[max(0, start - margin) : end + margin]


def level(samples: np.ndarray, frame: int) -> np.ndarray:
    """Scale to LEVEL (or less, where PEAK_LIMIT asks for it) and fill up with zeros to whole frames."""
    gain = min(LEVEL / np.sqrt(np.mean(samples**2)), PEAK_LIMIT / np.abs(samples).max())
    return np.pad(gain * samples, (0, -len(samples) % frame))
