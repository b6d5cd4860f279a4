"""Streams over WebSocket: exact for clients at once, each fault for its own client alone, limits, close codes."""

import asyncio
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import soxr
from conftest import drafted
from documents import GUIDE
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.audio import pcm16
from qwen3_codec.runtime.codes import CodesError, random_codes
from qwen3_codec.runtime.console import run_module
from qwen3_codec.runtime.metrics import MAX_ERROR, chunks, max_error
from qwen3_codec.runtime.stream import stream_of
from qwen3_codec.serving import client
from qwen3_codec.serving.connection import Limits
from qwen3_codec.serving.joining import JoiningSession
from qwen3_codec.serving.messages import CODES, Close, Refused, Request, read_options, read_request
from qwen3_codec.serving.remote import ServerError
from qwen3_codec.spec import DECODER
from qwen3_codec.streaming.encoder import StreamEncoderWrapper
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper

serving = pytest.importorskip("qwen3_codec.serving.websocket", reason="needs the extra [websocket]")
from websockets.asyncio.client import connect  # noqa: E402
from websockets.exceptions import ConnectionClosed  # noqa: E402

from qwen3_codec.serving.websocket_client import WebSocketStream  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def session(tiny_exact):
    return CodecSession(tiny_exact, threads=1)


def on_a_server(talk, session, limits=None, **options):
    """Runs `talk(url, server)` beside a server."""

    async def both():
        server = serving.Server(session, limits, **options)
        async with server.listening(port=0) as url:
            result = await asyncio.wait_for(talk(url, server), 60)
            await settled(server)
            return result

    return asyncio.run(both())


async def settled(server, live=0):
    """Until the server has noticed who has gone."""
    async with asyncio.timeout(5):
        while server.live != live:
            await asyncio.sleep(0.01)


def wait_for(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def binary(codes):
    return codes.astype(CODES).tobytes()


async def speak(url, codes, schedule=(3,), wait=0.0, **options):
    """One good client; its waveform [samples]."""
    parts = [*chunks(codes[None], schedule)]
    async with WebSocketStream(url, **options) as stream:
        heard = []
        for part in parts:
            heard.append(await stream.push(part, last=part is parts[-1]))
            await asyncio.sleep(wait)
    return np.concatenate(heard, axis=1)[0]


def assert_exact(tiny, codes, waveform):
    assert waveform.shape == (len(codes) * tiny.decoder.samples_per_frame,) and waveform.dtype == np.float32
    assert max_error(one_shot(tiny.decoder, codes[None]), waveform[None]) < MAX_ERROR


def rows_of(session, *lengths):
    return [random_codes(session.spec, length, seed=seed)[0] for seed, length in enumerate(lengths)]


# ---- what is heard -------------------------------------------------------------------------------


def test_two_clients_at_once_are_each_exact(session, tiny):
    """Past the attention window, and one of them in requests that are cut into turns."""
    rows = rows_of(session, 90, 100)

    async def talk(url, server):
        return await asyncio.gather(speak(url, rows[0], [1, 2]), speak(url, rows[1], [40]))

    for codes, waveform in zip(rows, on_a_server(talk, session), strict=True):
        assert_exact(tiny, codes, waveform)


def test_json_and_binary_in_every_kind_of_pcm_out(session):
    (codes,) = rows_of(session, 20)
    wanted = session.decode(codes)[0]

    async def answers(url, *messages):
        async with connect(url) as socket:
            greeting, got = json.loads(await socket.recv()), []
            for message in (*messages, '{"finish": true}'):
                await socket.send(message)
                got.append(await socket.recv())
            with pytest.raises(ConnectionClosed) as closed:
                await socket.recv()
            assert closed.value.rcvd.code == Close.FINISHED
            return greeting, b"".join(got)

    async def talk(url, server):
        return [
            await answers(url, binary(codes[:7]), json.dumps(codes[7:].tolist())),
            await answers(f"{url}/?pcm=int16", json.dumps(codes.tolist())),
            await answers(f"{url}/here?rate=48000&pcm=float32", binary(codes[:1]), binary(codes[1:])),
            await speak(url, codes, [6], pcm="int16", rate=16000),
        ]

    (said, float32), (as16, int16), (at48, resampled), by_client = on_a_server(talk, session)
    assert (said["rate"], said["pcm"], said["num_quantizers"]) == (session.spec.sample_rate, "float32", 3)
    assert (at48["rate"], at48["sample_rate"], as16["pcm"]) == (48000, session.spec.sample_rate, "int16")
    assert max_error(np.frombuffer(float32, "<f4"), wanted) < MAX_ERROR
    assert np.abs(np.frombuffer(int16, "<i2").astype(int) - pcm16(wanted)).max() <= 2
    assert max_error(np.frombuffer(resampled, "<f4"), soxr.resample(wanted, session.spec.sample_rate, 48000)) < 1e-4
    assert max_error(by_client, soxr.resample(wanted, session.spec.sample_rate, 16000)) < 1e-4


def test_a_warm_start_and_forks_by_name(session, tiny):
    """What follows a prompt is what one stream would say; a name goes with the client that gave it."""
    prompt, first, second = rows_of(session, 30, 9, 12)
    given = session.stream()
    given.prime(prompt)
    skipped = len(prompt) * tiny.decoder.samples_per_frame

    async def talk(url, server):
        async with WebSocketStream(url) as keeper:
            await keeper.prime(prompt)
            await keeper.save("anna")
            with pytest.raises(ServerError, match=r"'anna' is saved already \(4409\)"):
                async with WebSocketStream(url) as other:
                    await other.save("anna")
            heard = await asyncio.gather(*(speak(url, codes, fork="anna") for codes in (first, second)))
            heard.append((await keeper.push(second))[0])  # who keeps it goes on too
            await keeper.save("anna 2")
            with pytest.raises(ServerError, match=r"nothing is saved as 'anna' \(4404\)"):
                await speak(url, first, fork="anna")
        await settled(server)
        assert [*server.names] == ["bert"] and given.frames == [30]
        return [*heard, await speak(url, first, fork="bert")]

    heard = on_a_server(talk, session, names={"bert": given})
    for codes, waveform in zip((first, second, second, first), heard, strict=True):
        whole = one_shot(tiny.decoder, np.concatenate([prompt, codes])[None])[:, skipped:]
        assert max_error(whole, waveform[None]) < MAX_ERROR


def test_a_graph_that_looks_ahead_gives_its_rest_at_the_end(tiny, graphs_folder):
    wrapper = StatefulCodecONNXWrapper(tiny.decoder, conv_history_frames=4, lookahead_frames=2)
    windowed = CodecSession(drafted(tiny, wrapper, graphs_folder / "tiny_windowed.onnx"), threads=1)
    (codes,) = rows_of(windowed, 11)
    waveform = on_a_server(lambda url, _: speak(url, codes, [4]), windowed)
    assert max_error(windowed.decode(codes, [4])[0], waveform) < MAX_ERROR


def test_streams_that_wait_share_a_call_at_offsets_of_their_own(session, tiny):
    """While one call runs, nine streams come: eight whose chunks are as long are joined, the other is not."""
    gated = Gated(session)
    joining = JoiningSession(gated, rows=8)
    streams = [stream_of(joining, 1) for _ in range(10)]
    rows = rows_of(session, *range(3, 13))

    def push(n):
        return streams[n].push(rows[n][:2] if n < 9 else rows[n][:1])

    with ThreadPoolExecutor(10) as pool:
        first = [pool.submit(push, 0)]
        wait_for(lambda: gated.calls == 1)
        first += [pool.submit(push, n) for n in range(1, 10)]
        wait_for(lambda: len(joining._waiting) == 9)
        gated.free.set()
        heard = [[each.result()] for each in first]
        assert gated.calls == 3 and sorted(gated.rows) == [1, 1, 8]
        rest = pool.map(lambda n: streams[n].push(rows[n][2 if n < 9 else 1 :]), range(10))
        heard = [np.concatenate([*parts, end], axis=1)[0] for parts, end in zip(heard, rest, strict=True)]
    for codes, waveform in zip(rows, heard, strict=True):
        assert_exact(tiny, codes, waveform)


def test_an_error_of_a_shared_call_moves_no_stream(session):
    """And a windowed graph, whose states grow, shares none."""
    gated = Gated(session, fails=True)
    joining = JoiningSession(gated)
    stream = stream_of(joining, 1)
    with pytest.raises(MemoryError):
        stream.push(np.zeros((1, 3), int))
    gated.fails = False
    gated.free.set()
    np.testing.assert_array_equal(stream.push(np.zeros((1, 3), int)), session.stream().push(np.zeros((1, 3), int)))
    assert not joining._waiting
    gated.spec = replace(session.spec, design="windowed")
    assert JoiningSession(gated).rows == 1


# ---- what goes wrong -----------------------------------------------------------------------------


async def ending(url, *messages):
    """(code, reason, the words before it) of the end that these messages bring."""
    words = ""
    async with connect(url) as socket:
        try:
            await socket.recv()
            for message in messages:
                await socket.send(message)
            while True:
                answer = await socket.recv()
                words = json.loads(answer).get("error", words) if isinstance(answer, str) else words
        except ConnectionClosed as closed:
            return closed.rcvd.code, closed.rcvd.reason, words


ONE = binary(np.zeros((1, 3), int))
FAULTS = {
    "no JSON": (["[1,"], Close.NOT_UNDERSTOOD, "not JSON"),
    "deep JSON": (["[" * 4000], Close.NOT_UNDERSTOOD, "not JSON"),
    "no request": (['{"play": 1}'], Close.NOT_UNDERSTOOD, "the message is not a list of frames"),
    "half a frame": ([ONE[:-1]], Close.NOT_UNDERSTOOD, "5 bytes are no whole frames of 6"),
    "another shape": (["[[1, 2]]"], Close.BAD_CODES, r"codes have the shape \[1, 2\], must be \[N, 3\]"),
    "no frame": ([b""], Close.BAD_CODES, "row 0 of the codes holds no frame"),
    "floats": (["[[1, 2, 0.5]]"], Close.BAD_CODES, "codes are float64, must be integers"),
    "too large": (["[[1, 2, 64]]"], Close.BAD_CODES, "code 64 at row 0, frame 0, codebook 2 is outside 0..63"),
    "after good ones": ([ONE, ONE, "[[1, 2, -1]]"], Close.BAD_CODES, "code -1"),
    "a flood": ([ONE] * 300, Close.TOO_MANY_FRAMES, "more than 100 frames wait"),
    "one that is too long": ([ONE * 101], Close.TOO_MANY_FRAMES, "more than 100 frames wait"),
    "much too long": (["x" * 10**6], 1009, ""),
    "stalls": ([ONE], Close.IDLE, "nothing came for 0.5 s"),
}
LIMITS = Limits(streams=40, frames=100, idle=0.5)


def test_each_fault_has_its_code_and_its_words(session):
    async def talk(url, server):
        return await asyncio.gather(*(ending(url, *messages) for messages, _, _ in FAULTS.values()))

    for name, (code, reason, words) in zip(FAULTS, on_a_server(talk, session, LIMITS), strict=True):
        _, wanted, pattern = FAULTS[name]
        assert code == wanted and re.match(pattern, words), name
        assert code == 1009 or (words.startswith(reason) and len(reason) > 10), name


def test_the_table_of_close_codes_is_what_the_server_sends():
    rows = re.findall(r"^\| (\d{4}) \|", (GUIDE / "serving.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(map(int, rows)) == sorted({*map(int, Close), 1001, 1002, 1007, 1009})


async def vanishes(url):
    socket = await connect(url)
    await socket.recv()
    for _ in range(5):
        await socket.send(ONE * 9)
    socket.transport.abort()


async def never_reads(url):
    """It asks for much and takes nothing, then goes."""
    socket = await connect(url, max_queue=1, ping_interval=None)
    socket.transport.pause_reading()
    for _ in range(9):
        await socket.send(ONE * 11)
    await asyncio.sleep(0.6)
    socket.transport.abort()


async def no_websocket(url):
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rsplit(":", 1)[1]))
    writer.write(b"\x00\xff" * 5000 + b"\r\n\r\n")
    await reader.read()
    writer.close()


def test_32_clients_with_every_kind_of_fault_harm_nobody(session, tiny):
    """The good ones are exact, also where they say more than may wait at a time; afterwards all is as it was."""
    good = rows_of(session, *[20 + 12 * n for n in range(12)])
    bad = [messages for messages, _, _ in FAULTS.values()]

    async def talk(url, server):
        async def ask_wrongly():
            kinds = [*(ending(url, *messages) for messages in bad)]
            kinds += [vanishes(url) for _ in range(4)] + [never_reads(url) for _ in range(2)] + [no_websocket(url)]
            assert len(kinds) == 20
            await asyncio.gather(*kinds)

        wrong = asyncio.create_task(ask_wrongly())
        heard = await asyncio.gather(*(speak(url, codes, [2, 7], wait=0.02) for codes in good))
        await wrong
        await settled(server)
        assert not server.names
        return [*heard, await speak(url, good[0])]

    for codes, waveform in zip([*good, good[0]], on_a_server(talk, session, LIMITS), strict=True):
        assert_exact(tiny, codes, waveform)


def test_no_more_streams_than_the_limit(session):
    async def talk(url, server):
        async with WebSocketStream(url), WebSocketStream(url) as second:
            with pytest.raises(ServerError, match=r"2 streams are open, and no more are taken; .*\(1013\)"):
                await WebSocketStream(url).__aenter__()
            await second.finish()
            await settled(server, 1)
            async with WebSocketStream(url) as third:
                await third.push(np.zeros((1, 3), int))

    on_a_server(talk, session, Limits(streams=2))


def test_who_takes_no_answer_is_closed():
    """A socket that is full: its own stream waits for it, and for so long alone."""

    async def full(_):
        await asyncio.sleep(60)

    connection = serving.Connection.__new__(serving.Connection)
    connection.limits = Limits(idle=0.05)
    connection.socket = type("Socket", (), {"send": staticmethod(full)})
    with pytest.raises(Refused, match=r"no answer was taken for 0\.05 s") as refused:
        asyncio.run(connection._send(b""))
    assert refused.value.code == Close.IDLE


class Gated:
    """A session whose calls wait for `free`, or fail."""

    def __init__(self, session, fails=False):
        self.session, self.spec, self.fails, self.free, self.calls = session, session.spec, fails, threading.Event(), 0
        self.rows = []

    def run(self, feeds):
        self.calls += 1
        self.rows.append(len(feeds["audio_codes"]))
        if self.fails:
            raise MemoryError("no room for it")
        assert self.free.wait(10)
        return self.session.run(feeds)


@pytest.mark.parametrize("leaves", [False, True])
def test_the_loop_answers_while_it_decodes_and_a_client_that_leaves_costs_one_turn(session, leaves):
    gated = Gated(session)

    async def talk(url, server):
        busy = asyncio.create_task(speak(url, np.zeros((40, 3), int), [40]))
        while not gated.calls:
            await asyncio.sleep(0.01)
        code, _, _ = await ending(url, "nonsense")  # answered in the meantime
        assert code == Close.NOT_UNDERSTOOD and not busy.done()
        if leaves:
            busy.cancel()
            await asyncio.wait([busy])
        gated.free.set()
        if not leaves:
            await busy
        await settled(server)
        return gated.calls

    assert on_a_server(talk, gated) == (1 if leaves else 4), "40 frames are four turns"


def test_what_fails_here_is_the_servers_fault(session, capsys):
    async def talk(url, server):
        return await ending(url, ONE)

    code, _, words = on_a_server(talk, Gated(session, fails=True))
    assert code == Close.FAILED and "its own output says why" in words
    assert "a stream failed: no room for it" in capsys.readouterr().err


def test_the_server_tells_its_clients_that_it_ends(session):
    async def both():
        async with serving.Server(session).listening(port=0) as url:
            socket = await connect(url)
            await socket.recv()
        with pytest.raises(ConnectionClosed) as closed:
            await socket.recv()
        return closed.value.rcvd.code

    assert asyncio.run(both()) == 1001


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("pcm=mp3", "pcm is 'mp3', must be float32 or int16"),
        ("rate=0", r"rate is 0, must be in 4000\.\.192000"),
        ("rate=fast", "invalid literal"),
        ("speed=2", "there is no option speed; there are pcm, rate and fork"),
        ("fork=&x=", "there is no option x"),
    ],
)
def test_options_that_cannot_be(query, words):
    with pytest.raises(Refused, match=words) as refused:
        read_options(f"/?{query}", 24000)
    assert refused.value.code == Close.NOT_UNDERSTOOD and len(refused.value.reason.encode()) <= 123


@settings(max_examples=60, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.text(max_size=30),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["prime", "save", "finish"]), inner)
            ),
            max_leaves=12,
        ).map(json.dumps),
    )
)
def test_any_message_is_a_request_or_refused(session, message):
    try:
        request = read_request(message, session.spec)
    except Refused as refused:
        assert refused.why and refused.code in (Close.NOT_UNDERSTOOD, Close.BAD_CODES)
        return
    assert isinstance(request, Request) and request.frames >= 1
    if request.codes is not None:
        assert request.codes.dtype == np.int64 and request.codes.shape[::2] == (1, 3)


# ---- the client, the page, the command -----------------------------------------------------------


def test_a_client_has_one_exchange_at_a_time_and_a_lost_one_ends_its_stream(session):
    gated = Gated(session)

    async def talk(url, server):
        async with WebSocketStream(url, timeout=0.2) as late, WebSocketStream(url) as cut, WebSocketStream(url) as bad:
            first = asyncio.create_task(cut.push(np.zeros((1, 3), int)))
            await asyncio.sleep(0.05)
            with pytest.raises(RuntimeError, match="one at a time"):
                await cut.push(np.zeros((1, 3), int))
            first.cancel()
            with pytest.raises(ServerError, match=r"no answer within 0\.2 s"):
                await late.push(np.zeros((1, 3), int))
            gated.free.set()
            for stream, why in ((late, "no answer"), (cut, "CancelledError")):
                with pytest.raises(ServerError, match=f"this stream is over, begin a new one; .*{why}"):
                    await stream.push(np.zeros((1, 3), int))
            for codes, words in ((np.zeros((1, 3)), "must be integers"), (np.full((1, 3), 40000), "16 bits hold")):
                with pytest.raises(CodesError, match=words):
                    await bad.push(codes)
            assert (await bad.push(np.zeros((2, 3), int))).shape == (1, 2 * session.spec.samples_per_frame)
            with pytest.raises(ServerError, match=r"code 99 at row 0, .*\(4422\)"):
                await bad.push(np.full((1, 3), 99))

    on_a_server(talk, gated)
    with pytest.raises(ServerError, match=r"ws://127\.0\.0\.1:9: no connection to the server"):
        asyncio.run(WebSocketStream("ws://127.0.0.1:9").__aenter__())


def test_the_page_is_served_and_pages_of_other_sites_are_not(session):
    (codes,) = rows_of(session, 4)

    def get(address):
        try:
            with urllib.request.urlopen(address, timeout=10) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, "", error.read().decode()

    async def origin(url, value):
        try:
            async with connect(url, origin=value) as socket:
                return json.loads(await socket.recv())["rate"]
        except Exception as error:
            return error.response.status_code

    async def talk(url, server):
        http = url.replace("ws", "http", 1)
        pages = [await asyncio.to_thread(get, http + path) for path in ("/", "/example", "/no/such")]
        sites = [await origin(url, value) for value in (http, "https://own.example", "https://evil.example", "null")]
        return pages, sites

    (page, example, nothing), sites = on_a_server(talk, session, example=codes, origins=["https://own.example"])
    assert page[:2] == (200, "text/html; charset=utf-8") and "new WebSocket(" in page[2]
    assert example[0] == 200 and json.loads(example[2]) == codes.tolist() and nothing[0] == 404
    rate = session.spec.sample_rate
    assert sites == [rate, rate, 403, 403]


@pytest.mark.slow
@pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver here")
def test_the_page_plays_in_a_browser(session, tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    (codes,) = rows_of(session, 41)

    def drive(address):
        options = webdriver.ChromeOptions()
        options.binary_location = CHROMIUM
        for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        try:
            driver.get(address)
            said, button = driver.find_element("id", "said"), driver.find_element("id", "example")
            wait_for(button.is_displayed)
            button.click()
            wait_for(lambda: "in all" in said.text or "closed" in said.text)
            first = said.text
            (tmp_path / "bad.json").write_text("[[99, 0, 0]]")
            driver.find_element("id", "file").send_keys(str(tmp_path / "bad.json"))
            wait_for(lambda: said.text != first)
            return first, said.text, driver.get_log("browser")
        finally:
            driver.quit()

    async def talk(url, server):
        return await asyncio.to_thread(drive, url.replace("ws", "http", 1))

    played, refused, log = on_a_server(talk, session, example=codes)
    seconds = len(codes) * session.spec.samples_per_frame / session.spec.sample_rate
    assert re.match(rf"first sound after \d+ ms, {seconds:.2f} s in all", played), played
    assert refused.startswith("closed: code 99 at row 0") and refused.endswith("(4422)") and not log


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_the_command_serves_and_one_client_serves_both(session, tiny_exact, tmp_path, capsys, monkeypatch, runtime):
    pytest.importorskip(runtime, reason=f"{runtime} is not installed")
    codes, prompt = random_codes(session.spec, 9, batch=3), rows_of(session, 5)[0]
    np.save(tmp_path / "codes.npy", codes)
    np.save(tmp_path / "prompt.npy", prompt)
    line = ["--codes", str(tmp_path / "codes.npy"), "--chunks", "2,5", "--output", str(tmp_path / "x.npy"), "--url"]

    async def run_clients(server, host, port):
        async with server.listening(host, port) as url:
            for options in ("", "?fork=anna&pcm=int16"):
                assert await asyncio.to_thread(run_module, client, "client", [*line, url + options]) == 0
                heard.append([np.load(tmp_path / f"x_{row}.npy") for row in range(3)])

    heard = []
    monkeypatch.setattr(serving, "_run", run_clients)
    command = [str(tiny_exact), "--port", "0", "--threads", "1", "--voice", f"anna={tmp_path / 'prompt.npy'}"]
    assert run_module(serving, "websocket", [*command, "--runtime", runtime]) == 128 + signal.SIGTERM
    assert "3 streams, " in (printed := capsys.readouterr().out) and "in 9 chunks" in printed and "p99" in printed
    for row in range(3):
        assert max_error(session.decode(codes[row]), heard[0][row]) < MAX_ERROR
        warm = session.decode(np.concatenate([prompt, codes[row]]))[:, 5 * session.spec.samples_per_frame :]
        assert max_error(warm, heard[1][row]) < 2 / 32768
    assert run_module(client, "client", [*line, "ws://127.0.0.1:9"]) == 2
    assert "client: ws://127.0.0.1:9: no connection to the server" in capsys.readouterr().err


def test_the_command_says_what_ran_where_that_is_not_what_was_asked_for(tiny_exact, capsys, monkeypatch):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")

    async def ends_at_once(server, host, port):
        served.append(server.session.session)

    served = []
    monkeypatch.setattr(serving, "_run", ends_at_once)
    run_module(serving, "websocket", [str(tiny_exact), "--runtime", "openvino", "--precision", "f16"])
    (session,) = served
    assert capsys.readouterr().err.splitlines() == ([] if session.precision == "f16" else [session.note])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-streams", "0"], "the limit on streams is 0, must be above 0"),
        (["--idle", "nan"], "the limit on idle is nan"),
        (["--voice", "anna"], "--voice anna: must be NAME=FILE"),
        (["--max-batch", "0"], "rows in a call are 0"),
        (["--port", "70000"], "--port is 70000"),
    ],
)
def test_what_cannot_be_served_is_one_line(tiny_exact, capsys, options, words):
    assert run_module(serving, "websocket", [str(tiny_exact), *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("websocket: ") and words in line


def test_a_command_that_is_ended_tells_its_clients(tiny_exact):
    command = [sys.executable, "-m", "qwen3_codec.serving.websocket", str(tiny_exact), "--port", "0", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

        async def talk(url):
            async with connect(url) as socket:
                await socket.recv()
                process.terminate()
                with pytest.raises(ConnectionClosed) as closed:
                    await socket.recv()
                return closed.value.rcvd.code

        ready = re.match(r"ready: (\S+); a page that plays: http://", process.stdout.readline())
        assert asyncio.run(talk(ready[1])) == 1001
        assert process.wait(10) == 128 + signal.SIGTERM and not process.stderr.read()


def test_an_encoder_is_refused():
    from qwen3_codec.model import checkpoint

    spec = StreamEncoderWrapper(checkpoint.load("random-small").encoder).spec
    assert spec.part != DECODER
    with pytest.raises(ValueError, match="this graph is an encoder's"):
        serving.Server(type("Session", (), {"spec": spec}))
