"""Tensors as bytes: what safetensors itself reads and writes, and nothing that it would refuse."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save

from common import tensors
from common.arrays import add, digest, norm, schema_of, step, zero
from common.checkpoints import Checkpoint
from common.checkpoints import load as load_checkpoint
from common.checkpoints import save as save_checkpoint
from common.parts import PART
from common.wire import from_records, to_records

ARRAYS = {
    "codes": np.arange(-3, 4, dtype=np.int8),
    "w": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    "none": np.zeros((0, 2), np.float32),
    "wide": np.array(7, np.int64),
}


def _blob(arrays=ARRAYS):
    return b"".join(tensors.pieces(arrays, {"a": "b"}))


def test_safetensors_reads_what_is_written_and_the_other_way_round():
    theirs = load(_blob())
    ours = tensors.views(save({n: np.atleast_1d(a) for n, a in ARRAYS.items()}))
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(theirs[name], array)
        np.testing.assert_array_equal(ours[name], np.atleast_1d(array))
        assert theirs[name].dtype == array.dtype


def test_views_copy_nothing_and_cannot_be_written():
    found = tensors.views(_blob())
    assert not any(array.flags.owndata or array.flags.writeable for array in found.values())
    assert all(array.flags.aligned for array in found.values())


def _with(change):
    blob = _blob()
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    change(header)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + blob[8 + size :]


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h["w"].update(shape=[3, 5]),
        lambda h: h["w"].update(shape=[-3, -4]),
        lambda h: h["w"].update(shape=[3.0, 4]),
        lambda h: h["w"].update(dtype="F64"),
        lambda h: h["w"].update(dtype="OBJECT"),
        lambda h: h["w"].update(data_offsets=[0, 48]),
        lambda h: h["w"].update(data_offsets=[8]),
        lambda h: h["w"].pop("shape"),
        lambda h: h["w"].update(more=1),
        lambda h: h.pop("w"),
        lambda h: h.update(twice=h["w"]),
        lambda h: h.update(word="w"),
    ],
)
def test_a_header_that_does_not_fit_its_bytes_is_refused(change):
    with pytest.raises(ValueError, match=r".*"):
        tensors.views(_with(change))


@pytest.mark.parametrize("blob", [b"", b"\xff" * 8, b"\2\0\0\0\0\0\0\0[]", _blob()[:-1], _blob() + b"\0"])
def test_what_is_cut_off_or_too_long_is_refused(blob):
    with pytest.raises(ValueError, match=r".*"):
        tensors.views(blob)


def test_a_sum_on_disk_is_the_sum_in_memory_to_the_bit_in_every_order(tmp_path):
    rng = np.random.default_rng(1)
    schema = {"w": (3, 4), "long": (tensors.SLICE + 5,)}
    updates = [{n: rng.normal(size=s).astype(np.float32) for n, s in schema.items()} for _ in range(3)]
    model = {n: rng.normal(size=s).astype(np.float32) for n, s in schema.items()}
    results = []
    for order, folder in (((0, 1, 2), None), ((2, 0, 1), tmp_path)):
        total = zero(schema, 60, folder)
        for number in order:
            total = add(total, updates[number], 10 * (number + 1))
        results.append(digest(step(model, total, 0.7)))
    assert results[0] == results[1]
    assert list(tmp_path.iterdir()) == []


def test_a_mapped_checkpoint_is_the_model_and_outlives_its_file(tmp_path):
    model = {name: ARRAYS[name] for name in ("w", "codes")}
    path = tmp_path / "model"
    save_checkpoint(Checkpoint("run", 1, "sha256:1", "sha256:2", model), path)
    found = load_checkpoint(path, mapped=True).arrays
    path.unlink()
    assert schema_of(found) == schema_of(model)
    assert digest(found) == digest(model)
    assert norm(found) == norm(model)


def test_a_long_message_travels_in_parts_and_arrives_whole():
    blob = bytes(range(256)) * (PART // 128) + b"the rest"
    records = to_records(blob)
    assert len(records.array_records["consilium"]) == 3
    assert all(len(array.data) <= PART for array in records.array_records["consilium"].values())
    assert from_records(records) == blob
