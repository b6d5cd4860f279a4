"""The client in another language: `codec.js` in Node against Python, on the demo's four graphs."""

import functools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from conftest import drafted

from qwen3_codec import demo
from qwen3_codec.course.page import site
from qwen3_codec.model import checkpoint
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.describe import description
from qwen3_codec.runtime.metrics import chunks
from qwen3_codec.streaming.exact import ExactStreamingWrapper, OneShotWrapper
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper

REPLAY, PLAY = (Path(__file__).parents[1] / "page" / name for name in ("replay.mjs", "play.mjs"))
SCHEDULES = [[1], [3], [7, 1, 2]]
FRAMES = 16  # past the look-ahead and the left context of the windowed graphs

pytestmark = pytest.mark.skipif(
    not (shutil.which("node") and shutil.which("npm")), reason="no Node.js and npm here (Debian: apt-get install npm)"
)


@pytest.fixture(scope="module")
def replayed(tmp_path_factory, demo_graphs):
    """({design: session}, codes, what Node printed)."""
    folder = tmp_path_factory.mktemp("client")
    try:
        modules = site.node_modules()
    except site.PageError as error:
        pytest.skip(str(error))
    loaded, codes = checkpoint.load("demo"), demo.codes("en_state")[:FRAMES]
    wrappers = {
        "exact": ExactStreamingWrapper(loaded.decoder),
        "short": StatefulCodecONNXWrapper(loaded.decoder, 4, 4),
        "windowed": StatefulCodecONNXWrapper(loaded.decoder, 10, 4),
        "one-shot": OneShotWrapper(loaded.decoder),
    }
    sessions, graphs = {}, []
    for name, wrapper in wrappers.items():
        session = CodecSession(drafted(loaded, wrapper, demo_graphs / f"{name}.onnx"), 1)
        about = folder / f"{name}.json"
        about.write_text(json.dumps(description(session)))
        sessions[name] = session
        graphs.append({"graph": str(session.path), "about": str(about), "schedules": SCHEDULES})
    job = {
        "runtime": str(modules / "onnxruntime-web" / "dist" / "ort.wasm.min.mjs"),
        "client": str(site.SOURCES / "codec.js"),
        "graphs": graphs,
        "codes": codes.tolist(),
        "states": True,
    }
    return sessions, codes, node(REPLAY, job)


def node(script, job):
    run = subprocess.run(["node", script], input=json.dumps(job), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-2000:]
    return json.loads(run.stdout)


def test_sound_and_every_state_after_every_call(replayed):
    """float32 in WebAssembly against ONNX Runtime in Python: other kernels, the same operations."""
    sessions, codes, found = replayed
    results = iter(found["results"])
    for name, session in sessions.items():
        for schedule in SCHEDULES:
            result, stream, pieces = next(results), session.stream(), []
            for call, part in enumerate(chunks(codes[None], schedule)):
                pieces.append(stream.push(part[0]))
                for state, array in stream.state.items():
                    theirs = result["states"][call][state]
                    assert theirs["dims"] == list(array.shape), (name, state)
                    scale = max(1.0, np.abs(array).max(initial=0))
                    np.testing.assert_allclose(np.reshape(theirs["data"], array.shape), array, atol=1e-5 * scale)
            wanted = np.concatenate([*pieces, stream.finish()], axis=1)[0]
            np.testing.assert_allclose(result["samples"], wanted, atol=1e-5)
            assert result["frames"] == len(codes)


def test_what_does_not_fit_is_named(replayed):
    _, _, found = replayed
    errors, name = found["errors"], found["name"]
    assert errors["missing"] == f"{name} is missing"
    assert errors["dtype"] == f"{name} is int64, must be float32"
    assert errors["shape"].startswith(f"{name} has the shape [1,1,2], must be [batch,")
    assert errors["code"] == "code 999 at frame 0, codebook 3 is outside 0..63" and "code 0.5 at" in errors["half"]
    assert errors["short"] == "frame 0 has 15 codes, must have 16"
    assert errors["none"] == "a chunk has at least one frame"
    assert errors["description"].startswith("the graph's inputs are not those of its description: ")
    assert errors["finished"] == "the stream is finished; reset() starts a new one"


def test_fork_and_reset(replayed):
    sessions, codes, found = replayed
    stream = sessions["exact"].stream()
    start = stream.push(codes[:5])[0]
    there = stream.fork().push(codes[9:12])[0]
    here = stream.push(codes[5:8])[0]
    again = stream.fork().push(codes[8:9])[0]
    for name, wanted in {"there": there, "here": here, "again": again, "anew": start}.items():
        np.testing.assert_allclose(found["forks"][name], wanted, atol=1e-5)


def test_calls_that_are_not_awaited_take_their_turns(replayed):
    """What they give is what the same calls give one after the other, in Python too; the tolerance as above."""
    sessions, codes, found = replayed
    for session, turns in zip(sessions.values(), found["turns"], strict=False):

        def alone(*parts, session=session):
            stream = session.stream()
            return np.concatenate([*(stream.push(part) for part in parts), stream.finish()], axis=1)[0]

        same = functools.partial(np.testing.assert_allclose, atol=1e-5)
        same(turns["together"], alone(*codes[:, None]))
        assert turns["waiting"] == [len(codes) + 1, 0, 0]
        same(turns["anew"], alone(codes[:5]))
        same(turns["sick"], alone(codes[:5], codes[5:9]))
        assert turns["errors"] == [None, "frame 0 has 1 codes, must have 16", "out of memory", None, None]
        assert turns["frames"] == [len(codes), 9, 8]
        assert turns["twice"] == [0, 0, "the stream is finished; reset() starts a new one"]
        for piece in turns["crowd"]:
            same(piece, alone(codes[:5]))
        trunk, branch, begun = turns["branches"]
        same(begun + trunk, alone(codes[:5], codes[5:8]))
        same(begun + branch, alone(codes[:5], codes[9:12]))


def test_an_error_that_nobody_awaits_is_still_reported(replayed):
    assert replayed[2]["unheard"] == "frame 0 has 1 codes, must have 16"


@pytest.mark.parametrize("slowness", [0.5, 0.9999, 1.0, 1.02, 1.25, 3.0])
def test_a_slow_device_plays_every_piece_in_order_with_few_gaps(slowness):
    """A piece takes `slowness` times its length. None is started in the past, where it would run into the next one;

    each gap is twice the last, so n pieces have about log2(n) of them and end at most twice as late as they must.
    """
    samples, rate, pieces = 5760, 24000, 100
    length = samples / rate
    job = {"player": str(site.SOURCES / "player.js")}
    found = node(PLAY, job | {"rate": rate, "samples": samples, "pieces": pieces, "slowness": slowness})
    started = found["started"]
    assert len(started) == pieces and all(each["time"] - each["now"] >= 0.02 - 1e-9 for each in started)
    pauses = np.diff([each["time"] for each in started]) - length
    assert pauses.min() > -1e-9
    gaps = int((pauses > 1e-9).sum())
    late = max(0.0, slowness - 1) * length * pieces
    assert found["dry"] == (gaps > 0) and gaps <= np.log2(2 + late / 0.1), (gaps, late)
    assert started[-1]["time"] - started[0]["time"] <= length * pieces + 2 * late + 0.2


def test_the_client_is_short_and_stands_alone():
    source = (site.SOURCES / "codec.js").read_text()
    assert len(source.splitlines()) < 200 and "import " not in source.split("*/")[1]
