"""A hospital's own profile takes away and never adds, whatever is written in it."""

from __future__ import annotations

import json

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataelem import DataElement

from client.deid.actions import kept
from client.deid.deidentify import Deidentifier
from client.deid.profile import ACTIONS, OTHERWISE, Rule, built_in
from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings
from client.deid.tighten import effective, tightened
from client.deid.wanted import identifiers
from client.intake.ingest import ingest
from client.site import load_site
from common.errors import FileRefused, SettingsError
from tests.client.intake_files import export, image, new_site

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)
KEYWORDS = sorted(built_in().rules)
FORMS = sorted(keyword for keyword, rule in built_in().rules.items() if rule.pattern)
REFUSED = "-refused-"
NOBODY = identifiers(pydicom.Dataset())
"""The names of a patient who has none."""


def rows(*given_rows: dict[str, object]) -> str:
    """TOML of these rows; JSON's strings, lists and numbers are TOML's."""
    written = (
        "[[attribute]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in row.items())
        for row in given_rows
    )
    return "\n".join(written)


def refused(*given_rows: dict[str, object]) -> str:
    with pytest.raises(SettingsError) as error:
        tightened(built_in(), rows(*given_rows))
    assert error.value.subject == "deid.tighten"
    assert error.value.remedy
    return error.value.rule


def rule(profile, keyword: str) -> Rule:
    return profile.rules[keyword]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"values": ["M", "F", "X"]}, "X is not among"),
        ({"values": []}, "no value at all"),
        ({"action": "pseudonym"}, "not stricter than 'keep'"),
        ({"action": "shift"}, "not stricter"),
        ({"otherwise": "other"}, "looser than 'drop'"),
        ({"range": [0, 1]}, "it is no number"),
        ({"items": ["LUTData"]}, "it is no sequence"),
        ({"pattern": "("}, "no regular expression"),
        ({"keyword": "PatientSecks"}, "DICOM knows no such attribute"),
        ({"keyword": "PatientComments"}, "removes it already"),
        ({"keyword": "PatientComments", "action": "keep"}, "removes it already"),
        ({"keyword": "PatientID", "action": "remove"}, "no image can be written"),
        ({"keyword": "PatientID", "action": "empty"}, "cannot be written without"),
        ({"keyword": "PatientID", "action": "keep"}, "not stricter than 'pseudonym'"),
        ({"keyword": "PatientBirthDate", "action": "shift"}, "not stricter than 'empty'"),
        ({"keyword": "StudyDate", "action": "keep"}, "not stricter than 'shift'"),
        ({"keyword": "Rows", "action": "remove"}, "no image can be written"),
        ({"keyword": "KVP", "range": [-1, 100]}, "inside 0 to 1000"),
        ({"keyword": "KVP", "range": [100, 10]}, "inside 0 to 1000"),
        ({"keyword": "KVP", "values": ["80"]}, "no list of permitted values"),
        ({"keyword": "KVP", "pattern": "80"}, "no text with a permitted form"),
        ({"keyword": "Manufacturer", "values": ["Müller"]}, "Müller is not among"),
        ({"keyword": "SOPClassUID", "otherwise": "drop"}, "looser than 'refuse'"),
        ({"keyword": "ModalityLUTSequence", "items": ["LUTData", "PatientName"]}, "must be some of"),
        ({"keyword": "LUTDescriptor", "action": "empty"}, "cannot be written without"),
    ],
)
def test_what_would_loosen_is_refused_by_name(row, said):
    row = {"keyword": "PatientSex"} | row
    rule_broken = refused(row)
    assert row["keyword"] in rule_broken
    assert said in rule_broken


def test_every_wrong_row_is_named_at_once():
    said = refused(
        {"keyword": "PatientID", "action": "remove"},
        {"keyword": "KVP", "range": [-5, 5]},
        {"keyword": "Nonsense"},
    )
    assert all(word in said for word in ("PatientID", "KVP", "Nonsense"))


def test_one_attribute_has_one_row():
    assert "named twice" in refused(
        {"keyword": "KVP", "range": [0, 50]}, {"keyword": "KVP", "range": [0, 900]}
    )


@pytest.mark.parametrize(
    "text",
    ["[[attribute", "[profile]\nkeep = true", "attribute = 3", "[[attribute]]\nkeyword = 3", "[[private]]\n"],
)
def test_what_is_no_list_of_rows_is_refused(text):
    with pytest.raises(SettingsError, match=r"deid\.tighten"):
        tightened(built_in(), text)


def test_nan_is_no_way_around_a_range():
    for bounds in ("[nan, nan]", "[0, inf]", "[-inf, 5]", "[nan, 5]"):
        with pytest.raises(SettingsError, match="inside"):
            tightened(built_in(), f'[[attribute]]\nkeyword = "KVP"\nrange = {bounds}\n')


def test_what_may_be_taken_away_is_taken_away():
    profile = tightened(
        built_in(),
        rows(
            {
                "keyword": "PatientSex",
                "values": ["M", "F"],
                "otherwise": "refuse",
                "reason": "decided in May",
            },
            {"keyword": "KVP", "range": [20, 150]},
            {"keyword": "StudyDate", "action": "empty"},
            {"keyword": "PatientAge", "action": "remove"},
            {"keyword": "Manufacturer", "pattern": "Aster.*"},
            {"keyword": "ModalityLUTSequence", "items": ["LUTDescriptor", "LUTData"]},
            {"keyword": "StationName", "action": "remove"},
        ),
    )
    assert rule(profile, "PatientSex").values == {"M", "F"}
    assert rule(profile, "PatientSex").otherwise == "refuse"
    assert rule(profile, "KVP").range == (20, 150)
    assert rule(profile, "StudyDate").action == "empty"
    assert "PatientAge" not in profile.rules
    assert rule(profile, "ModalityLUTSequence").items == ("LUTDescriptor", "LUTData")


def test_a_pattern_is_met_beside_the_releases_own():
    profile = tightened(built_in(), rows({"keyword": "Manufacturer", "pattern": ".*"}))
    for text in ("Müller", "Aster", "A" * 64, ""):
        element = DataElement(0x00080070, "LO", text)
        assert kept(rule(profile, "Manufacturer"), element, NOBODY) == kept(
            rule(built_in(), "Manufacturer"), element, NOBODY
        )
    narrow = tightened(built_in(), rows({"keyword": "Manufacturer", "pattern": "Ast|Bor"}))
    assert kept(rule(narrow, "Manufacturer"), DataElement(0x00080070, "LO", "Aster"), NOBODY) is None
    assert kept(rule(narrow, "Manufacturer"), DataElement(0x00080070, "LO", "Bor"), NOBODY) == "Bor"


def test_a_sequence_of_which_nothing_is_left_goes():
    profile = tightened(
        built_in(),
        rows(
            {"keyword": "WindowCenter", "action": "remove"},
            {"keyword": "WindowWidth", "action": "remove"},
            {"keyword": "VOILUTFunction", "action": "remove"},
        ),
    )
    assert "FrameVOILUTSequence" not in profile.rules
    assert "FrameVOILUTSequence" not in rule(profile, "SharedFunctionalGroupsSequence").items


def test_switches_take_away_and_the_scanner_stays_one_code():
    off = DeidSettings(patient_characteristics=False, device_make=False, longitudinal_dates=False)
    target = written(effective(off), image(0, PatientAge="044Y"))
    assert (target.PatientSex, target.StudyDate, target.Manufacturer) == ("", "", "")
    assert not {"PatientAge", "AcquisitionDate", "ManufacturerModelName"} & {e.keyword for e in target}
    other = written(effective(off), image(1, DeviceSerialNumber="another", Manufacturer="Borealis"))
    assert target.DeviceSerialNumber == other.DeviceSerialNumber == NAMES.scanner("", "", "")


def test_a_switch_does_not_bring_back_what_a_row_removed():
    off = DeidSettings(patient_characteristics=False)
    profile = effective(off, rows({"keyword": "PatientSex", "action": "remove"}))
    assert "PatientSex" not in profile.rules


def test_a_safe_private_number_stays_when_its_creator_is_named_and_only_then():
    source = image(0)
    for start in (0x10, 0x20):  # the block may stand anywhere
        source.add_new(0x00190000 | start, "LO", "SIEMENS MR HEADER" if start == 0x20 else "CANARY")
        source.add_new(0x00190000 | start << 8 | 0x0C, "IS", "1000")
    source.add_new(0x0019200E, "FD", [0.0, 2.5, 0.0])
    source.add_new(0x00192008, "CS", "CANARY")
    assert not [e for e in written(built_in(), source) if e.tag.is_private]
    named = DeidSettings(private_creators=("SIEMENS MR HEADER",))
    found = written(effective(named), source)
    assert {(str(e.tag), str(e.value)) for e in found if e.tag.is_private} == {
        ("(0019,0010)", "SIEMENS MR HEADER"),
        ("(0019,100C)", "1000"),
    }


def test_a_creator_that_is_not_offered_is_refused_with_the_list():
    with pytest.raises(SettingsError, match="SIEMENS MR HEADER"):
        effective(DeidSettings(private_creators=("CANARY",)))


def test_the_digest_covers_release_file_and_settings():
    text = rows({"keyword": "KVP", "range": [0, 50]})
    digests = {
        effective(DeidSettings(), "").digest,
        effective(DeidSettings(), text).digest,
        effective(DeidSettings(), text + "\n").digest,
        effective(DeidSettings(device_make=False), "").digest,
        effective(DeidSettings(device_make=False), text).digest,
        effective(DeidSettings(private_creators=("GEMS_PARM_01",)), "").digest,
        effective(DeidSettings(burned_in_text="ignore"), "").digest,
    }
    assert len(digests) == 7
    assert effective(DeidSettings(), "") == built_in()
    assert effective(DeidSettings(retired_key="destroy", tighten="a.toml"), "") == built_in()


def test_a_site_works_by_its_own_file(tmp_path):
    """Through ingestion: the file that site.toml names decides what is written."""
    site = new_site(tmp_path / "site")
    settings_file = site.folder / "site.toml"
    settings_file.write_text(settings_file.read_text() + '\n[deid]\ntighten = "stricter.toml"\n')
    with pytest.raises(SettingsError, match="cannot be read"):
        _ = load_site(site.folder).tighten
    (site.folder / "stricter.toml").write_text(rows({"keyword": "PatientSex", "action": "empty"}))
    ingest(load_site(site.folder), export(tmp_path / "export", 1), None, workers=1)
    (found,) = site.dicom.rglob("*.dcm")
    assert pydicom.dcmread(found).PatientSex == ""


def written(profile, source: pydicom.Dataset) -> pydicom.Dataset:
    pixels = np.frombuffer(source.PixelData, "<u2").reshape(source.Rows, source.Columns)
    return Deidentifier(profile, NAMES).apply(source, pixels)


TEXT = st.sampled_from(
    ["M", "F", "O", "X", "PRIMARY", "OTHER", "Aster", "CANARY", "", ".*", "[A-Z]+", "a)|(.*", "(?i)m"]
)
NUMBER = st.one_of(st.floats(), st.integers(-(2**40), 2**40), st.sampled_from([0, 1, 50, 1000]))
ROW = st.fixed_dictionaries(
    {"keyword": st.sampled_from([*KEYWORDS, "PatientComments", "OverlayData", "Nonsense"])},
    optional={
        "action": st.sampled_from([*ACTIONS, "remove", "maybe"]),
        "values": st.lists(TEXT, max_size=3),
        "pattern": TEXT,
        "range": st.tuples(NUMBER, NUMBER).map(list),
        "items": st.lists(st.sampled_from(KEYWORDS), max_size=3),
        "otherwise": st.sampled_from([*OTHERWISE, "shrug"]),
    },
)


@st.composite
def plausible(draw) -> dict[str, object]:
    """A row as a data-protection officer would write it, about some attribute of the release."""
    rule = built_in().rules[draw(st.sampled_from(KEYWORDS) | st.sampled_from(FORMS))]
    row: dict[str, object] = {"keyword": rule.keyword}
    if rule.values:
        row["values"] = draw(st.lists(st.sampled_from([*sorted(rule.values), "X"]), min_size=1, max_size=4))
    elif rule.range:
        row["range"] = sorted(draw(st.tuples(*[st.floats(*rule.range) | NUMBER] * 2)), key=str)
    elif rule.items:
        row["items"] = draw(st.lists(st.sampled_from(rule.items), min_size=1))
    elif rule.pattern:
        row["pattern"] = draw(TEXT)
    if draw(st.booleans()):
        row["otherwise"] = draw(st.sampled_from(OTHERWISE))
    if draw(st.integers(0, 4)) == 0:
        row = {"keyword": rule.keyword, "action": draw(st.sampled_from(["remove", "empty"]))}
    return row


VALUE = st.one_of(TEXT, NUMBER, st.lists(TEXT, min_size=2, max_size=3))
SWITCHES = st.builds(
    DeidSettings,
    patient_characteristics=st.booleans(),
    device_make=st.booleans(),
    longitudinal_dates=st.booleans(),
    private_creators=st.sampled_from([(), ("SIEMENS MR HEADER",)]),
)


def toml(value: object) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return json.dumps(value) if isinstance(value, str) else repr(value)


@settings(max_examples=500, deadline=None)
@given(rows=st.lists(plausible() | ROW, min_size=1, max_size=2), switches=SWITCHES, value=VALUE)
def test_whatever_it_says_nothing_is_kept_that_the_release_would_not_keep(rows, switches, value):
    """Rule by rule and value by value: the result is the release's, or less."""
    text = "\n".join(
        "[[attribute]]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in row.items()) for row in rows
    )
    try:
        profile = effective(switches, text)
    except SettingsError:
        return
    release = built_in().rules
    assert profile.rules.keys() <= release.keys()
    assert set(profile.private) <= set(built_in().offered)
    for row in rows:
        before = release.get(row["keyword"])
        after = profile.rules.get(row["keyword"])
        if before is None or after is None:
            continue
        assert after.action in (before.action, "empty")
        assert set(after.items) <= set(before.items)
        assert (
            OTHERWISE.index(after.otherwise) >= OTHERWISE.index(before.otherwise) or after.action == "empty"
        )
        assert after.vr == before.vr
        if after.action == "keep":
            never_more(before, after, value)


def never_more(before: Rule, after: Rule, value: object) -> None:
    """One value under both rules: kept by the stricter means kept, and the same, by the release's."""
    for vr in after.vr:
        try:
            element = DataElement(after.tag, vr, value, validation_mode=0)
        except (TypeError, ValueError, OverflowError):
            continue
        by_stricter, by_release = one(after, element), one(before, element)
        if by_stricter in (None, REFUSED, "OTHER"):
            continue
        if isinstance(by_stricter, list) and "OTHER" in by_stricter:
            assert all(a in ("OTHER", b) for a, b in zip(by_stricter, by_release, strict=True))
            continue
        assert by_stricter == by_release


def one(given_rule: Rule, element: DataElement) -> object:
    try:
        return kept(given_rule, element, NOBODY)
    except FileRefused:
        return REFUSED
