"""Codes as users have them: files of several kinds, rows of unequal length, and errors that name the place."""

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import random_codes
from hypothesis import given, settings
from hypothesis import strategies as st

from qwen3_codec.exporting.export import export
from qwen3_codec.model.one_shot import one_shot
from qwen3_codec.model.receptive_field import conv_receptive_field
from qwen3_codec.runtime import CodecSession
from qwen3_codec.runtime.codes import CodesError, check_codes, check_rows, padded, read_codes, read_rows, write_rows
from qwen3_codec.runtime.metrics import MAX_ERROR
from qwen3_codec.streaming.windowed import StatefulCodecONNXWrapper

# Another order of additions in a batch of another size; a wrong sample is above 1e-4.


@pytest.fixture(scope="module")
def exact(tiny_exact):
    return CodecSession(tiny_exact, threads=1)


@pytest.fixture(scope="module")
def windowed(tiny, tmp_path_factory):
    """With a history that reaches as far as the convolutions look, so that the sound depends on no schedule."""
    path = tmp_path_factory.mktemp("codes") / "windowed.onnx"
    wrapper = StatefulCodecONNXWrapper(tiny.decoder, conv_receptive_field(tiny.decoder), lookahead_frames=4)
    return CodecSession(export(tiny, wrapper, path).path, threads=1)


def rows_of(tiny, *lengths):
    codes = random_codes(tiny.decoder, max(lengths), batch=len(lengths))
    return [row[:length] for row, length in zip(codes, lengths, strict=True)]


def assert_rows(waveforms, tiny, rows):
    """Each row is what the one-shot decoder makes of it alone, and as long."""
    assert len(waveforms) == len(rows)
    for samples, row in zip(waveforms, rows, strict=True):
        assert samples.shape == (len(row) * tiny.decoder.samples_per_frame,) and samples.dtype == np.float32
        np.testing.assert_allclose(samples, one_shot(tiny.decoder, row[None])[0], atol=MAX_ERROR)


def filled(rows, value):
    batch = np.full((len(rows), max(map(len, rows)), rows[0].shape[1]), value)
    for place, row in zip(batch, rows, strict=True):
        place[: len(row)] = row
    return batch


@pytest.mark.parametrize("design", ["exact", "windowed"])
def test_rows_of_unequal_length_get_their_own_samples(design, request, tiny):
    session = request.getfixturevalue(design)
    rows = rows_of(tiny, 7, 90, 1, 72)  # one frame, exactly the window, past it
    lengths = [len(row) for row in rows]
    for waveforms in (
        session.decode(rows, [5]),
        session.decode([row.tolist() for row in rows], [12]),
        session.decode(filled(rows, -1), [1, 30]),
        session.decode(filled(rows, 0), [90], lengths=lengths),
        session.decode(filled(rows, 10**6), [7], lengths=np.array(lengths)),
    ):
        assert isinstance(waveforms, list)
        assert_rows(waveforms, tiny, rows)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=4), st.lists(st.integers(1, 9), min_size=1, max_size=3))
def test_any_lengths_and_any_schedule(exact, tiny, lengths, schedule):
    rows = rows_of(tiny, *lengths)
    waveforms = exact.decode(rows, schedule)
    assert isinstance(waveforms, np.ndarray) == (len(set(lengths)) == 1)
    assert_rows(waveforms, tiny, rows)


def test_rows_of_one_length_stay_an_array(exact, tiny):
    rows = rows_of(tiny, 5, 5)
    for codes in (np.stack(rows), rows, tuple(rows), filled(rows_of(tiny, 5, 5), -1)):
        waveform = exact.decode(codes)
        assert isinstance(waveform, np.ndarray) and waveform.shape == (2, 5 * tiny.decoder.samples_per_frame)
    assert exact.decode(rows[0]).shape == exact.decode(rows[0].tolist()).shape == (1, waveform.shape[1])
    # One row may have padding behind it too.
    np.testing.assert_array_equal(exact.decode(np.pad(rows[0], ((0, 3), (0, 0)), constant_values=-1))[0], waveform[0])


def test_what_fills_up_is_a_code_that_can_be_looked_up(exact, tiny):
    rows = check_rows(filled(rows_of(tiny, 3, 5), -1), exact.spec)
    assert [len(row) for row in rows] == [3, 5] and padded(rows).shape == (2, 5, 3)
    np.testing.assert_array_equal(padded(rows)[0, 3:], 0)


def test_unsigned_codes_have_no_padding(exact, tiny):
    codes = random_codes(tiny.decoder, 4).astype(np.uint8)
    np.testing.assert_array_equal(check_rows(codes, exact.spec)[0], codes[0])
    codes[0, 3] = 255
    with pytest.raises(CodesError, match="code 255 at row 0, frame 3, codebook 0"):
        check_rows(codes, exact.spec)


GOOD = np.arange(24).reshape(2, 4, 3)


def spoiled(place, value):
    codes = GOOD.copy()
    codes[place] = value
    return codes


@pytest.mark.parametrize(
    ("codes", "lengths", "words"),
    [
        (
            spoiled((1, 2, 0), 2150),
            None,
            r"code 2150 at row 1, frame 2, codebook 0 is outside 0..63; .*drop such a frame",
        ),
        (spoiled((1, 2, 1), 64), None, "code 64 at row 1, frame 2, codebook 1 .*control codes"),
        (spoiled((1, 2), -1), None, "code -1 at row 1, frame 2, codebook 0 .*behind a row's last frame"),
        (spoiled((0, 0), -1), None, "code -1 at row 0, frame 0"),
        (spoiled((1, 3, 2), -1), None, "code -1 at row 1, frame 3, codebook 2 .*all codebooks"),
        (spoiled((1, 3, 2), -2), None, "code -2 at row 1, frame 3"),
        (spoiled(1, -1), None, r"row 1 of the codes holds no frame \(N is 0\)"),
        (spoiled((1, 3), -1), [4, 4], "code -1 at row 1, frame 3"),
        (GOOD, [4], r"lengths are \[4\], must be 2 integers"),
        (GOOD, [4, 5], r"the length of row 1 is 5, must be in 1..4"),
        (GOOD, [0, 4], r"the length of row 0 is 0, must be in 1..4"),
        (GOOD, [1.5, 4], r"lengths are \[1.5, 4.0\]"),
        (GOOD.swapaxes(1, 2), None, r"shape \[2, 3, 4\], must be \[N, 3\].*transposed\? np.swapaxes\(codes, -1, -2\)"),
        (GOOD[0].T, None, r"shape \[3, 4\], must be \[N, 3\].*transposed"),
        ([GOOD[0], GOOD[1].T], None, r"row 1: codes have the shape \[3, 4\].*transposed"),
        ([GOOD[0], GOOD[1, :, :2]], None, r"row 1: codes have the shape \[4, 2\], must be \[N, 3\] or \[B, N, same\]$"),
        ([GOOD[0], GOOD[1, :2].astype(float)], None, "row 1: codes are float64, must be integers"),
        ([GOOD[0], spoiled((1, 1, 0), 99)[1, :3]], None, "code 99 at row 1, frame 1, codebook 0"),
        ([[1, 2, 3], [4, 5]], None, "codes are not an array: entry 1 has the length 2, entry 0 3"),
        (
            [[[1, 2, 3]], [[1, 2, 3], [4, 5]]],
            None,
            "row 1: codes are not an array: entry 1 has the length 2, entry 0 3",
        ),
        ([["a", "b", "c"]], None, "codes are <U1"),
        ([], None, "codes are float64|shape"),
        (GOOD[:0], None, "codes hold no row"),
    ],
)
def test_wrong_rows_are_named(exact, codes, lengths, words):
    with pytest.raises(CodesError, match=words):
        exact.decode(codes, lengths=lengths)


def test_a_stream_takes_no_padding_and_offers_the_transpose(exact):
    with pytest.raises(CodesError, match=r"code -1 at row 0, frame 3, codebook 0 .*for `decode` alone"):
        exact.stream().push(spoiled((0, 3), -1)[:1])
    with pytest.raises(CodesError, match=r"np\.swapaxes"):
        exact.stream().push(GOOD[:1].swapaxes(1, 2))
    with pytest.raises(CodesError, match="entry 1 has the length 2, entry 0 4"):
        check_codes([GOOD[0], GOOD[1, :2]], exact.spec)


def test_files_of_every_kind(tmp_path):
    np.save(tmp_path / "a.npy", GOOD)
    np.savez(tmp_path / "one.npz", anything=GOOD)
    np.savez_compressed(tmp_path / "named.npz", text=np.array("hello"), audio_codes=GOOD)
    np.savez(tmp_path / "short.npz", codes=GOOD, text=np.array(1))
    (tmp_path / "list.json").write_text(json.dumps(GOOD.tolist()))
    (tmp_path / "named.json").write_text(json.dumps({"audio_codes": GOOD.tolist(), "seed": 3}), encoding="utf-8-sig")
    for path in tmp_path.iterdir():
        np.testing.assert_array_equal(read_codes(path), GOOD)


def test_files_with_rows_of_unequal_length(exact, tmp_path):
    ragged = [GOOD[0].tolist(), GOOD[1, :2].tolist()]
    (tmp_path / "ragged.json").write_text(json.dumps({"codes": ragged}))
    (tmp_path / "lengths.json").write_text(json.dumps({"codes": GOOD.tolist(), "lengths": [4, 2]}))
    np.savez(tmp_path / "lengths.npz", codes=GOOD, lengths=np.array([4, 2]))
    np.save(tmp_path / "padded.npy", spoiled((1, slice(2, None)), -1))
    for path in tmp_path.iterdir():
        rows = check_rows(read_codes(path), exact.spec)
        assert [row.tolist() for row in rows] == ragged, path


def test_files_that_hold_no_codes(tmp_path):
    def refused(path, words):
        with pytest.raises(ValueError, match=words) as error:
            read_codes(path)
        assert str(error.value).startswith(str(path))

    np.savez(tmp_path / "two.npz", a=GOOD, b=GOOD)
    refused(tmp_path / "two.npz", "it holds a, b, must hold one array or audio_codes or codes")
    np.savez(tmp_path / "both.npz", audio_codes=GOOD, codes=GOOD)
    refused(tmp_path / "both.npz", "it holds audio_codes, codes, must hold one")
    np.savez(tmp_path / "bad.npz", codes=GOOD, lengths=np.array([4, 9]))
    refused(tmp_path / "bad.npz", r"the length of row 1 is 9, must be in 1\.\.4")
    np.save(tmp_path / "pickle.npy", np.array([{}]), allow_pickle=True)
    refused(tmp_path / "pickle.npy", "not a .npy, .npz, .json or .rvq file of codes")
    (tmp_path / "half.npz").write_bytes((tmp_path / "two.npz").read_bytes()[:150])
    refused(tmp_path / "half.npz", "truncated")
    with zipfile.ZipFile(tmp_path / "empty.npz", "w"):
        pass
    refused(tmp_path / "empty.npz", "holds nothing")
    (tmp_path / "half.json").write_text("[[1, 2")
    refused(tmp_path / "half.json", "truncated")
    (tmp_path / "names.json").write_text('{"a": [], "b": []}')
    refused(tmp_path / "names.json", "it holds a, b")


def packed_elsewhere(codes, bits):
    """As qwentts.cpp does it in rvq_pack_codes: a code goes in above the bits that wait, whole bytes come out below."""
    waiting, held, out = 0, 0, bytearray()
    for code in codes.T.flatten().tolist():
        waiting |= code << held
        held += bits
        while held >= 8:
            out.append(waiting & 0xFF)
            waiting, held = waiting >> 8, held - 8
    return bytes(out) + (bytes([waiting]) if held else b"")


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 20), st.integers(1, 17), st.integers(2, 70000), st.integers(0, 2**32))
def test_packed_codes_are_those_of_the_port_and_come_back(tmp_path_factory, frames, quantizers, size, seed):
    path = tmp_path_factory.getbasetemp() / "codes.rvq"
    dims = SimpleNamespace(num_quantizers=quantizers, codebook_size=size)
    codes = np.random.default_rng(seed).integers(size, size=(frames, quantizers))
    bits = len(f"{size - 1:b}")
    if bits * quantizers < 8:
        with pytest.raises(ValueError, match="shorter than a byte"):
            write_rows([path], [codes], dims)
        return
    write_rows([path], [codes], dims)
    assert path.read_bytes() == packed_elsewhere(codes, bits)
    found = read_codes(path, dims)
    assert found.dtype == np.int64 and found.shape == codes.shape
    np.testing.assert_array_equal(found, codes)


OFFICIAL = SimpleNamespace(num_quantizers=16, codebook_size=2048)  # 22 bytes a frame
ODD = SimpleNamespace(num_quantizers=3, codebook_size=50)  # 18 bits a frame


@pytest.mark.parametrize(
    ("data", "dims", "words"),
    [
        (b"", OFFICIAL, "0 bytes are no whole number of frames, each of 16 codes of 11 bits"),
        (bytes(21), OFFICIAL, "21 bytes are no whole number"),
        (bytes(45), OFFICIAL, "45 bytes are no whole number"),
        (bytes(4), ODD, "4 bytes are no whole number of frames, each of 3 codes of 6 bits"),
        (b"\0\0\4", ODD, "the 6 bits behind the last of 1 frames are not zero"),
        (bytes([50, 0, 0]), ODD, r"x.rvq: code 50 at row 0, frame 0, codebook 0 is outside 0..49"),
    ],
)
def test_packed_codes_that_cannot_be(tmp_path, data, dims, words):
    (tmp_path / "x.rvq").write_bytes(data)
    with pytest.raises(ValueError, match=words) as error:
        read_rows(tmp_path / "x.rvq", dims)
    assert str(error.value).startswith(str(tmp_path / "x.rvq"))
    with pytest.raises(ValueError, match="does not say how many codebooks"):
        read_codes(tmp_path / "x.rvq")


def test_rows_of_codes_are_written_all_or_none(tmp_path):
    paths = [tmp_path / "a.rvq", tmp_path / "b.npy"]
    for wrong in (np.full((2, 3), 50), np.zeros((2, 4), int), np.zeros((0, 3), int)):
        with pytest.raises(CodesError):
            write_rows(paths, [np.zeros((2, 3), int), wrong], ODD)
        assert not [*tmp_path.iterdir()]
    write_rows(paths, [GOOD[0], GOOD[1]], ODD)
    for path, row in zip(paths, GOOD, strict=True):
        np.testing.assert_array_equal(read_codes(path, ODD), row)
