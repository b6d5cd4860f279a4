"""The page: the lab in a browser, as a folder of static files.

`build` exports the demo's graphs, describes each in JSON, and puts them beside the page's sources and ONNX Runtime Web.
The sources in `static/` are plain HTML, CSS and JavaScript modules; npm brings ONNX Runtime Web at the version of the
lock file, and nothing else of it is used.
"""

import gzip
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ... import demo
from ...exporting.export import exported
from ...files import build_folder, folder_written_whole
from ...model import checkpoint
from ...model.receptive_field import conv_receptive_field
from ...runtime import CodecSession
from ...runtime.describe import description
from ...runtime.progress import no_progress
from ...spec import WINDOWED_FRAMES
from ...streaming.exact import ExactStreamingWrapper, OneShotWrapper
from ...streaming.windowed import StatefulCodecONNXWrapper
from ..pitfalls.state import SaturatingPositions
from . import layers

SOURCES = Path(__file__).parent / "static"
LOCKED = ("package.json", "package-lock.json")
RUNTIME = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
LOOKAHEAD = WINDOWED_FRAMES


class PageError(RuntimeError):
    """What the page needs and cannot have here."""


def node_modules(folder: Path | None = None) -> Path:
    """The folder with ONNX Runtime Web at the locked version, in `build/page_modules`; made by npm where it is missing.

    Raises PageError where there is no npm, or where it fails.
    """
    folder = folder or build_folder(os.environ.get("QWEN3_CODEC_BUILD", "")) / "page_modules"
    lock = (SOURCES / LOCKED[1]).read_bytes()
    done = folder / "node_modules" / ".lock"
    if done.is_file() and done.read_bytes() == lock:
        return folder / "node_modules"
    npm = shutil.which("npm")
    if not npm:
        raise PageError("npm is not here, which brings ONNX Runtime Web: install Node.js (Debian: apt-get install npm)")
    folder.mkdir(parents=True, exist_ok=True)
    for name in LOCKED:
        shutil.copy(SOURCES / name, folder)
    command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if run.returncode:
        raise PageError(f"npm ci failed in {folder}: {(run.stderr or run.stdout).strip().splitlines()[-1]}")
    done.write_bytes(lock)
    return folder / "node_modules"


def build(output: Path, progress: Callable = no_progress) -> list[Path]:
    """Write the page to `output`, whole or not at all, and return its files. Raises PageError where npm is missing."""
    modules = node_modules()
    with folder_written_whole(output) as site:
        shutil.copytree(SOURCES, site, ignore=shutil.ignore_patterns(*LOCKED, "node_modules"), dirs_exist_ok=True)
        (site / "ort").mkdir()
        for name in RUNTIME:
            shutil.copy(modules / "onnxruntime-web" / "dist" / name, site / "ort")
        (site / "ort" / "LICENSE").write_text(ORT_LICENSE)
        _compressed(site / "ort" / RUNTIME[-1])
        _write_graphs(site / "graphs", output.parent / "page_graphs", progress)
        _write_utterances(site / "utterances.json")
        (site / "pages.json").write_text("[]")  # the book names its pages here where it takes the lab in
    return sorted(path for path in output.rglob("*") if path.is_file())


ORT_LICENSE = """ONNX Runtime Web (npm package onnxruntime-web)
Copyright (c) Microsoft Corporation
MIT License: https://github.com/microsoft/onnxruntime/blob/main/LICENSE
"""


def _write_graphs(folder: Path, kept: Path, progress: Callable) -> None:
    """The demo's graphs, each with its description beside it, and the decoder's layers. Graphs are made anew only where

    they do not fit.
    """
    loaded = checkpoint.load("demo")
    decoder, reach = loaded.decoder, conv_receptive_field(loaded.decoder)
    wrappers = {
        "exact": ExactStreamingWrapper(decoder),
        "windowed": StatefulCodecONNXWrapper(decoder, reach, LOOKAHEAD),
        "short": StatefulCodecONNXWrapper(decoder, WINDOWED_FRAMES, LOOKAHEAD),
        "saturating": SaturatingPositions(decoder, reach, LOOKAHEAD),
        "one-shot": OneShotWrapper(decoder),
    }
    folder.mkdir()
    (folder / "layers.json").write_text(json.dumps(layers.parts(decoder)))
    for name, wrapper in progress(list(wrappers.items()), unit="graph"):
        session = CodecSession(exported(loaded, wrapper, kept / f"{name}.onnx"))
        shutil.copy(session.path, folder)
        (folder / f"{name}.json").write_text(json.dumps(description(session)))


def _write_utterances(path: Path) -> None:
    entries = [
        {"name": each.name, "language": each.language, "text": each.text, "codes": each.codes.tolist()}
        for each in demo.utterances()
    ]
    path.write_text(json.dumps(entries, ensure_ascii=False), encoding="utf-8")


def _compressed(path: Path) -> None:
    """A .gz beside a file, for servers that hand it out in its place."""
    with open(path, "rb") as plain, gzip.GzipFile(f"{path}.gz", "wb", mtime=0) as packed:
        shutil.copyfileobj(plain, packed)


class _Handler(SimpleHTTPRequestHandler):
    """Files as they are, the compressed one where the browser takes it; nothing is logged."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def send_head(self):
        packed = Path(self.translate_path(self.path) + ".gz")
        if not packed.is_file() or "gzip" not in self.headers.get("Accept-Encoding", ""):
            return super().send_head()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(packed)[: -len(".gz")]))
        self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(packed.stat().st_size))
        self.end_headers()
        return open(packed, "rb")

    def log_message(self, *_):
        pass


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of `folder` on 127.0.0.1 alone; port 0 takes a free one. `serve_forever()` runs it."""
    return ThreadingHTTPServer(("127.0.0.1", port), partial(_Handler, directory=os.fspath(folder)))
