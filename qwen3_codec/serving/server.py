"""A real Triton server on this machine, from the wheel `nvidia-pytriton`: for tests, measurements and `make serve`.

The wheel holds NVIDIA's program and its Python backend, for Linux on x86 with glibc 2.35 or newer. It is unpacked into
a folder of its own (`pip install --no-deps --target build/triton -r requirements-server.txt`; make does it), as it asks
for packages that are not needed here. It listens on 127.0.0.1 alone. What crashes is started again,
with its streams lost.

python -m qwen3_codec.serving.server build/model_repository
"""

import os
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NoReturn

from ..files import CHECKOUT, build_folder
from ..runtime.console import importing, run_module, signals_deferred
from . import MODEL

with importing(__name__):
    import tritonclient.grpc as triton

HOST = "127.0.0.1"
STARTS_WITHIN, ENDS_WITHIN = 60, 6  # seconds; alone it ends in 2 or 3
RESTARTS, RESTARTS_WITHIN = 5, 600  # what crashes more often than that, in seconds, is left
LOOKS_EVERY, KILLS = 0.2, 40  # seconds between two looks at whether all still runs; tries to end all of it
PATIENCE = 3  # seconds that it waits, when it is to end, for clients that keep a connection open
BACKENDS, STUB, UTILITIES = "backends", "triton_python_backend_stub", "triton_python_backend_utils.py"
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"
SHARED_MEMORY = Path("/dev/shm")

ABOUT = f"run a model repository on a Triton server, on {HOST}, until it is interrupted"
EXAMPLE = "build/model_repository --grpc-port 8001"


class NoServer(RuntimeError):
    """Why there is no server that runs on this machine."""


@dataclass(frozen=True)
class Program:
    """Where the program lies, and what its parts need to start."""

    root: Path
    libraries: Path

    @property
    def stub(self) -> Path:
        """The backend's interpreter: one for each version of Python, as what it imports was built for that."""
        return self.root / "python_backend_stubs" / PYTHON / STUB

    def environment(self) -> dict[str, str]:
        """Variables with which the program and the stub find their libraries."""
        # The stub wants libpythonX.Y.so: this Python's own where it has one, else the system's.
        folders = [str(self.libraries), sysconfig.get_config_var("LIBDIR") or ""]
        return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(filter(None, folders))}


def find(folder: Path | None = None) -> Program:
    """The unpacked wheel in `folder` (default: `triton` in the folder that the notebooks build in).

    Raises NoServer, with one plain sentence, where it is not there or does not run.
    """
    folder = folder or build_folder(os.environ.get("QWEN3_CODEC_BUILD", "")) / "triton"
    program = Program(folder / "pytriton" / "tritonserver", folder / "nvidia_pytriton.libs")
    binary = program.root / "bin" / "tritonserver"
    if not binary.is_file():
        raise NoServer(
            f"no Triton server in {folder}: `make serve` and `make test` put it there, where pip can have it"
        )
    if not program.stub.is_file():
        raise NoServer(f"the Triton server's wheel has no interpreter for Python {PYTHON}")
    for part in (binary, program.stub):
        try:
            ran = subprocess.run(
                [part, "--help"], env=program.environment(), capture_output=True, timeout=60, check=False
            )
        except OSError as error:
            raise NoServer(f"the Triton server does not run here: {error}") from error
        if b"error while loading" in ran.stderr or b"not found (required by" in ran.stderr:
            why = ran.stderr.decode(errors="replace").strip().splitlines()[0]
            raise NoServer(f"the Triton server does not run here: {why.partition(': ')[2]}")
    return program


class Server:
    """A server of the models in `repository`, running while it is entered as a context.

    Ports are free ones where none are given. `url` is its gRPC address, `folder` holds its log while it runs, and that
    of a crashed one before it. Raises NoServer where it cannot run, RuntimeError with its own words where it does not
    become ready.
    """

    def __init__(self, repository: Path, grpc_port: int = 0, http_port: int = 0, metrics_port: int = 0):
        self.program, self.repository = find(), repository.resolve()
        self.ports = {"grpc": grpc_port, "http": http_port, "metrics": metrics_port}
        self.process: subprocess.Popen | None = None

    def __enter__(self):
        self._folder = TemporaryDirectory(prefix="triton_")
        self.folder = Path(self._folder.name)
        try:
            _link_backends(self.program, self.folder)
            self.ports = {name: port or _free_port() for name, port in self.ports.items()}
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """Ask it to end; where it does not, end it and all that it started."""
        try:
            self._end()
        finally:
            self._folder.cleanup()

    def restart(self) -> None:
        """End what still runs of it, and start it again on the same ports; raises as entering it does.

        Its streams are lost: their clients get an error, and begin new ones.
        """
        self._end()
        (self.folder / "log").replace(self.folder / "log_of_crash")
        self._start()

    def crashed(self) -> str:
        """What of it has ended by itself, in a few words; empty while all runs."""
        # A model's process that dies is not started again by the server, which refuses all requests from then on.
        dead = any(_state(pid) == "Z" for pid in children_of(self.process.pid))
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(1 if dead else 0)  # the server's own end may be what it died of
        if (code := self.process.returncode) is not None:
            return f"the server ended ({signal.Signals(-code).name if code < 0 else f'code {code}'})"
        return "a model's process ended" if dead else ""

    def _end(self) -> None:
        if not self.process:
            return
        try:
            if not self.crashed():
                self.process.terminate()
                self.process.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            pass
        finally:  # also where a second signal interrupts the wait
            with suppress(ProcessLookupError):  # all that it started has ended
                for _ in range(KILLS):
                    os.killpg(self.process.pid, signal.SIGKILL)
                    self.process.poll()
                    time.sleep(LOOKS_EVERY / 4)
            for left in SHARED_MEMORY.glob(f"{self.folder.name}*"):  # where it was ended and did not end
                left.unlink(missing_ok=True)

    @property
    def url(self) -> str:
        return f"{HOST}:{self.ports['grpc']}"

    def log(self) -> str:
        """All that the server has said."""
        return (self.folder / "log").read_text(errors="replace")

    def statistics(self, model: str = MODEL) -> tuple[int, int]:
        """(requests that were decoded, calls of the model that they shared), as Triton counts them."""
        with triton.InferenceServerClient(self.url) as client:
            (found,) = client.get_inference_statistics(model).model_stats
        return found.inference_count, found.execution_count

    def live_streams(self) -> int:
        """Sequences that have a state on the server, in all instances."""
        with urllib.request.urlopen(f"http://{HOST}:{self.ports['metrics']}/metrics", timeout=10) as answer:
            return sum(
                int(float(n)) for n in re.findall(r"^qwen3_codec_live_streams\S* (\S+)", answer.read().decode(), re.M)
            )

    def _start(self) -> None:
        command = [self.program.root / "bin" / "tritonserver", "--model-repository", self.repository]
        command += ["--backend-directory", self.folder / BACKENDS, "--allow-gpu-metrics", "false"]
        command += [
            "--exit-timeout-secs",
            PATIENCE,
            f"--backend-config=python,shm-region-prefix-name={self.folder.name}",
        ]
        for name, port in self.ports.items():
            command += [f"--{name}-address", HOST, f"--{name}-port", port]
        with (
            open(self.folder / "log", "wb") as log,
            signals_deferred(),
        ):  # what has started is known, so that it is ended
            self.process = subprocess.Popen(
                [*map(str, command)],
                env=self.program.environment(),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C goes to this process, which then ends it
            )
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + STARTS_WITHIN
        with triton.InferenceServerClient(self.url) as client:
            while time.monotonic() < deadline and self.process.poll() is None:
                try:
                    if client.is_server_ready():
                        return
                except triton.InferenceServerException:
                    pass  # it does not listen yet
                time.sleep(0.1)
        log = self.log()
        said = re.search(r"failed to load \S+ version \d+: [\w ]+: (.*?)(\\n|\"?\n)", log) or re.search(
            r"error: (.*)", log
        )
        raise RuntimeError(f"the Triton server did not become ready: {said[1] if said else log[-500:]}")


def _link_backends(program: Program, work: Path) -> None:
    """A folder as the server wants it: backends/python with the interpreter that the models run in."""
    folder = work / BACKENDS / "python"
    folder.mkdir(parents=True)
    for file in (program.stub, *(program.root / "backends" / "python").iterdir()):
        if not (folder / file.name).exists():
            (folder / file.name).symlink_to(file)
    # The interpreter knows neither PYTHONPATH nor a virtual environment. What it imports before any model tells it here
    # where packages are: this one, and those beside it.
    (utilities := folder / UTILITIES).unlink()
    places = [str(CHECKOUT), *{sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}]
    original = program.root / "backends" / "python" / UTILITIES
    utilities.write_text(f"import sys\n\nsys.path[:0] = {places!r}\nexec(open({str(original)!r}).read())\n")


def children_of(pid: int) -> list[int]:
    """The processes that a process started: of a server, the models' interpreters."""
    children = []
    for file in Path("/proc", str(pid), "task").glob("*/children"):
        with suppress(OSError):  # this thread has just ended, which says nothing of the others
            children += map(int, file.read_text().split())
    return children


def _state(pid: int) -> str:
    """A process's state as Linux says it, a letter: Z for one that has ended; empty where there is none."""
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def add_options(parser) -> None:
    parser.add_argument("repository", type=Path, metavar="FOLDER", help="a model repository, as `triton` writes it")
    parser.add_argument("--grpc-port", type=int, default=8001, metavar="PORT", help="0: a free one")
    parser.add_argument("--http-port", type=int, default=8000, metavar="PORT", help="0: a free one")
    parser.add_argument("--metrics-port", type=int, default=8002, metavar="PORT", help="0: a free one")


def run(args) -> NoReturn:
    if not args.repository.is_dir():
        raise ValueError(f"{args.repository}: no such folder")
    with Server(args.repository, args.grpc_port, args.http_port, args.metrics_port) as server:
        print(f"ready: gRPC {server.url}; what it says: {server.folder}/log; Ctrl-C ends it", flush=True)
        print(f"try: python -m qwen3_codec.serving.client --codes FILE.npy --url {server.url}", flush=True)
        _keep_running(server)


def _keep_running(server: Server) -> NoReturn:
    """Start it again when it crashes; RuntimeError when it does so too often."""
    crashes: list[float] = []
    while True:
        while not (why := server.crashed()):
            time.sleep(LOOKS_EVERY)
        crashes = [when for when in crashes if time.monotonic() - when < RESTARTS_WITHIN] + [time.monotonic()]
        if len(crashes) > RESTARTS:
            raise RuntimeError(f"crashed {len(crashes)} times in {RESTARTS_WITHIN} s ({why}): it is not started again")
        print(f"crashed: {why}; all streams are lost, it starts again ({len(crashes)} of {RESTARTS})", flush=True)
        server.restart()
        print(f"ready: gRPC {server.url}; what the crashed one said: {server.folder}/log_of_crash", flush=True)


if __name__ == "__main__":
    sys.exit(run_module(sys.modules[__name__], "qwen3_codec.serving.server"))
