"""The book, built once from the committed notebooks: its links, its search, what a browser asks for, how it fits.

Pictures of pages stay in `build/book_tests/`.
"""

import html
import json
import os
import re
import threading
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from babel.messages.pofile import read_po
from browser import CHROMIUM, DRIVER, chromium
from bs4 import BeautifulSoup
from conftest import drafted

from qwen3_codec import __all__ as PUBLIC
from qwen3_codec.course.book import __main__ as command
from qwen3_codec.course.book import sources, translation
from qwen3_codec.course.book.hooks import OLD_NAMES
from qwen3_codec.course.page import site

ROOT = Path(__file__).parents[2]
KEPT = Path(os.environ.get("QWEN3_CODEC_BUILD", ROOT / "build")) / "book_tests"
PAGES = Path(os.environ.get("QWEN3_CODEC_BOOK_PAGES", ROOT / "notebooks"))  # executed notebooks

# A package that Sphinx loads asks in a way that a Sphinx to come refuses.
pytestmark = pytest.mark.filterwarnings("ignore:.*MystReferenceResolver.app")
in_a_browser = pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver here")


@pytest.fixture(scope="module")
def lab(tmp_path_factory, demo_graphs):
    """The lab in a browser; None where npm cannot bring what it needs."""
    folder = tmp_path_factory.mktemp("lab") / "page"
    (folder.parent / "page_graphs").symlink_to(demo_graphs)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "exported", drafted)
        return command.lab_at(folder)


@pytest.fixture(scope="module")
def languages(request):
    """English alone where slow tests are left out: in another language Sphinx reads every page once more."""
    quick = request.config.getoption("markexpr") == "not slow"
    return {"en": "."} if quick else command.LANGUAGES


@pytest.fixture(scope="module")
def book(tmp_path_factory, lab, languages):
    """The book, which Sphinx builds without a warning."""
    folder = tmp_path_factory.mktemp("book") / "book"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "LANGUAGES", languages)
        command.build(PAGES, folder, lab)
    assert [path.name for path in folder.parent.iterdir()] == ["book"], "nothing is left beside it"
    return folder


class Texts(dict):
    """{page in the book: its tags}, each read when it is asked for; the names alone are there at once."""

    def __init__(self, book):
        pages = [path.relative_to(book) for path in book.rglob("*.html")]
        self.book, self.names = book, {path.as_posix() for path in pages if not {"_modules", "lab"} & {*path.parts}}

    def __missing__(self, name):
        return self.setdefault(name, BeautifulSoup((self.book / name).read_bytes(), "html.parser"))


@pytest.fixture(scope="module")
def texts(book):
    return Texts(book)


def test_every_link_and_anchor_of_the_book_leads_somewhere(book, texts, languages):
    """Read as text, in which a quotation mark that belongs to no tag is escaped."""

    def values(names, text):
        return map(html.unescape, re.findall(rf'\s(?:{names})="([^"]*)"', text))

    pages = {name: (book / name).read_text() for name in texts.names}
    places = {name: {*values("id", text)} for name, text in pages.items()}
    links = [(name, link) for name, text in pages.items() for link in values("href|src", text)]
    assert len(links) > 2_500 * len(languages)
    missing, absent = [], {*command.LANGUAGES.values()} - {*languages.values()}
    for name, link in links:
        address = urlsplit(link)
        if address.scheme or address.netloc:
            continue
        path = os.path.normpath(Path(name).parent / unquote(address.path)) if address.path else name
        heading = unquote(address.fragment)
        if Path(path).parts[0] in absent:
            continue
        if not (book / path).exists() or (heading and heading not in places.get(path, [heading])):
            missing.append(f"{name}: {link}")
    assert not missing, missing[:20]


def test_the_start_page_leads_to_all_of_it(texts):
    index = texts["index.html"]
    links = {tag["href"] for tag in index.select(".sidebar-tree a")}
    assert {f"{path.stem}.html" for path in (ROOT / "notebooks").glob("[0-9]*.py")} <= links
    assert {"guide/install.html", "guide/glossary.html", "reference/public.html", "project/readme.html"} <= links
    assert index.select("img[src*=page]"), "what the lab looks like"


def test_without_the_lab_the_start_page_says_so(tmp_path):
    sources.write_sources(tmp_path, tmp_path / "sources")
    text = (tmp_path / "sources" / "index.md").read_text()
    assert "The lab is not in this copy of the book" in text and "](page.png)" in text and "data-lab" not in text


def test_old_names_and_anchors_as_jupyter_has_them_lead_to_the_page_of_today(book, texts):
    for old, new in OLD_NAMES.items():
        page = texts[f"{old}.html"]
        assert page.select_one("link")["href"] == f"{new}.html" and f"{new}.html" in texts.names
        assert f'location.replace("{new}.html" + location.hash)' in page.script.text
    script = (site.SOURCES / "main.js").read_text()
    links = re.findall(r'"(\d\d_\w+\.html)#([^"]+)"', script)
    assert links and all(texts[page].find(id=heading) for page, heading in links)


def test_public_names_are_described_and_linked_from_where_a_page_first_speaks_of_them(book, texts):
    described = {tag["id"] for tag in texts["reference/public.html"].select("dt.sig")}
    assert described >= {f"qwen3_codec.{name}" for name in PUBLIC}
    sources_shown = texts["reference/public.html"].select("dt.sig > a[href*=_modules]")
    assert len(sources_shown) >= len(PUBLIC)
    pages = [(book / path.name).with_suffix(".html").read_text() for path in PAGES.glob("[0-9]*.ipynb")]
    links = [link for page in pages for link in re.findall(r'href="reference/public.html#([\w.]+)"', page)]
    assert len(set(links)) >= 5


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
    table = {"_model_name": "HTMLModel", "value": "<b>1</b>"}
    names = "slider", "list", "off", "hidden", "out", "table"
    states = {
        "box": {"children": [f"IPY_MODEL_{name}" for name in names]},
        "slider": {"description": "chunk", "value": 3},
        "list": {"description": "trap", "_options_labels": ["none", "all"], "index": 1},
        "off": {"description": "look-ahead", "value": 4, "disabled": True},
        "hidden": {"description": "seed", "value": 1, "layout": "IPY_MODEL_gone"},
        "gone": {"display": "none"},
        "out": {"outputs": [picture]},
        "table": table,
    }
    widgets = {name: {"state": state} for name, state in states.items()}
    view = {"output_type": "display_data", "data": {"application/vnd.jupyter.widget-view+json": {"model_id": "box"}}}
    assert sources.outputs_shown(stream("stdout", "\n \n"), {}) == []
    assert sources.outputs_shown(stream("stderr", "  0%|  | 0/2\r100%|##| 2/2 [00:01]\n"), {}) == []
    assert sources.outputs_shown(stream("stdout", "1 of 2\r2 of 2\nend"), {}) == [stream("stdout", "2 of 2\nend")]
    said, shown, written = sources.outputs_shown(view, widgets)
    assert (
        "which needs Python" in said["data"]["text/html"] and "<p>chunk: 3, trap: all</p>" in said["data"]["text/html"]
    )
    assert shown is picture and written["data"] == {"text/html": table["value"]}
    assert sources.joined([stream("stdout", "a"), stream("stdout", "b"), picture]) == [stream("stdout", "ab"), picture]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium, for which no host but this machine exists."""
    KEPT.mkdir(parents=True, exist_ok=True)
    alone = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
    flags = alone, "--lang=en-US", "--autoplay-policy=no-user-gesture-required"
    with chromium(tmp_path_factory.mktemp("chromium"), *flags) as driver:
        driver.set_script_timeout(60)
        yield driver


@pytest.fixture(scope="module")
def address(book):
    server = site.server(book)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


SOME = ["index", "01_streaming_by_hand", "07_trap_catalogue", "guide/install"]
EXERCISE = "03_verify_wrapper.html"
ALL = pytest.param(None, marks=pytest.mark.slow, id="all")


def chosen(texts, names):
    return (
        [f"{name}.html" for name in names]
        if names
        else [name for name in sorted(texts.names) if Path(name).stem not in OLD_NAMES]
    )


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


FRAME = "document.querySelector('.lab iframe')"


@in_a_browser
@pytest.mark.parametrize("start", ["index.html", pytest.param("zh/index.html", marks=pytest.mark.slow)])
def test_the_lab_lives_on_the_start_page(browser, address, lab, start):
    if lab is None:
        pytest.skip("no npm here")
    browser.get(address + start)
    browser.execute_script(f"{FRAME}.scrollIntoView(); document.body.dataset.theme = 'dark'")
    frame = browser.find_element("css selector", ".lab iframe")
    language = browser.execute_script("return document.documentElement.lang.slice(0, 2)")
    assert frame.get_attribute("title")
    browser.switch_to.frame(frame)
    try:
        browser.execute_async_script("window.codecLab.ready.then(arguments[0])")
        log = browser.execute_async_script("""
            document.querySelector("#guide button").click();
            const { player } = window.codecLab, numbers = document.getElementById("numbers");
            const wait = () => (numbers.textContent.includes("dB") ? arguments[0](player.log) : setTimeout(wait, 50));
            wait();""")
        assert sum(entry["length"] for entry in log) > 0 and browser.title
        style = "getComputedStyle(document.documentElement).colorScheme"
        seen = browser.execute_script(f"return [document.documentElement.lang.slice(0, 2), {style}]")
        assert seen == [language, "dark"]
        asked = browser.execute_script("return performance.getEntriesByType('resource').map((e) => e.name)")
        assert asked and all(each.startswith((address, "data:")) for each in asked)
        link = browser.find_element("id", "card-link")
        assert link.get_attribute("target") == "_top" and "/00_hear_it.html#" in link.get_attribute("href")
    finally:
        browser.switch_to.default_content()
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []


@in_a_browser
def test_from_a_file_the_start_page_shows_the_lab_and_says_how_it_lives(browser, book, lab):
    browser.get((book / "index.html").as_uri())
    assert browser.execute_script(f"return {FRAME}") is None
    assert browser.execute_script("return document.querySelector('article img').naturalWidth") > 0
    assert "python -m http.server" in browser.find_element("css selector", "article").text or lab is None


@in_a_browser
def test_an_exercise_and_its_hint_unfold_by_link_and_by_key(browser, address, texts):
    from selenium.webdriver.common.keys import Keys

    section = texts[EXERCISE].find(lambda tag: tag.name == "h3" and tag.text.startswith("Exercise:")).parent
    exercise = f"document.getElementById('{section['id']}').querySelector('details.exercise')"
    assert section.select("details.exercise div.cell.tag_exercise details.hide li"), "a fold in it: what check says"
    browser.get(address + EXERCISE)
    assert not browser.execute_script(f"return {exercise}.open")
    browser.execute_script(f"return {exercise}.querySelector('summary')").send_keys(Keys.ENTER)
    assert browser.execute_script(f"return {exercise}.open")
    hints = f"return [...{exercise}.querySelectorAll('details.hide, .cell_output details')].map((fold) => fold.open)"
    assert browser.execute_script(hints) and not any(browser.execute_script(hints))
    browser.get("about:blank")
    browser.get(f"{address}{EXERCISE}#{section['id']}")
    assert browser.execute_script(f"return {exercise}.open")


@in_a_browser
def test_a_button_copies_a_cells_code(browser, address, texts):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(address + EXERCISE)
    browser.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite"]})
    cells = [cell.text for cell in texts[EXERCISE].select("div.cell_input pre")]
    buttons = browser.find_elements("css selector", "div.cell_input button.copybtn")
    assert len(buttons) == len(cells) > 10
    browser.execute_script("arguments[0].scrollIntoView({ block: 'center', behavior: 'instant' })", buttons[1])
    ActionChains(browser).move_to_element(buttons[1]).click().perform()
    copied = "navigator.clipboard.readText().then(arguments[0])"
    WebDriverWait(browser, 10).until(lambda _: browser.execute_async_script(copied).strip() == cells[1].strip())


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
@pytest.mark.parametrize(
    ("names", "themes"),
    [
        pytest.param(["index"], ["light"], id="start"),
        pytest.param(["01_streaming_by_hand"], ["dark"], id="page"),
        pytest.param(None, ["light", "dark"], marks=pytest.mark.slow, id="all"),
    ],
)
def test_axe_finds_nothing_serious(browser, address, texts, names, themes):
    try:
        axe = (site.node_modules() / "axe-core" / "axe.min.js").read_text()
    except site.PageError as error:
        pytest.skip(str(error))
    for theme in themes:
        for name in chosen(texts, names):
            browser.get(address + name)
            opened = "for (const fold of document.querySelectorAll('details')) fold.open = true"
            browser.execute_script(f"document.body.dataset.theme = arguments[0]; {opened}", theme)
            browser.execute_script(axe)
            drawn = "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
            still = "document.getAnimations().forEach((each) => each.finish())"  # what opens fades in
            run = f"{drawn}.then(() => {still}).then(() => axe.run()).then((found) => arguments[0](found.violations))"
            found = browser.execute_async_script(run)
            serious = [
                (each["id"], each["nodes"][0]["html"][:200])
                for each in found
                if each["impact"] in ("serious", "critical")
            ]
            assert not serious, f"{name}, {theme}: {serious}"


COMPLETE = {"index", "guide/install", "guide/glossary", "00_hear_it", "01_streaming_by_hand"}  # in Chinese


def test_each_catalogue_has_the_messages_of_its_page_and_says_how_many_are_translated(tmp_path):
    catalogues = translation.catalogues()
    translation.write_messages(PAGES, tmp_path, catalogues)
    for name, path in catalogues.items():
        wanted = {m.id for m in read_po((tmp_path / f"{name}.pot").open("rb")) if m.id}
        translated = {message.id: message.string for message in read_po(path.open("rb")) if message.id}
        assert not translated.keys() - wanted, f"{name}: not on the page any more; see `make translations`"
        done = sum(bool(translated.get(each)) for each in wanted)
        print(f"{name}: {done} of {len(wanted)} translated")
        assert done == len(wanted) or name not in COMPLETE, [each for each in wanted if not translated.get(each)]
    assert catalogues.keys() >= COMPLETE


@pytest.mark.slow
def test_catalogues_follow_their_pages_and_begin_for_a_page_that_is_named(tmp_path):
    page = tmp_path / "pages" / "01_page.ipynb"
    page.parent.mkdir()
    locale = tmp_path / "locale"

    def refreshed(words, *names):
        cell = {"cell_type": "markdown", "metadata": {}, "source": f"# One\n\n{words}", "id": "a"}
        page.write_text(json.dumps({"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))
        translation.refresh(page.parent, locale, names)
        catalogue = locale / "zh_CN" / "LC_MESSAGES" / "01_page.po"
        return [m.id for m in read_po(catalogue.open("rb")) if m.id] if catalogue.is_file() else None

    assert refreshed("Two.") is None
    assert refreshed("Two.", "01_page") == ["One", "Two."]
    assert refreshed("Three.") == ["One", "Three."]


@pytest.mark.slow
def test_the_chinese_pages_are_chinese_and_the_others_english(texts):
    assert texts["zh/index.html"].h1.text.startswith("在 PyTorch 之外")
    assert texts["zh/index.html"].html["lang"] == "zh-CN"
    assert texts["zh/04_export_onnx.html"].h1.text == texts["04_export_onnx.html"].h1.text
    turn = {name: texts[f"{name}index.html"].select_one(".next-page .context").text.strip() for name in ("", "zh/")}
    assert turn == {"": "Next", "zh/": "下一页"}
    switch = "a.language"
    assert texts["guide/install.html"].select_one(switch)["href"] == "../zh/guide/install.html"
    assert texts["zh/guide/install.html"].select_one(switch)["href"] == "../../guide/install.html"
