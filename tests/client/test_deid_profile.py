"""The profile is an allow-list, checked against the dictionary and against PS3.15's own table."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.deid.profile import BUILT_IN, built_in, load_profile
from common.errors import SettingsError


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


def test_the_file_is_the_profile():
    assert load_profile(BUILT_IN).digest == built_in().digest


def test_no_private_overlay_or_curve_attribute_is_in_the_profile():
    groups = {rule.tag >> 16 for rule in built_in().rules.values()}
    assert not any(group % 2 or 0x5000 <= group < 0x5100 or 0x6000 <= group < 0x6100 for group in groups)
