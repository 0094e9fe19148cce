"""Whatever the sites were told differently gives other masks: every part of a round is in its labels."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from common.messages import Dealt, SignedKeys, Terms
from common.secagg import labels

TERMS = Terms("sha256:roster", ("a", "b", "c"), 3, 24, 4.0, 100, 17)
CONTEXT = labels.context_of("run-1", 1, "sha256:plan", "sha256:code", TERMS)
KEYS = (SignedKeys("a", "11", "12", "13"), SignedKeys("b", "21", "22", "23"))
GROUP = labels.group_of(CONTEXT, KEYS)
DEALT = {"a": Dealt("c1", {"b": "s1"}), "b": Dealt("c2", {"a": "s2"})}
BOND = labels.bond_of(GROUP, DEALT, "sha256:model")
OTHERS = {
    "roster": "sha256:other",
    "members": ("a", "b", "d"),
    "threshold": 2,
    "bits": 32,
    "range": 4.000001,
    "heaviest": 101,
    "values": 18,
}


def test_no_term_is_forgotten():
    assert set(OTHERS) == {field.name for field in fields(Terms)}


@pytest.mark.parametrize("name", sorted(OTHERS))
def test_other_terms_are_another_context(name):
    other = replace(TERMS, **{name: OTHERS[name]})
    assert labels.context_of("run-1", 1, "sha256:plan", "sha256:code", other) != CONTEXT


@pytest.mark.parametrize("at", range(4))
def test_another_run_round_plan_or_release_is_another_context(at):
    said = ["run-1", 1, "sha256:plan", "sha256:code"]
    said[at] = 2 if at == 1 else "other"
    assert labels.context_of(*said, TERMS) != CONTEXT


@pytest.mark.parametrize("name", [field.name for field in fields(SignedKeys)])
def test_another_key_of_anybody_is_another_group(name):
    changed = (KEYS[0], replace(KEYS[1], **{name: "99"}))
    assert labels.group_of(CONTEXT, changed) != GROUP
    assert labels.group_of(CONTEXT, KEYS[:1]) != GROUP


def test_other_shares_another_commitment_or_another_model_is_another_bond():
    others = [
        labels.bond_of(labels.group_of(b"x" * 32, KEYS), DEALT, "sha256:model"),
        labels.bond_of(GROUP, {**DEALT, "a": Dealt("c9", {"b": "s1"})}, "sha256:model"),
        labels.bond_of(GROUP, {**DEALT, "a": Dealt("c1", {"b": "s9"})}, "sha256:model"),
        labels.bond_of(GROUP, {"a": DEALT["a"]}, "sha256:model"),
        labels.bond_of(GROUP, DEALT, "sha256:other"),
    ]
    assert len({BOND, *others}) == 1 + len(others)


def test_words_that_run_together_are_told_apart():
    assert labels.packed("x", "ab", "c") != labels.packed("x", "a", "bc")
    assert labels.consent_statement(b"b", ["a", "b"], []) != labels.consent_statement(b"b", ["a"], ["b"])
