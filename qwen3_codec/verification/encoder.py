"""Does the encoder's stream agree? One shot, wrapper in PyTorch and graph in ONNX Runtime, by frame and by codebook.

Codes are choices, not sizes: where two entries of a codebook are equally near, rounding may choose either, and all
later codes of that frame follow. So agreement is counted, and each frame that differs must be such a near tie.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from ..model.checkpoint import Checkpoint
from ..model.code_gap import code_gap
from ..runtime import CodecSession
from ..runtime.audio import check_audio
from ..runtime.metrics import MAX_ERROR, scaled_error
from ..runtime.progress import Progress, no_progress
from ..runtime.stream import stream_of
from ..spec import ENCODER
from ..streaming.encoder import StreamEncoderWrapper
from ..streaming.session import TorchSession
from .report import NOTHING_COMPARED, SCHEDULES, Verdict, by_path

# Share of codes that must be equal, over all frames and codebooks.
MIN_AGREEMENT = 0.999
# How much farther the found entry may be than the nearest, of its squared distance: float32 rounding over some thirty
# layers moves a latent by 1e-6 of its size, and a distance by as much.
MAX_GAP = 1e-4
# What is quantised, over its largest value where that is above 1, as for states elsewhere.
MAX_LATENT_ERROR = MAX_ERROR


@dataclass(frozen=True)
class CodeResult:
    """One way to encode (`path`), over one schedule, against one shot: equal codes by codebook, and the largest gap."""

    path: str
    schedule: list[int]
    frames: int
    differing_frames: int
    first_differing_frame: int | None
    agreement: float
    by_codebook: list[float]
    largest_gap: float


@dataclass(kw_only=True)
class CodeReport(Verdict):
    """What `verify_encoder` measured."""

    latent_error: float

    def to_json(self) -> str:
        entries = {name: getattr(self, name) for name in ("past_window", "passed", "verdict")}
        return json.dumps(asdict(self) | entries, indent=2)

    def __str__(self) -> str:
        lines = [
            f"weights: {self.weights}; encoder; {self.frames} frames",
            f"what is quantised, streamed and one shot: {self.latent_error:.1e} apart (limit {MAX_LATENT_ERROR:.0e})",
            f"  {'path':16} {'chunks':>12} {'equal codes':>12} {'codebook 0':>11} {'frames off':>11} {'gap':>8}",
        ]
        for r in self.results:
            chunks = ",".join(map(str, r.schedule))
            lines.append(
                f"  {r.path:16} {chunks:>12} {100 * r.agreement:11.2f}% {100 * r.by_codebook[0]:10.2f}% "
                f"{r.differing_frames:11} {r.largest_gap:8.1e}"
            )
        return "\n".join([*lines, *self.last_lines()])


def verify_encoder(
    checkpoint: Checkpoint,
    wrapper: StreamEncoderWrapper,
    audio: np.ndarray,
    schedules: Sequence[Sequence[int]] = SCHEDULES,
    session: CodecSession | None = None,
    progress: Progress = no_progress,
) -> CodeReport:
    """Stream `audio` ([M] or [B, M] in [-1, 1]) through `wrapper`, and through `session` where given, by each schedule.

    One shot is the checkpoint's own encoder. Chunk lengths are in frames. Raises ValueError for audio that cannot be
    encoded, CheckpointError where the encoder's config is no longer the checkpoint's.
    """
    checkpoint.check_unchanged(ENCODER)
    encoder = checkpoint.encoder
    rows = check_audio(np.atleast_2d(audio), len(np.atleast_2d(audio)))
    with torch.no_grad():
        latents = encoder.latents(torch.from_numpy(rows))
        wanted = encoder.codes(latents)
    report = CodeReport(
        weights=checkpoint.weights,
        frames=wanted.shape[1],
        frames_to_fill=wrapper.spec.frames_to_fill,
        latent_error=_latent_error(wrapper, rows, latents),
    )
    if not report.latent_error <= MAX_LATENT_ERROR:
        report.failures.append(f"what is quantised differs by {report.latent_error:.1e} from one shot")
    if not schedules:
        report.failures.append(NOTHING_COMPARED)
    sessions = by_path(TorchSession(wrapper), session)
    for schedule in progress([list(schedule) for schedule in schedules], unit="schedule"):
        for path, each in sessions.items():
            found = stream_of(each, len(rows)).run(rows, schedule)
            if found.shape != tuple(wanted.shape):
                report.failures.append(
                    f"{path}, chunks {schedule}: {found.shape[1]} frames, one shot {wanted.shape[1]}"
                )
                continue
            gap = code_gap(encoder, latents, wanted, torch.from_numpy(found))
            report.results.append(result := _result(path, schedule, wanted.numpy(), found, gap))
            if result.agreement < MIN_AGREEMENT or not gap <= MAX_GAP:
                report.failures.append(
                    f"{path}, chunks {schedule}: {100 * result.agreement:.2f} % of the codes are equal (limit "
                    f"{100 * MIN_AGREEMENT:.1f}), the first that is not stands in frame "
                    f"{result.first_differing_frame}, one is {gap:.1e} farther than the nearest (limit {MAX_GAP:.0e})"
                )
    return report


def _result(path: str, schedule: list[int], wanted: np.ndarray, found: np.ndarray, gap: float) -> CodeResult:
    equal = wanted == found
    return CodeResult(
        path=path,
        schedule=schedule,
        frames=equal.shape[0] * equal.shape[1],
        differing_frames=int((~equal.all(axis=-1)).sum()),
        first_differing_frame=None if equal.all() else int((~equal.all(axis=(0, 2))).argmax()),
        agreement=float(equal.mean()),
        by_codebook=equal.mean(axis=(0, 1)).tolist(),
        largest_gap=gap,
    )


def _latent_error(wrapper: StreamEncoderWrapper, audio: np.ndarray, wanted: torch.Tensor, frames: int = 3) -> float:
    """Largest error of what is quantised, streamed by `frames`; over its largest value where that is above 1."""
    state = [torch.from_numpy(array) for array in wrapper.spec.zero_state(len(audio)).values()]
    pieces = []
    with torch.no_grad():
        for part in torch.from_numpy(audio).split(frames * wrapper.spec.samples_per_frame, dim=1):
            piece, *state = wrapper.latents(part, *state)
            pieces.append(piece)
    return scaled_error(wanted.numpy(), torch.cat(pieces, dim=2).numpy())
