"""Keyed pseudonyms: stable, separated by purpose, worthless without the key."""

from __future__ import annotations

from datetime import date

import pytest

from client.deid.pseudonyms import MAX_SHIFT_DAYS, Identity, Pseudonyms
from common.errors import SettingsError

ONE = Pseudonyms(b"k" * 32, b"s" * 32)
OTHER = Pseudonyms(b"K" * 32, b"s" * 32)
WHO = Identity("4711", "ADT1")


def test_the_same_study_sent_twice_gets_the_same_names():
    again = Pseudonyms(b"k" * 32, b"s" * 32)
    assert ONE.patient(WHO) == again.patient(WHO)
    assert ONE.uid("1.2.3") == again.uid("1.2.3")
    assert ONE.shifted(WHO, date(2020, 5, 5)) == again.shifted(WHO, date(2020, 5, 5))


def test_padding_and_unicode_form_do_not_make_another_patient():
    assert ONE.patient(Identity("Mu\u0308ller ")) == ONE.patient(Identity("M\u00fcller"))


def test_two_offices_that_issue_the_same_number_name_two_patients():
    assert ONE.patient(WHO) != ONE.patient(Identity("4711", "ADT2"))
    assert ONE.patient(Identity("47", "11")) != ONE.patient(Identity("471", "1"))


def test_no_purpose_can_be_turned_into_another():
    codes = {
        ONE.patient(WHO)[1:16],
        ONE.accession("4711")[1:],
        ONE.scanner("4711", "", "")[1:16],
        ONE.spend_key(WHO)[:15],
        ONE.join("path", "4711")[:15],
        ONE.content(b"4711")[:15],
    }
    assert len(codes) == 6


def test_another_key_changes_every_pseudonym_but_not_the_ledger_name():
    """Rotating pseudonyms must not hand a patient a fresh privacy budget."""
    assert ONE.patient(WHO) != OTHER.patient(WHO)
    assert ONE.uid("1.2.3") != OTHER.uid("1.2.3")
    assert ONE.spend_key(WHO) == OTHER.spend_key(WHO)


def test_uids_are_valid_and_accessions_fit_their_sixteen_characters():
    uid = ONE.uid("1.2.840.113619.2.55")
    assert uid.startswith("2.25.")
    assert int(uid[5:]) < 2**128
    assert len(uid) <= 64
    assert len(ONE.accession("x" * 40)) == 16


def test_dates_move_back_and_keep_their_distance():
    first, second = (ONE.shifted(WHO, date(2020, 1, d)) for d in (1, 29))
    assert (second - first).days == 28
    assert 1 <= (date(2020, 1, 1) - first).days <= MAX_SHIFT_DAYS


def test_two_patients_rarely_share_a_shift():
    days = {ONE.shifted(Identity(str(n)), date(2020, 1, 1)) for n in range(200)}
    assert len(days) > 180


def test_keys_do_not_show_and_short_ones_are_refused():
    assert "kkkk" not in repr(ONE)
    with pytest.raises(SettingsError):
        Pseudonyms(b"short", b"s" * 32)
