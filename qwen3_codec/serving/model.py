"""Triton's `model.py`: a stream for each sequence, and one call of the graph for all that wait with the same chunk.

It runs inside the server, in its Python backend, over `qwen3_codec.runtime`; `python -m qwen3_codec triton` copies it
as it is, beside the graph. The backend's interface: https://github.com/triton-inference-server/python_backend
"""

import ctypes
import json
import threading
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb_utils

from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.codes import check_codes

START, END = 1, 2  # bits of a request's flags (tritonserver.h, TRITONSERVER_RequestFlag)
IDLE_FACTOR = 1.5  # of the server's idle time: a sequence that it still knows must not be missing here


class TritonPythonModel:
    """What the backend calls: `initialize` once, `execute` with the requests that wait, `finalize` at the end.

    `streams` holds one row of state for each live sequence: {id: CodecStream}. A request is `audio_codes` int64
    [1, N, Q]; its answer is `waveform` float32 [1, samples], or an error for it alone, which changes nothing for the
    others. A sequence may end with a request of no frames: its producer often learns afterwards which chunk was last.
    """

    def initialize(self, args):
        """Load the graph that lies beside this file; its session's arguments and idle time come from config.pbtxt."""
        config = json.loads(args["model_config"])
        given = {name: value["string_value"] for name, value in config["parameters"].items()}
        gpu = [{"device_id": args["model_instance_device_id"]}] if args["model_instance_kind"] == "GPU" else None
        where = int(given["threads"]), [given["provider"]], gpu, given["runtime"], given["precision"]
        self.session = CodecSession(Path(args["model_repository"], args["model_version"], "model.onnx"), *where)
        pb_utils.Logger.log_info(self.session.note or f"it runs in {self.session.title}")
        self.idle_seconds = config["sequence_batching"]["max_sequence_idle_microseconds"] / 1e6
        self.streams, self.last_used, self.gauge_value = {}, {}, None
        self.lock, self.ended = threading.Lock(), threading.Event()
        kind = pb_utils.MetricFamily.GAUGE
        self.family = pb_utils.MetricFamily("qwen3_codec_live_streams", "sequences with state", kind)
        self.live = self.family.Metric(labels={"instance": args["model_instance_name"]})
        self.cleaner = threading.Thread(target=self.free_idle, daemon=True)
        self.cleaner.start()

    def execute(self, requests):
        """One answer for each request, in their order."""
        with self.lock:
            answers, waiting = {}, defaultdict(list)
            for index, request in enumerate(requests):
                try:
                    codes = self.accept(request)
                except ValueError as error:
                    answers[index] = error_response(error)
                else:
                    waiting[codes.shape[1]].append((index, request.correlation_id(), codes))
            for together in waiting.values():
                answers |= self.decode(*zip(*together, strict=True))
            for request in requests:
                if request.flags() & END or request.is_cancelled():
                    self.free(request.correlation_id())
            self.update_gauge()
            return [answers[index] for index in range(len(requests))]

    def accept(self, request):
        """The codes of a request that can be decoded, its stream made where it starts one; ValueError says why not."""
        name = request.correlation_id()
        if request.is_cancelled():
            raise ValueError(f"sequence {name} was cancelled")
        if request.flags() & START:  # also where one of this name is alive: the server has ended that one
            self.streams[name] = self.session.stream()
        if name not in self.streams:
            raise ValueError(
                f"sequence {name} has no state here: its start was lost, or it was idle for {self.idle_seconds:g} s; "
                "begin it again with a start"
            )
        self.last_used[name] = time.monotonic()
        codes = array(pb_utils.get_input_tensor_by_name(request, "audio_codes"))
        ends_empty = request.flags() & END and codes.shape[1] == 0
        return codes if ends_empty else check_codes(codes, self.session.spec, batch=1)

    def decode(self, indices, names, codes):
        """{index: answer} for chunks of one length: the rows are joined, decoded in one call, and parted again."""
        if not codes[0].shape[1]:
            return {index: response(np.zeros((1, 0), np.float32)) for index in indices}
        first, *others = (self.streams[name] for name in names)
        joined = first.join(*others) if others else first
        try:
            samples = joined.push(np.concatenate(codes))
        except Exception as error:  # ONNX Runtime's exceptions share no narrower base class; no stream has moved
            return {index: error_response(error) for index in indices}
        for row, name in enumerate(names):
            self.streams[name] = joined.fork([row]) if others else joined
        return {index: response(samples[row : row + 1]) for row, index in enumerate(indices)}

    def free(self, name):
        """Free what a sequence holds."""
        self.streams.pop(name, None)
        self.last_used.pop(name, None)

    def free_idle(self):
        """Free streams without a request for long, as when a client died: the server ends those without a call."""
        wait = IDLE_FACTOR * self.idle_seconds
        while not self.ended.wait(min(wait / 4, 1.0)):
            with self.lock:
                for name in [name for name, used in self.last_used.items() if time.monotonic() - used > wait]:
                    self.free(name)
                self.update_gauge()

    def update_gauge(self):
        """Report how many streams are alive if that has changed: each update goes through the server."""
        if self.gauge_value != len(self.streams):
            self.gauge_value = len(self.streams)
            self.live.set(self.gauge_value)

    def finalize(self):
        """The server unloads the model. The metrics go now: at the interpreter's end the server takes none."""
        self.ended.set()
        self.cleaner.join()
        del self.live, self.family


def error_response(error):
    """An error for one request, with the library's own words."""
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error), pb_utils.TritonError.INVALID_ARG))


def array(tensor):
    """A tensor's values, by DLPack.

    A backend built before NumPy 2 reads NumPy's own structures wrongly under it (as_numpy gives an array whose strides
    are 0, and a Tensor made of one is empty), and says nothing.
    """
    return np.from_dlpack(tensor)


def response(samples):
    """Samples float32 [1, n] as what the server sends."""
    if not samples.size:
        return pb_utils.InferenceResponse([pb_utils.Tensor("waveform", samples)])
    capsule = samples.__dlpack__()
    tensor = pb_utils.Tensor.from_dlpack("waveform", capsule)
    # By DLPack's rules the consumer of a capsule renames it so. The backend has a name of its own for it, at which
    # NumPy complains, in the log, once for each answer.
    ctypes.pythonapi.PyCapsule_SetName(ctypes.py_object(capsule), b"used_dltensor")
    return pb_utils.InferenceResponse([tensor])
