"""The proof sees an identifier however it is written and wherever it survives; each place and writing has its test.

A verifier that skips file meta, nested items, the tail, the pixels, another script, or what can be read, fails one
of these or of `test_deid_verify`.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from client.deid.deidentify import Deidentifier, encode, mark
from client.deid.pictured import names_somebody, nearest
from client.deid.pixels import decode
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings
from client.deid.text.found import Decision
from client.deid.verify import Wanted, check, identifiers
from client.deid.writings import ENCODINGS
from client.intake.bench import Bench
from client.intake.outcome import Task
from client.intake.parse import quiet, read
from client.intake.pool import Setup
from client.intake.proof import Proof, write_proved
from common.errors import FileRefused
from tests.client.intake_files import image, set_pixels, to_bytes
from tests.client.text_pictures import ground, write

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)
DEIDENTIFIER = Deidentifier(built_in(), NAMES)
DESCRIPTION = 0x0008103E
PIXELS = 0x7FE00010


def source_of(ds: Dataset) -> Dataset:
    with quiet():
        return read(to_bytes(ds))


def cleaned(source: Dataset) -> Dataset:
    with quiet():
        target = DEIDENTIFIER.apply(source, decode(source))
    mark(target)
    return target


def put(target: Dataset, tag: int, vr: str, raw: bytes) -> None:
    """Bytes into an element as they are, whatever its VR says of them."""
    raw += b" " * (len(raw) % 2)
    target[BaseTag(tag)] = RawDataElement(BaseTag(tag), vr, len(raw), raw, 0, False, True)


def is_refused(target: Dataset, source: Dataset) -> bool:
    try:
        check(encode(target), identifiers(source))
    except FileRefused as refusal:
        return refusal.code == "deid-verify"
    return False


SCRIPTS = {
    "accented": ("ISO_IR 100", "Müller-Lüdenscheidt^Jörg"),
    "greek": ("ISO_IR 126", "Παπαδόπουλος^Γιώργος"),
    "cyrillic": ("ISO_IR 144", "Кузнецова^Людмила"),
    "japanese": (["", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎=やまだ^たろう"),
    "korean": (["", "ISO 2022 IR 149"], "Hong^Gildong=洪^吉洞=홍^길동"),
    "chinese": ("GB18030", "Wang^XiaoDong=王小东^先生"),
    "unicode": ("ISO_IR 192", "Ďurišová^Žofia"),
}


def named(script: str) -> Dataset:
    charset, name = SCRIPTS[script]
    ds = image()
    ds.SpecificCharacterSet = charset
    ds.PatientName = name
    return ds


def writings(script: str) -> list[bytes]:
    """The longest part of the name that is not ASCII, in every encoding that can write it."""
    parts = SCRIPTS[script][1].replace("=", "^").split("^")
    part = max((p for p in parts if not p.isascii()), key=lambda p: len(p.encode()))
    found = set()
    for encoding in ENCODINGS:
        for text in (part, part.upper(), part.lower()):
            try:
                found.add(text.encode(encoding))
            except UnicodeEncodeError:
                continue
    return sorted(found)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_name_in_another_script_is_found_in_text_in_whichever_encoding(script):
    source = source_of(named(script))
    assert not is_refused(cleaned(source), source)
    assert len(writings(script)) >= 4
    for raw in writings(script):
        target = cleaned(source)
        put(target, DESCRIPTION, "LO", raw)
        assert is_refused(target, source), raw


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("place", ["pixels", "table"])
def test_a_name_in_another_script_is_found_in_binary_in_whichever_encoding(script, place):
    source = source_of(named(script))
    for raw in (one for one in writings(script) if len(one) >= 6):
        target = cleaned(source)
        if place == "pixels":
            held = target.PixelData
            put(target, PIXELS, "OW", held[:1001] + raw + held[1001 + len(raw) :])
            target.BitsStored = 16
        else:
            put(target, 0x00281201, "OW", raw)
        assert is_refused(target, source), raw


def test_a_name_whose_character_set_was_not_named_is_found_byte_for_byte():
    """Shift JIS without a word about it: pydicom reads it as Latin letters; the bytes are what they are."""
    ds = image()
    ds.PatientName = "XXXXXXXXXX"
    data = to_bytes(ds).replace(b"XXXXXXXXXX", "山田太郎".encode("shift_jis") + b"^A")
    with quiet():
        source = read(data)
    target = cleaned(source)
    held = target.PixelData
    put(target, PIXELS, "OW", held[:1000] + "山田太郎".encode("shift_jis") + held[1008:])
    target.BitsStored = 16
    assert is_refused(target, source)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("at", [2000, 2001])
def test_an_ordinary_name_with_two_bytes_a_letter_is_found_in_pixels(encoding, at):
    source = source_of(image())
    target = cleaned(source)
    raw = "Wilhelmina".encode(encoding)
    held = target.PixelData
    put(target, PIXELS, "OW", held[:at] + raw + held[at + len(raw) :])
    target.BitsStored = 16
    assert is_refused(target, source)


WRITTEN = {
    "without its diacritics": ("Müller-Lüdenscheidt^Jörg", "seen: Ludenscheidt"),
    "in the German manner": ("Müller-Lüdenscheidt^Jörg", "MUELLER"),
    "without the hyphen": ("Müller-Lüdenscheidt^Jörg", "x mullerludenscheidt x"),
    "polish letters": ("Wałęsa^Łucja", "walesa"),
    "danish letters": ("Sørensen^Åse", "SOERENSEN"),
    "an apostrophe less": ("O'Callaghan^Siobhan", "OCallaghan"),
    "backwards": ("Abendroth^Wilhelmina", "animlehliw"),
    "two short names side by side": ("Wu^Li", "study of Li Wu"),
    "a short name with a long one": ("Ng^Bartholomea", "Bartholomea"),
    "three letters": ("Kim^X", "for Kim"),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_a_name_is_found_in_other_writings(case):
    name, leak = WRITTEN[case]
    ds = image()
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.PatientName = name
    source = source_of(ds)
    target = cleaned(source)
    assert not is_refused(target, source)
    put(target, DESCRIPTION, "LO", leak.encode())
    assert is_refused(target, source)


NUMBERS = {
    "with blanks": ("77 000 00", "PatientID", "7700000"),
    "with dashes": ("nr 77-000-00", "PatientID", "7700000"),
    "with dots": ("77.000.00", "PatientID", "7700000"),
    "a telephone with brackets": ("(49)30/901820", "PatientTelephoneNumbers", "+49 30 901820"),
    "a number that is parted at its source": ("4930901820", "PatientTelephoneNumbers", "+49 30/90 18 20"),
    "letters and digits parted": ("hosp 77 00000", "PatientID", "HOSP-7700000"),
    "backwards": ("x 0000077", "PatientID", "7700000"),
    "inside a longer text": ("a7700000b", "PatientID", "7700000"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_a_number_is_found_in_other_groupings(case):
    leak, keyword, value = NUMBERS[case]
    source = source_of(image(patient="HOSP-1", **{keyword: value}))
    target = cleaned(source)
    assert not is_refused(target, source)
    put(target, DESCRIPTION, "LO", leak.encode())
    assert is_refused(target, source)


def test_file_meta_is_searched_where_it_may_hold_a_value():
    source = source_of(image())
    for tag, vr, value in (
        (0x00020013, "SH", b"ABENDROTH0"),
        (0x00020003, "UI", b"1.2.276.0.7230010.3.1.1.1\0"),
    ):
        target = cleaned(source)
        raw = value + b"\0" * (len(value) % 2)
        target.file_meta[BaseTag(tag)] = RawDataElement(BaseTag(tag), vr, len(raw), raw, 0, False, True)
        assert is_refused(target, source)


@pytest.mark.parametrize("depth", [1, 3])
def test_nested_items_are_searched(depth):
    source = source_of(image())
    target = cleaned(source)
    inner = Dataset()
    inner.LUTExplanation = "Abendroth0"
    for _ in range(depth - 1):
        outer = Dataset()
        outer.VOILUTSequence = [inner]
        inner = outer
    target.VOILUTSequence = [inner]
    assert is_refused(target, source)


def test_a_byte_after_the_last_frame_is_refused():
    ds = image(Rows=5, Columns=5)
    set_pixels(ds, np.zeros((5, 5), "u1"), stored=8)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 8, 8, 7
    ds.add_new(PIXELS, "OB", bytes(26))
    source = source_of(ds)
    target = cleaned(source)
    assert not is_refused(target, source)
    put(target, PIXELS, "OB", bytes(25) + b"A")
    assert is_refused(target, source)


@pytest.mark.parametrize("how", ["an element after them", "more bytes than announced", "fewer bytes", "none"])
def test_pixels_are_the_last_element_and_of_the_announced_size(how):
    """Whoever stands behind the pixels is seen by no viewer."""
    source = source_of(image())
    target = cleaned(source)
    held = target.PixelData
    if how == "an element after them":
        put(target, 0xFFFCFFFC, "OB", b"harmless")
    elif how == "none":
        del target[PIXELS]
    else:
        put(target, PIXELS, "OW", held + b"harmless" if how.startswith("more") else held[:-2])
    assert is_refused(target, source)


@pytest.mark.parametrize(
    "name", ["Profile^Basic", "Patient^Option", "Other^Patient", "Yes^Removed", "Consilium_1^X"]
)
def test_what_we_write_into_every_file_is_nobodys_name(name):
    source = source_of(image(PatientName=name))
    assert not is_refused(cleaned(source), source)


def test_a_name_that_the_maker_bears_costs_the_maker_and_not_the_image():
    """Decided so: the value is left out. Kept, it would say the name; the image is worth more than its maker."""
    for name in ("Siemens^Werner", "Philips^Frits", "Aster^Grace"):
        maker = name.split("^", maxsplit=1)[0] + " Imaging"
        source = source_of(image(PatientName=name, Manufacturer=maker, ManufacturerModelName="DR-1"))
        target = cleaned(source)
        assert "Manufacturer" not in target
        assert re.fullmatch("model-[0-9a-f]{8}", target.ManufacturerModelName)  # nobody lists it
        assert not is_refused(target, source)


def test_a_short_number_does_not_cost_the_class_or_the_geometry():
    """840, 10008 and 120 stand in every CT: in its class, and as kilovolts."""
    for number in ("840", "10008", "120", "512", "113100"):
        source = source_of(image(patient=number, KVP="120", AccessionNumber=number))
        target = cleaned(source)
        assert (target.SOPClassUID, target.KVP) == (source.SOPClassUID, 120)
        assert not is_refused(target, source)


# what can be read in the pixels

WANTED = Wanted(
    words=frozenset(("abendroth", "wilhelmina", "kim")),
    parts=frozenset(("abendroth", "wilhelmina")),
    numbers=frozenset(("7700000",)),
    days=frozenset(("19550417",)),
    pairs=frozenset((("wu", "li"),)),
)


@pytest.mark.parametrize(
    "line",
    ["ABENDROTH", "ABENDR0TH", "abendrotn", "ABENDROTHWILHELMINA", "A BEND ROTH", "Wi1helmina", "77OOOOO", "770000",
     "17.04.1955", "geb. 17 Apr 1955", "KIM", "Wu Li", "Abéndroth"],
)  # fmt: skip
def test_a_name_read_with_mistakes_is_still_met(line):
    assert names_somebody([line], WANTED)


@pytest.mark.parametrize(
    "line",
    ["", "L", "AP", "PORTABLE", "kimono", "120 kV", "512", "wu", "l", "SUPINE", "20210312", "mm", "5 cm"],
)
def test_what_names_nobody_is_not_met(line):
    assert not names_somebody([line], WANTED)


@pytest.mark.parametrize(
    ("word", "text", "changes"),
    [("abc", "xxabcxx", 0), ("abc", "xxabxx", 1), ("abc", "", 3), ("kitten", "sitting", 2)],
)
def test_the_distance_to_the_nearest_part_of_a_text(word, text, changes):
    assert nearest(word, text) == changes


def test_a_name_in_the_picture_is_refused_even_when_a_person_let_it_pass(tmp_path: Path):
    """A person may overlook it; nothing that names the patient is written."""
    ds = image(PatientName="Abendroth^Wilhelmina")
    set_pixels(ds, write(ground(), "ABENDROTH", value=4000, height=20)[0])
    path = tmp_path / "in.dcm"
    path.write_bytes(to_bytes(ds))
    bench = Bench(DEIDENTIFIER, DeidSettings())
    asked = bench.process(Task(0, str(path), "k", str(tmp_path), decision=Decision(waive=("review-text",))))
    alone = bench.process(Task(1, str(path), "k", str(tmp_path)))
    assert alone.accepted  # blanked, because it was read surely
    assert alone.boxes
    assert alone.actions["blanked"] == len(alone.boxes)
    assert "113101" in alone.methods
    assert asked.accepted
    with quiet():
        held = dcmread(tmp_path / "k.dcm").PixelData
    source = source_of(ds)
    target = cleaned(source)  # as if nothing had been blanked
    assert target.PixelData != held
    with pytest.raises(FileRefused) as caught:
        write_proved(tmp_path / "x.dcm", encode(target), Proof(identifiers(source)))
    assert caught.value.code == "deid-verify"
    assert not (tmp_path / "x.dcm").exists()
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part"]


def test_bytes_that_were_not_searched_never_touch_the_disk(tmp_path: Path):
    source = source_of(image())
    target = cleaned(source)
    put(target, DESCRIPTION, "LO", b"Wilhelmina")
    with pytest.raises(FileRefused):
        write_proved(tmp_path / "x.dcm", encode(target), Proof(identifiers(source), searched=False))
    assert not list(tmp_path.iterdir())


def test_actions_and_methods_of_an_outcome_are_those_of_the_image(tmp_path: Path):
    import json  # noqa: PLC0415 - only here

    ds = image(PatientAge="034Y", StudyTime="101112")
    ds.private_block(0x0029, "X", create=True).add_new(1, "LO", "y")
    path = tmp_path / "in.dcm"
    path.write_bytes(to_bytes(ds))
    bench = Bench.of(json.loads(Setup(NAMES).hello()))
    outcome = bench.process(Task(0, str(path), "k", str(tmp_path)))
    assert outcome.accepted, outcome
    written = dcmread(tmp_path / "k.dcm")
    codes = [item.CodeValue for item in written.DeidentificationMethodCodeSequence]
    assert tuple(codes) == outcome.methods
    actions = dict(outcome.actions)
    assert actions["private-removed"] == 2
    assert actions["uid"] == 3
    assert actions["generalised"] == 1
    assert actions["blanked"] == 0
    here = len(list(dcmread(io.BytesIO(to_bytes(ds))).keys())) - 1  # without the pixels
    made_anew = (
        2  # birth date and serial number are there; a study ID and a scanner's code are written always
    )
    assert sum(actions.values()) <= here + made_anew
