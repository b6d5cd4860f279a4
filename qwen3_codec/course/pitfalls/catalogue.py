"""The catalogue, made from the records: the matrix, the messages, the symptoms, the checklist, a card for each trap.

What stands on it was measured (`record`). It is plain tables and text; on pages that show styles and run scripts, those
of `STYLE` and `SEARCH` add filters and a search field. Nothing is loaded from anywhere.
"""

import json
import re
from collections.abc import Iterable, Mapping
from html import escape

from IPython.display import HTML

from . import GROUPS, TRAPS, card, record
from .card import md, pre
from .checklist import CHECKLIST
from .symptoms import SYMPTOMS
from .trap import BOTH_EXPORTERS, COSTS, REFUSES, RIGHT, STOPS, UNREPORTED, WARNS, WRONG, Run, Trap

# What a filter keeps: a row's class, and the label.
FILTERS = {
    "all": "all",
    UNREPORTED: "wrong and unreported",
    WARNS: "wrong, with a warning",
    REFUSES: "stops with an error",
    COSTS: "right, at a cost",
    "ts": "not right by TorchScript",
    "dy": "not right by dynamo",
}


def cards(group: str) -> HTML:
    """The cards of one section, from what is recorded."""
    found = [
        card.card(trap, record.recorded(trap, "naive"), record.recorded(trap, "fix")) for trap in GROUPS[group].TRAPS
    ]
    return HTML("\n".join(found))


# --- The tables


def matrix() -> HTML:
    """One row a trap: what each exporter does with it, where it first shows, what catches it, and who reported it."""
    head = _row(["Trap", "TorchScript", "dynamo", "First visible at", "Caught by", "Source"], tag="th")
    rows = [_matrix_row(trap) for trap in TRAPS.values()]
    table = f'<table class="trap-rows"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return HTML(f'{card.STYLE}{STYLE}<div class="trap-matrix">{_filters()}{table}</div>{SEARCH}')


def _matrix_row(trap: Trap) -> str:
    runs = record.recorded(trap, "naive")
    classes = {run.verdict for run in runs.values() if run.verdict != RIGHT}
    if "" in runs:
        verdict = f'<td colspan="2">{_verdict(runs[""].verdict)}, with either or none</td>'
        classes |= {"ts", "dy"}
    else:
        verdicts = [_verdict(runs[exporter].verdict) if exporter in runs else "–" for exporter in BOTH_EXPORTERS]
        verdict = "".join(f'<td style="white-space: nowrap">{words}</td>' for words in verdicts)
        short = {"torchscript": "ts", "dynamo": "dy"}
        classes |= {short[exporter] for exporter, run in runs.items() if run.verdict != RIGHT}
    cells = [first_visible(trap, runs), caught_by(trap, runs), card.sources(trap)]
    link = f"<td>{_link(trap)}</td>"
    rest = "".join(f"<td>{each}</td>" for each in cells)
    return f'<tr class="{" ".join(sorted(classes))}" data-trap="{escape(trap.name)}">{link}{verdict}{rest}</tr>'


def _verdict(verdict: str) -> str:
    return verdict if verdict in (RIGHT, COSTS, WARNS) else f"<b>{verdict}</b>"


def first_visible(trap: Trap, runs: Mapping[str, Run]) -> str:
    """Once where the exporters agree."""
    found = {exporter: run.first for exporter, run in runs.items() if run.first}
    if len(set(found.values())) == 1:
        return escape(next(iter(found.values())))
    return "<br>".join(f"{card.exporter_name(exporter)}: {escape(first)}" for exporter, first in found.items())


def caught_by(trap: Trap, runs: Mapping[str, Run]) -> str:
    """The check that its demonstration is, and before that whatever reports it by itself."""
    verdicts = {run.verdict for run in runs.values()} - {RIGHT}
    by_itself = {REFUSES: "its error", WARNS: "its warning"}
    found = [words for verdict, words in by_itself.items() if verdict in verdicts]
    return "; ".join([*found, *([md(trap.caught_by)] if verdicts != {REFUSES} else [])])


def messages() -> HTML:
    """What an exporter, a library or ONNX Runtime says, word for word, and the traps that it may mean.

    Of messages that differ in their numbers the first. Then what other versions say, from public reports.
    """
    found: dict[str, list[Trap]] = {}
    first: dict[str, str] = {}
    for trap in TRAPS.values():
        for run in record.recorded(trap, "naive").values():
            for message in _messages(run):
                traps = found.setdefault(first.setdefault(record.without_numbers(message), message), [])
                traps += [trap] if trap not in traps else []
    rows = [
        f"<tr><td>{pre(escape(message))}</td><td>{meaning(traps)}</td></tr>" for message, traps in sorted(found.items())
    ]
    rows += [
        f"<tr><td>{pre(escape(message))}</td>"
        f"<td>Not met with these versions. {md(cause)}<br>Card: {_link(trap)}</td></tr>"
        for trap in TRAPS.values()
        for message, cause in trap.elsewhere.items()
    ]
    head = _row(["Message", "What it means here"], tag="th")
    return HTML(f'<table class="trap-rows"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>')


def _messages(run: Run) -> list[str]:
    """Of a run that is not right: the error, each thing that is said, and what stops the graph, without our words.

    A graph that is printed is no message.
    """
    if run.verdict == RIGHT:
        return []
    firsts = [re.sub(r" ?…( \(and \d+ more lines\))?$", "", text.splitlines()[0]) for text in run.said]
    said = [re.sub(r"^([^\s:]+: (?=\w+(Warning|Error)?: ))?((stdout|stderr|WARNING): )?", "", text) for text in firsts]
    said = [text for text in said if not text.startswith("def forward(")]
    stops = re.findall(r": ((?:Got invalid|Required inputs|Non-zero status code) .*)$", run.text, re.MULTILINE)
    return list(dict.fromkeys([*said, *([run.text] if run.verdict == REFUSES else []), *stops]))


def meaning(traps: list[Trap]) -> str:
    """Why, of the first; links to all."""
    links = ", ".join(map(_link, traps))
    return f"{md(traps[0].why)}<br>Card: {links}" if len(traps) == 1 else f"One of these: {links}"


def _link(trap: Trap) -> str:
    return f'<a href="#{trap.anchor}">{escape(trap.name)}</a>'


def symptoms() -> HTML:
    """What one hears or sees, and the traps that it may be."""
    rows = []
    for key, words in SYMPTOMS.items():
        links = ", ".join(_link(trap) for trap in TRAPS.values() if key in trap.symptoms)
        rows.append(f"<tr><td>{md(words)}</td><td>{links}</td></tr>")
    head = _row(["What you notice", "It may be"], tag="th")
    return HTML(f'<table class="trap-rows"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>')


def lengths() -> HTML:
    """Of each way to make a length a constant: at how many of the lengths tried the graph is right, wrong or stops."""
    rows = []
    for trap in GROUPS["lengths"].TRAPS:
        for exporter, run in record.recorded(trap, "naive").items():
            counts = [run.cases.count(each) for each in (RIGHT, WRONG, STOPS)]
            fix = record.recorded(trap, "fix")[exporter].cases
            cells = [escape(trap.name), card.exporter_name(exporter), _said(run), *counts]
            rows.append(_row([*cells, f"{fix.count(RIGHT)} of {len(fix)}"], tag="td"))
    head = _row(["Trap", "Exporter", "Says", "right", "wrong, no error", "stops", "the fix is right at"], tag="th")
    return HTML(f'<table class="trap-rows"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>')


def _said(run: Run) -> str:
    """The categories of what was said."""
    found = [re.search(r"(\w+): ", re.sub(r"^\S+: ", "", text)) for text in run.said]
    return ", ".join(dict.fromkeys(each[1] for each in found if each)) or "–"


def checklist() -> HTML:
    """One page: what not to write, what to write, and the traps behind it."""
    rows = []
    for bad, good, names in CHECKLIST:
        links = ", ".join(_link(TRAPS[name]) for name in names)
        rows.append(f"<tr><td>{md(bad)}</td><td>{md(good)}</td><td>{links}</td></tr>")
    head = _row(["Do not write", "Write", "Traps"], tag="th")
    return HTML(f'<table class="trap-rows"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>')


def _row(cells: Iterable[object], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{cell}</{tag}>' for cell in cells)}</tr>"


# --- Filters and search, for pages that show them


def _filters() -> str:
    """Radio buttons that styles alone act on. (GitHub leaves them out, and shows the table.)"""
    button = '<input type="radio" name="trap-filter" value="{}"{}>'
    buttons = [
        f"<label>{button.format(key, ' checked' if key == 'all' else '')} {label}</label> "
        for key, label in FILTERS.items()
    ]
    field = '<input type="search" id="trap-search" placeholder="a message or a symptom">'
    found = '<span id="trap-found" aria-live="polite"></span>'
    return f'<p class="trap-filters"><label>Search {field}</label> {found}<br>{"".join(buttons)}</p>'


_HIDE = "\n".join(
    f'.trap-matrix:has(input[value="{key}"]:checked) tbody tr:not(.{key}) {{ display: none }}'
    for key in FILTERS
    if key != "all"
)
STYLE = f"""<style>
.trap-rows {{ border-collapse: collapse }}
.trap-rows th, .trap-rows td {{ text-align: left !important; vertical-align: top; padding: .3em .6em;
  white-space: normal; border-bottom: 1px solid rgba(128, 128, 128, .4); overflow-wrap: break-word }}
.trap-filters label {{ display: inline-block; margin-right: 1em }}
.trap-filters input[type=search] {{ width: 24em; max-width: 90vw; font-size: inherit }}
{_HIDE}
</style>"""

# The search. Words are compared by their first five letters, after those of SAME are replaced; one counts for more the
# fewer cards have it. A card is an answer if it has the share LEAST of what is asked, so weighed. Its points are what
# it has, TITLE times as much in its name and symptom (the shorter these are, the more a word says), times that share.
# Five are given. (A test asks by the same rule.)
SAME = {"click": r"crackl\w*|pop(s|ping)?|glitch\w*", "border": r"boundar(y|ies)|seams?|between"}
TITLE, LEAST = 3, 0.35
SEARCH = """<script>
(() => {
  const same = SAME.map(([word, others]) => [word, new RegExp("\\\\b(?:" + others + ")\\\\b", "g")]);
  const words = text => {
    const plain = same.reduce((all, [word, others]) => all.replace(others, word), text.toLowerCase());
    return new Set((plain.match(/[\\p{L}\\d_]{3,}/gu) || []).map(word => word.slice(0, 5)));
  };
  const field = document.getElementById("trap-search"), answer = document.getElementById("trap-found");
  if (!field) return;
  field.addEventListener("input", () => {
    const cards = [...document.querySelectorAll(".trap-card[id]")].map(card => ({
      card, has: words(card.textContent),
      title: words([...card.querySelectorAll("h4, .trap-symptom")].map(part => part.textContent).join(" ")),
    }));
    const asked = [...words(field.value)].map(word =>
      [word, Math.log(1 + cards.length / (cards.filter(({has}) => has.has(word)).length || 1))]);
    const sum = weigh => asked.reduce((total, [word, weight]) => total + weight * weigh(word), 0);
    const share = ({has}) => sum(word => has.has(word)) / sum(() => 1);
    const points = ({has, title}) => sum(word => has.has(word) && (title.has(word) ? TITLE : 1)) / title.size ** 0.5;
    const found = cards.filter(each => share(each) >= LEAST);
    found.sort((a, b) => share(b) * points(b) - share(a) * points(a));
    answer.replaceChildren(...found.slice(0, 5).flatMap(({card}, index) => {
      const link = document.createElement("a");
      link.href = "#" + card.id;
      link.textContent = card.dataset.trap;
      return index ? [" · ", link] : [link];
    }));
    if (asked.length && !found.length) answer.textContent = "no card fits well; see the tables below";
  });
})();
</script>"""
for _name, _value in {"SAME": [*SAME.items()], "TITLE": TITLE, "LEAST": LEAST}.items():
    SEARCH = re.sub(rf"\b{_name}\b", lambda _, value=_value: json.dumps(value), SEARCH)
