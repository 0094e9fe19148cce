"""Is a key made once, kept to its owner, and the only one that can sign in its name?"""

from __future__ import annotations

import pytest

from common.errors import ConsiliumError
from common.identity import Identity, fingerprint, verify


def refused(code, action):
    with pytest.raises(ConsiliumError) as refusal:
        action()
    assert refusal.value.code == code


def test_a_key_signs_the_same_after_it_was_loaded_and_no_other_key_does(tmp_path):
    made = Identity.make(tmp_path / "key")
    loaded = Identity.load(tmp_path / "key")
    signature = loaded.sign(b"message")
    assert verify(made.public, signature, b"message")
    assert not verify(made.public, signature, b"another")
    assert not verify(Identity.make(tmp_path / "two").public, signature, b"message")
    assert fingerprint(made.public) == fingerprint(loaded.public)


@pytest.mark.parametrize(
    ("public", "signature"), [("", ""), ("zz", "00"), ("00" * 32, "00" * 64), ("00", "é")]
)
def test_what_is_no_key_or_no_signature_verifies_nothing(public, signature):
    assert not verify(public, signature, b"message")


def test_a_key_is_made_once_and_is_its_owners_alone(tmp_path):
    Identity.make(tmp_path / "key")
    assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
    refused("key-exists", lambda: Identity.make(tmp_path / "key"))
    (tmp_path / "key").chmod(0o640)
    refused("key-rights", lambda: Identity.load(tmp_path / "key"))


def test_a_missing_or_broken_key_is_named_and_never_shown(tmp_path):
    refused("key-missing", lambda: Identity.load(tmp_path / "key"))
    (tmp_path / "key").touch(mode=0o600)
    refused("key-unreadable", lambda: Identity.load(tmp_path / "key"))
    key = Identity.make(tmp_path / "two")
    assert "PRIVATE" not in repr(key)
    assert "PRIVATE" not in str(vars(key))
