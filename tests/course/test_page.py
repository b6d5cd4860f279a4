"""The page in a real browser: what it decodes and measures, what sounds, its words, sizes and keys.

Pictures of it stay in `build/page_tests/`.
"""

import json
import os
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from test_lab_browser import CHROMIUM, DRIVER, FLAGS

from qwen3_codec.course.lab import experiment
from qwen3_codec.course.lab.experiment import EXACT, NO_TRAP, ONE_SHOT, WINDOWED, Settings
from qwen3_codec.course.page import site
from qwen3_codec.model import checkpoint

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("QWEN3_CODEC_BUILD", ROOT / "build")) / "page_tests"

PASSAGE = {"design": "windowed", "trap": "positions", "utterance": "en_passage", "chunk": 24}

pytestmark = [
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver here"),
    pytest.mark.skipif(not shutil.which("npm"), reason="no npm here (Debian: apt-get install npm)"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, demo_graphs):
    try:
        modules = site.node_modules()
    except site.PageError as error:
        pytest.skip(str(error))
    folder = tmp_path_factory.mktemp("site") / "page"
    (folder.parent / "walkthrough").mkdir()
    (folder.parent / "walkthrough" / "00_hear_it.html").write_text("<title>the lab</title>")
    (folder.parent / "page_graphs").symlink_to(demo_graphs)
    site.build(folder)
    shutil.copy(modules / "axe-core" / "axe.min.js", folder)
    return folder


@contextmanager
def served(folder):
    server = site.server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def address(folder):
    with served(folder) as address:
        yield address


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    flags = [*FLAGS, "--autoplay-policy=no-user-gesture-required", "--lang=en-US"]
    for flag in (*flags, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    KEPT.mkdir(parents=True, exist_ok=True)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(address, browser):
    browser.get(address)
    browser.execute_async_script("window.codecLab.ready.then(arguments[0])")
    return browser


def run(page, **settings):
    code = "window.codecLab.run(arguments[0]).then(arguments[1], (e) => arguments[1]({error: String(e)}))"
    return page.execute_async_script(code, settings)


def test_it_loads_quietly_and_from_here_alone(page, address):
    assert page.find_element("id", "status").text == "Ready." and page.title.startswith("qwen3_codec")
    assert not page.find_element("id", "problem").text
    assert [entry for entry in page.get_log("browser") if entry["level"] != "INFO"] == []
    asked = page.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert asked and all(name.startswith((address, "data:")) for name in asked)


def test_a_first_visit_stays_under_twenty_megabytes(page, address):
    root = Path(site.SOURCES)
    assert sum(file.stat().st_size for file in root.rglob("*") if file.is_file()) < 200_000
    needed = ["ort/ort-wasm-simd-threaded.wasm", "ort/ort.wasm.min.mjs", "graphs/exact.onnx", "graphs/exact.json"]
    length = "fetch(name).then((answer) => answer.arrayBuffer()).then((bytes) => bytes.byteLength)"
    code = f"Promise.all(arguments[0].map((name) => {length})).then(arguments[1])"
    assert sum(page.execute_async_script(code, needed)) < 20e6


@pytest.mark.parametrize(
    ("settings", "design", "trap", "extra"),
    [
        ({"design": "exact", "trap": "none"}, EXACT, NO_TRAP, {}),
        ({"design": "windowed", "trap": "none"}, WINDOWED, NO_TRAP, {"history": 10}),
        ({"design": "one-shot", "trap": "none"}, ONE_SHOT, NO_TRAP, {}),
        ({"design": "exact", "trap": "all"}, EXACT, "all state lost", {}),
        ({"design": "exact", "trap": "conv"}, EXACT, "conv state lost", {}),
        ({"design": "exact", "trap": "attention"}, EXACT, "keys and values lost", {}),
        ({"design": "windowed", "trap": "all"}, WINDOWED, "all state lost", {"history": 10}),
        ({"design": "windowed", "trap": "conv"}, WINDOWED, "conv state lost", {"history": 10}),
        ({"design": "windowed", "trap": "history"}, WINDOWED, NO_TRAP, {"history": 4}),
        (PASSAGE, WINDOWED, "positions that saturate", {"history": 10, "utterance": "en_passage", "chunk": 24}),
    ],
)
def test_the_same_numbers_as_the_lab_in_python(page, settings, design, trap, extra):
    """To 0.1 dB where there is something to hear; a right stream within 1e-5."""
    found = run(page, **{"utterance": "en_small", "chunk": 3} | settings)
    chosen = {"utterance": "en_small", "frames": 1000, "design": design, "chunk": 3, "trap": trap} | extra
    wanted = experiment.run(checkpoint.load("demo"), Settings(**chosen))
    assert found["samples"] == wanted.streamed.size and found["msPerChunk"] > 0, found
    if trap == NO_TRAP and design != ONE_SHOT and extra.get("history") != 4:
        assert found["maxError"] < 1e-5 and found["snr"] > 80
    else:
        assert found["snr"] == pytest.approx(wanted.snr_db, abs=0.1)
        assert found["maxError"] == pytest.approx(wanted.max_error, abs=1e-3)


def test_traps_of_the_page_alone(page):
    layer = run(page, utterance="en_small", chunk=3, trap="layer", layer=["conv_03"])
    other = run(page, utterance="en_small", chunk=3, trap="other")
    short = run(page, utterance="en_small", chunk=3, trap="samples")
    assert 0 < layer["snr"] < 80 and other["snr"] < 10
    assert short["samples"] == 32 * 1920 - 10 * 40 and short["snr"] < 10
    assert "has no trap positions" in run(page, utterance="en_small", trap="positions")["error"]
    assert "no utterance x" in run(page, utterance="x")["error"]


@pytest.mark.parametrize("seed", [0, 7])
def test_a_random_cut_is_exact(page, seed):
    assert run(page, utterance="zh_again", chunk=9, seed=seed)["maxError"] < 1e-5


def test_what_sounds_is_the_stream_in_order_and_without_a_gap(page):
    page.find_element("css selector", "#guide button").click()
    page.execute_async_script(
        "const done = arguments[0]; const wait = () => document.getElementById('status').textContent === 'Done.' "
        "? done() : setTimeout(wait, 50); setTimeout(wait, 200)"
    )
    log = page.execute_script("return window.codecLab.player.log")
    assert sum(entry["length"] for entry in log) == 32 * 1920
    assert [entry["at"] for entry in log] == [0, *np.cumsum([entry["length"] for entry in log])[:-1]]
    assert page.execute_script("return window.codecLab.player.context.state") == "running"
    assert "dB" in page.find_element("id", "numbers").text and not page.find_element("id", "problem").text
    page.find_element("id", "compare").click()
    gains = page.execute_script("const p = window.codecLab.player; return [p.stream.gain.value, p.whole.gain.value]")
    assert gains == [0, 1]
    page.find_element("id", "compare").click()
    page.save_screenshot(str(KEPT / "right.png"))
    page.find_element("id", "stop").click()


@pytest.fixture
def sound(page):
    """The page, whose way to the sound a test may change: it is put back."""
    page.execute_script("window.realContext = AudioContext; document.querySelector('#guide button').click()")
    page.find_element("id", "stop").click()
    yield page
    page.find_element("id", "stop").click()
    page.execute_script("window.AudioContext = window.realContext; delete navigator.audioSession")


def wait_for(page, condition):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 60, 0.05).until(lambda _: page.execute_script(f"return {condition}"))


def test_a_browser_that_allows_no_sound_is_told_in_words(sound):
    """Its `resume()` is never answered; the picture comes all the same, and the words go when the sound comes."""
    sound.execute_script("""
        const Real = window.AudioContext;
        window.AudioContext = class extends Real {
          constructor(options) { super(options); super.suspend(); window.allow = () => super.resume(); }
          resume() { return new Promise(() => {}); }
        };""")
    sound.find_element("id", "play").click()
    problem, pause = (sound.find_element("id", name) for name in ("problem", "pause"))
    wait_for(sound, "document.getElementById('problem').textContent")
    assert problem.text.startswith("The browser does not let this page sound.") and pause.text == "Go on"
    wait_for(sound, "document.getElementById('status').textContent === 'Done.'")
    assert problem.text and "dB" in sound.find_element("id", "numbers").text
    pause.click()
    wait_for(sound, "window.codecLab.player.context.state === 'suspended'")
    assert problem.text and pause.text == "Go on", "it is still not allowed"
    sound.execute_async_script("window.allow().then(arguments[0])")
    wait_for(sound, "!document.getElementById('problem').textContent")
    assert pause.text == "Pause"


def test_what_keeps_the_sound_from_starting_is_told_in_words(sound):
    sound.execute_script("window.AudioContext = class { constructor() { throw new Error('no device'); } }")
    sound.find_element("id", "play").click()
    wait_for(sound, "document.getElementById('problem').textContent")
    assert sound.find_element("id", "problem").text == "This could not be loaded or run: no device"


def test_an_iphone_on_silent_is_asked_to_play(sound):
    sound.execute_script(
        "Object.defineProperty(navigator, 'audioSession', {value: {type: 'auto'}, configurable: true})"
    )
    sound.find_element("id", "play").click()
    assert sound.execute_script("return navigator.audioSession.type") == "playback"


def test_play_pressed_twice_plays_once(sound):
    # A machine without a sound card may take any time to begin: here it has begun, so that nothing else is tried.
    sound.execute_script("""
        window.AudioContext = class extends window.AudioContext {
          async resume() {}
          get state() { return "running"; }
        };
        const play = document.getElementById("play");
        play.click();
        play.click();""")
    wait_for(sound, "document.getElementById('status').textContent === 'Done.'")
    assert sum(entry["length"] for entry in sound.execute_script("return window.codecLab.player.log")) == 32 * 1920
    # A busy machine decodes slower than the sound plays; nothing else is wrong.
    assert sound.find_element("id", "problem").text.partition(" Longer chunks")[0] in (
        "",
        "This device decodes slower than the sound plays.",
    )


def test_the_third_step_waits_six_seconds(page):
    page.find_element("css selector", "#guide li:nth-child(3) button").click()
    chosen = [page.find_element("id", name).get_attribute("value") for name in ("utterance", "design", "trap")]
    assert chosen == ["en_passage", "windowed", "positions"]
    page.find_element("id", "stop").click()
    assert page.find_element("id", "status").text == "Stopped."


def test_the_controls_follow_each_other(page):
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", "design")).select_by_value("windowed")
    page.execute_async_script("setTimeout(arguments[0], 1500)")
    traps = [option.get_attribute("value") for option in Select(page.find_element("id", "trap")).options]
    assert "positions" in traps and "other" not in traps
    Select(page.find_element("id", "design")).select_by_value("exact")
    state = page.find_element("css selector", "#states button:nth-of-type(3)")
    state.click()
    assert Select(page.find_element("id", "trap")).first_selected_option.get_attribute("value") == "layer"
    lost = page.find_elements("css selector", "#states button[data-lost='true']")
    assert len(lost) == 1 and lost[0].get_attribute("aria-pressed") == "true"
    assert "one state lost" in page.find_element("id", "card-title").text
    link = page.find_element("id", "card-link")
    assert link.get_attribute("href").endswith("/walkthrough/00_hear_it.html#2.-One-trap-is-on") and link.is_displayed()
    Select(page.find_element("id", "trap")).select_by_value("samples")
    assert not link.is_displayed(), "that page is not here"
    Select(page.find_element("id", "trap")).select_by_value("none")


def test_two_languages(page):
    page.find_element("id", "language").click()
    assert page.find_element("tag name", "h1").text == "弄坏这条流，再听一听"
    assert page.execute_script("return document.documentElement.lang") == "zh-Hans"
    texts = page.execute_script("return [...document.querySelectorAll('[data-text]')].map((node) => node.textContent)")
    assert texts and all(text and text != "undefined" for text in texts)
    page.save_screenshot(str(KEPT / "chinese.png"))
    page.find_element("id", "language").click()
    assert page.find_element("tag name", "h1").text == "Break the stream, and hear it"


def test_a_phone_and_a_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    phone = {"width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
    assert page.execute_script("return document.documentElement.scrollWidth") <= 360
    page.save_screenshot(str(KEPT / "phone.png"))
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    before = int(page.find_element("id", "chunk-value").text)
    page.execute_script("document.getElementById('chunk').focus()")
    page.switch_to.active_element.send_keys(Keys.ARROW_RIGHT)
    assert page.find_element("id", "chunk-value").text == str(before + 1)
    reached = ["language"]
    page.execute_script("document.getElementById('language').focus()")
    for _ in range(30):
        page.switch_to.active_element.send_keys(Keys.TAB)
        reached.append(page.switch_to.active_element.get_attribute("id"))
    assert {"language", "utterance", "design", "trap", "chunk", "play", "compare"} <= set(reached)


def test_nothing_serious_for_axe(page):
    add = "const s = document.createElement('script'); s.src = 'axe.min.js'; s.onload = () => arguments[0]();"
    page.execute_async_script(add + "document.head.append(s)")
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        found = page.execute_async_script("axe.run().then((result) => arguments[0](result.violations))")
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert not serious, json.dumps([(v["id"], [n["html"] for n in v["nodes"]][:3]) for v in serious])
        page.save_screenshot(str(KEPT / f"{scheme}.png"))
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_file_that_is_missing_or_another_is_named_on_the_page(folder, browser, tmp_path, monkeypatch):
    """A module under a type that no browser runs, a web page in a file's place, a graph that is none."""

    types, odd = site._Handler.guess_type, []
    patched = lambda self, path: "text/plain" if path.endswith(tuple(odd)) else types(self, path)  # noqa: E731
    monkeypatch.setattr(site._Handler, "guess_type", patched)

    def told(name, content=None):
        copy = tmp_path / name.replace("/", "_") / "page"
        shutil.copytree(folder, copy, copy_function=os.link)
        (copy / name).unlink()
        if content is not None:
            (copy / name).write_bytes(content)
        with served(copy) as address:
            return problem(address)

    def problem(address):
        browser.get(address)
        wait_for(browser, "document.getElementById('problem').textContent")
        return browser.find_element("id", "problem").text.removeprefix("This could not be loaded or run: ")

    assert told("utterances.json") == "utterances.json: 404"
    assert told("graphs/exact.json", b"<html>").startswith("graphs/exact.json: ")
    assert told("graphs/exact.onnx", b"version https://git-lfs").startswith("graphs/exact.onnx: ")
    assert told("pages.json", b"<!doctype html>").startswith("pages.json: ")
    for name in ("main.js", "texts/zh.js", "worker.js", "codec.js", "ort/ort.wasm.min.mjs"):
        odd[:] = [f"/page/{name}"]
        with served(folder) as address:
            assert problem(address).startswith(f"{name}: the server sends it as text/plain")


def test_what_was_loaded_once_works_without_the_server(folder, browser):
    with served(folder) as address:
        for _ in range(2):  # with the second load everything passes through the service worker
            browser.get(address)
            browser.execute_async_script("window.codecLab.ready.then(arguments[0])")
        first = run(browser, utterance="en_state", chunk=5)
    browser.get(address)
    browser.execute_async_script("window.codecLab.ready.then(arguments[0])")
    assert browser.find_element("id", "status").text == "Ready."
    assert run(browser, utterance="en_state", chunk=5)["snr"] == first["snr"] > 80
