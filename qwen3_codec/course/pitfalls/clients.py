"""Traps seen in other people's exports, around the graph: what a server does with streams, and what a test measures."""

from collections.abc import Callable
from functools import cache

import numpy as np

from ...model.checkpoint import example_codes
from ...model.one_shot import one_shot
from ...model.receptive_field import conv_receptive_field
from ...runtime import CodecStream
from ...runtime.metrics import MAX_ERROR, max_error, mse, per_chunk, snr_db
from ...streaming.exact import ExactStreamingWrapper
from ...streaming.session import TorchSession
from ...streaming.windowed import StatefulCodecONNXWrapper
from ...verification.report import MAX_MSE
from .precision import demo, heard
from .state import SaturatingPositions, dropped, stream_with_changes
from .trap import Outcome, Trap, caught_by

NOTICED, MISSED = 0.0, float("inf")


@cache
def exact() -> TorchSession:
    return TorchSession(ExactStreamingWrapper(demo().decoder))


@cache
def windowed() -> TorchSession:
    """With enough left context to be exact, and 4 frames of look-ahead."""
    return TorchSession(StatefulCodecONNXWrapper(demo().decoder, conv_receptive_field(demo().decoder), 4))


def reset_all(streams: CodecStream, row: int) -> CodecStream:
    """One of the streams that share a runner begins anew."""
    streams.reset()  # trap
    return streams


def reset_one(streams: CodecStream, row: int) -> CodecStream:
    """One of the streams that share a runner begins anew."""
    fresh = streams.session.stream()
    first, *others = (fresh if index == row else streams.fork([index]) for index in range(streams.batch))
    return first.join(*others)


@caught_by("a row that stays, against itself alone, while its neighbour resets")
def a_neighbour_resets(reset: Callable) -> Outcome:
    """Two streams in one runner: after 12 frames the second begins anew. The first is compared with one shot."""
    codes, decoder = example_codes(demo(), 24), demo().decoder
    streams = exact().stream(batch=2)
    pairs = np.concatenate([codes, codes])
    streams.push(pairs[:, :12])
    samples = reset(streams, 1).push(pairs[:, 12:])
    return heard(one_shot(decoder, codes)[:, 12 * decoder.samples_per_frame :], samples[:1])


def codes_above_zero(codes: np.ndarray) -> int:
    """Frames of a row that is filled up with code 0."""
    return int((codes[:, 0] > 0).sum())  # trap


def codes_that_are_not_minus_one(codes: np.ndarray) -> int:
    """Frames of a row that is filled up with -1."""
    return int((codes[:, 0] != -1).sum())


@caught_by("count the frames of a padded row")
def a_padded_batch(count: Callable) -> Outcome:
    """The demo's codes, filled up by 10 frames: how many frames does the server find?"""
    row = example_codes(demo(), 422)[0]
    filler = -1 if count is codes_that_are_not_minus_one else 0
    found = count(np.concatenate([row, np.full((10, row.shape[1]), filler)]))
    legal = int((row[:, 0] == 0).sum())
    text = f"{found} frames found of {len(row)}; {legal} of them begin with the code 0"
    if found == len(row):
        return Outcome(NOTICED, text)
    return Outcome(MISSED, text, f"frame {np.flatnonzero(row[:, 0] == 0)[0]}, the first that begins with the code 0")


def zeros_of_full_length(stream: CodecStream) -> dict[str, np.ndarray]:
    lengths = stream.session.spec.limits | {"batch": 1}
    return {
        before.name: np.zeros(before.with_lengths(lengths), np.float32) for before, _ in stream.session.spec.states
    }  # trap


def empty_where_nothing_was(stream: CodecStream) -> dict[str, np.ndarray]:
    return stream.session.spec.zero_state(batch=1)


@caught_by("count the samples of a stream; parity with the full-sequence decode")
def a_windowed_start(state: Callable) -> Outcome:
    """The demo's windowed graph from a state of zeros: frames too many, and the first 24 after them."""
    codes, decoder = example_codes(demo(), 30), demo().decoder
    stream = windowed().stream()
    stream.state = state(stream)
    samples, wanted = stream.run(codes, [3]), one_shot(decoder, codes)
    over = samples.shape[1] - wanted.shape[1]
    outcome = heard(wanted, samples[:, over:])
    text = f"{over // decoder.samples_per_frame} frames too many; after them {outcome.text}"
    return Outcome(outcome.error, text, outcome.first and "the first call")


def cut_in_proportion(samples: np.ndarray, context: int, frames: int, rate: int) -> np.ndarray:
    """The new frames' samples, of a chunk that was decoded with `context` frames before it."""
    return samples[:, int(samples.shape[1] * context / (context + frames)) :]  # trap


def cut_by_frames(samples: np.ndarray, context: int, frames: int, rate: int) -> np.ndarray:
    """The new frames' samples, of a chunk that was decoded with `context` frames before it."""
    return samples[:, context * rate :]


@caught_by("count the samples of a chunk with context; parity from its first sample on")
def a_chunk_with_context(cut: Callable, context: int = 25, frames: int = 12, short: int = 555) -> Outcome:
    """The demo, from a decoder that gives `short` samples too few at the end: where do the new frames begin?"""
    decoder = demo().decoder
    rate = decoder.samples_per_frame
    samples = one_shot(decoder, example_codes(demo(), context + frames))[:, :-short]
    found, wanted = cut(samples, context, frames, rate), samples[:, context * rate :]
    early = found.shape[1] - wanted.shape[1]
    outcome = heard(wanted, found[:, : wanted.shape[1]])
    return Outcome(
        outcome.error, f"begins {early} samples early; {outcome.text}", (early and "the first chunk with context") or ""
    )


def a_sentence() -> int:
    """Frames of the stream that the test decodes."""
    return 60  # trap


def past_the_window() -> int:
    """Frames of the stream that the test decodes."""
    return demo().decoder.config.sliding_window + 38


@caught_by("give the test a step that is known to be wrong: a negative control")
def a_wrong_wrapper_is_tested(length: Callable) -> Outcome:
    """Positions that saturate, in the demo's windowed wrapper: does a test of this length notice?"""
    decoder, frames = demo().decoder, length()
    codes = example_codes(demo(), frames)
    wrong = TorchSession(SaturatingPositions(decoder, conv_receptive_field(decoder), 0)).stream()
    error = mse(one_shot(decoder, codes), stream_with_changes(wrong, codes, 3))
    text = f"{frames} frames: MSE {error:.1e}, the limit is {MAX_MSE:.0e}"
    return Outcome(NOTICED, text) if error > MAX_MSE else Outcome(MISSED, text, f"not within {frames} frames")


def average(reference: np.ndarray, found: np.ndarray, samples: list[int]) -> tuple[bool, str]:
    """Is the stream good? By the whole's SNR."""
    snr = snr_db(reference, found)
    return snr > 20, f"SNR {snr:.1f} dB"  # trap


def worst_chunk(reference: np.ndarray, found: np.ndarray, samples: list[int]) -> tuple[bool, str]:
    """Is the stream good? By the worst chunk's SNR, and the largest error of any border."""
    worst = min(per_chunk(snr_db, reference, found, samples))
    edges = np.cumsum(samples)[:-1]
    border = max(max_error(reference[:, edge : edge + 200], found[:, edge : edge + 200]) for edge in edges)
    return worst > 20, f"worst chunk {worst:.1f} dB, largest error at a border {border:.2f}"


@caught_by("give the metric a stream with one bad chunk: a negative control")
def a_stream_with_one_seam(good: Callable) -> Outcome:
    """The demo's passage of 34 s in chunks of 6; the first convolution's state is lost once. Does the metric notice?"""
    codes, decoder = example_codes(demo(), 422), demo().decoder
    stream, pieces = exact().stream(), []
    for index, piece in enumerate(stream.pushes(codes, [6])):
        pieces.append(piece)
        if index == 35:
            stream.state = dropped("conv_00")(stream.state)
    passed, text = good(one_shot(decoder, codes), np.concatenate(pieces, axis=1), [piece.shape[1] for piece in pieces])
    found = f"{text}: {'passed' if passed else 'noticed'}"
    return Outcome(MISSED, found, f"chunk 37 of {len(pieces)}, by ear") if passed else Outcome(NOTICED, found)


def cold(stream: CodecStream, reference: np.ndarray) -> CodecStream:
    """The stream in which a clone of the reference's voice is to speak."""
    return stream  # trap


def primed(stream: CodecStream, reference: np.ndarray) -> CodecStream:
    """The stream in which a clone of the reference's voice is to speak."""
    stream.prime(reference)
    return stream


@caught_by("parity with the reference and the new codes decoded in one piece")
def a_clone_speaks(start: Callable) -> Outcome:
    """The demo's passage: its first 60 frames are the reference, the next 24 are spoken."""
    codes, decoder = example_codes(demo(), 84), demo().decoder
    samples = start(windowed().stream(), codes[:, :60]).push(codes[:, 60:], last=True)
    return heard(one_shot(decoder, codes)[:, 60 * decoder.samples_per_frame :], samples)


def pairs_by_sorted_name(spec) -> dict[str, str]:
    """{state input: state output}, as a server finds them that has nothing but the names."""
    befores, afters = ([pair[side].name for pair in spec.states] for side in (0, 1))
    return dict(zip(sorted(befores), sorted(afters), strict=True))  # trap


def pairs_as_declared(spec) -> dict[str, str]:
    """{state input: state output}, as the file's own metadata has them."""
    return {before.name: after.name for before, after in spec.states}


@caught_by("compare the pairs with those that the file declares")
def names_of_both_designs(pairs: Callable) -> Outcome:
    """The demo's two graphs: how many states get another one's values?"""
    counts = {}
    for design, session in (("windowed", windowed()), ("exact", exact())):
        right = pairs_as_declared(session.spec)
        counts[design] = sum(right[name] != out for name, out in pairs(session.spec).items()), len(right)
    text = "; ".join(f"{design}: {wrong} of {total} pairs are wrong" for design, (wrong, total) in counts.items())
    wrong_pairs = sum(wrong for wrong, _ in counts.values())
    return Outcome(float(wrong_pairs), text, "the second call" if wrong_pairs else "")


def each_chunk_alone(chunks: list[np.ndarray], rate: int, to: int) -> list[np.ndarray]:
    """Chunks of samples at another rate."""
    import soxr

    return [soxr.resample(chunk, rate, to) for chunk in chunks]  # trap


def one_resampler(chunks: list[np.ndarray], rate: int, to: int) -> list[np.ndarray]:
    """Chunks of samples at another rate."""
    import soxr

    stream = soxr.ResampleStream(rate, to, num_channels=1, dtype="float32")
    last = len(chunks) - 1
    return [stream.resample_chunk(chunk, last=index == last) for index, chunk in enumerate(chunks)]


@caught_by("the resampled stream against the whole, resampled: look at the chunk borders")
def a_stream_at_another_rate(resample: Callable, to: int = 48000, chunk: int = 3) -> Outcome:
    """The demo's stream in chunks of 3 frames, brought to a sound card's rate: against the whole, brought there."""
    codes, rate = example_codes(demo(), 48), demo().sample_rate
    chunks = [samples[0] for samples in exact().stream().pushes(codes, [chunk])]
    (wanted,) = one_resampler([np.concatenate(chunks)], rate, to)
    outcome = heard(wanted[None], np.concatenate(resample(chunks, rate, to))[None])
    return Outcome(outcome.error, outcome.text, outcome.first and "the first chunk border")


TRAPS = (
    Trap(
        name="one stream's reset in a shared runner",
        naive=reset_all,
        fix=reset_one,
        demonstrate=a_neighbour_resets,
        symptoms=("neighbour",),
        why="Rows that share a call share the arrays, not the fate. Replace the row that begins anew, and leave the "
        "others what they have.",
        within=MAX_ERROR,
    ),
    Trap(
        name="padding by code 0",
        naive=codes_above_zero,
        fix=codes_that_are_not_minus_one,
        demonstrate=a_padded_batch,
        symptoms=("end", "length"),
        why="0 is a code like any other: a frame that begins with it is lost from the count, and the audio's end with "
        "it. Fill up with -1, which no codebook has, or send the lengths along.",
        within=NOTICED,
        sources=("vllm-project/vllm-omni#1289",),
    ),
    Trap(
        name="zeros where a state should be empty",
        naive=zeros_of_full_length,
        fix=empty_where_nothing_was,
        demonstrate=a_windowed_start,
        symptoms=("start", "length"),
        why="In the windowed graph a state's *length* says how much has been. Zeros of full length are frames that "
        "were never there, and attention sees them. Where a client cannot make empty tensors, use the exact graph: its "
        "states have one shape, and `past_frames` says how much of it is real.",
        within=MAX_ERROR,
    ),
    Trap(
        name="samples trimmed in proportion",
        naive=cut_in_proportion,
        fix=cut_by_frames,
        demonstrate=a_chunk_with_context,
        symptoms=("borders", "length"),
        why="The share of the frames is the share of the samples while each frame gives the same number. A decoder "
        "that gives 555 too few makes the cut drift, and each border repeats a piece. Count frames.",
        within=0.0,
        sources=("vllm-project/vllm-omni#2480",),
    ),
    Trap(
        name="a test no longer than the window",
        naive=a_sentence,
        fix=past_the_window,
        demonstrate=a_wrong_wrapper_is_tested,
        symptoms=("passes", "window"),
        why="Whatever depends on the window is right until the window is full. The demo's has 72 frames, 5.8 s: longer "
        "than most test sentences. Test past it.",
        within=NOTICED,
    ),
    Trap(
        name="an average that hides one bad chunk",
        naive=average,
        fix=worst_chunk,
        demonstrate=a_stream_with_one_seam,
        symptoms=("passes", "borders"),
        why="One bad chunk in seventy is little in the mean, and much to the ear. Look at the worst chunk, and at "
        "the samples after each border.",
        within=NOTICED,
    ),
    Trap(
        name="a cloned voice without its reference in the state",
        naive=cold,
        fix=primed,
        demonstrate=a_clone_speaks,
        symptoms=("voice", "start"),
        why="The language model wrote the new codes after the reference's. The decoder must come from there too: push "
        "the reference first and throw its audio away. `prime` does that, also if frames are buffered.",
        within=MAX_ERROR,
        sources=("vllm-project/vllm-omni#1731", "andimarafioti/faster-qwen3-tts#23", "Blaizzy/mlx-audio#946"),
    ),
    Trap(
        name="states paired by sorted name",
        naive=pairs_by_sorted_name,
        fix=pairs_as_declared,
        demonstrate=names_of_both_designs,
        symptoms=("borders", "memory"),
        why="Triton, for one, pairs a sequence's states so. The windowed design's names are those that its users know, "
        "and they sort differently in and out. The exact design's are `NAME` and `next_NAME`, digits of one width.",
        within=0.0,
        sources=("triton-inference-server/server#8586",),
    ),
    Trap(
        name="each chunk resampled on its own",
        naive=each_chunk_alone,
        fix=one_resampler,
        demonstrate=a_stream_at_another_rate,
        symptoms=("borders",),
        why="A resampler is a filter, and a filter looks at neighbours. A chunk alone has zeros for neighbours, so "
        "each border clicks, although every length is right. One resampler for the stream keeps its state; `last` "
        "gives out what it still holds. `decode --resample` does so, and `compare` recognises the clicks.",
        within=0.0,
    ),
)
