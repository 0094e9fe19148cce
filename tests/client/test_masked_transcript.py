"""Whether the server learns anything of one hospital from all it sees: its masked updates beside everything else.

The test. Of each hospital the server holds, in each of several rounds, a vector of counts, and what it can take off
it with everything that was opened. If masks are what they should be, each byte of that is uniform and independent
of the update. Two statistics: chi-square over the 256 values of a byte, and the correlation with the update. Each
fails with probability 1e-6 where all is well, and there are fewer than a hundred of them.

Its power. A vector has n = 80,000 bytes. Where one byte in 300 were left as it was, and so had one value, chi-square
has the non-centrality 255 n / 300^2 = 227 and exceeds its critical value with probability 0.998; at one in 400 with
0.56. The correlation of 20,000 values finds r = 0.05 with probability 0.985. A mask that is used twice leaves, in the
difference of two vectors, the difference of the counts: r = 1. Each such mutation is tried below, and must be found.
"""

from __future__ import annotations

import numpy as np
import pytest

from common.secagg import keys as round_keys
from common.secagg import labels, masks
from common.secagg.coding import Coding
from server.unmasking import _opened
from tests.masked_round import Table, table

VALUES = 20_000
CRITICAL_CHI = 377.1
"""Of chi-square with 255 degrees of freedom at 1e-6 (scipy.stats.chi2.isf)."""
CRITICAL_R = 4.9 / np.sqrt(VALUES)
SITES = 5


def chi_square(vector: np.ndarray) -> float:
    """Over the bytes of a vector."""
    seen = np.bincount(np.frombuffer(vector.tobytes(), np.uint8), minlength=256)
    expected = seen.sum() / 256
    return float(((seen - expected) ** 2).sum() / expected)


def signed(vector: np.ndarray) -> np.ndarray:
    """Counts modulo 2^32 as numbers around zero."""
    return vector.astype(np.uint32).view(np.int32).astype(np.float64)


def correlation(vector: np.ndarray, update: np.ndarray) -> float:
    """Between what was seen and an update."""
    return float(abs(np.corrcoef(signed(vector), update.astype(np.float64))[0, 1]))


def looks_random(vector: np.ndarray, update: np.ndarray) -> bool:
    """Whether neither statistic finds anything."""
    return chi_square(vector) < CRITICAL_CHI and correlation(vector, update) < CRITICAL_R


@pytest.fixture(scope="module")
def rounds(tmp_path_factory) -> list[Table]:
    """Two whole rounds of five hospitals; in the second one, site-4 vanishes after training."""
    folder = tmp_path_factory.mktemp("transcript")
    one = table(folder)
    one.model = {"w": np.zeros(VALUES, np.float32)}
    rng = np.random.default_rng(3)
    one.updates = {n: {"w": rng.normal(0, 0.1, VALUES).astype(np.float32)} for n in one.names}
    for stage in ("keys", "shares", "train", "consent", "unmask"):
        getattr(one, f"do_{stage}")()
    two = Table.__new__(Table)
    two.__dict__.update({**vars(one), "round": 2})
    for part in ("keys", "dealt", "masked", "consents", "opened"):
        setattr(two, part, {})
    two.updates = {n: {"w": u["w"] * np.float32(0.9)} for n, u in one.updates.items()}
    two.do_keys()
    two.do_shares()
    two.do_train("site-4")
    two.do_consent()
    two.do_unmask()
    return [one, two]


def _seen(round_: Table, name: str) -> np.ndarray:
    """What the server holds of a site: its masked update, less all masks that it can open of the dead."""
    vector = round_.masked[name].arrays["values"].copy()
    ending = round_.ending
    for gone in ending.dead:
        secret = _opened(ending, round_.opened, gone, dead=True)
        public = round_.keys[name].mask_key
        seed = round_keys.pair_seed(secret, gone, public, name, ending.bond)
        masks.add(vector, seed, round_.terms.bits, minus=not gone < name)
    return vector


@pytest.mark.parametrize("number", range(SITES))
def test_what_the_server_sees_of_one_hospital_is_as_random_as_noise(rounds, number):
    name = f"site-{number}"
    for round_ in rounds:
        if name not in round_.masked:
            continue
        update = round_.updates[name]["w"]
        vector = _seen(round_, name)
        assert looks_random(vector, update)
        # Own mask opened as well, as it is for everybody alive: the pairwise ones still hide it.
        own = _opened(round_.ending, round_.opened, name, dead=False)
        masks.add(vector, round_keys.own_seed(own, name, round_.ending.bond), 32, minus=True)
        assert looks_random(vector, update)


def test_sums_over_some_of_the_sites_are_as_random_as_noise(rounds):
    """Only all of the living together give anything: here every proper part of two, three and four."""
    round_ = rounds[0]
    total, exact = np.zeros(VALUES, np.uint32), np.zeros(VALUES)
    for name in sorted(round_.masked)[:-1]:
        total += _seen(round_, name)
        exact += round_.updates[name]["w"]
        assert looks_random(total, exact)


def test_the_same_hospital_in_two_rounds_has_nothing_in_common(rounds):
    """With what the server could take off, and as it came: with other hospitals dead, other masks are taken off."""
    for name in sorted(rounds[1].masked):
        change = rounds[0].updates[name]["w"] - rounds[1].updates[name]["w"]
        came = [round_.masked[name].arrays["values"] for round_ in rounds]
        assert looks_random(came[0] - came[1], change)
        assert looks_random(_seen(rounds[0], name) - _seen(rounds[1], name), change)


# The test finds what it should


def _counts(round_: Table, name: str) -> np.ndarray:
    coding = Coding.of(round_.terms)
    return coding.encode(round_.updates[name]["w"], round_.weights[name])


def test_a_mask_used_twice_is_found(rounds):
    """The mutation: the second round's update under the first round's masks."""
    name = "site-0"
    mask = rounds[0].masked[name].arrays["values"] - _counts(rounds[0], name)
    again = _counts(rounds[1], name) + mask
    assert looks_random(again, rounds[1].updates[name]["w"]), "alone it looks as random as ever"
    difference = rounds[0].masked[name].arrays["values"] - again
    change = rounds[0].updates[name]["w"] - rounds[1].updates[name]["w"]
    assert not looks_random(difference, change)
    assert correlation(difference, change) > 0.99


def test_a_site_whose_bond_forgets_the_round_is_found(rounds):
    """The mutation: the bond does not say which round it is, and keys are kept. The streams are then the same."""
    held = round_keys.new_secrets()
    bond = labels.bond_of(b"g" * 32, {}, "sha256:m")
    vectors = []
    for round_ in rounds:
        vector = _counts(round_, "site-0").copy()
        masks.add(vector, round_keys.own_seed(held.own, "site-0", bond), 32)
        vectors.append(vector)
    change = rounds[0].updates["site-0"]["w"] - rounds[1].updates["site-0"]["w"]
    assert not looks_random(vectors[0] - vectors[1], change)


def test_a_mask_that_leaves_one_byte_in_fifty_as_it_was_is_found(rounds):
    vector = _seen(rounds[0], "site-0").copy()
    plain = _counts(rounds[0], "site-0")
    vector[::12] = plain[::12]
    assert not looks_random(vector, rounds[0].updates["site-0"]["w"])


def test_no_mask_at_all_is_found(rounds):
    assert not looks_random(_counts(rounds[0], "site-0"), rounds[0].updates["site-0"]["w"])


def test_the_head_with_weight_and_figures_is_masked_as_well(rounds):
    first = rounds[0]
    head = first.masked["site-0"].arrays["head"]
    assert all(int(word) > 2**40 for word in head), (
        "a head is masked as well (2^-24 each to be small by chance)"
    )
