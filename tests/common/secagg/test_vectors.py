"""The code against answers that other code gave: `make_vectors.py` says how."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from common.messages import Terms
from common.secagg import keys, labels, masks, sharing
from common.secagg.coding import Coding
from tests.common.secagg import make_vectors

KNOWN = json.loads((Path(__file__).parent / "vectors.json").read_text())
ONE, BOND = bytes.fromhex(KNOWN["x25519"]["one"]), bytes.fromhex(KNOWN["bond"])


def test_the_vectors_are_those_the_script_makes():
    assert make_vectors.vectors() == KNOWN


def test_the_scripts_own_chacha20_and_hkdf_are_those_of_the_rfcs():
    """RFC 8439, appendix A.1, vector 1; RFC 5869, appendix A.1 (its first 32 bytes)."""
    stream = make_vectors.chacha20(bytes(32), 16).hex()
    assert stream == "76b8e0ada0f13d90405d6ae55386bd28"
    info, salt = bytes.fromhex("f0f1f2f3f4f5f6f7f8f9"), bytes(range(13))
    assert make_vectors.hkdf(b"\x0b" * 22, salt, info).hex().startswith("3cb25f25faacd57a90434f64d0362f2a")


def test_keys_and_seeds():
    known = KNOWN["x25519"]
    assert [keys.public_of(bytes.fromhex(known[name])) for name in ("one", "two")] == known["public"]
    assert keys.agreed(ONE, known["public"][1]).hex() == known["shared"]
    assert keys.pair_seed(ONE, "anna", known["public"][1], "bert", BOND).hex() == KNOWN["pair_seed"]
    assert (
        keys.pair_seed(bytes.fromhex(known["two"]), "bert", known["public"][0], "anna", BOND).hex()
        == KNOWN["pair_seed"]
    )
    assert keys.own_seed(ONE, "anna", BOND).hex() == KNOWN["own_seed"]
    assert keys.commitment_of(ONE, "anna", BOND) == KNOWN["commitment"]


@pytest.mark.parametrize("bits", [16, 24, 32, 64])
def test_mask_streams(bits):
    vector = np.zeros(8, masks.dtype_of(bits))
    masks.add(vector, bytes.fromhex(KNOWN["pair_seed"]), bits)
    assert vector.tolist() == KNOWN["streams"][str(bits)]
    masks.add(vector, bytes.fromhex(KNOWN["pair_seed"]), bits, minus=True)
    assert not vector.any()


@pytest.mark.parametrize("holders", [(1, 2), (1, 3), (3, 2)])
def test_shares_of_another_hand_open_the_secret(holders):
    shares = {holder: bytes.fromhex(KNOWN["shares"]["by_holder"][str(holder)]) for holder in holders}
    assert sharing.combine(shares, 2).hex() == KNOWN["shares"]["secret"]


def test_shares_of_the_library_open_by_another_hand():
    secret = bytes(range(100, 132))
    dealt = sharing.split(secret, 3, 5)
    for at in (0, 16):
        half = {holder: dealt[holder - 1][at : at + 16] for holder in (1, 4, 5)}
        assert make_vectors.interpolated(half) == secret[at : at + 16]


def test_the_context_of_a_round():
    terms = Terms("sha256:r", ("anna", "bert", "carla"), 3, 32, 4.0, 200, 17)
    assert labels.context_of("run-1", 3, "sha256:p", "sha256:c", terms).hex() == KNOWN["context"]


@pytest.mark.parametrize("bits", [24, 32])
def test_counts(bits):
    known = KNOWN["coding"]
    coding = Coding(bits, known["range"], known["heaviest"], known["parties"])
    found = coding.encode(np.array(known["values"], np.float32), known["weight"])
    exact = np.array(known["values"], np.float32).astype(float)
    assert np.abs(exact - known["values"]).max() < 1e-7
    step = [int(n) - m for n, m in zip(found.tolist(), known["counts"][str(bits)], strict=True)]
    assert max(map(abs, step)) <= (0 if bits == 24 else 16), "float32 itself rounds at the 24th bit"
