"""A stream on a Triton server: codes in, samples out as they come. Needs numpy and `tritonclient`, no graph.

with RemoteStream("127.0.0.1:8001") as stream:
    for codes in chunks:                 # int64 [N, Q], any N of at least 1
        play(stream.push(codes)[0])      # float32 [1, samples]

`AsyncRemoteStream` is the same with `async with` and `await`. Both keep one gRPC stream open, so that a chunk costs no
new connection.
"""

import asyncio
import queue
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from . import MODEL
from .remote import TIMEOUT, Dimensions, ServerError, one_row

try:
    import grpc
    import tritonclient.grpc as triton
    import tritonclient.grpc.aio as triton_aio
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "a client of a Triton server needs the extra [serve]: pip install 'tritonclient[grpc]'", name="tritonclient"
    ) from error

URL = "127.0.0.1:8001"
_NO_SAMPLES = np.zeros((1, 0), np.float32)
DIED = "is not healthy"  # what Triton's Python backend says of a model whose process crashed, and its states with it
ASKS_AFTER = 1.0  # seconds without an answer, after which a server is asked whether it is still there


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
    """What both kinds of stream share: their sequence, how a request and an answer look, and one exchange at a time."""

    def __init__(self, url: str = URL, model: str = MODEL, timeout: float = TIMEOUT):
        self.url, self.model, self.timeout = url, model, timeout
        self.sequence = secrets.randbits(63) | 1  # 0 would be no sequence at all
        self.started = self.finished = False
        self._over = ""  # why the stream ended before its end
        self._quantizers = self._asked = 0
        self._busy = threading.Lock()

    @contextmanager
    def _exchange(self, codes, last: bool) -> Iterator[dict | None]:
        """One request until its answer is there; None where there is nothing to end.

        What is left without an answer ends the stream: its answer could still come, and nobody knows whether the
        server's state has moved. So the connection is cut, by which the server frees that state.
        """
        if not self._busy.acquire(blocking=False):
            raise RuntimeError("another push of this stream waits for its answer; one at a time")
        try:
            request = self._request(codes, last)
            try:
                yield request
            except BaseException as error:
                lost = isinstance(error, ServerError)
                self._over = str(error) if lost else f"{self.url}: interrupted ({type(error).__name__})"
                self._hang_up()
                if lost:
                    raise ServerError(f"{error}; this stream is over, begin a new one") from error.__cause__
                raise
        finally:
            self._busy.release()

    def _request(self, codes, last: bool) -> dict | None:
        if self._over:
            raise ServerError(f"this stream is over, begin a new one; what became of an earlier push: {self._over}")
        if codes is None:  # what ends a stream: no codes, marked as the last
            if not self.started or self.finished:
                self.finished = True
                return None
            codes = np.zeros((1, 0, self._quantizers), np.int64)
        codes = one_row(codes)
        if self.finished:
            raise RuntimeError("the stream is finished")
        tensor = triton.InferInput("audio_codes", list(codes.shape), "INT64")
        tensor.set_data_from_numpy(codes)
        flags = {"sequence_id": self.sequence, "sequence_start": not self.started, "sequence_end": last}
        self.started, self.finished, self._quantizers = True, last, codes.shape[2]
        self._asked += 1
        return {"model_name": self.model, "inputs": [tensor], "request_id": str(self._asked), **flags}

    def _checked(self, request: dict, answer, error):
        """(answer, error) of this very request; ServerError for another's, and where the stream's state is lost."""
        if error is not None and error.status():  # gRPC's own; what the server says has no status
            raise self._gone(error.message())
        if error is not None and DIED in error.message():
            raise self._refusal(error)
        if answer is not None and (found := answer.get_response().id) != request["request_id"]:
            raise ServerError(f"{self.url}: request {request['request_id']} got the answer to request {found}")
        return answer, error

    def _samples(self, answer, error) -> np.ndarray:
        if error is not None:
            raise self._refusal(error)
        return answer.as_numpy("waveform")

    def _refusal(self, error) -> ServerError:
        return ServerError(f"{self.url}: {error.message().rstrip('.')}")

    def _late(self) -> ServerError:
        return ServerError(f"{self.url}: no answer within {self.timeout:g} s")

    def _gone(self, why: str) -> ServerError:
        return ServerError(f"{self.url}: no connection to the server: {why}")


class RemoteStream(_Remote):
    """One stream on the server at `url`, used as a `CodecStream` is: `push`, `finish`.

    Left as a context, it is ended on the server, which then frees its state. `timeout` is how long to wait for one
    answer, in seconds; after a push that got none the stream is over. One thread at a time may use it; a second one
    gets a RuntimeError, and the stream goes on for the first.
    """

    def __enter__(self):
        self._answers = queue.Queue()
        self._client = triton.InferenceServerClient(self.url)
        self._client.start_stream(lambda result, error: self._answers.put((result, error)))
        return self

    def __exit__(self, *_):
        answered = False
        try:
            self.finish()
            answered = self.started
        except RuntimeError:
            pass  # the server cannot be asked; it ends the sequence by itself
        finally:
            if not answered:
                self._hang_up()
            # A server that answers ends the stream at once, and gRPC's sending thread with it, which cutting it leaves.
            self._client.close()

    def _hang_up(self) -> None:
        self._client.stop_stream(cancel_requests=True)

    def push(self, codes, last: bool = False) -> np.ndarray:
        """Decode codes [N, Q] or [1, N, Q]; returns float32 [1, N * samples_per_frame].

        `last` ends the stream on the server. Raises ServerError with the server's words, after which the stream goes
        on; and where no answer came, after which it is over, as it is after anything that interrupts a push: each later
        call raises ServerError and says so.
        """
        return self._ask(codes, last)

    def _ask(self, codes, last: bool) -> np.ndarray:
        with self._exchange(codes, last) as request:
            if request is None:
                return _NO_SAMPLES
            try:
                if self._answers.empty():  # what is there already says why the connection ended since the last push
                    self._client.async_stream_infer(**request)
                answer = self._checked(request, *self._answer())
            except triton.InferenceServerException as error:
                raise self._gone(error.message()) from error
        return self._samples(*answer)

    def _answer(self):
        deadline = time.monotonic() + self.timeout
        while (left := deadline - time.monotonic()) > 0:
            try:
                return self._answers.get(timeout=min(left, ASKS_AFTER))
            except queue.Empty:
                # A server that ends in good order closes the stream without a word to the callback.
                self._check_live(min(left, ASKS_AFTER))
        raise self._late()

    def _check_live(self, patience: float) -> None:
        try:
            self._client.is_server_live(client_timeout=patience)
        except triton.InferenceServerException as error:
            if error.status() != str(grpc.StatusCode.DEADLINE_EXCEEDED):  # busy is not gone
                raise

    def finish(self) -> np.ndarray:
        """End the stream on the server, whose state is freed there; returns no samples, float32 [1, 0].

        A model of the ONNX Runtime backend ends it too, but answers with an error (ServerError), as its graph takes no
        chunk without frames: there, say `last` with the last chunk.
        """
        return self._ask(None, last=True)


class AsyncRemoteStream(_Remote):
    """`RemoteStream` for asyncio: `async with`, `await stream.push(codes)`. Many share one `client`.

    A second push that begins before the first has its answer gets a RuntimeError; after a push that was cancelled, as
    by `asyncio.wait_for`, the stream is over. The other streams of a shared client go on.
    """

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
        except RuntimeError:
            pass
        finally:
            self._hang_up()
            if not self._given:
                await self._client.close()

    def _hang_up(self) -> None:
        self._requests.put_nowait(None)
        self._answers.cancel()

    async def push(self, codes, last: bool = False) -> np.ndarray:
        """As `RemoteStream.push`."""
        return await self._ask(codes, last)

    async def _ask(self, codes, last: bool) -> np.ndarray:
        with self._exchange(codes, last) as request:
            if request is None:
                return _NO_SAMPLES
            self._requests.put_nowait(request)
            answer = self._checked(request, *await self._answer())
        return self._samples(*answer)

    async def _answer(self):
        try:
            async with asyncio.timeout(self.timeout):
                return await anext(self._answers)
        except TimeoutError:
            raise self._late() from None
        except StopAsyncIteration:
            raise self._gone("it has closed it") from None
        except triton.InferenceServerException as error:
            raise self._gone(error.message()) from error
        except grpc.RpcError as error:  # of which tritonclient makes its own in some places, and in some not
            raise self._gone(error.details()) from error
        except asyncio.CancelledError:
            if asyncio.current_task().cancelling():
                raise
            raise self._gone("it was closed on this side") from None  # gRPC cancels what waits on a closed client

    async def finish(self) -> np.ndarray:
        """As `RemoteStream.finish`."""
        return await self._ask(None, last=True)
