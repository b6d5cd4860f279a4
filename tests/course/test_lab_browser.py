"""Page 0 in a real JupyterLab and a real browser: the lab answers to its controls, and to a wrong one in words.

The server's log, the browser driver's log and a picture of the lab stay in `build/lab_browser/`.
"""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import nbformat
import pytest
from browser import CHROMIUM, DRIVER, chromium

from qwen3_codec import demo

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("QWEN3_CODEC_BUILD", ROOT / "build")) / "lab_browser"
NAME = "00_hear_it.ipynb"
VOICE = """
from qwen3_codec.course.lab.voice import Voice
from qwen3_codec.model import checkpoint
Voice(checkpoint.load("demo"), seconds=0.5)
"""
PATIENCE = 120  # seconds for anything to happen; on an idle machine it takes a few

pytestmark = [
    pytest.mark.slow,  # 25 seconds of JupyterLab; the widget without a browser is test_lab.py's
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium here (Debian: apt-get install chromium)"),
    pytest.mark.skipif(not DRIVER, reason="no chromedriver here (Debian: apt-get install chromium-driver)"),
]

# No question about news, and every cell drawn, also those that are scrolled away.
LAB_SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The address of a copy of the notebook in a JupyterLab of its own, which reads nobody's settings."""
    home = tmp_path_factory.mktemp("lab")
    (home / "root").mkdir()
    shutil.copy(ROOT / "notebooks" / NAME, home / "root")
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    voice = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(VOICE)], metadata=kernel)
    nbformat.write(voice, home / "root" / "voice.ipynb")
    for name, entries in LAB_SETTINGS.items():
        file = home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(entries))
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    environment = os.environ | {variable: str(home / folder) for variable, folder in folders.items()}
    port, token = _free_port(), secrets.token_hex(16)
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--LabApp.expose_app_in_browser=True"),
        *(f"--ServerApp.root_dir={home / 'root'}", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"),
        *("--ServerApp.ip=127.0.0.1", f"--IdentityProvider.token={token}"),
    ]
    KEPT.mkdir(parents=True, exist_ok=True)
    with open(KEPT / "jupyterlab.log", "w") as log:
        server = subprocess.Popen(command, env=environment, cwd=home, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_for_server(server, f"http://127.0.0.1:{port}/api/status?token={token}")
        yield f"http://127.0.0.1:{port}/doc/tree/{NAME}?token={token}"
    finally:
        server.terminate()  # it ends its kernels first
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    KEPT.mkdir(parents=True, exist_ok=True)
    with chromium(tmp_path_factory.mktemp("chromium"), log=KEPT / "chromedriver.log") as driver:
        yield driver


class LabPage:
    """The lab as a reader has it: controls found by their labels, numbers and picture as the page shows them."""

    def __init__(self, driver):
        self.driver = driver

    def wait(self, what, condition):
        from selenium.common.exceptions import (
            NoSuchElementException,
            StaleElementReferenceException,
            TimeoutException,
        )
        from selenium.webdriver.support.ui import WebDriverWait

        ignored = (NoSuchElementException, StaleElementReferenceException)
        try:
            return WebDriverWait(self.driver, PATIENCE, 0.1, ignored).until(lambda _: condition())
        except TimeoutException:
            self.driver.save_screenshot(str(KEPT / "failed.png"))
            raise AssertionError(f"waited {PATIENCE} s for {what}; see {KEPT}") from None

    def control(self, label, part):
        return self.driver.find_element("xpath", f"//label[normalize-space()='{label}']/..//{part}")

    def choose(self, label, option):
        from selenium.webdriver.support.ui import Select

        Select(self.control(label, "select")).select_by_visible_text(option)

    def press(self, label, part, keys):
        element = self.control(label, part)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'}); arguments[0].focus()", element)
        element.send_keys(keys)

    @property
    def picture(self):
        """(alt text, image data) of the lab's figure."""
        image = self.driver.find_element("css selector", ".jupyter-widgets img[alt*='SNR']")
        return image.get_attribute("alt"), image.get_attribute("src")

    @property
    def snr(self):
        return float(self.driver.find_element("xpath", "//th[.='SNR']/following-sibling::td").text.split(" dB")[0])

    def drawn(self, words):
        """Wait for a picture of these settings, whose number is on the page too; return its data and the number."""

        def there():
            alt, data = self.picture
            return words in alt and f"SNR {self.snr:.1f} dB" in alt and (data, self.snr)

        return self.wait(f"the picture of {words!r}", there)


def opened(page, browser):
    browser.get(page)
    lab = LabPage(browser)
    kernel = "return window.jupyterapp?.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
    lab.wait("the notebook's kernel", lambda: browser.execute_script(kernel))
    return lab


@pytest.fixture(scope="module")
def lab(page, browser):
    lab = opened(page, browser)
    # The saved page holds a lab without a kernel. What is tested must be the one that runs now.
    browser.execute_script("window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    lab.wait("an empty notebook", lambda: not browser.find_elements("css selector", ".jp-OutputArea-output"))
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    lab.drawn("exact; chunks of 3; trap: none")
    return lab


def test_the_lab_answers(lab):
    first, snr = lab.drawn("exact; chunks of 3; trap: none")
    assert snr > 100

    lab.press("frames in a chunk", "*[contains(@class, 'noUi-handle')]", "\ue014")  # the right arrow key
    longer, snr_longer = lab.drawn("exact; chunks of 4; trap: none")
    assert longer != first and snr_longer > 100

    last_frame = len(demo.codes("zh_model"))
    lab.choose("utterance", "zh_model")
    handle = "*[contains(@class, 'noUi-handle')]"
    lab.wait(
        "a new scale", lambda: float(lab.control("frames of it", handle).get_attribute("aria-valuemax")) == last_frame
    )
    lab.press("frames of it", handle, "\ue010")  # the End key
    frames = lab.driver.find_element("xpath", "//label[normalize-space()='frames of it']/..//*[@contenteditable]")
    lab.wait("the last frame", lambda: int(frames.text) == last_frame)
    lab.press("frames of it", handle, "\ue011")  # Home
    lab.wait("the first frame", lambda: int(frames.text) == 1)

    lab.choose("trap", "conv state lost")
    lab.wait("a word on the lone chunk", lambda: "one chunk has no border" in lab.picture[0])
    lab.press("frames of it", handle, "\ue010")
    lab.wait("the whole utterance", lambda: "border" not in lab.picture[0])
    broken, snr_broken = lab.drawn("exact; chunks of 4; trap: conv state lost")
    assert broken != longer and snr_broken < 20

    lab.driver.execute_script("arguments[0].scrollIntoView()", lab.control("weights", "select"))
    lab.driver.save_screenshot(str(KEPT / "lab.png"))


def test_a_wrong_schedule_is_answered_in_words(lab):
    lab.choose("chunk schedule", "a schedule of your own")
    before = lab.drawn("chunks of 3,1,7")
    field = lab.control("schedule", "input")
    lab.wait("the field to be on", field.is_enabled)
    lab.press("schedule", "input", "\ue009a\ue0003,x,7\n")  # Ctrl+A, then the text in place of what was there
    message = lab.wait("the message", lambda: lab.driver.find_element("css selector", "[role=alert]").text)
    assert "'x' in the chunk schedule '3,x,7'" in message
    assert lab.drawn("chunks of 3,1,7") == before, "the last good picture stays"
    assert "Traceback" not in lab.driver.find_element("css selector", "body").get_attribute("textContent")
    lab.driver.save_screenshot(str(KEPT / "message.png"))


@pytest.mark.slow
def test_a_recording_that_jupyter_does_not_carry_is_named_on_the_page(page, browser, tmp_path):
    """Its message ends the connection; the words about it went ahead, and the next file is taken."""
    voice = opened(page.replace(NAME, "voice.ipynb"), browser)
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    # The button's file chooser is no part of the page. A test can fill it in where it is.
    browser.execute_script(
        "HTMLInputElement.prototype.click = function () { this.id = 'chooser'; document.body.append(this); }"
    )
    small, big = tmp_path / "small.flac", tmp_path / "big.wav"
    shutil.copy(demo.FOLDER / "recordings" / "en_small.flac", small)
    with open(big, "wb") as file:
        file.truncate(12 * 2**20)

    def choose(path):
        button = voice.wait("the button", lambda: browser.find_element("css selector", ".widget-upload"))
        browser.execute_script("document.getElementById('chooser')?.remove(); arguments[0].click()", button)
        browser.find_element("id", "chooser").send_keys(str(path))

    def words(wanted):
        text = lambda: browser.find_element("css selector", ".jp-OutputArea-output").text  # noqa: E731
        return voice.wait(wanted, lambda: wanted in text() and text())

    def players():
        return len(browser.find_elements("css selector", ".jupyter-widgets audio"))

    choose(small)
    words("7 frames")
    assert players() == 2
    choose(big)
    words("big.wav has 12.0 MB, and Jupyter takes at most 10 MB from a page")
    assert players() == 0
    voice.wait(
        "the page to be connected again", lambda: "Restoring connection" in (KEPT / "jupyterlab.log").read_text()
    )
    time.sleep(2)  # it asks for every widget's state, and sends nothing before it knows
    choose(small)
    assert "big.wav" not in words("small.flac, the first 0.5 of 2.6 s") and players() == 2
    browser.save_screenshot(str(KEPT / "voice.png"))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_for_server(server: subprocess.Popen, address: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)  # between two attempts
    raise AssertionError(f"JupyterLab did not start; see {KEPT / 'jupyterlab.log'}")
