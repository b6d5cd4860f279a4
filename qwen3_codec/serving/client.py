"""A stream on a server: codes in, samples out as they come. Needs numpy and `tritonclient`, no graph.

with RemoteStream("127.0.0.1:8001") as stream:
    for codes in chunks:                 # int64 [N, Q], any N of at least 1
        play(stream.push(codes)[0])      # float32 [1, samples]

`AsyncRemoteStream` is the same with `async with` and `await`. Both keep one gRPC stream open, so that a chunk costs no
new connection. On the command line, each row of the codes is a stream of its own, all at once:

python -m qwen3_codec.serving.client --codes codes.npy --url 127.0.0.1:8001 --output speech.wav
"""

import asyncio
import queue
import secrets
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..audio import row_paths, write_waveforms
from ..codes import CodesError, read_rows
from ..console import alone, importing, progress
from ..metrics import chunks, parse_schedule
from . import MODEL

with importing(__name__):
    try:
        import grpc
        import tritonclient.grpc as triton
        import tritonclient.grpc.aio as triton_aio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "a client of a Triton server needs the extra [serve]: pip install 'tritonclient[grpc]'", name="tritonclient"
        ) from error

URL = "127.0.0.1:8001"
TIMEOUT = 60.0  # seconds
ASKS_AFTER = 1.0  # seconds without an answer, after which a server is asked whether it is still there

ABOUT = "decode codes on a Triton server, chunk by chunk, each row as a stream of its own"
EXAMPLE = "--codes codes.npy --url 127.0.0.1:8001 --output speech.wav"


class ServerError(RuntimeError):
    """What a server answered in place of samples, or that it did not answer. The stream may go on after the former."""


@dataclass(frozen=True)
class Dimensions:
    """What a server's model says of itself in its configuration."""

    sample_rate: int
    samples_per_frame: int
    num_quantizers: int
    codebook_size: int


def dimensions(url: str = URL, model: str = MODEL) -> Dimensions:
    """Ask a server for its model's dimensions; ServerError where it is not there, or has no such model."""
    try:
        with triton.InferenceServerClient(url) as client:
            found = client.get_model_config(model, client_timeout=TIMEOUT).config.parameters
        return Dimensions(**{name: int(found[name].string_value) for name in Dimensions.__annotations__})
    except triton.InferenceServerException as error:
        raise ServerError(f"{url}: {error.message()}") from error
    except ValueError as error:
        raise ServerError(
            f"{url}: its model {model} says nothing of sample_rate, ...: not one of this project"
        ) from error


class _Remote:
    """What both kinds of stream know: who they are, and how a request and an answer look."""

    def __init__(self, url: str = URL, model: str = MODEL, timeout: float = TIMEOUT):
        self.url, self.model, self.timeout = url, model, timeout
        self.sequence = secrets.randbits(63) | 1  # 0 would be no sequence at all
        self.started = self.finished = False
        self._quantizers = 1

    def _request(self, codes, last: bool) -> dict:
        codes = np.asarray(codes)
        rows = codes[None] if codes.ndim == 2 else codes
        if rows.dtype.kind not in "iu" or rows.ndim != 3 or len(rows) != 1:
            raise CodesError(f"codes are {codes.dtype} {list(codes.shape)}, must be integers [N, Q] or [1, N, Q]")
        if self.finished:
            raise RuntimeError("the stream is finished")
        codes = rows.astype(np.int64)
        tensor = triton.InferInput("audio_codes", list(codes.shape), "INT64")
        tensor.set_data_from_numpy(codes)
        flags = {"sequence_id": self.sequence, "sequence_start": not self.started, "sequence_end": last}
        self.started, self.finished, self._quantizers = True, last, codes.shape[2]
        return {"model_name": self.model, "inputs": [tensor], **flags}

    def _samples(self, answer, error) -> np.ndarray:
        if error is not None:
            raise ServerError(f"{self.url}: {error.message()}")
        return answer.as_numpy("waveform")

    def _late(self) -> ServerError:
        return ServerError(f"{self.url}: no answer within {self.timeout:g} s")

    @property
    def _end(self) -> np.ndarray | None:
        """What ends a stream that is open: no codes, marked as the last."""
        return np.zeros((1, 0, self._quantizers), np.int64) if self.started and not self.finished else None


class RemoteStream(_Remote):
    """One stream on the server at `url`, used as a `CodecStream` is: `push`, `finish`.

    Left as a context, it is ended on the server, which then frees its state. `timeout` is how long to wait for one
    answer, in seconds.
    """

    def __enter__(self):
        self._answers = queue.Queue()
        self._client = triton.InferenceServerClient(self.url)
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))
        return self

    def __exit__(self, *_):
        try:
            self.finish()
        except ServerError:
            pass  # nobody is there to be told; the server ends the sequence by itself
        finally:
            self._client.stop_stream(cancel_requests=True)
            self._client.close()

    def push(self, codes, last: bool = False) -> np.ndarray:
        """Decode codes [N, Q] or [1, N, Q]; returns float32 [1, N * samples_per_frame].

        `last` ends the stream on the server. Raises ServerError with the server's words; the stream goes on.
        """
        request = self._request(codes, last)
        try:
            self._client.async_stream_infer(**request)
            return self._samples(*self._answer())
        except triton.InferenceServerException as error:  # the connection is gone
            raise ServerError(f"{self.url}: {error.message()}") from error

    def _answer(self):
        deadline = time.monotonic() + self.timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self._answers.get(timeout=min(left, ASKS_AFTER))
            except queue.Empty:
                # A server that ends in good order closes the stream without a word to the callback.
                self._client.is_server_live(client_timeout=ASKS_AFTER)
        raise self._late()

    def finish(self) -> np.ndarray:
        """End the stream on the server, whose state is freed there; returns no samples, float32 [1, 0].

        A model of the ONNX Runtime backend ends it too, but answers with an error (ServerError), as its graph takes no
        chunk without frames: there, say `last` with the last chunk.
        """
        return np.zeros((1, 0), np.float32) if self._end is None else self.push(self._end, last=True)


class AsyncRemoteStream(_Remote):
    """`RemoteStream` for asyncio: `async with`, `await stream.push(codes)`. Many share one `client`."""

    def __init__(
        self,
        url: str = URL,
        model: str = MODEL,
        timeout: float = TIMEOUT,
        client: triton_aio.InferenceServerClient | None = None,
    ):
        super().__init__(url, model, timeout)
        self._given = client

    async def __aenter__(self):
        self._requests = asyncio.Queue()
        self._client = self._given or triton_aio.InferenceServerClient(self.url)
        self._answers = self._client.stream_infer(self._sent())
        return self

    async def _sent(self):
        while (request := await self._requests.get()) is not None:
            yield request

    async def __aexit__(self, *_):
        try:
            await self.finish()
        except ServerError:
            pass
        finally:
            self._requests.put_nowait(None)
            self._answers.cancel()
            if not self._given:
                await self._client.close()

    async def push(self, codes, last: bool = False) -> np.ndarray:
        """As `RemoteStream.push`."""
        self._requests.put_nowait(self._request(codes, last))
        try:
            return self._samples(*await asyncio.wait_for(anext(self._answers), self.timeout))
        except TimeoutError:
            raise self._late() from None
        except StopAsyncIteration:
            raise ServerError(f"{self.url}: the server has closed the connection") from None
        except triton.InferenceServerException as error:
            raise ServerError(f"{self.url}: {error.message()}") from error
        except grpc.RpcError as error:  # of which tritonclient makes its own in some places, and in some not
            raise ServerError(f"{self.url}: {error.details()}") from error

    async def finish(self) -> np.ndarray:
        """As `RemoteStream.finish`."""
        return np.zeros((1, 0), np.float32) if self._end is None else await self.push(self._end, last=True)


def add_options(parser) -> None:
    parser.add_argument(
        "--codes", type=Path, required=True, metavar="FILE", help=".npy, .npz or .json, [N, Q] or [B, N, Q]"
    )
    parser.add_argument("--url", default=URL, help="the server's gRPC address")
    parser.add_argument("--model", default=MODEL, help="the model's name on the server")
    parser.add_argument("--chunks", default="4", metavar="N,N,...", help="chunk lengths in frames; repeats")
    parser.add_argument(
        "--output",
        type=Path,
        metavar="OUT",
        help=".npy, .wav or .flac; of several rows each gets a file, OUT_0.wav, ...",
    )


def run(args) -> int:
    schedule = parse_schedule(args.chunks)
    dims = dimensions(args.url, args.model)
    rows = read_rows(args.codes, dims)
    paths = row_paths(args.output, len(rows)) if args.output else []
    waveforms, waits = asyncio.run(_decode_all(args, rows, schedule))
    if paths:
        write_waveforms(paths, waveforms, dims.sample_rate)
    waits = 1000 * np.array(waits)
    seconds = sum(map(len, rows)) * dims.samples_per_frame / dims.sample_rate
    print(
        f"{len(rows)} streams, {seconds:.2f} s of sound in {len(waits)} chunks; ms until a chunk was there: "
        f"p50 {np.percentile(waits, 50):.1f}, p95 {np.percentile(waits, 95):.1f}, p99 {np.percentile(waits, 99):.1f}"
    )
    for path in paths:
        print(path)
    return 0


async def _decode_all(args, rows: list[np.ndarray], schedule: list[int]) -> tuple[list[np.ndarray], list[float]]:
    """The waveform of each row, and the seconds that each chunk of any took."""
    waits, parts = [], [[*chunks(row[None], schedule)] for row in rows]
    every = iter(progress()([None] * sum(map(len, parts)), unit="chunk"))

    async def decode(parts: list[np.ndarray]) -> np.ndarray:
        samples = []
        async with AsyncRemoteStream(args.url, args.model) as stream:
            for part in parts:
                start = time.perf_counter()
                samples.append(await stream.push(part, last=part is parts[-1]))
                waits.append(time.perf_counter() - start)
                next(every)
        return np.concatenate(samples, axis=1)

    waveforms = await asyncio.gather(*map(decode, parts))
    next(every, None)  # the bar ends
    return waveforms, waits


if __name__ == "__main__":
    sys.exit(alone(sys.modules[__name__], "qwen3_codec.serving.client"))
