"""Names in the world's alphabets, told in the right character set, in the wrong one, and in none."""

from __future__ import annotations

from typing import Final

from pydicom.dataset import Dataset

from tests.client.acceptance.case import Canary, Case, Make, base
from tests.client.intake_files import to_bytes

SETS: Final = (
    ("Latin-1", "ISO_IR 100", "Müßelhäußer^Zoë"),
    ("Latin-2", "ISO_IR 101", "Wąsiłęwiczówna^Świętosława"),
    ("Cyrillic", "ISO_IR 144", "Щербаковский^Юрий"),
    ("Greek", "ISO_IR 126", "Παπαδημητρόπουλος^Διονυσία"),
    ("Arabic", "ISO_IR 127", "قباني^لنزار"),
    ("Hebrew", "ISO_IR 138", "שרוןברגמן^דבורהלה"),
    ("Thai", "ISO_IR 166", "นามสกุลยาว^สมชายมาก"),
    ("Chinese", "GB18030", "王小东陈立夫^欧阳震华"),
    ("Unicode", "ISO_IR 192", "Þórðarson臻^Ǧəbrɑl"),
)


def _name(charset: str, name: str) -> Make:
    """The name as patient, as physician and in remarks, in bytes of its own coding."""

    def make(canary: Canary) -> bytes:
        ds = base(canary, SpecificCharacterSet=charset)
        ds.PatientName = name
        return to_bytes(_everywhere(ds, name))

    return make


def _everywhere(ds: Dataset, name: str) -> Dataset:
    family = name.split("^", maxsplit=1)[0]
    ds.ReferringPhysicianName = ds.OperatorsName = name
    ds.StudyDescription = ds.ImageComments = f"Thorax {family}"
    ds.PatientAddress = ds.InstitutionName = family
    return ds


def japanese(canary: Canary) -> bytes:
    """Three groups: letters, ideographs, sounds; with escape sequences."""
    ds = base(canary, SpecificCharacterSet=["", "ISO 2022 IR 87"])
    ds.PatientName = f"{canary.word}^Tarou=山田川端^太郎左衛門=やまだかわばた^たろうざえもん"
    ds.StudyDescription = "山田川端 胸部"
    return to_bytes(ds)


def three_groups(canary: Canary) -> bytes:
    """Three groups in Unicode; the name of the first group stands also as the model."""
    ds = base(canary, SpecificCharacterSet="ISO_IR 192")
    ds.PatientName = f"{canary.word}^Tarou=山田川端^太郎左衛門=やまだかわばた^たろうざえもん"
    ds.ManufacturerModelName = canary.word
    return to_bytes(ds)


def _mislabelled(said: str | None, coding: str) -> Make:
    """Bytes of one coding under the name of another."""

    def make(canary: Canary) -> bytes:
        ds = base(canary)
        if said is not None:
            ds.SpecificCharacterSet = said
        placeholder = "#" * len(f"Müßelhäußer{canary.word}".encode(coding))
        ds.PatientName = ds.StudyDescription = ds.ProtocolName = placeholder
        return to_bytes(ds).replace(placeholder.encode(), f"Müßelhäußer{canary.word}".encode(coding))

    return make


CASES: Final = (
    *(
        Case(f"{kind} name", f"PatientName and remarks in {charset}", _name(charset, name))
        for kind, charset, name in SETS
    ),
    Case("Japanese name", "three groups of PatientName in ISO 2022 IR 87", japanese),
    Case(
        "three groups of a name",
        "PatientName in ISO_IR 192, its first group also the model",
        three_groups,
        lost=("ManufacturerModelName",),
    ),
    Case(
        "Unicode said to be ASCII",
        "PatientName in UTF-8, no SpecificCharacterSet",
        _mislabelled(None, "utf-8"),
    ),
    Case(
        "Latin-1 said to be Unicode",
        "PatientName in Latin-1 under ISO_IR 192",
        _mislabelled("ISO_IR 192", "latin-1"),
    ),
    Case("unknown character set", "SpecificCharacterSet ISO_IR 999", _mislabelled("ISO_IR 999", "latin-1")),
)
NAMES: Final = (
    *(part for _, _, name in SETS for part in name.split("^")),
    "山田川端",
    "太郎左衛門",
    "やまだかわばた",
    "Müßelhäußer",
)
"""Words of these names, looked for in every coding in everything that is kept."""
