"""The envelope: what a courier could change, and by which word each change is refused."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import envelope
from common.envelope import Envelope, Expected, of_server, of_site
from common.errors import FederationError, StorageError
from common.identity import Identity
from common.replay import Seen

NOW = 1_800_000_000_000
LETTER = Envelope(of_server("lungs"), of_site("lungs", "alpha"), "run-1", 3, "ab" * 16, NOW, 60)
BODY = b"the model of round three"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    return Identity.make(tmp_path_factory.mktemp("keys") / "server.key")


def _expected(key, **changes):
    plain = Expected(key, of_server("lungs"), (of_site("lungs", "alpha"),), NOW)
    return replace(plain, **changes)


def _code(blob, expected):
    with pytest.raises(FederationError) as caught:
        envelope.unseal(blob, expected)
    return caught.value.code


def test_what_was_sealed_is_opened_whole(server):
    opened = envelope.unseal(envelope.seal(BODY, server, LETTER, b"own"), _expected(server.public))
    assert (opened.body, opened.envelope, opened.beside) == (BODY, LETTER, b"own")


def test_a_head_made_from_a_digest_is_the_same_as_one_made_from_the_body(server):
    head = envelope.head(envelope.body_digest(BODY), server, LETTER, b"own")
    assert head + BODY == envelope.seal(BODY, server, LETTER, b"own")


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"to": (of_site("lungs", "beta"),)}, "envelope-recipient"),
        ({"to": (of_site("hearts", "alpha"),)}, "envelope-recipient"),
        ({"sender": of_site("lungs", "beta")}, "envelope-sender"),
        ({"run": "run-2"}, "envelope-run"),
        ({"round": 2}, "envelope-run"),
        ({"nonce": "cd" * 16}, "envelope-replay"),
    ],
)
def test_a_message_for_other_circumstances_is_refused_by_name(server, changes, code):
    assert _code(envelope.seal(BODY, server, LETTER), _expected(server.public, **changes)) == code


@pytest.mark.parametrize("field", ["run", "round", "nonce", "time_ms", "lifetime_s"])
def test_nothing_on_an_envelope_can_be_changed_on_its_way(server, field):
    head, body = envelope.split(envelope.seal(BODY, server, LETTER, b"own"))
    what = json.loads(head[12:])
    what[field] = what[field] + 1 if isinstance(what[field], int) else what[field][:-1] + "e"
    text = json.dumps(what).encode()
    forged = head[:8] + len(text).to_bytes(4, "little") + text + body
    assert _code(forged, _expected(server.public)) == "envelope-signature"


def test_neither_body_nor_what_is_beside_it_can_be_exchanged(server):
    head, _ = envelope.split(envelope.seal(BODY, server, LETTER, b"own"))
    assert _code(head + b"another model", _expected(server.public)) == "envelope-signature"
    what = json.loads(head[12:]) | {"beside": b"her".hex()}
    text = json.dumps(what).encode()
    assert _code(head[:8] + len(text).to_bytes(4, "little") + text + BODY, _expected(server.public)) == (
        "envelope-signature"
    )


def test_another_key_s_signature_does_not_fit(server, tmp_path):
    other = Identity.make(tmp_path / "other.key")
    assert _code(envelope.seal(BODY, other, LETTER), _expected(server.public)) == "envelope-signature"


@pytest.mark.parametrize(
    ("late_ms", "good"),
    [(0, True), (-119_999, True), (-120_001, False), (60_000 + 119_999, True), (60_000 + 120_001, False)],
)
def test_clocks_may_differ_by_two_minutes(server, late_ms, good):
    """The lifetime of 60 s comes on top: a question waits in a queue, and that is no fault of a clock."""
    blob, expected = envelope.seal(BODY, server, LETTER), _expected(server.public, now_ms=NOW + late_ms)
    if good:
        assert envelope.unseal(blob, expected).body == BODY
    else:
        assert _code(blob, expected) == "envelope-clock"


def test_no_message_is_good_for_longer_than_a_month(server):
    blob = envelope.seal(BODY, server, replace(LETTER, lifetime_s=10**12))
    late = NOW + envelope.LONGEST_S * 1000 + envelope.SKEW_MS
    assert envelope.unseal(blob, _expected(server.public, now_ms=late)).body == BODY
    assert _code(blob, _expected(server.public, now_ms=late + 1)) == "envelope-clock"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.booleans())
def test_rubbish_is_no_envelope_and_never_an_error_of_another_kind(server, rubbish, with_magic):
    blob = envelope.MAGIC + rubbish if with_magic else rubbish
    assert _code(blob, _expected(server.public)) == "envelope"


@pytest.mark.parametrize(
    "head",
    [
        {},
        [],
        {"beside": "zz", "signature": ""},
        {"beside": "", "signature": "", "round": True},
        {"beside": 1},
    ],
)
def test_heads_of_other_shapes_are_no_envelope(server, head):
    text = json.dumps(head).encode()
    blob = envelope.MAGIC + len(text).to_bytes(4, "little") + text
    assert _code(blob, _expected(server.public)) == "envelope"


def test_a_second_opening_is_refused_after_a_restart_too(tmp_path):
    Seen(tmp_path / "seen.sqlite").admit(LETTER, NOW)
    with pytest.raises(FederationError) as caught:
        Seen(tmp_path / "seen.sqlite").admit(LETTER, NOW + 1000)
    assert caught.value.code == "envelope-replay"


def test_a_clock_that_is_set_back_does_not_make_an_old_message_new(tmp_path):
    seen, later = Seen(tmp_path / "seen.sqlite"), NOW + 10_000_000
    seen.admit(LETTER, NOW)
    seen.admit(replace(LETTER, nonce="n2", time_ms=later), later)  # the first is forgotten now
    with pytest.raises(FederationError) as caught:
        seen.admit(LETTER, NOW)
    assert caught.value.code == "envelope-replay"


def test_a_forgotten_short_message_does_not_shut_out_a_long_one_that_is_older(tmp_path):
    seen = Seen(tmp_path / "seen.sqlite")
    seen.admit(replace(LETTER, nonce="short", time_ms=NOW + 10, lifetime_s=0), NOW + 10)
    seen.admit(replace(LETTER, nonce="other", time_ms=NOW + 300_000, lifetime_s=0), NOW + 300_000)
    seen.admit(replace(LETTER, nonce="long", lifetime_s=600), NOW + 301_000)


def test_the_memory_stays_small_and_what_it_drops_stays_refused(tmp_path):
    seen = Seen(tmp_path / "seen.sqlite", largest=5)
    letters = [replace(LETTER, nonce=f"n{i}", time_ms=NOW + i) for i in range(20)]
    for letter in letters:
        seen.admit(letter, NOW + 20)
    for letter in letters:
        with pytest.raises(FederationError):
            seen.admit(letter, NOW + 20)
    seen.admit(replace(LETTER, nonce="new", time_ms=NOW + 21), NOW + 21)


def test_a_memory_that_cannot_be_written_opens_nothing(tmp_path):
    (tmp_path / "seen.sqlite").write_bytes(b"no database, and long enough to be looked at as one")
    with pytest.raises(StorageError):
        Seen(tmp_path / "seen.sqlite").admit(LETTER, NOW)
