"""What an exporter said, in a few words: of its warnings what became of which line, of its errors the gist."""

import linecache
import re
import traceback
from collections.abc import Sequence
from tempfile import gettempdir

from ...model.inspection.places import LIBRARY, is_machinery, short
from .capture import STDERR, STDOUT, Diagnostic, is_advice

# What a trace says where it keeps a Python value or an axis in place of what it was computed from, in our words. `code`
# is the expression that the warning speaks of; the others are groups of the pattern.
LOSSES = {
    # torch.jit.trace, of `if`, `min` and `max` on a tensor or a size
    r"Converting a tensor to a Python boolean": "{code} is decided once, as in the example",
    # the same, of int(), float(), item(), tolist(), numpy(), math.ceil() and ends of slices
    r"Converting a tensor to ": "{code} becomes a constant",
    r"Using len to get tensor shape": "{code} becomes a constant",
    # the same, of `for x in tensor` and `a, b = tensor`
    r"Iterating over a tensor": "{code} is gone through as often as in the example",
    # torch.onnx.export(dynamo=False)
    r"Provided key (?P<key>\S+) for dynamic axes is not": "dynamic_axes names {key}, which is no input or output",
    # torch.export
    r"dimension inputs\W*(?P<name>\w+)\W*\.shape\[(?P<axis>\d+)\] 0/1 specialized.* hint = (?P<hint>\d)": (
        "axis {axis} of input {name} becomes a constant: the example has length {hint} there"
    ),
}
# torch.jit.trace, of every tensor that is made from Python values: also of torch.tensor(0.5), which is a constant.
CONSTANTS = {r"torch\.\w+ results are registered as constants": "{code} becomes a constant; right if it is one"}
TRACER = "TracerWarning"


def tells_of_a_loss(diagnostic: Diagnostic) -> bool:
    """Whether the graph lost what it was said of: no right wrapper here makes an exporter say such a thing.

    Three kinds of the tracer's warnings are none: of an `assert`, which gives no value; of a tensor made from Python
    values, which may well be a constant; and in torch's own files, where torch itself ignores them
    (`TracerWarning.ignore_lib_warnings`). Nor is anything that is not known here, such as a newer torch's advice.
    """
    if diagnostic.category != TRACER:
        return any(re.match(words, diagnostic.text) for words in LOSSES)
    return not (
        any(re.match(words, diagnostic.text) for words in CONSTANTS)
        or short(diagnostic.source).startswith("torch/")
        or linecache.getline(diagnostic.source, diagnostic.line).lstrip().startswith("assert ")
    )


def describe(diagnostic: Diagnostic) -> str:
    """One line: the place and what happened there; what is not known keeps its own words."""
    place = f"{short(diagnostic.source)}:{diagnostic.line}: " if diagnostic.line else ""
    if place and LIBRARY.match(diagnostic.source) and (caller := diagnostic.called_from):
        place = f"{place[:-2]} (called in {caller}): "
    for words, ours in (LOSSES | CONSTANTS).items():
        if found := re.match(words, diagnostic.text):
            line = linecache.getline(diagnostic.source, diagnostic.line).strip()
            text = ours.format(code=diagnostic.code or line, **found.groupdict())
            return f"{place}{text}" if "{code}" in ours else text
    text = shorten(" ".join(dict.fromkeys(filter(None, map(str.strip, diagnostic.text.splitlines())))))
    if diagnostic.category in (STDOUT, STDERR):
        return f"on {diagnostic.category}: {text}"
    return f"{place or f'{diagnostic.source}: '}{diagnostic.category}: {text}"


def described(said: Sequence[Diagnostic]) -> tuple[str, ...]:
    """Each thing once, in the order in which it was said, without advice."""
    return tuple(dict.fromkeys(describe(each) for each in said if not is_advice(each)))


def where_it_stopped(error: BaseException, said: Sequence[Diagnostic]) -> str:
    """The place in the wrapper's code of what an exporter could not take, as far as it tells; else ""."""
    places, root = [], error
    while root.__cause__:  # torch.export runs the code itself, and chains what happened there
        root = root.__cause__
    for frame in reversed(traceback.extract_tb(root.__traceback__)):
        places.append((frame.filename, frame.lineno))
    # torch.onnx.export(dynamo=False): the stack of the node, or of an operator that it does not know the graph's dump
    places += re.findall(r"^\s*(?:\(node defined in )?([^\s(]+)\((\d+)\): ", str(error), re.MULTILINE)
    if operator := re.search(r"the operator '([\w:]+)'", str(error)):
        dump = "\n".join(each.text for each in said if each.category == STDOUT)
        places += re.findall(rf"{operator[1]}\(.*# (\S+):(\d+):\d+", dump)
    return next((f"{short(source)}:{line}" for source, line in places if not is_machinery(source)), "")


# Where a report by `torch.export` turns from the error to where to read more.
READ_MORE = (
    "For ",
    "If you suspect",
    "The error above",
    "The following call",
    "(Refer to",
    "Caused by:",
    "File ",
    "User Stack",
)


def gist(error: BaseException, lines: int = 4) -> str:
    """Type and first lines of an error. Of a long report by `torch.export`, the part that says what went wrong."""
    text = re.sub(r"\x1b\[\d*m", "", str(error)).split("## Exception summary")[-1]
    text = re.sub(re.escape(gettempdir()) + r"/[^/]+/", "", text)  # a page should not depend on the machine
    found = [line for line in map(str.strip, text.splitlines()) if line and not line.startswith(READ_MORE)]
    return f"{type(error).__name__}: " + "\n".join(shorten(line) for line in found[:lines])


def shorten(line: str, most: int = 300) -> str:
    return line if len(line) <= most else line[:most] + " …"
