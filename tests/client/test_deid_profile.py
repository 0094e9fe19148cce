"""The profile is an allow-list, checked against the dictionary and against PS3.15's own table."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.datadict import keyword_for_tag

from client.deid.profile import BUILT_IN, built_in, explain, load_profile
from common.errors import SettingsError

KEPT_OF_THE_TABLE = {
    "PatientSex": "patient characteristics option (113108): results are reported by sex",
    "PatientAge": "patient characteristics option (113108): generalised to years, 090Y from 90 on",
}
"""Attributes of PS3.15 table E.1-1 whose value, or a coarser one, stays, and why."""
CHECKED = {"keep", "enter"}


def row(**changes: str) -> str:
    fields = {
        "keyword": '"PatientSex"',
        "vr": '["CS"]',
        "action": '"keep"',
        "reason": '"x"',
        "values": '["M"]',
    }
    fields |= changes
    return "[[attribute]]\n" + "\n".join(f"{k} = {v}" for k, v in fields.items() if v)


def load(tmp_path: Path, text: str):
    path = tmp_path / "profile.toml"
    path.write_text(text)
    return load_profile(path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"keyword": '"PatientSecks"'}, "not in the DICOM dictionary"),
        ({"vr": '["LO"]'}, "VR must be CS"),
        ({"vr": "[]"}, "VR must be CS"),
        ({"action": '"maybe"'}, "action must be one of"),
        ({"reason": '""'}, "says no reason"),
        ({"values": ""}, "needs values or a pattern"),
        ({"values": "", "pattern": "'('"}, "no regular expression"),
        ({"action": '"uid"'}, "does not fit this VR"),
        ({"action": '"pseudonym"', "vr": '["LO"]', "keyword": '"PatientID"'}, "needs a purpose"),
        ({"otherwise": '"shrug"'}, "otherwise must be one of"),
        ({"permitted": '"x"'}, "unknown fields"),
        ({"keyword": '"ModalityLUTSequence"', "vr": '["SQ"]', "action": '"enter"'}, "names its items"),
    ],
)
def test_a_wrong_row_is_named(tmp_path, changes, said):
    with pytest.raises(SettingsError, match=said):
        load(tmp_path, row(**changes))


def test_every_wrong_row_is_named_at_once(tmp_path):
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, row(keyword='"Nonsense"') + "\n" + row(vr='["LO"]') + "\n" + row() + "\n" + row())
    assert all(word in str(caught.value) for word in ("Nonsense", "VR must be", "named twice"))


def test_what_is_no_toml_or_not_there_is_refused(tmp_path):
    for text in ("[[attribute", "version = 1"):
        with pytest.raises(SettingsError):
            load(tmp_path, text)
    with pytest.raises(SettingsError):
        load_profile(tmp_path / "absent.toml")


def test_explain_gives_a_reason_for_every_attribute_and_ends_with_default_deny():
    rows = explain()
    assert len(rows) == len(built_in().rules) + 1
    assert all(all(cell for cell in line) for line in rows)
    assert rows[-1].action == "remove"
    assert load_profile(BUILT_IN).digest == built_in().digest


def test_no_private_overlay_or_curve_attribute_is_in_the_profile():
    groups = {rule.tag >> 16 for rule in built_in().rules.values()}
    assert not any(group % 2 or 0x5000 <= group < 0x5100 or 0x6000 <= group < 0x6100 for group in groups)


def test_everything_that_ps315_names_is_removed_or_replaced():
    """Oracle: table E.1-1, edition 2026c, as the package dicom-anonymizer carries it."""
    table = pytest.importorskip("dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c")
    named = {keyword_for_tag((tag[0] << 16) | tag[1]) for tag in table.ALL_TAGS if len(tag) == 2} - {""}
    assert len(named) > 500
    rules = built_in().rules
    kept = {keyword for keyword in named & rules.keys() if rules[keyword].action in {*CHECKED, "generalise"}}
    assert kept == KEPT_OF_THE_TABLE.keys()
