"""The hospital's half of secure aggregation against a server that lies: each attack is refused, by name."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

from client.privacy.masking_store import NAME
from common import wire
from common.errors import FederationError, StorageError
from common.identity import Identity
from common.messages import Kind, Secure
from common.secagg import keys as round_keys
from common.secagg import labels
from tests.masked_round import table


@pytest.fixture
def round_(tmp_path):
    return table(tmp_path)


def _refused(code, ask):
    with pytest.raises(FederationError) as caught:
        ask()
    assert caught.value.code == f"secagg-{code}"


def _until(round_, *stages):
    for stage in stages:
        getattr(round_, f"do_{stage}")()


ALL = ("keys", "shares", "train", "consent", "unmask")


def _close(round_):
    found, head = round_.total()
    for name, exact in round_.expected().items():
        np.testing.assert_allclose(found.counts[name] * 2.0**-32, exact, atol=1e-3)
    assert head.weight == sum(round_.weights[name] for name in round_.masked)


@pytest.mark.parametrize("bits", [16, 24, 32])
def test_the_sum_is_that_of_the_plain_updates(tmp_path, bits):
    round_ = table(tmp_path, bits=bits)
    _until(round_, *ALL)
    found, _ = round_.total()
    most = (2 ** (bits - 1) - 1) // 5
    step = round_.terms.heaviest * round_.terms.range / most
    for name, exact in round_.expected().items():
        np.testing.assert_allclose(found.counts[name] * 2.0**-32, exact, atol=5 * step + 1e-6)


@pytest.mark.parametrize("stage", ALL)
def test_two_of_five_may_vanish_at_any_stage_and_the_sum_of_the_rest_is_exact(tmp_path, stage):
    round_ = table(tmp_path)
    for one in ALL:
        getattr(round_, f"do_{one}")(*(("site-1", "site-3") if one == stage else ()))
    assert ("site-1" in round_.masked) == (stage in {"consent", "unmask"})
    _close(round_)


def test_two_of_five_may_vanish_one_here_and_one_there(tmp_path):
    round_ = table(tmp_path)
    round_.do_keys()
    round_.do_shares("site-4")
    round_.do_train()
    round_.do_consent()
    round_.do_unmask("site-0")
    _close(round_)


def test_of_nobody_both_shares_are_given(round_):
    """Own masks of the living, pairwise ones of the dead: both of one hospital would open its update."""
    _until(round_, "keys", "shares")
    round_.do_train("site-4")
    _until(round_, "consent", "unmask")
    for reply in round_.opened.values():
        assert set(reply.own) == set(round_.masked)
        assert set(reply.mask) == {"site-4"}


# What a lying server may try


def test_a_site_listed_both_alive_and_dead_is_not_opened(round_):
    _until(round_, "keys", "shares", "train")
    both = round_.listed(dead=("site-1",))
    _refused("both", lambda: round_.ask("site-0", Kind.CONSENT, both))
    round_.do_consent()
    _refused("both", lambda: round_.ask("site-0", Kind.UNMASK, round_.listed(dead=("site-1",))))


def test_a_site_first_said_to_be_alive_and_then_dead_is_not_opened(round_):
    _until(round_, "keys", "shares", "train", "consent")
    others = tuple(name for name in sorted(round_.masked) if name != "site-1")
    second = round_.listed(alive=others, dead=("site-1",))
    _refused("two-lists", lambda: round_.ask("site-0", Kind.CONSENT, second))
    _refused("two-lists", lambda: round_.ask("site-0", Kind.UNMASK, second))
    round_.do_unmask()
    _refused("two-lists", lambda: round_.ask("site-0", Kind.UNMASK, second))


def test_a_site_that_was_away_and_opened_for_a_list_consents_to_no_other(round_):
    _until(round_, "keys", "shares", "train")
    round_.do_consent("site-0")
    round_.ask("site-0", Kind.UNMASK, round_.listed())
    others = tuple(name for name in sorted(round_.masked) if name != "site-1")
    second = round_.listed(alive=others, dead=("site-1",), consents={})
    _refused("two-lists", lambda: round_.ask("site-0", Kind.CONSENT, second))


def test_two_lists_shown_to_two_halves_open_neither(round_):
    """Each list has the consent of fewer than the threshold; without that check four sums of four would open all."""
    _until(round_, "keys", "shares", "train")
    names = sorted(round_.masked)
    lists = {}
    for half, gone in (((0, 1), 4), ((2, 3), 3)):
        alive = tuple(name for number, name in enumerate(names) if number != gone)
        for number in half:
            if names[number] in alive:
                given = round_.listed(alive=alive, dead=(names[gone],), consents={})
                lists.setdefault(gone, {})[names[number]] = round_.ask(
                    names[number], Kind.CONSENT, given
                ).signature
    for gone, consents in lists.items():
        alive = tuple(name for number, name in enumerate(names) if number != gone)
        given = round_.listed(
            alive=alive, dead=(names[gone],), consents={**consents, names[4 - gone]: "00" * 64}
        )
        who = min(consents)
        _refused("consent", lambda given=given, who=who: round_.ask(who, Kind.UNMASK, given))


@pytest.mark.parametrize("threshold", [1, 2])
def test_a_threshold_that_is_not_over_half_or_below_three(tmp_path, threshold):
    round_ = table(tmp_path)
    terms = replace(round_.terms, threshold=threshold)
    _refused("threshold", lambda: round_.ask("site-0", Kind.KEYS, Secure(terms)))
    assert round_.trained == []


def test_a_threshold_of_half(tmp_path):
    round_ = table(tmp_path, 6)
    _refused("threshold", lambda: round_.ask("site-0", Kind.KEYS, Secure(replace(round_.terms, threshold=3))))
    round_.ask("site-0", Kind.KEYS, Secure(replace(round_.terms, threshold=4)))


def test_a_roster_of_two(round_):
    terms = replace(round_.terms, members=("site-0", "site-1"), threshold=2)
    _refused("few", lambda: round_.ask("site-0", Kind.KEYS, Secure(terms)))


def test_a_list_of_fewer_than_the_threshold(round_):
    _until(round_, "keys", "shares", "train")
    few = round_.listed(alive=("site-0", "site-1"), dead=("site-2", "site-3", "site-4"))
    _refused("few", lambda: round_.ask("site-0", Kind.CONSENT, few))


def test_another_roster_or_members_that_the_hospital_did_not_approve(round_):
    other = "sha256:" + "0" * 64
    _refused("roster", lambda: round_.ask("site-0", Kind.KEYS, Secure(replace(round_.terms, roster=other))))
    fewer = replace(round_.terms, members=round_.terms.members[:4], threshold=3)
    _refused("roster", lambda: round_.ask("site-0", Kind.KEYS, Secure(fewer)))
    invented = replace(round_.terms, members=(*round_.terms.members, "site-9"), threshold=4)
    _refused("roster", lambda: round_.ask("site-0", Kind.KEYS, Secure(invented)))


def test_a_swapped_key(round_, tmp_path):
    """The server puts a key of its own under another hospital's name, signed by nobody, by itself, or long ago."""
    round_.do_keys()
    held = round_keys.new_secrets()
    server = Identity.make(tmp_path / "mallory.key")
    fakes = [
        round_keys.signed_keys(server, "site-1", held, round_.context),
        replace(round_.keys["site-1"], mask_key=round_keys.public_of(held.mask)),
        replace(round_.keys["site-2"], site="site-1"),
        round_keys.signed_keys(
            Identity.load(round_.sites["site-1"].secrets / "identity.key"), "site-1", held, b"another round"
        ),
    ]
    for fake in fakes:
        keys = tuple(fake if one.site == "site-1" else one for one in round_.ordered)
        _refused("key", lambda keys=keys: round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=keys)))
    own = tuple(
        replace(one, mask_key=fakes[0].mask_key) if one.site == "site-0" else one for one in round_.ordered
    )
    _refused("key", lambda: round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=own)))


def test_a_group_without_our_key_or_with_another_one_of_ours(round_):
    """A key that we signed for this very round before our state was put back, or none: our masks would not cancel."""
    round_.do_keys()
    without = tuple(one for one in round_.ordered if one.site != "site-0")
    _refused("key", lambda: round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=without)))
    ours = Identity.load(round_.sites["site-0"].secrets / "identity.key")
    older = round_keys.signed_keys(ours, "site-0", round_keys.new_secrets(), round_.context)
    given = tuple(older if one.site == "site-0" else one for one in round_.ordered)
    _refused("key", lambda: round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=given)))


def test_shares_that_were_exchanged_on_their_way(round_):
    _until(round_, "keys", "shares")
    one, two = round_.dealt["site-1"], round_.dealt["site-2"]
    crossed = {**round_.dealt, "site-1": replace(one, sealed={**one.sealed, "site-0": two.sealed["site-0"]})}
    _refused("share", lambda: round_.ask("site-0", Kind.TRAIN, Secure(round_.terms, dealt=crossed)))
    assert round_.trained == []


def test_different_models_to_different_sites_give_noise_and_no_consent(round_):
    """Pasquini, Francati, Ateniese 2022: with its own model for one site, the others' sum would be known."""
    _until(round_, "keys", "shares")
    other = {name: array + np.float32(1) for name, array in round_.model.items()}
    for name in round_.names:
        model = other if name == "site-2" else round_.model
        round_.masked[name] = round_.ask(name, Kind.TRAIN, Secure(round_.terms, dealt=round_.dealt), model)
    round_.do_consent()
    for name in round_.names:
        if name == "site-2":  # it finds no consent to its own list, because its bond is another
            _refused("consent", lambda: round_.ask("site-2", Kind.UNMASK, round_.listed()))
        else:
            round_.opened[name] = round_.ask(name, Kind.UNMASK, round_.listed())
    with pytest.raises(FederationError, match="weights"):
        round_.total()


def test_a_second_model_in_the_same_round(round_):
    _until(round_, "keys", "shares", "train")
    other = {name: array * np.float32(1.0000001) for name, array in round_.model.items()}
    other["b"] = other["b"] + np.float32(1e-7)
    _refused(
        "model", lambda: round_.ask("site-0", Kind.TRAIN, Secure(round_.terms, dealt=round_.dealt), other)
    )


def test_one_update_asked_under_two_rosters_in_one_round(round_):
    _until(round_, "keys", "shares", "train")
    fewer = replace(round_.terms, threshold=4)
    _refused("two-rosters", lambda: round_.ask("site-0", Kind.KEYS, Secure(fewer)))
    without = tuple(one for one in round_.ordered if one.site != "site-4")
    _refused("two-groups", lambda: round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=without)))
    dealt = {name: one for name, one in round_.dealt.items() if name != "site-4"}
    _refused("two-groups", lambda: round_.ask("site-0", Kind.TRAIN, Secure(round_.terms, dealt=dealt)))


def test_one_update_asked_again_under_another_group_in_a_second_run(round_):
    """The difference of two sums, with a hospital and without, would be its update."""
    _until(round_, *ALL)
    first = dict(round_.masked)
    round_.run, round_.keys, round_.dealt, round_.masked = "run-2", {}, {}, {}
    round_.do_keys("site-4")
    round_.do_shares()
    _refused("two-rosters", round_.do_train)
    assert round_.masked == {}
    assert len(first) == 5


def test_a_replayed_round(round_):
    _until(round_, *ALL)
    old_terms, old_keys = round_.terms, round_.ordered
    round_.round, round_.keys = 2, {}
    round_.do_keys()
    for kind, secure in (
        (Kind.KEYS, Secure(old_terms)),
        (Kind.SHARES, Secure(old_terms, keys=old_keys)),
        (Kind.TRAIN, Secure(old_terms, dealt=round_.dealt)),
        (Kind.UNMASK, Secure(old_terms, alive=tuple(sorted(round_.masked)))),
    ):
        _refused("replayed", lambda kind=kind, secure=secure: round_.ask("site-0", kind, secure, round=1))


def test_keys_of_an_earlier_round_in_a_later_one(round_):
    round_.do_keys()
    old = round_.keys["site-1"]
    round_.round, round_.keys = 2, {}
    round_.do_keys()
    keys = tuple(old if one.site == "site-1" else one for one in round_.ordered)
    _refused("key", lambda: round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=keys)))


def test_a_stage_before_the_one_it_needs(round_):
    _refused("order", lambda: round_.ask("site-0", Kind.SHARES, Secure(round_.terms)))
    round_.do_keys()
    _refused("order", lambda: round_.ask("site-0", Kind.TRAIN, Secure(round_.terms)))
    round_.do_shares()
    _refused("order", lambda: round_.ask("site-0", Kind.CONSENT, Secure(round_.terms)))
    _refused("order", lambda: round_.ask("site-0", Kind.UNMASK, Secure(round_.terms)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 4.001, -1e30])
def test_a_value_out_of_range_never_leaves(round_, value):
    _until(round_, "keys", "shares")
    round_.updates["site-0"]["b"] = np.array([0, value, 0, 0, 0], np.float32)
    _refused("range", lambda: round_.ask("site-0", Kind.TRAIN, Secure(round_.terms, dealt=round_.dealt)))


def test_a_weight_out_of_range_never_leaves(round_):
    _until(round_, "keys", "shares")
    round_.weights["site-0"] = round_.terms.heaviest + 1
    terms = replace(round_.terms, heaviest=200)
    _refused("range", lambda: round_.ask("site-0", Kind.TRAIN, Secure(terms, dealt=round_.dealt)))


def test_a_long_update_is_shortened_to_the_plans_norm_where_nobody_else_can_measure_it(tmp_path):
    round_ = table(tmp_path, max_update_norm=0.5)
    _until(round_, *ALL)
    found, _ = round_.total()
    lengths = {
        s: np.sqrt(sum((a.astype(float) ** 2).sum() for a in u.values())) for s, u in round_.updates.items()
    }
    assert min(lengths.values()) > 0.5
    for name in round_.model:
        exact = sum(round_.weights[s] * u[name] * (0.5 / lengths[s]) for s, u in round_.updates.items())
        np.testing.assert_allclose(found.counts[name] * 2.0**-32, exact, atol=1e-3)


def test_a_coding_other_than_the_plans(round_):
    for change in ({"bits": 16}, {"range": 1e5}, {"heaviest": 10**9}):
        terms = replace(round_.terms, **change)
        _refused("terms", lambda terms=terms: round_.ask("site-0", Kind.KEYS, Secure(terms)))


# A server that reconnects, a site that crashes


def test_a_server_that_reconnects_with_an_older_state_gets_the_same_bytes_or_nothing(round_):
    _until(round_, "keys", "shares", "train", "consent", "unmask")
    kept = {
        Kind.KEYS: Secure(round_.terms),
        Kind.SHARES: Secure(round_.terms, keys=round_.ordered),
        Kind.TRAIN: Secure(round_.terms, dealt=round_.dealt),
        Kind.CONSENT: round_.listed(consents={}),
        Kind.UNMASK: round_.listed(),
    }
    first = {kind: wire.pack(round_.ask("site-0", kind, secure)) for kind, secure in kept.items()}
    round_.restart("site-0")
    assert {kind: wire.pack(round_.ask("site-0", kind, secure)) for kind, secure in kept.items()} == first
    assert round_.trained.count("site-0") == 1
    # An older state in which site-4 had not come: everything from there on is another question.
    keys = tuple(one for one in round_.ordered if one.site != "site-4")
    _refused("two-groups", lambda: round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=keys)))
    alive = tuple(name for name in sorted(round_.masked) if name != "site-4")
    gone = round_.listed(alive=alive, dead=("site-4",))
    _refused("two-lists", lambda: round_.ask("site-0", Kind.UNMASK, gone))


def test_a_site_that_restarts_between_any_two_stages_goes_on(round_):
    for stage in ALL:
        getattr(round_, f"do_{stage}")()
        round_.restart("site-0")
    _close(round_)


def test_a_crash_after_training_and_before_masking_trains_again_and_masks_once(round_):
    _until(round_, "keys", "shares")
    whole = round_.updates.pop("site-0")  # the work itself ends the process
    with pytest.raises(KeyError):
        round_.ask("site-0", Kind.TRAIN, Secure(round_.terms, dealt=round_.dealt))
    round_.updates["site-0"] = whole
    round_.restart("site-0")
    _until(round_, "train", "consent", "unmask")
    _close(round_)


def test_secrets_are_gone_once_the_shares_are_given(round_):
    _until(round_, *ALL)
    with closing(sqlite3.connect(round_.sites["site-0"].state / NAME)) as base:
        (held,) = base.execute("SELECT held FROM rounds").fetchone()
    assert '"mask":"","seal":"","own":""' in held
    assert '"kept":{}' in held


def test_a_damaged_memory_stops_the_site(round_):
    round_.do_keys()
    (round_.sites["site-0"].state / NAME).write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError) as caught:
        round_.ask("site-0", Kind.SHARES, Secure(round_.terms, keys=round_.ordered))
    assert caught.value.code == "secagg-state"


def test_a_wrong_share_of_one_site_is_passed_over_and_of_two_many_named(round_):
    _until(round_, *ALL)
    wrong = dict.fromkeys(round_.opened["site-0"].own, "00" * 32)
    round_.opened["site-0"] = replace(round_.opened["site-0"], own=wrong)
    _close(round_)
    for name in ("site-1", "site-2"):
        round_.opened[name] = replace(round_.opened[name], own=wrong)
    with pytest.raises(FederationError) as caught:
        round_.total()
    assert caught.value.code == "secagg-share"


def test_a_signature_for_keys_is_not_one_for_a_list():
    assert labels.keys_statement(b"x" * 32, "a", "b", "c") != labels.consent_statement(
        b"x" * 32, ["a"], ["b"]
    )
