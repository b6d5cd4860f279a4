"""All that a library says during a block: Python warnings, log records, and what is written past Python.

The exporters say what they lose in four places: `warnings`, `logging`, Python's streams, and (from C++) the
process's own. Here each becomes a `Diagnostic`, in the order in which they were said.
"""

import contextlib
import io
import linecache
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType

from ...model.inspection.places import Place, short

STDOUT, STDERR = "stdout", "stderr"


@dataclass(frozen=True)
class Diagnostic:
    """One thing that was said.

    `category` is the warning's class ("TracerWarning"), the level of a log record ("WARNING"), or STDOUT or STDERR for
    text; `source` is the file with the line that a warning speaks of, the logger's name, or "". Of a warning, `code` is
    the expression that was being computed there, and `called_from` the nearest place that is no installed library's.
    """

    category: str
    text: str
    source: str = ""
    line: int = 0
    code: str = field(default="", compare=False)
    called_from: Place | None = field(default=None, compare=False)

    def __str__(self) -> str:
        """As Python prints a warning, with the line of code that it speaks of.

        Of a path its name alone, and of a text its first line, so that a page does not depend on who made it.
        """
        where = f"{short(self.source)}:{self.line}: " if self.line else f"{self.source}: " if self.source else ""
        first, *others = self.text.strip().splitlines() or [""]
        more = f" … (and {len(others)} more lines)" if others else ""
        code = linecache.getline(self.source, self.line).strip() if self.line else ""
        return f"{where}{self.category}: {first}{more}" + (f"\n  {code}" if code else "")


# What the exporters of torch 2.13 say of right wrappers too: measured on every design and precision here, at the
# oldest, a middle and the newest opset of each exporter. In a diagnostic's text, from its start.
ADVICE = (
    # torch.onnx.export(dynamo=False), of its own future, at every export
    r"You are using the legacy TorchScript-based ONNX export",
    # the same exporter, of its own helper
    r"The feature will be removed\. Please remove usage of this function",
    # the same exporter at an opset above 20; those that it writes right are tested, see `trace.OPSETS`
    r"Exporting to ONNX opset version \d+ is not supported",
    # the same exporter's constant folding, of an empty slice that it leaves as it is
    r"Constant folding - Only steps=1 can be constant folded",
    # torch.onnx.export(dynamo=True), once for each operator of a package that nothing here needs
    r"torchvision is not installed\. Skipping torchvision::",
    # torch.onnx.export(dynamo=True), its progress where it is not told to be quiet
    r"\[torch\.onnx\] ",
    # torch.onnx.export(dynamo=True), of a wrapper that has the mode of every new module; one that computes something
    # else in it, `TorchSession` refuses
    r"Exporting a model while it is in training mode",
    # onnxscript 0.6, of its own optimizer
    r"Applied \d+ of general pattern rewrite rules",
    # torch.export, of the deprecated name that it still uses itself
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",
    # torch.export, of one axis that two tensors have (the batch; the past of two layers): the first one's name stays,
    # and export writes the declared names itself. Of two axes that must not be one, the declaration's check speaks.
    r"# The axis name: \S+ will not be used, since it shares the same shape constraints with another axis",
)


def is_advice(diagnostic: Diagnostic) -> bool:
    """Whether it is said of right exports too (see ADVICE), so that it tells nothing of a graph."""
    return any(re.match(words, diagnostic.text) for words in ADVICE)


@contextlib.contextmanager
def captured() -> Iterator[list[Diagnostic]]:
    """Collect what is said in the block, of which nothing reaches the screen; the list is whole when the block ends.

    Warnings are collected each time, also those that were shown before; log records from WARNING up. Text is one
    Diagnostic a stream. Settings are as before afterwards, also when the block raises. Not for two threads at once:
    filters of warnings and the file descriptors belong to the process.
    """
    said: list[Diagnostic] = []
    texts: dict[str, str] = {}
    try:
        with _streams_into(texts), _records_into(said), warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = lambda *warning: said.append(_diagnostic(*warning[:4]))
            yield said
    finally:
        said += [Diagnostic(stream, text) for stream, text in texts.items() if text.strip()]


def _diagnostic(message: Warning | str, category: type[Warning], source: str, line: int) -> Diagnostic:
    """A warning, with the expression that it speaks of: the frame that computes it is still there."""
    caller = sys._getframe(2)
    frame: FrameType | None = caller
    while frame and (frame.f_code.co_filename, frame.f_lineno) != (source, line):
        frame = frame.f_back
    code = Place.of(frame).code if frame else ""
    return Diagnostic(category.__name__, str(message), source, line, code, Place.outside_libraries(frame or caller))


class _Collector(logging.Handler):
    def __init__(self, said: list[Diagnostic]):
        super().__init__(logging.WARNING)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.append(Diagnostic(record.levelname, record.getMessage(), record.name))


@contextlib.contextmanager
def _records_into(said: list[Diagnostic]) -> Iterator[None]:
    """Every logger's handlers give way to one that collects. (torch's own loggers hand nothing on to the root.)"""
    known = [logging.getLogger(), *logging.root.manager.loggerDict.values()]
    loggers = [logger for logger in known if isinstance(logger, logging.Logger)]
    before = {logger: logger.handlers for logger in loggers if logger.handlers}
    collector = _Collector(said)
    for logger in before:
        logger.handlers = [] if logger.propagate and logger is not logging.root else [collector]
    logging.root.handlers = [collector]
    try:
        yield
    finally:
        logging.root.handlers = []
        for logger, handlers in before.items():
            logger.handlers = handlers


@contextlib.contextmanager
def _streams_into(texts: dict[str, str]) -> Iterator[None]:
    """Both streams, Python's (which a notebook replaces) and the process's, into `texts`."""
    with contextlib.ExitStack() as stack:
        for name, descriptor in ((STDOUT, 1), (STDERR, 2)):
            stack.enter_context(_one_stream_into(texts, name, descriptor))
        yield


@contextlib.contextmanager
def _one_stream_into(texts: dict[str, str], name: str, descriptor: int) -> Iterator[None]:
    python, text = getattr(sys, name), io.StringIO()
    with tempfile.TemporaryFile() as file:
        try:
            kept = os.dup(descriptor)
        except OSError:  # a process without a console has none
            kept = None
        if python is not None:
            python.flush()
        if kept is not None:
            os.dup2(file.fileno(), descriptor)
        setattr(sys, name, text)
        try:
            yield
        finally:
            setattr(sys, name, python)
            if kept is not None:
                os.dup2(kept, descriptor)
                os.close(kept)
            file.seek(0)
            texts[name] = text.getvalue() + file.read().decode(errors="replace")
