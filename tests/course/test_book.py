"""The book, built once from the committed notebooks: its links, its search, what a browser asks for, how it fits.

Pictures of pages stay in `build/book_tests/`.
"""

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from babel.messages.pofile import read_po
from browser import CHROMIUM, DRIVER, chromium
from bs4 import BeautifulSoup

from qwen3_codec import __all__ as PUBLIC
from qwen3_codec.course.book import sources
from qwen3_codec.course.book.hooks import OLD_NAMES
from qwen3_codec.course.page import site

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("QWEN3_CODEC_BUILD", ROOT / "build")) / "book_tests"
LOCALE = ROOT / "notebooks" / "locale" / "zh_CN" / "LC_MESSAGES"
PAGES = Path(os.environ.get("QWEN3_CODEC_BOOK_PAGES", ROOT / "notebooks"))  # executed notebooks

in_a_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver here")


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """The book, which Sphinx builds without a warning."""
    folder = tmp_path_factory.mktemp("book") / "book"
    command = [sys.executable, "-m", "qwen3_codec.course.book", "--pages", PAGES, "--output", folder]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert [path.name for path in folder.parent.iterdir()] == ["book"], "nothing is left beside it"
    return folder


@pytest.fixture(scope="module")
def texts(book):
    """Each file's tags: {path in the book: soup}."""
    files = [path for path in book.rglob("*.html") if "_modules" not in path.parts]
    return {path.relative_to(book).as_posix(): BeautifulSoup(path.read_bytes(), "html.parser") for path in files}


def test_every_link_and_anchor_of_the_book_leads_somewhere(book, texts):
    names = {place: {tag["id"] for tag in page.find_all(id=True)} for place, page in texts.items()}
    missing = []
    for place, page in texts.items():
        for link in [
            *(tag["href"] for tag in page.find_all(href=True)),
            *(tag["src"] for tag in page.find_all(src=True)),
        ]:
            address = urlsplit(link)
            if address.scheme or address.netloc:
                continue
            path = os.path.normpath(Path(place).parent / unquote(address.path)) if address.path else place
            heading = unquote(address.fragment)
            known = names.get(path)
            if not (book / path).exists() or (heading and known is not None and heading not in known):
                missing.append(f"{place}: {link}")
    assert not missing, missing[:20]


def test_the_start_page_leads_to_all_of_it(texts):
    index = texts["index.html"]
    links = {tag["href"] for tag in index.select(".sidebar-tree a")}
    assert {f"{path.stem}.html" for path in (ROOT / "notebooks").glob("[0-9]*.py")} <= links
    assert {"guide/install.html", "guide/glossary.html", "reference/public.html", "project/readme.html"} <= links
    assert "The lab is not in this copy of the book" in index.text and index.select("img[src*=page]")


def test_old_names_and_anchors_as_jupyter_has_them_lead_to_the_page_of_today(book, texts):
    for old, new in OLD_NAMES.items():
        page = texts[f"{old}.html"]
        assert page.select_one("link")["href"] == f"{new}.html" and f"{new}.html" in texts
        assert f'location.replace("{new}.html" + location.hash)' in page.script.text
    script = (site.SOURCES / "main.js").read_text()
    links = re.findall(r'"(\d\d_\w+\.html)#([^"]+)"', script)
    assert links and all(texts[page].find(id=heading) for page, heading in links)


def test_public_names_are_described_and_linked_from_where_a_page_first_speaks_of_them(texts):
    described = {tag["id"] for tag in texts["reference/public.html"].select("dt.sig")}
    assert described >= {f"qwen3_codec.{name}" for name in PUBLIC}
    sources_shown = texts["reference/public.html"].select("dt.sig > a[href*=_modules]")
    assert len(sources_shown) >= len(PUBLIC)
    links = [tag["href"] for page in texts.values() for tag in page.select("article a[href*='reference/public.html#']")]
    assert len({link.rpartition(".")[2] for link in links}) >= 8


def test_a_name_is_linked_once_and_only_if_the_page_uses_it():
    names = sources.Names("from qwen3_codec import verify")
    text = "# `verify`\n\nSee [`verify`](x.md), `judge` and `verify`: `verify`.\n\n```\n`verify`\n```"
    assert names.linked(text) == text.replace("and `verify`", "and {py:obj}`verify <qwen3_codec.verify>`")


def test_links_between_documents_follow_them_into_the_book():
    text = "[a](../../README.md#Install-and-run) [b](../08_x.ipynb#2.-It's-so) [c](../../Makefile) [d](https://x.y/z)"
    found = sources.with_links(text, "notebooks/guide/p.md", "guide/p.md")
    assert found == "[a](../project/readme.md#install-and-run) [b](../08_x.ipynb#2-its-so) c [d](https://x.y/z)"


def test_call_outs_and_answers_are_sphinxs_own():
    text = "> **Trap.** It *waits*.\n> More.\n\n<details><summary>Answer</summary>It *ends*.</details>"
    shown = sources.with_call_outs(text)
    assert shown.startswith(":::{admonition} Trap\n:class: warning\nIt *waits*.\nMore.\n:::")
    assert "<details><summary>Answer</summary>\n\nIt *ends*.\n\n</details>" in shown


def test_outputs_that_show_nothing_leave_no_box_and_a_widget_shows_its_last_state():
    def stream(name, text):
        return {"output_type": "stream", "name": name, "text": text}

    picture = {"output_type": "display_data", "data": {"image/png": "x"}, "metadata": {}}
    widgets = {"box": {"state": {"children": ["IPY_MODEL_out"]}}, "out": {"state": {"outputs": [picture]}}}
    view = {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "box"}}}
    assert sources.outputs_shown(stream("stdout", "\n \n"), {}) == []
    assert sources.outputs_shown(stream("stderr", "  0%|  | 0/2\r100%|##| 2/2 [00:01]\n"), {}) == []
    assert sources.outputs_shown(stream("stdout", "1 of 2\r2 of 2\nend"), {}) == [stream("stdout", "2 of 2\nend")]
    said, shown = sources.outputs_shown(view, widgets)
    assert "It needs Python" in said["data"]["text/html"] and shown is picture
    assert sources.joined([stream("stdout", "a"), stream("stdout", "b"), picture]) == [stream("stdout", "ab"), picture]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, for which no host but this machine exists."""
    KEPT.mkdir(parents=True, exist_ok=True)
    flags = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--lang=en-US"
    with chromium(tmp_path_factory.mktemp("chromium"), *flags) as driver:
        driver.set_script_timeout(60)
        yield driver


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def address(book):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=book))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


SOME = ["index", "01_streaming_by_hand", "07_trap_catalogue", "guide/install", "zh/index"]
ALL = pytest.param(None, marks=pytest.mark.slow, id="all")


def chosen(texts, names):
    return [f"{name}.html" for name in names] if names else [name for name in texts if Path(name).stem not in OLD_NAMES]


@in_a_browser
@pytest.mark.parametrize("names", [pytest.param(SOME, id="some"), ALL])
def test_a_page_asks_for_nothing_from_elsewhere_and_fits_a_phone(browser, address, texts, names):
    for width in (1280, 390):
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        for name in chosen(texts, names):
            browser.get(address + name)
            assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == [], name
            asked = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
            assert asked and all(each.startswith((address, "data:")) for each in asked), name
            wide = browser.execute_script("return document.documentElement.scrollWidth")
            assert wide <= width, f"{name}: {wide} of {width} px"


@in_a_browser
@pytest.mark.parametrize(
    ("words", "page"),
    [("receptive field", "02_inspect_dims"), ("TracerWarning", "04_export_onnx"), ("head_dim", "02_inspect_dims")],
)
def test_search_leads_to_the_right_page(browser, book, words, page):
    """From a file, with no server."""
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get((book / "search.html").as_uri() + f"?q={words}")
    results = "return [...document.querySelectorAll('#search-results ul.search li > a')].map((a) => a.href)"

    def found(_):
        links = browser.execute_script(results)
        return page in [re.search(r"(\w+)\.html", link)[1] for link in links[:5]]

    WebDriverWait(browser, 30).until(found)


@in_a_browser
@pytest.mark.parametrize("names", [pytest.param(SOME[:2], id="some"), ALL])
def test_axe_finds_nothing_serious(browser, address, texts, names):
    try:
        axe = (site.node_modules() / "axe-core" / "axe.min.js").read_text()
    except site.PageError as error:
        pytest.skip(str(error))
    for theme in ("light", "dark"):
        for name in chosen(texts, names):
            browser.get(address + name)
            browser.execute_script("document.body.dataset.theme = arguments[0]", theme)
            browser.execute_script(axe)
            found = browser.execute_async_script("axe.run().then((found) => arguments[0](found.violations))")
            serious = [
                (each["id"], each["nodes"][0]["html"][:200])
                for each in found
                if each["impact"] in ("serious", "critical")
            ]
            assert not serious, f"{name}, {theme}: {serious}"


COMPLETE = {"index", "guide/install", "guide/glossary"}  # in Chinese


def test_each_catalogue_has_the_messages_of_its_page_and_says_how_many_are_translated(tmp_path):
    catalogues = {path.relative_to(LOCALE).with_suffix("").as_posix(): path for path in LOCALE.rglob("*.po")}
    sources.write_sources(PAGES, tmp_path / "sources", lab=True)
    for path in [*(tmp_path / "sources").rglob("*.md"), *(tmp_path / "sources").rglob("*.ipynb")]:
        if path.relative_to(tmp_path / "sources").with_suffix("").as_posix() not in catalogues:
            path.unlink()
    command = [sys.executable, "-m", "sphinx", "-Q", "-b", "gettext", tmp_path / "sources", tmp_path / "messages"]
    subprocess.run(command, check=True)
    for name, path in catalogues.items():
        wanted = {m.id for m in read_po((tmp_path / "messages" / f"{name}.pot").open("rb")) if m.id}
        translated = {message.id: message.string for message in read_po(path.open("rb")) if message.id}
        assert not translated.keys() - wanted, f"{name}: not on the page any more"
        done = sum(bool(translated.get(each)) for each in wanted)
        print(f"{name}: {done} of {len(wanted)} translated")
        assert done == len(wanted) or name not in COMPLETE, [each for each in wanted if not translated.get(each)]
    assert catalogues.keys() >= COMPLETE


def test_the_chinese_pages_are_chinese_and_the_others_english(texts):
    assert texts["zh/index.html"].h1.text.startswith("在 PyTorch 之外")
    assert texts["zh/index.html"].html["lang"] == "zh-CN"
    assert texts["zh/04_export_onnx.html"].h1.text == texts["04_export_onnx.html"].h1.text
    switch = "a.language"
    assert texts["guide/install.html"].select_one(switch)["href"] == "../zh/guide/install.html"
    assert texts["zh/guide/install.html"].select_one(switch)["href"] == "../../guide/install.html"
