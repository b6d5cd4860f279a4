"""The field's words: home-made ones that the glossary replaced do not come back."""

import re

import pytest
from documents import GUIDE, README, ROOT

# What not to write: what to write. The glossary explains the second.
HOME_MADE = {
    r"whole[ -]numbers?(?! of\b)": "integer",
    r"twins?": "streaming counterpart",
    r"specimens?": "trap",
    r"rotated keys": "post-RoPE cache",
    r"(of )?different ages|young(er)? rows?|older rows?": "batch rows at different offsets",
    r"real keys": "valid cache slots",
    r"8[ -]bits? twice|8 bits in blocks": "two-term int8, block-wise int8",
    r"promises?": "measured SNR, accuracy bound",
    r"proofs?|unproven": "parity test, validate",
    r"held back|holds? (\w+ ){0,3}back": "buffered",
    r"decoded? again": "recomputed",
    r"(?<!--conv-)histor(y|ies)(?! for every layer)": "left context, state, cache",
    r"in silence|silently": "without an error, unreported (silent is for audio)",
    r"conv stack": "convolutional decoder",
    r"looks? back|\w+_reach|reach_\w+": "receptive field",
    r"(frozen|free[sz]es?|freezing) ?(length|axis|axes|batch|number|size)s?": "baked in",
    r"(length|axis|axes|batch|number|size)s? free[sz]es?": "baked in",
    r"frozen_(axis|axes|length)\w*|frozen in": "baked in",
    r"fewer bits": "quantization, reduced precision",
    r"who waits|those who wait": "dynamic batching",
    r"los(e|ing) (each|its|the) states?": "state ablation",
    r"whoever": "who",
    r"rais\w+ (its|his|her) hand": "fails, reports",
}
# The demo says of itself that attention has "a short history for every layer". In JavaScript a promise is a value.
OTHER_SENSE = {(r"promises?", ".js")}
PACKAGE = ROOT / "qwen3_codec"
FILES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *GUIDE.glob("*.md"),
    *(ROOT / "notebooks").glob("*.*"),
    *PACKAGE.rglob("*.py"),
]
FILES += [
    path for path in (PACKAGE / "course" / "page" / "static").rglob("*") if path.suffix in {".js", ".html", ".css"}
]
TEXTS = {path: path.read_text(encoding="utf-8") for path in FILES if path.suffix not in {".ipynb", ".png"}}


@pytest.mark.parametrize(("word", "instead"), HOME_MADE.items())
def test_home_made_words_do_not_occur(word, instead):
    pattern = re.compile(rf"\b(?:{word})\b", re.IGNORECASE)
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:100]}"
        for path, text in TEXTS.items()
        if (word, path.suffix) not in OTHER_SENSE
        for number, line in enumerate(text.splitlines(), 1)
        if pattern.search(line)
    ]
    assert not found, f"say {instead}:\n" + "\n".join(found)


def test_every_word_is_looked_for_where_it_could_be():
    assert len(TEXTS) > 150 and all(any(path.suffix == kind for path in TEXTS) for kind in (".py", ".md", ".js"))
