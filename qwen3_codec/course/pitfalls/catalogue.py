"""The catalogue, made from the records: the matrix, the messages, the symptoms, the checklist, a card for each trap.

What stands on it was measured (`record`). It is plain tables and text; on pages that show styles and run scripts, those
of `STYLE` and `SEARCH` add filters and a search field. Nothing is loaded from anywhere.
"""

import re
from collections.abc import Iterable, Mapping
from html import escape

from IPython.display import HTML

from . import GROUPS, TRAPS, card, record
from .card import md, pre
from .checklist import CHECKLIST
from .symptoms import SYMPTOMS
from .trap import BOTH_EXPORTERS, REFUSED, REFUSES, RIGHT, UNREPORTED, WARNS, WRONG, Run, Trap

# What a filter keeps: a row's class, and the label.
FILTERS = {
    "all": "all",
    UNREPORTED: "wrong and unreported",
    WARNS: "wrong after a warning",
    REFUSES: "stops with an error",
    "ts": "TorchScript is wrong or stops",
    "dy": "dynamo is wrong or stops",
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
    link = f'<td><a href="#{trap.anchor}">{escape(trap.name)}</a></td>'
    rest = "".join(f"<td>{each}</td>" for each in cells)
    return f'<tr class="{" ".join(sorted(classes))}" data-trap="{escape(trap.name)}">{link}{verdict}{rest}</tr>'


def _verdict(verdict: str) -> str:
    return verdict if verdict in (RIGHT, WARNS) else f"<b>{verdict}</b>"


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
    """What an exporter, a library or ONNX Runtime says, word for word, and the traps that it may mean."""
    found: dict[str, list[Trap]] = {}
    for trap in TRAPS.values():
        for run in record.recorded(trap, "naive").values():
            for message in _messages(run):
                traps = found.setdefault(message, [])
                traps += [trap] if trap not in traps else []
    rows = [
        f"<tr><td>{pre(escape(message))}</td><td>{meaning(traps)}</td></tr>" for message, traps in sorted(found.items())
    ]
    head = _row(["Message", "What it means here"], tag="th")
    return HTML(f'<table class="trap-rows"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>')


def _messages(run: Run) -> list[str]:
    """Of a run that is not right: the error, each thing that is said, and what stops the graph, without our words."""
    if run.verdict == RIGHT:
        return []
    said = [re.sub(r"^[^\s:]+: (?=\w+(Warning|Error)?: )", "", text.splitlines()[0]) for text in run.said]
    stops = re.findall(r": (Got invalid .*|Required inputs .*|fails in the node .*)$", run.text, re.MULTILINE)
    return list(dict.fromkeys([*said, *([run.text] if run.verdict == REFUSES else []), *stops]))


def meaning(traps: list[Trap]) -> str:
    """Why, of the first; links to all."""
    links = ", ".join(f'<a href="#{trap.anchor}">{escape(trap.name)}</a>' for trap in traps)
    return f"{md(traps[0].why)}<br>Card: {links}" if len(traps) == 1 else f"One of these: {links}"


def symptoms() -> HTML:
    """What one hears or sees, and the traps that it may be."""
    rows = []
    for key, words in SYMPTOMS.items():
        links = ", ".join(
            f'<a href="#{trap.anchor}">{escape(trap.name)}</a>' for trap in TRAPS.values() if key in trap.symptoms
        )
        rows.append(f"<tr><td>{md(words)}</td><td>{links}</td></tr>")
    head = _row(["What you notice", "It may be"], tag="th")
    return HTML(f'<table class="trap-rows"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>')


def lengths() -> HTML:
    """Of each way to make a length a constant: at how many of the lengths tried the graph is right, wrong or stops."""
    rows = []
    for trap in GROUPS["lengths"].TRAPS:
        for exporter, run in record.recorded(trap, "naive").items():
            counts = [run.cases.count(each) for each in (RIGHT, WRONG, REFUSED)]
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
        links = ", ".join(f'<a href="#{TRAPS[name].anchor}">{escape(name)}</a>' for name in names)
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

# The five cards that share most with what is asked: of words their first five letters, and rare ones count for more. (A
# test asks by the same rule.)
SEARCH = """<script>
(() => {
  const words = text => new Set((text.toLowerCase().match(/[\\p{L}\\d_]{3,}/gu) || []).map(word => word.slice(0, 5)));
  const field = document.getElementById("trap-search"), answer = document.getElementById("trap-found");
  if (!field) return;
  field.addEventListener("input", () => {
    const cards = [...document.querySelectorAll(".trap-card[id]")].map(card => [card, words(card.textContent)]);
    const weights = [...words(field.value)].map(word => {
      const having = cards.filter(([, has]) => has.has(word)).length;
      return [word, having && Math.log(1 + cards.length / having)];
    });
    const score = has => weights.reduce((sum, [word, weight]) => sum + (has.has(word) ? weight : 0), 0);
    const ranked = cards.map(([card, has]) => [score(has), card]).filter(([points]) => points > 0);
    ranked.sort(([a], [b]) => b - a);
    answer.replaceChildren(...ranked.slice(0, 5).flatMap(([, card], index) => {
      const link = document.createElement("a");
      link.href = "#" + card.id;
      link.textContent = card.dataset.trap;
      return index ? [" · ", link] : [link];
    }));
    if (field.value && !ranked.length) answer.textContent = "no card has these words";
  });
})();
</script>"""
