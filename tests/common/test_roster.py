"""Does a roster say who takes part, and can nobody but the server change it?"""

from __future__ import annotations

import dataclasses
import json

import pytest

from common.errors import FederationError
from common.identity import Identity, PublicKey, Signature
from common.roster import Member, dump_roster, load_roster, sign_roster, verify_roster
from common.types import SiteName


@pytest.fixture
def keys(tmp_path):
    return {name: Identity.make(tmp_path / name) for name in ("server", "alpha", "beta", "rogue")}


def members(keys, *names):
    return [Member(SiteName(name), keys[name].public) for name in names]


def refused(action):
    with pytest.raises(FederationError) as refusal:
        action()
    assert refusal.value.code == "roster"


def test_a_roster_comes_back_from_json_as_it_was_and_finds_its_members(keys):
    made = sign_roster(keys["server"], "lungs", 3, members(keys, "beta", "alpha"))
    read = load_roster(dump_roster(made))
    assert read == made
    verify_roster(read, keys["server"].public)
    assert [member.name for member in read.members] == ["alpha", "beta"]
    assert read.key_of("alpha") == keys["alpha"].public
    assert read.key_of("gamma") is None


@pytest.mark.parametrize(
    "change",
    [
        {"federation": "livers"},
        {"version": 4},
        {"members": ()},
        {"signature": Signature("00" * 64)},
        {"signature": Signature("")},
    ],
)
def test_a_changed_roster_is_not_believed_and_has_another_digest(keys, change):
    made = sign_roster(keys["server"], "lungs", 3, members(keys, "alpha", "beta"))
    changed = dataclasses.replace(made, **change)
    refused(lambda: verify_roster(changed, keys["server"].public))
    assert (changed.digest != made.digest) == ("signature" not in change)


def test_a_roster_that_another_key_signed_is_not_believed_even_if_it_says_so(keys):
    rogue = sign_roster(keys["rogue"], "lungs", 3, members(keys, "alpha"))
    refused(lambda: verify_roster(rogue, keys["server"].public))
    posing = dataclasses.replace(rogue, server=keys["server"].public)
    refused(lambda: verify_roster(posing, keys["server"].public))


def test_a_name_or_a_key_stands_in_it_once(keys):
    twice = [*members(keys, "alpha"), Member(SiteName("alpha"), keys["beta"].public)]
    refused(lambda: verify_roster(sign_roster(keys["server"], "l", 1, twice), keys["server"].public))
    shared = [*members(keys, "alpha"), Member(SiteName("beta"), keys["alpha"].public)]
    refused(lambda: verify_roster(sign_roster(keys["server"], "l", 1, shared), keys["server"].public))
    refused(lambda: verify_roster(sign_roster(keys["server"], "l", 0, []), keys["server"].public))


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"\xff", b"[" * 100_000, b'{"schema": "consilium/roster/1"}']
)
def test_what_is_no_roster_is_refused(text):
    refused(lambda: load_roster(text))


def test_a_roster_of_wrong_types_is_refused(keys):
    values = json.loads(dump_roster(sign_roster(keys["server"], "lungs", 3, members(keys, "alpha"))))
    for wrong in ({"version": "3"}, {"members": [{"name": 1, "key": PublicKey("00")}]}, {"server": None}):
        refused(lambda wrong=wrong: load_roster(json.dumps(values | wrong).encode()))
