"""A trap's card as HTML: plain tables and text, which reads without its styles too."""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape

from . import record
from .source import MARK, code_of, marked_code_of, name_and_file
from .symptoms import SYMPTOMS
from .trap import COSTS, REFUSES, RIGHT, STOPS, UNREPORTED, WARNS, WRONG, Run, Trap

NAMES = {"torchscript": "TorchScript", "dynamo": "dynamo"}
STYLE = """<style>
.trap-rows pre, .trap-card pre { white-space: pre-wrap; word-break: normal; overflow-wrap: anywhere;
  margin: .2em 0 .6em; background: none }
.trap-card { border-top: 2px solid rgba(128, 128, 128, .5); margin-top: 1.2em }
.trap-card:target, tr:target { outline: 2px solid currentColor; outline-offset: 4px }
.trap-card mark { background: rgba(255, 196, 0, .35); color: inherit; font-weight: bold }
.trap-card del { background: rgba(220, 60, 60, .18); text-decoration: none }
.trap-card ins { background: rgba(40, 160, 80, .2); text-decoration: none }
</style>"""


def exporter_name(exporter: str) -> str:
    return NAMES.get(exporter, "")


def card(
    trap: Trap, naive: Mapping[str, Run], fix: Mapping[str, Run], anchor: bool = True, changes: Iterable[str] = ()
) -> str:
    """Symptom, the naive code with its guilty line, what it does, why, the fix as a difference, what that does."""
    ours, theirs = trap.shown
    parts = [
        f"<h4>{escape(trap.name)}</h4>",
        f"<p class='trap-symptom'><b>Symptom.</b> {' '.join(md(SYMPTOMS[key]) for key in trap.symptoms)}</p>",
        f"<p>{named(ours)}:</p>",
        naive_code(trap),
        *(does(run, exporter) for exporter, run in naive.items()),
        f"<p><b>Why.</b> {md(trap.why)}</p>",
        f"<p><b>Fix</b>, {named(theirs)}:</p>",
        diff(trap),
        *(does(run, exporter) for exporter, run in fix.items()),
        *others_say(trap),
        f"<p><b>Caught by:</b> {md(trap.caught_by)}. <b>Source:</b> {sources(trap)}.</p>",
        *(f"<p><b>Other than recorded</b> ({_versions()}): {escape(change)}</p>" for change in changes),
    ]
    name = f' id="{trap.anchor}"' if anchor else ""
    return f'<section class="trap-card"{name} data-trap="{escape(trap.name)}">{"".join(parts)}</section>'


def does(run: Run, exporter: str = "") -> str:
    """What is said during a run, and what comes out of it."""
    who = f"<b>{exporter_name(exporter)}:</b> " if exporter else ""
    words = {
        RIGHT: "right",
        COSTS: "right, at a cost",
        WARNS: f"{came_out(run)}, with a warning",
        UNREPORTED: f"{'the export says nothing; ' * bool(run.cases)}{came_out(run)}",
        REFUSES: f"stops with an error {run.first}",
    }[run.verdict]
    if run.verdict in (COSTS, WARNS, UNREPORTED):
        words = f"{words}; first seen: {run.first}"
    said = "".join(pre(escape(text)) for text in run.said)
    return f"<p>{who}{escape(words)}.{' What is said:' if said else ''}</p>{said}{pre(escape(run.text))}"


def came_out(run: Run) -> str:
    """What a graph does at the cases that are not right; of a run without a graph, that nothing reports it."""
    if not run.cases:
        return "wrong" if run.said else "wrong, without an error or a warning"
    found = {WRONG: "the graph is wrong", STOPS: "ONNX Runtime stops"}
    return ", or ".join(words for case, words in found.items() if case in run.cases)


def others_say(trap: Trap) -> list[str]:
    return [
        f"<p>With other versions (from the sources; not met here):</p>{pre(escape(message))}<p>{md(cause)}</p>"
        for message, cause in trap.elsewhere.items()
    ]


def sources(trap: Trap) -> str:
    """Links to the public reports. (GitHub leads from an issue's address to a pull request of that number.)"""
    links = [f'<a href="https://github.com/{each.replace("#", "/issues/")}">{each}</a>' for each in trap.sources]
    return ", ".join(links) or "found here"


def naive_code(trap: Trap) -> str:
    """The naive code; the guilty line begins with an arrow, so that no colour is needed to find it."""
    lines = []
    for line in marked_code_of(trap.shown[0]).splitlines():
        text = escape(MARK.sub("", line))
        lines.append(f"<mark>&gt; {text}</mark>" if MARK.search(line) else f"  {text}")
    return pre("\n".join(lines))


def diff(trap: Trap) -> str:
    """From the naive code to the fix; the fix alone where they have hardly a line in common."""
    before, after = (code_of(part).splitlines() for part in trap.shown)
    if difflib.SequenceMatcher(None, before, after).ratio() < 0.25:
        return pre(escape("\n".join(after)))
    lines = [line for line in difflib.ndiff(before, after) if not line.startswith("?")]
    tags = {"-": "del", "+": "ins"}
    html = [f"<{tags[line[0]]}>{escape(line)}</{tags[line[0]]}>" if line[0] in tags else escape(line) for line in lines]
    return pre("\n".join(html))


def pre(html: str) -> str:
    """nbconvert lets code in an output inherit the text's font, so it names its own."""
    return f'<pre style="font-family: monospace; line-height: 1.35">{html}</pre>'


def named(part: Callable) -> str:
    name, file = name_and_file(part)
    return f"<code>{name}</code> in <code>{file}</code>"


def md(text: str) -> str:
    """Text of a record: its code between backticks, and words between asterisks."""
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))
    return re.sub(r"(?<!\w)\*(\w[^*<]*)\*(?!\w)", r"<i>\1</i>", html)


def _versions() -> str:
    return ", ".join(f"{name} {version}" for name, version in record.recorded_versions().items())
