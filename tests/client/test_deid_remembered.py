"""What is remembered from one file to the next changes nothing: every file comes out as if it were the only one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from client.deid import wanted
from client.deid.deidentify import Deidentifier, encode
from client.deid.fresh import PIXELS, pixel_elements
from client.deid.pixels import decode
from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms
from client.deid.remembered import Memory, short_value
from client.deid.speaking import speaking
from client.deid.wanted import Wanted, identifiers
from client.deid.work import identity
from client.deid.writings import folded
from client.intake.parse import quiet, read
from common.errors import FileRefused
from tests.client.intake_files import image, to_bytes
from tests.data import shared_data

NAMES = Pseudonyms(b"k" * 32, b"s" * 32)
CT_TYPE = ["ORIGINAL", "PRIMARY", "AXIAL"]


def fresh() -> Deidentifier:
    return Deidentifier(built_in(), NAMES)


def made(tool: Deidentifier, ds: Dataset) -> bytes:
    with quiet():
        source = read(to_bytes(ds, ExplicitVRLittleEndian))
        return encode(tool.apply(source, decode(source)))


def kept(tool: Deidentifier, ds: Dataset, keyword: str) -> object:
    with quiet():
        source = read(to_bytes(ds, ExplicitVRLittleEndian))
        return tool.apply(source, decode(source)).get(keyword)


def test_a_value_that_names_the_next_patient_is_not_kept_because_it_was_kept_before():
    tool = fresh()
    assert kept(tool, image(1, BodyPartExamined="CHEST"), "BodyPartExamined") == "CHEST"
    assert not kept(tool, image(2, BodyPartExamined="CHEST", PatientName="Chest^Ottilie"), "BodyPartExamined")
    assert kept(tool, image(3, BodyPartExamined="CHEST"), "BodyPartExamined") == "CHEST"


def test_a_value_that_named_the_first_patient_is_kept_of_the_next():
    """What was left out, or replaced by OTHER, for one person's name is no word about the next person."""
    tool = fresh()
    named = image(1, ImageType=CT_TYPE, BodyPartExamined="CHEST", PatientName="Axial^Chest")
    assert list(kept(tool, named, "ImageType")) == ["ORIGINAL", "PRIMARY", "OTHER"]
    assert not kept(tool, named, "BodyPartExamined")
    assert kept(tool, image(1, ImageType="AXIAL", PatientName="Axial^Chest"), "ImageType") == "OTHER"
    assert list(kept(tool, image(2, ImageType=CT_TYPE), "ImageType")) == CT_TYPE
    assert kept(tool, image(2, ImageType="AXIAL"), "ImageType") == "AXIAL"
    assert kept(tool, image(2, BodyPartExamined="CHEST"), "BodyPartExamined") == "CHEST"


def test_one_word_that_another_rule_would_write_differently_is_not_mixed_up():
    """The same bytes under two attributes: each keeps its own element."""
    tool = fresh()
    both = image(1, BodyPartExamined="CHEST", Laterality="L", ImageLaterality="L")
    assert made(tool, both) == made(fresh(), both)
    assert made(tool, both) == made(fresh(), both)


def test_a_number_of_another_kind_is_not_taken_for_one_that_was_met():
    """An element whose bytes are the same under another value representation is asked for anew."""
    rule = built_in().rule("KVP")
    one, other = (RawDataElement(rule.tag, vr, 4, b"120 ", 0, False, True) for vr in (rule.vr[0], "UN"))
    assert short_value(rule, one) is not None
    assert short_value(rule, other) is None
    assert short_value(rule, RawDataElement(rule.tag, rule.vr[0], 4, b"120 ", 0, False, False)) is None
    assert Memory().recall(short_value(rule, one), rule, Wanted()) is None


def sources() -> list[Path]:
    real = sorted(shared_data("dicom_multivendor").glob("*.dcm"))
    return [*real, Path(str(get_testdata_file("CT_small.dcm", download=False)))]


def test_every_real_file_comes_out_the_same_after_all_the_others():
    """Byte for byte, whether one worker made them all, twice, or a new one made each."""
    tool, compared = fresh(), 0
    with quiet():
        for path in sources() * 2:
            try:
                source = read(path.read_bytes())
                identity(source)
                pixels = decode(source)
                alone = encode(fresh().apply(source, pixels))
            except FileRefused:
                continue
            assert encode(tool.apply(source, pixels)) == alone, path.name
            compared += 1
    assert compared > 60


def test_what_a_source_names_is_what_its_elements_name_together():
    """Each element asked by itself, remembered or not, and one collector that met them all."""
    for path in sources():
        with quiet():
            try:
                source = read(path.read_bytes())
                found = identifiers(source)
            except FileRefused:
                continue
            makers = frozenset(folded(source.get(k)) for k in ("Manufacturer", "ManufacturerModelName"))
            whole = wanted._Collector(makers)
            for one in (*speaking(source.file_meta), *speaking(source)):
                whole.take(one)
        assert found == whole.wanted() == identifiers(source), path.name


@pytest.mark.parametrize("text", ["", "CHEST", "20210312", "A 123-456 B", "Wu Li", "x" * 700, "Abendroth 7"])
def test_a_value_is_looked_at_alike_however_often(text):
    every = [
        Wanted(words=frozenset(["abendroth", "chest"])),
        Wanted(parts=frozenset(["xxxxxxx"])),
        Wanted(numbers=frozenset(["123456"])),
        Wanted(days=frozenset(["20210312"])),
        Wanted(pairs=frozenset([("wu", "li")])),
        Wanted(tight=frozenset(["a123456b"])),
        Wanted(said=frozenset(["abendroth"])),
        Wanted(),
    ]
    first = [one.touches(text) for one in every]
    assert first == [one.touches(text) for one in every]
    assert sum(first) == {"": 0, "CHEST": 1, "20210312": 1, "A 123-456 B": 2, "Wu Li": 1, "x" * 700: 1}.get(
        text, 2
    )


def test_pixels_that_nothing_changed_are_not_copied_and_others_are_never_shared():
    with quiet():
        source = read(to_bytes(image(1, BitsStored=16, HighBit=15)))
        tool = fresh()
        pixels = decode(source)
        raw = source.get_item("PixelData").value
        elements = tool.apply(source, pixels)
        assert elements.get_item(PIXELS).value is raw
        bits = {key: elements.get_item(key) for key in elements.keys() if key != PIXELS}  # noqa: SIM118 (tags)
        for other in (pixels[1:], pixels[::-1], pixels.T, pixels.copy(), np.stack([pixels, pixels])):
            value = pixel_elements(bits, other)[PIXELS].value
            assert value is not raw
            assert value == np.ascontiguousarray(other).tobytes()
