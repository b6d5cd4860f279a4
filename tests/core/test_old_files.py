"""Files of format version 1, as qwen3_codec 0.1.0 wrote them at commit f10cfae, still load, stream and verify."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from qwen3_codec.model import checkpoint
from qwen3_codec.runtime import CodecSession, self_test
from qwen3_codec.verification.decoder import verify
from qwen3_codec.verification.encoder import verify_encoder
from qwen3_codec.verification.graph import wrapper_like

ARCHIVE = Path(__file__).parents[1] / "old_files" / "format_1.zip"
DECODERS = ("exact", "windowed", "fixed", "one_shot", "float16", "int8")
# What another machine's rounding may make of 8 and 16 bits; as `SELF_TEST_SLACK` allows.
ATOL = {"int8": 0.05, "float16": 0.01}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One graph of each kind, two saved streams, the tiny random checkpoint, and what came out when they were made."""
    path = tmp_path_factory.mktemp("old")
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(path)
    return path


@pytest.fixture(scope="module")
def outputs(folder):
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


@pytest.mark.parametrize("name", DECODERS)
def test_an_old_decoder_loads_streams_and_verifies(folder, outputs, name):
    session, loaded = CodecSession(folder / f"{name}.onnx"), checkpoint.load(folder / "checkpoint")
    assert self_test.replay(session).passed and (session.spec.part, session.metadata["format_version"]) == (
        "decoder",
        "1",
    )
    codes, atol = outputs["codes"].astype(np.int64), ATOL.get(name, 1e-5)
    if name == "one_shot":
        np.testing.assert_allclose(session.stream(2).push(codes), outputs[name], atol=atol)
        return
    np.testing.assert_allclose(session.decode(codes, [2, 4]), outputs[name], atol=atol)
    schedules = [[session.spec.fixed_frames or 1], [2, 4]]
    report = verify(loaded, wrapper_like(loaded, session), codes, schedules, session)
    assert not report.failures, report.failures


def test_an_old_encoder_loads_streams_and_verifies(folder, outputs):
    session, loaded = CodecSession(folder / "encoder.onnx"), checkpoint.load(folder / "checkpoint")
    assert self_test.replay(session).passed and session.spec.part == "encoder"
    np.testing.assert_array_equal(session.encode(outputs["audio"], [1, 2]), outputs["encoder"])
    assert verify_encoder(loaded, wrapper_like(loaded, session), outputs["audio"], [[1], [2]], session).passed


@pytest.mark.parametrize(("name", "data"), [("windowed", "codes"), ("encoder", "audio")])
def test_an_old_saved_stream_goes_on(folder, outputs, name, data):
    stream = CodecSession(folder / f"{name}.onnx").load_stream(folder / f"{name}.stream.npz")
    rest = outputs["codes"][:, 5:].astype(np.int64) if data == "codes" else outputs["audio"][:, 2000:]
    np.testing.assert_allclose(stream.push(rest, last=True), outputs[f"{name}_rest"], atol=1e-5)
