"""README, guide and the other documents as texts: length, links, names that exist; what CI and the top level hold."""

import re
import runpy
import subprocess
import sys
import tomllib
from contextlib import redirect_stdout
from functools import cache
from io import StringIO
from pathlib import Path

import pytest
from documents import GUIDE, README, ROOT, blocks, prose

import qwen3_codec
from qwen3_codec.cli.main import COMMANDS

GUIDES = sorted(GUIDE.glob("*.md"))
DOCUMENTS = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", ROOT / "notebooks" / "index.md", *GUIDES]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9]*.py"))
PACKAGE = Path(qwen3_codec.__file__).parent

# Names at the top: the project's three folders, its door, and what tools and people look for under exactly this name.
TOP = {"notebooks", "qwen3_codec", "tests", "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"}
TOP |= {"Makefile", "MANIFEST.in", "pyproject.toml", ".ci", ".github", ".gitattributes", ".gitignore"}


def name_of(path):
    return path.name


# ---- the door ------------------------------------------------------------------------------------


def test_the_readme_is_a_door():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 140 and text.count("![") == 1
    (client,) = (code for language, code in blocks(README) if language == "python")
    assert len([line for line in client.splitlines() if line.strip()]) == 6
    for page in [*GUIDES, *(path.with_suffix(".ipynb") for path in NOTEBOOKS)]:
        assert f"]({page.relative_to(ROOT).as_posix()})" in text, f"no way from the README to {page.name}"


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_page_says_what_one_can_do_after_it_and_leads_on(page):
    title, empty, promise, *_ = page.read_text(encoding="utf-8").splitlines()
    assert title.startswith("# ") and not empty and promise.startswith("After this page you can ")
    others = {target for target, _ in links(page) if target.endswith(".md") and "/" not in target}
    assert others - {page.name}, "no link to another page of the guide"


# ---- links ---------------------------------------------------------------------------------------


def links(path):
    """(target, anchor) of each link and image that leads to no other site."""
    return [link for link in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]+))?\)", prose(path)) if ":" not in link[0]]


def anchors(path):
    """As GitHub makes them of a document's headings, or Jupyter of a notebook's."""
    if path.suffix == ".ipynb":
        lines = path.with_suffix(".py").read_text(encoding="utf-8").splitlines()
        headings = [line[2:].lstrip("#").strip() for line in lines if line.startswith("# #")]
        return {heading.replace(" ", "-").replace("`", "") for heading in headings}
    headings = [line.lstrip("#").strip() for line in prose(path).splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path):
    """test_notebooks.py follows those between notebooks."""
    for target, anchor in links(path):
        found = (path.parent / target).resolve() if target else path
        assert found.is_file(), f"{path.name} links to {target}, which is not there"
        assert found.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(found), f"{path.name}: {target}#{anchor}"


@pytest.mark.parametrize("path", [ROOT / "CONTRIBUTING.md", README, *GUIDES, *NOTEBOOKS], ids=name_of)
def test_files_that_are_named_exist(path):
    named = re.findall(r"`((?:qwen3_codec|notebooks|tests|\.github|\.ci)/[\w./-]*)`", prose(path))
    assert not [name for name in named if "NN_name" not in name and not (ROOT / name).exists()]


def test_modules_that_have_moved_are_where_the_changelog_says():
    rows = re.findall(r"^\| `qwen3_codec\.[\w.]+`.* \| (.*) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(rows) >= 40
    for name in re.findall(r"`qwen3_codec\.([\w.]+)`", "\n".join(rows)):
        place = PACKAGE.joinpath(*name.split("."))
        assert place.with_suffix(".py").is_file() or (place / "__init__.py").is_file(), name


# ---- flags ---------------------------------------------------------------------------------------


@cache
def flags(module, command=""):
    """What `--help` shows."""
    said, before = StringIO(), sys.argv
    sys.argv = [module, *filter(None, [command]), "--help"]
    try:
        with redirect_stdout(said), pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before
    assert end.value.code == 0
    return {*re.findall(r"(?<![\w-])--[a-z][\w-]*", said.getvalue())}


def named_flags():
    """(where, the flag, its command's flags) for every flag of ours in README and guide."""
    anyones = set.union(*(flags("qwen3_codec", command) for command in ["", *COMMANDS]))
    anyones |= flags("qwen3_codec.serving.websocket")
    for page in [README, *GUIDES]:
        lines = [line for language, text in blocks(page) if language == "sh" for line in text.splitlines()]
        for text in [*lines, *re.findall(r"`([^`]+)`", prose(page))]:
            words = re.split(r" \| | # ", text)[0].split()
            if words[:2] == ["python", "-m"] and words[2].startswith("qwen3_codec"):
                command = words[3] if words[2] == "qwen3_codec" and words[3] in COMMANDS else ""
                theirs = flags(words[2], command)
            elif words and words[0] in COMMANDS:
                theirs = flags("qwen3_codec", words[0])
            elif text.startswith("--"):
                theirs = anyones
            else:
                continue
            yield from ((f"{page.name}: {text}", word.split("=")[0], theirs) for word in words if word[:2] == "--")


@pytest.mark.filterwarnings("ignore:.*found in sys.modules after import:RuntimeWarning")
def test_every_flag_that_is_named_exists():
    pytest.importorskip("tritonclient.grpc")
    pytest.importorskip("websockets")
    found = [*named_flags()]
    assert len(found) >= 40
    for where, flag, theirs in found:
        assert flag in theirs, where


# ---- the small files -----------------------------------------------------------------------------


def test_the_top_level_holds_nothing_else():
    run = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if run.returncode:
        pytest.skip("not a git checkout")
    names = {line.split("/")[0] for line in run.stdout.splitlines()}
    assert not {name for name in names - TOP if not re.fullmatch(r"requirements[\w-]*\.txt", name)}


def test_one_version_everywhere():
    version = qwen3_codec.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    text = (ROOT / "CHANGELOG.md").read_text()
    assert f"\n## {version} - " in text and text.index("## Unreleased") < text.index(f"## {version}")


def test_the_extras_of_the_guide_are_the_packages():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    table = prose(GUIDE / "install.md")
    assert {*re.findall(r"^\| `\[(\w+)\]`", table, re.MULTILINE)} == {*project["optional-dependencies"]}


def test_ci_and_the_workflows_call_the_readmes_two_commands():
    yaml = pytest.importorskip("yaml")
    text = (ROOT / ".github" / "workflows" / "test.yml").read_text()
    commands = {line.partition("#")[0].strip() for _, code in blocks(README) for line in code.splitlines()}
    ours = (ROOT / ".ci" / "run").read_text().splitlines()[-2:]
    assert ours == ["make test", "make walkthrough"] and commands >= {*ours}
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    (whole,) = (step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step)
    assert whole.startswith("make ") and "'test'" in whole
    pages = yaml.safe_load((ROOT / ".github" / "workflows" / "page.yml").read_text())
    assert "make walkthrough" in [step.get("run") for step in pages["jobs"]["book"]["steps"]]
    makefile = (ROOT / "Makefile").read_text()
    (core,) = re.findall(r"^CORE := (.*)$", makefile, re.MULTILINE)
    assert all((ROOT / place).exists() for place in core.split())
    assert "$(CORE)" in makefile and "'s/^CORE := //p' Makefile" in text


def test_the_form_for_a_bug_asks_for_the_versions():
    yaml = pytest.importorskip("yaml")
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text())
    first = form["body"][0]
    assert "--version" in first["attributes"]["description"] and first["validations"]["required"]
    assert all({"name", "description", "body"} <= form.keys() and field["id"] for field in form["body"])
