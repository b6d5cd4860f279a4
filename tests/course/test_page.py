"""The page in a real browser: what it decodes and measures, what sounds, its words, sizes and keys.

Pictures of it stay in `build/page_tests/`; `page.png` there is the one of the guide (Chinese needs a font: Debian's
fonts-noto-cjk).
"""

import json
import os
import re
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, DRIVER, chromium
from conftest import drafted

from qwen3_codec import demo
from qwen3_codec.course.lab import experiment
from qwen3_codec.course.lab.experiment import EXACT, NO_TRAP, ONE_SHOT, WINDOWED, Settings
from qwen3_codec.course.page import site
from qwen3_codec.course.pitfalls.state import dropped, stream_with_changes
from qwen3_codec.model import checkpoint
from qwen3_codec.model.dimensions import conv_memory, state_table
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.runtime import CodecStream, snr_db
from qwen3_codec.streaming.exact import ExactStreamingWrapper
from qwen3_codec.verification.decoder import TorchSession

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("QWEN3_CODEC_BUILD", ROOT / "build")) / "page_tests"

LINKS = dict(re.findall(r"  (\w+): \"(.+\.html.*)\",", (site.SOURCES / "main.js").read_text()))
PICTURE = {"width": 1280, "height": 1305, "deviceScaleFactor": 1, "mobile": True}  # without a scroll bar
DRY = "This device decodes slower than the audio plays. Longer chunks help."
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
    (folder.parent / "page_graphs").symlink_to(demo_graphs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "exported", drafted)
        site.build(folder)
    (folder / "pages.json").write_text(json.dumps([LINKS["none"].split("#")[0]]))
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
    KEPT.mkdir(parents=True, exist_ok=True)
    flags = "--autoplay-policy=no-user-gesture-required", "--lang=en-US"
    with chromium(tmp_path_factory.mktemp("chromium"), *flags) as driver:
        driver.set_script_timeout(120)
        yield driver


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
        ({"design": "windowed", "trap": "none"}, WINDOWED, NO_TRAP, {"left_context": 10}),
        ({"design": "one-shot", "trap": "none"}, ONE_SHOT, NO_TRAP, {}),
        ({"design": "exact", "trap": "all"}, EXACT, "all state lost", {}),
        ({"design": "exact", "trap": "conv"}, EXACT, "conv state lost", {}),
        ({"design": "exact", "trap": "attention"}, EXACT, "keys and values lost", {}),
        ({"design": "windowed", "trap": "all"}, WINDOWED, "all state lost", {"left_context": 10}),
        ({"design": "windowed", "trap": "conv"}, WINDOWED, "conv state lost", {"left_context": 10}),
        ({"design": "windowed", "trap": "context"}, WINDOWED, NO_TRAP, {"left_context": 4}),
        (PASSAGE, WINDOWED, "positions that saturate", {"left_context": 10, "utterance": "en_passage", "chunk": 24}),
    ],
)
def test_the_same_numbers_as_the_lab_in_python(page, settings, design, trap, extra):
    """To 0.1 dB where there is something to hear; a right stream within 1e-5."""
    found = run(page, **{"utterance": "en_small", "chunk": 3} | settings)
    chosen = {"utterance": "en_small", "frames": 1000, "design": design, "chunk": 3, "trap": trap} | extra
    wanted = experiment.run(checkpoint.load("demo"), Settings(**chosen))
    assert found["samples"] == wanted.streamed.size and found["msPerChunk"] > 0, found
    if trap == NO_TRAP and design != ONE_SHOT and extra.get("left_context") != 4:
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
    log, state = page.execute_async_script("""
        document.querySelector("#guide button").click();
        const { player } = window.codecLab, [done] = arguments;
        const ended = () => document.getElementById("status").textContent === "Done.";
        const wait = () => ended() ? done([player.log, player.context.state]) : setTimeout(wait, 50);
        setTimeout(wait, 200);""")
    assert sum(entry["length"] for entry in log) == 32 * 1920 and state == "running"
    assert [entry["at"] for entry in log] == [0, *np.cumsum([entry["length"] for entry in log])[:-1]]
    assert "dB" in page.find_element("id", "numbers").text
    assert page.find_element("id", "problem").text in ("", DRY), "a busy machine decodes slower than the audio plays"
    compare = page.find_element("id", "compare")
    for whole in (True, False):
        compare.click()
        assert page.execute_script("return window.codecLab.player.toWhole") == whole
        assert compare.get_attribute("aria-pressed") == str(whole).lower()
    page.find_element("id", "stop").click()


@pytest.fixture
def start(page):
    """The page with the settings of the first step; nothing sounds, before and after a test."""
    page.execute_script("document.querySelector('#guide button').click(); document.getElementById('stop').click()")
    yield page
    page.execute_script("document.getElementById('stop').click()")


@pytest.fixture
def sound(start):
    """The page, whose way to the sound a test may change: it is put back."""
    start.execute_script("window.realContext = AudioContext")
    yield start
    start.execute_script("""
        document.getElementById("stop").click();
        window.AudioContext = window.realContext;
        delete navigator.audioSession;""")


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
    assert problem.text.startswith("The browser does not let this page sound.") and pause.text == "Resume"
    wait_for(sound, "document.getElementById('status').textContent === 'Done.'")
    assert problem.text and "dB" in sound.find_element("id", "numbers").text
    pause.click()
    wait_for(sound, "window.codecLab.player.context.state === 'suspended'")
    assert problem.text and pause.text == "Resume", "it is still not allowed"
    sound.execute_async_script("window.allow().then(arguments[0])")
    wait_for(sound, "!document.getElementById('problem').textContent")
    assert pause.text == "Pause"


def test_a_stop_while_resume_waits_leaves_no_words(sound):
    """The browser has a second to answer; what it then says is of a sound that is over."""
    sound.execute_script("""
        window.AudioContext = class extends window.AudioContext {
          constructor(options) { super(options); super.suspend(); }
          resume() { return new Promise(() => {}); }
        };""")
    sound.find_element("id", "play").click()
    wait_for(sound, "document.getElementById('problem').textContent")
    late = sound.execute_async_script("""
        document.getElementById("pause").click();
        document.getElementById("stop").click();
        document.getElementById("problem").textContent = "";
        setTimeout(() => arguments[0](document.getElementById("problem").textContent), 1500);""")
    assert late == ""


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
    assert sound.find_element("id", "problem").text in ("", DRY)


def test_the_third_step_waits_six_seconds(page):
    page.find_element("css selector", "#guide li:nth-child(3) button").click()
    chosen = [page.find_element("id", name).get_attribute("value") for name in ("utterance", "design", "trap")]
    assert chosen == ["en_passage", "windowed", "positions"]
    page.find_element("id", "stop").click()
    assert page.find_element("id", "status").text == "Stopped."


def test_the_controls_follow_each_other(page):
    from selenium.webdriver.support.ui import Select

    Select(page.find_element("id", "design")).select_by_value("windowed")
    wait_for(page, "document.querySelector('#line button[data-states=conv_h]')")
    traps = [option.get_attribute("value") for option in Select(page.find_element("id", "trap")).options]
    assert "positions" in traps and "other" not in traps
    Select(page.find_element("id", "design")).select_by_value("one-shot")
    wait_for(page, "!document.querySelector('#line button')")
    assert not page.find_element("css selector", "#lose button[data-trap=conv]").is_enabled()
    Select(page.find_element("id", "design")).select_by_value("exact")
    wait_for(page, "document.querySelector('#line button[data-states=conv_20]')")
    link = page.find_element("id", "card-link")
    page.find_element("css selector", "#lose button[data-trap=conv]").click()
    assert "states of all convolutions lost" in page.find_element("id", "card-title").text
    assert link.get_attribute("href").endswith("/" + LINKS["conv"]) and link.is_displayed()
    pressed = page.find_elements("css selector", "#line button[aria-pressed=true]")
    assert [button.get_attribute("data-states") for button in pressed] == [f"conv_{i:02}" for i in range(21)]
    Select(page.find_element("id", "trap")).select_by_value("samples")
    assert not link.is_displayed(), "that page is not here"
    assert not page.find_elements("css selector", "#line button[aria-pressed=true]")
    Select(page.find_element("id", "trap")).select_by_value("none")
    page.find_element("id", "stop").click()


@pytest.fixture(scope="module")
def exact():
    """(wrapper, codes, full-sequence waveform) of what the page shows at the start."""
    loaded, codes = checkpoint.load("demo"), demo.codes("en_small")[None]
    return ExactStreamingWrapper(loaded.decoder), codes, one_shot(loaded.decoder, codes)


def test_each_layer_says_how_far_it_reaches_back_and_how_many_bytes_it_keeps(page, exact):
    wrapper, spec = exact[0], exact[0].spec
    frame_ms = 1000 * spec.samples_per_frame / spec.sample_rate
    wanted = {name: [1000 * left_context / rate, 0] for name, left_context, rate in conv_memory(wrapper)}
    wanted |= {name: [frame_ms * spec.limits["past_frames"], 0] for name in wrapper.decoder.attention_names}
    wanted["pre_transformer"] = [0, 0]
    for name, _, size in state_table(spec):
        wanted[spec.modules[name]][1] += size
    buttons = page.find_elements("css selector", "#line button")
    found = {
        b.get_attribute("data-module"): [float(b.get_attribute(f"data-{x}")) for x in ("ms", "bytes")] for b in buttons
    }
    assert found == {name: pytest.approx(numbers) for name, numbers in wanted.items()}
    assert sum(size for _, size in found.values()) == spec.bytes_per_stream()
    conv = next(button for button in buttons if button.get_attribute("data-module") == "decoder.1.block.2.conv1")
    assert conv.text.split("\n") == ["block.2.conv1", "15 ms · 1.15 kB"]


@pytest.mark.parametrize("module", ["decoder.1.block.1", "pre_transformer.layers.3.self_attn", "pre_transformer"])
def test_a_press_loses_the_state_of_that_layer_alone(start, exact, module):
    page = start
    wrapper, codes, reference = exact
    states = [name for name, of in wrapper.spec.modules.items() if of == module]
    lost = stream_with_changes(CodecStream(TorchSession(wrapper)), codes, 3, dropped(*states))
    button = page.find_element("css selector", f"#line button[data-module='{module}']")
    page.execute_script("document.getElementById('status').textContent = ''")
    button.click()
    pressed = page.find_elements("css selector", "#line button[aria-pressed=true]")
    assert [each.get_attribute("data-states").split() for each in pressed] == [states]
    wait_for(page, "document.getElementById('status').textContent === 'Done.'")
    numbers = page.find_element("id", "numbers").text.split("\n")
    assert float(numbers[1].split()[0]) == pytest.approx(snr_db(reference, lost), abs=0.1)
    error = page.execute_script("return window.codecLab.pictures.chunks.map((chunk) => chunk.error)")
    assert error[0] < 1e-5 < max(error), "the first chunk needs no state"
    text = page.find_element("id", "layer").text
    assert text.startswith(module) and all(state in text for state in states)
    assert module in page.find_element("id", "card-title").text
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    page.find_element("id", "stop").click()


# What a player sounds like, sample by sample: `act(player, context)` is run at the second `at` of the rendering.
RENDER = """
const [rate, seconds, at, act, done] = arguments;
import("./player.js").then(async ({ Player }) => {
  const context = new OfflineAudioContext(1, rate * seconds, rate), player = new Player();
  player.start(rate, 0, context);
  const level = (value, from, to) => new Float32Array(to - from).fill(value);
  for (let n = 0; n < 4; n++) player.push(level(0.25, 0, rate / 4), level(0.5, 0, rate / 4));
  if (act === "swap") context.suspend(at).then(() => {
    player.track();
    for (let n = 0; n < 4; n++) player.push(level(0.75, 0, rate / 4), level(0.5, 0, rate / 4));
    player.came = player.end();
    context.resume();
  });
  const began = player.began;
  if (act === "listen") player.listen(true, player.time(Math.round(at * rate)));
  const rendered = await context.startRendering();
  done([[...rendered.getChannelData(0)], began, player.log, player.began, player.came]);
});
"""


def rendered(page, act, at, rate=8000):
    sound, began, log, after, came = page.execute_async_script(RENDER, rate, 1.5, at, act)
    assert after == began and not np.any(sound[:began]), "the clock stays"
    return np.array(sound[began : began + rate]), log, came


@pytest.mark.parametrize("at", [0.3, 0.50025])
def test_a_and_b_change_places_at_one_sample_without_a_gap(page, at):
    sound, *_ = rendered(page, "listen", at)
    switch, fade = round(at * 8000), round(0.005 * 8000)
    np.testing.assert_allclose(sound[: switch + 1], 0.25, atol=1e-6)
    np.testing.assert_allclose(sound[switch : switch + fade + 1], np.linspace(0.25, 0.5, fade + 1), atol=1e-5)
    np.testing.assert_allclose(sound[switch + fade :], 0.5, atol=1e-6)


def test_a_stream_that_is_decoded_anew_takes_the_place_of_the_old_one_where_it_is(page):
    """At the head, 20 ms after it was there; on the way from one to the other nothing is silent."""
    at = 0.512  # a border of the 128 samples that a browser renders at once
    sound, log, came = rendered(page, "swap", at)
    assert came
    join = log[4]["at"]
    assert join == round((at + 0.02 - 0.1) * 8000)
    assert sum(entry["length"] for entry in log[4:]) == 8000 - join
    np.testing.assert_allclose(sound[:join], 0.25, atol=1e-6)
    fade = sound[join : join + 41]
    assert (np.diff(fade) > 0).all() and fade[0] == pytest.approx(0.25) and fade[-1] == pytest.approx(0.75)
    np.testing.assert_allclose(sound[join + 40 :], 0.75, atol=1e-6)


def test_a_stream_that_comes_too_late_says_so(page):
    """The old one has sounded to its end before: the page then plays the new one from the beginning."""
    sound, log, came = rendered(page, "swap", 1.088)
    assert not came and len(log) == 4
    np.testing.assert_allclose(sound, 0.25, atol=1e-6)


def test_the_chunks_borders_follow_the_slider(start):
    from selenium.webdriver.common.keys import Keys

    page, slider = start, start.find_element("id", "chunk")
    for _ in range(2):  # before a stream is decoded and after it
        for key, frames in ((Keys.ARROW_RIGHT, 4), (Keys.ARROW_RIGHT, 5), (Keys.ARROW_LEFT, 4), (Keys.ARROW_LEFT, 3)):
            slider.send_keys(key)
            assert page.find_element("id", "chunk-value").text == str(frames)
            wanted = list(range(frames * 1920, 32 * 1920, frames * 1920))
            assert page.execute_script("return window.codecLab.pictures.borders") == wanted
        columns, width = page.execute_async_script("""
            requestAnimationFrame(() => requestAnimationFrame(() => {
              const { width } = document.getElementById("difference");
              const row = document.getElementById("difference").getContext("2d").getImageData(0, 1, width, 1).data;
              arguments[0]([[...Array(width).keys()].filter((x) => row[4 * x + 3]), width]);
            }));""")
        assert columns == [round(border / (32 * 1920) * width) for border in wanted]
        run(page, utterance="en_small", chunk=3)


def test_two_languages(page):
    page.find_element("id", "language").click()
    assert page.find_element("tag name", "h1").text == "拿走一层的状态，听听看"
    assert page.execute_script("return document.documentElement.lang") == "zh-Hans"
    page.save_screenshot(str(KEPT / "chinese.png"))
    page.find_element("id", "language").click()
    assert page.find_element("tag name", "h1").text == "Take one layer's state away, and hear it"


def test_both_languages_have_all_words(page):
    """The same keys, with the same numbers in braces: those that graphs say of themselves are not written in a text."""
    load = "import(`./texts/${name}.js`).then((module) => module.default)"
    load = f"Promise.all(['en', 'zh'].map((name) => {load})).then(arguments[0])"
    english, chinese = map(leaves, page.execute_async_script(load))
    assert list(english) == list(chinese)
    for key, text in english.items():
        assert text and chinese[key], key
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", chinese[key])), key
    written = {number for text in english.values() for number in re.findall(r"(?<![a-z\d])\d\S*", text)}
    assert written <= {"1e-8", "1", "24"}
    for _ in range(2):
        shown = page.execute_script("""
            return [...document.querySelectorAll("[data-text], [data-label]")].map((node) => [
              node.dataset.text ?? node.dataset.label, node.dataset.text ? node.textContent : node.ariaLabel]);""")
        assert shown and {key for key, _ in shown} <= set(english)
        assert not [text for _, text in shown if not text or "…" in text or "undefined" in text]
        page.find_element("id", "language").click()


def leaves(tree, prefix=""):
    """{dotted key: text} of nested dicts and lists."""
    if isinstance(tree, str):
        return {prefix: tree}
    entries = tree.items() if isinstance(tree, dict) else enumerate(tree)
    return {k: v for name, inner in entries for k, v in leaves(inner, f"{prefix}.{name}".strip(".")).items()}


def test_a_phone(page):
    """Nothing is wider than a narrow one, and whatever is pressed is large enough for a finger."""
    for width in (390, 320):
        phone = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": True}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", phone)
        for _ in "en", "zh":
            assert page.execute_script("return document.documentElement.scrollWidth") <= width
            small = page.execute_script("""
                return [...document.querySelectorAll("button, select, input")].filter((node) => {
                  const { width, height } = node.getBoundingClientRect();
                  return width < 24 || height < 24;
                }).map((node) => node.outerHTML)""")
            assert not small
            page.save_screenshot(str(KEPT / f"phone_{width}.png"))
            page.find_element("id", "language").click()
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_keyboard_walks_along_the_line(start):
    from selenium.webdriver.common.keys import Keys

    page = start

    def press(key):
        page.switch_to.active_element.send_keys(key)
        return page.switch_to.active_element.get_attribute("data-module")

    modules = [button.get_attribute("data-module") for button in page.find_elements("css selector", "#line button")]
    page.execute_script("document.querySelector('#guide li:last-child button').focus()")
    assert press(Keys.TAB) == modules[0], "one stop for the whole line"
    walked = [press(key) for key in (Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT, Keys.END, Keys.ARROW_RIGHT)]
    assert walked == [modules[1], modules[2], modules[1], modules[-1], modules[-1]]
    assert press(Keys.HOME) == modules[0] and press(Keys.ARROW_DOWN) == modules[1]
    outline = "const style = getComputedStyle(document.activeElement); return [style.outlineStyle, style.outlineWidth]"
    assert page.execute_script(outline) == ["solid", "3px"]
    assert page.find_element("id", "layer").text.startswith(modules[1])
    assert press(Keys.SPACE) == modules[1], "the focus stays where it was"
    pressed = page.find_elements("css selector", "#line button[aria-pressed=true]")
    assert [button.get_attribute("data-module") for button in pressed] == [modules[1]]
    press(Keys.SPACE)
    page.find_element("id", "stop").click()
    page.execute_script("document.getElementById('language').focus()")
    reached = {page.switch_to.active_element.get_attribute("id")}
    for _ in range(30):
        press(Keys.TAB)
        reached.add(page.switch_to.active_element.get_attribute("id"))
    assert {"utterance", "design", "trap", "cut", "chunk", "place", "play", "compare"} <= reached
    place = page.find_element("id", "place")
    place.send_keys(Keys.HOME, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert place.get_attribute("value") == str(2 * 1920) and page.find_element("id", "place-value").text == "0.2 s"
    place.send_keys(Keys.HOME)


def test_nothing_serious_for_axe(start):
    page = start
    add = "const s = document.createElement('script'); s.src = 'axe.min.js'; s.onload = () => arguments[0]();"
    page.execute_async_script(add + "document.head.append(s)")
    page.execute_script("document.querySelector('#line button[data-states=conv_04]').click(); scrollTo(0, 0)")
    wait_for(page, "window.codecLab.pictures.chunks.length === 11")
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PICTURE)
    page.save_screenshot(str(KEPT / "page.png"))
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
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
    for name in ("main.js", "line.js", "texts/zh.js", "worker.js", "codec.js", "ort/ort.wasm.min.mjs"):
        odd[:] = [f"/page/{name}"]
        with served(folder) as address:
            assert problem(address).startswith(f"{name}: the server sends it as text/plain")


@pytest.mark.slow
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
