"""What is said comes back as it was said, and nothing else can be said."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import wire
from common.errors import FederationError
from common.messages import (
    CalibrationBin,
    Comparison,
    Estimate,
    GroupMetrics,
    Instruction,
    IntakeSummary,
    Kind,
    ModelMetrics,
    Progress,
    Refusal,
    SiteMetrics,
    Update,
)

ARRAYS = {"z.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "a.bias": np.ones(2, np.float32)}
DIGEST = "sha256:" + "0" * 64


def _messages():
    group = GroupMetrics(
        "manufacturer",
        "Aster Imaging",
        40,
        None,
        auroc=Estimate(0.8, 0.7, 0.9),
        calibration=(CalibrationBin(0.1, 0.2, 30),),
    )
    return [
        Instruction(Kind.TRAIN, "run-1", 2, 'a = "ü"', DIGEST, DIGEST, ARRAYS, 0.4, True),
        Update("alpha", "run-1", 2, DIGEST, DIGEST, 100, ARRAYS, Progress(0.6, None), 1.5, True),
        SiteMetrics(
            "alpha",
            "run-1",
            2,
            DIGEST,
            (ModelMetrics("federated", (group,), 0.4),),
            (Comparison("federated", "alone", "auroc", Estimate(0.1, 0.0, 0.2)),),
            IntakeSummary(120, None, {"blank": None}, 100),
        ),
        Refusal("alpha", "run-1", 2, "busy", DIGEST),
    ]


def _same(one, other):
    assert type(one) is type(other)
    for name in vars(one):
        if name == "arrays":
            assert list(one.arrays) == list(other.arrays)
            for key in one.arrays:
                assert one.arrays[key].dtype == other.arrays[key].dtype
                np.testing.assert_array_equal(one.arrays[key], other.arrays[key])
        else:
            assert getattr(one, name) == getattr(other, name)


@pytest.mark.parametrize("message", _messages(), ids=lambda m: type(m).__name__)
def test_every_message_survives_bytes_and_flowers_records(message):
    blob = wire.pack(message)
    _same(wire.unpack(blob), message)
    assert wire.from_records(wire.to_records(blob, "folder")) == blob
    assert wire.pack(wire.unpack(blob)) == blob


@pytest.mark.parametrize("dtype", ["float64", "int64", "float16"])
def test_a_wrong_dtype_arrives_as_it_is_for_admission_to_refuse(dtype):
    message = _messages()[1]
    wrong = Update(**{**vars(message), "arrays": {"w": np.zeros(2, dtype)}})
    assert wire.unpack(wire.pack(wrong)).arrays["w"].dtype == np.dtype(dtype)


def _changed(change):
    blob = wire.pack(_messages()[3])
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    header["__metadata__"]["consilium"] = change(header["__metadata__"]["consilium"])
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + blob[8 + size :]


def _with(**fields):
    return lambda text: json.dumps({**json.loads(text), **fields})


def _body(**fields):
    return lambda text: json.dumps({**json.loads(text), "body": {**json.loads(text)["body"], **fields}})


@pytest.mark.parametrize(
    "change",
    [
        _with(kind="gossip"),
        _with(kind=["refusal"]),
        _with(body=[]),
        _with(order=["w"]),
        _with(order=None),
        _with(extra=1),
        lambda _text: "{",
        lambda _text: "[" * 100_000,
        lambda text: text.replace('"round": 2', '"round": NaN'),
        lambda text: text.replace('"round": 2', '"round": 1e999'),
        _body(patient="Anna"),
        _body(round="2"),
        _body(round=True),
        _body(round=2.5),
        _body(site=None),
    ],
)
def test_what_is_not_exactly_a_message_is_refused_with_one_code(change):
    with pytest.raises(FederationError) as caught:
        wire.unpack(_changed(change))
    assert caught.value.code == "wire"


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_never_a_message_and_never_another_exception(noise):
    for blob in (noise, len(noise).to_bytes(8, "little") + noise):
        with pytest.raises(FederationError):
            wire.unpack(blob)
        assert wire.head(blob) == {}


@settings(max_examples=100, deadline=None)
@given(place=st.integers(0, 10_000), value=st.integers(0, 255))
def test_a_flipped_byte_gives_a_message_or_the_one_error(place, value):
    blob = bytearray(wire.pack(_messages()[1]))
    blob[place % len(blob)] = value
    with contextlib.suppress(FederationError):
        wire.unpack(bytes(blob))


@pytest.mark.parametrize("said", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_is_not_finite_is_not_heard_where_numbers_may_have_fractions(said):
    """JSON's own readers let them pass: 1e999 is read as infinite, and no sum would forget it."""
    update = Update("alpha", "r", 1, DIGEST, DIGEST, 1, {}, Progress(0.591796875, None))
    blob = wire.pack(update)
    assert wire.unpack(blob) == update
    assert blob.count(b"0.591796875") == 1
    with pytest.raises(FederationError) as caught:
        wire.unpack(blob.replace(b"0.591796875", said.encode().rjust(11)))
    assert caught.value.code == "wire"


def test_a_number_that_is_not_finite_cannot_be_said():
    with pytest.raises(FederationError):
        wire.pack(Update("alpha", "r", 1, DIGEST, DIGEST, 1, {}, Progress(float("nan"), None)))


def test_only_the_four_records_can_be_said():
    with pytest.raises(FederationError):
        wire.pack(Progress(0.1, 0.2))  # type: ignore[arg-type]


def test_forwarding_bytes_imports_neither_pydantic_nor_torch():
    """The courier starts once for every message: what it imports is paid for every time."""
    code = (
        "import sys; from common import wire; wire.from_records(wire.to_records(b'x'));"
        "print(*[m for m in ('torch', 'pydantic') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""
