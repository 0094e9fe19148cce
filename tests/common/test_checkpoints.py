"""Checkpoints: whole or not there, of this network or refused."""

from __future__ import annotations

import resource
import signal

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from common.checkpoints import Checkpoint, load, save
from common.errors import StorageError

ARRAYS = {"z": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(2, np.float32)}


def _checkpoint(**changes):
    values = {
        "run": "run-1",
        "round": 3,
        "plan_digest": "sha256:1",
        "architecture": "sha256:2",
        "arrays": ARRAYS,
        "state": '{"x": 1}',
    }
    return Checkpoint(**{**values, **changes})


def test_what_is_saved_is_read_back_in_the_models_order(tmp_path):
    save(_checkpoint(), tmp_path / "c.safetensors")
    back = load(tmp_path / "c.safetensors", "sha256:2")
    assert list(back.arrays) == ["z", "a"]
    assert all(np.array_equal(back.arrays[n], ARRAYS[n]) for n in ARRAYS)
    assert (back.run, back.round, back.state) == ("run-1", 3, '{"x": 1}')


def test_another_networks_checkpoint_is_refused(tmp_path):
    save(_checkpoint(), tmp_path / "c.safetensors")
    with pytest.raises(StorageError) as caught:
        load(tmp_path / "c.safetensors", "sha256:other")
    assert caught.value.code == "checkpoint-architecture"


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_cut_file_is_refused(tmp_path, keep):
    path = tmp_path / "c.safetensors"
    save(_checkpoint(), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(StorageError) as caught:
        load(path)
    assert caught.value.code == "checkpoint-unreadable"


def test_a_changed_weight_is_noticed(tmp_path):
    path = tmp_path / "c.safetensors"
    save(_checkpoint(), path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(StorageError) as caught:
        load(path)
    assert caught.value.code == "checkpoint-altered"


def test_a_pickle_or_a_foreign_safetensors_is_not_a_checkpoint(tmp_path):
    path = tmp_path / "c.safetensors"
    path.write_bytes(b"\x80\x04\x95 a pickle")
    with pytest.raises(StorageError):
        load(path)
    save_file(ARRAYS, path)
    assert load_file(path)
    with pytest.raises(StorageError):
        load(path)


def test_a_full_disk_leaves_the_old_checkpoint_as_it_was(tmp_path):
    path = tmp_path / "c.safetensors"
    save(_checkpoint(round=1), path)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, hard))
    try:
        with pytest.raises(StorageError):
            save(_checkpoint(round=2), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert load(path).round == 1


def test_no_temporary_file_stays_behind(tmp_path):
    save(_checkpoint(), tmp_path / "c.safetensors")
    save(_checkpoint(round=4), tmp_path / "c.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]
