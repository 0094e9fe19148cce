"""Canaries in the values of attributes: everything an attribute can say about a person, and where words hide."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from pydicom.dataset import Dataset

from tests.client.acceptance.case import Canary, Case, attributes, base, changed, element
from tests.client.intake_files import to_bytes

VERIFY: Final = "deid-verify"


def dates(ds: Dataset, canary: Canary) -> None:
    """Every date of a study, as date, as date with time and as time."""
    day = f"{canary.studied:%Y%m%d}"
    ds.SeriesDate = ds.ContentDate = ds.AcquisitionDate = ds.InstanceCreationDate = day
    ds.StudyTime = ds.SeriesTime = ds.ContentTime = ds.AcquisitionTime = (
        f"101{canary.digits[-3:]}.{canary.digits[2:8]}"
    )
    ds.AcquisitionDateTime = f"{day}101112.{canary.digits[2:8]}"
    ds.DateOfSecondaryCapture = ds.DateOfLastCalibration = ds.PatientBirthDate = f"{canary.born:%Y%m%d}"


def other_ids(ds: Dataset, canary: Canary) -> None:
    """Another hospital's number of the patient."""
    other = Dataset()
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = canary.digits, canary.word, "TEXT"
    ds.OtherPatientIDsSequence = [other]


def people(ds: Dataset, canary: Canary) -> None:
    """Every physician and operator, plain and with an address."""
    name, person = f"{canary.word}^Ottilie^^Dr.", Dataset()
    ds.ReferringPhysicianName = ds.PerformingPhysicianName = ds.OperatorsName = name
    ds.NameOfPhysiciansReadingStudy = ds.PhysiciansOfRecord = ds.RequestingPhysician = [
        name,
        f"{canary.word}^B",
    ]
    person.InstitutionName, person.PersonAddress, person.PersonTelephoneNumbers = (
        canary.word,
        canary.word,
        canary.digits,
    )
    ds.OperatorIdentificationSequence = ds.ReferringPhysicianIdentificationSequence = [person]
    ds.ReferringPhysicianTelephoneNumbers = canary.digits


def _wrong_number(keyword: str) -> Case:
    return Case(
        f"words for the number {keyword}",
        f"{keyword}, a decimal number by its type",
        changed(lambda ds, c: ds.add_new(keyword, "LO", c.word)),
        lost=(keyword,),
    )


def is_code(said: object) -> bool:
    """Whether this is what stands for a maker or model on no list."""
    return re.fullmatch("(maker|model)-[0-9a-f]{8}", str(said)) is not None


def coded(*keywords: str) -> Callable[[Dataset, Dataset], None]:
    """A keyed code stands where a maker or model on no list stood."""

    def check(_source: Dataset, kept: Dataset) -> None:
        for keyword in keywords:
            assert is_code(kept.get(keyword)), keyword

    return check


def typed_as_decimal(canary: Canary) -> bytes:
    """Letters in sixteen characters that say they are a number."""
    data = to_bytes(base(canary, KVP="120.000000000000"))
    return data.replace(b"120.000000000000", canary.word.encode().ljust(16))


PATIENT: Final = (
    Case("patient's name", "PatientName", attributes(PatientName="{word}^Eva^Maria^Dr.^MdB")),
    Case("patient's number", "PatientID", attributes(PatientID="{word}-{digits}")),
    Case("other numbers", "OtherPatientIDs, two values", attributes(OtherPatientIDs=["{digits}", "{word}"])),
    Case("other numbers in a sequence", "OtherPatientIDsSequence", changed(other_ids)),
    Case(
        "other names",
        "OtherPatientNames, PatientBirthName, PatientMotherBirthName",
        attributes(
            OtherPatientNames=["{word}^A", "{word}^B"],
            PatientBirthName="{word}",
            PatientMotherBirthName="{word}",
        ),
    ),
    Case("issuer of the number", "IssuerOfPatientID", attributes(IssuerOfPatientID="{word}")),
    Case("birth", "PatientBirthDate with PatientBirthTime", attributes(PatientBirthTime="041112.{digits}")),
    Case(
        "address",
        "PatientAddress, CountryOfResidence, RegionOfResidence, PatientTelephoneNumbers",
        attributes(
            PatientAddress="{word} 3, 12345 Ort",
            CountryOfResidence="{word}",
            RegionOfResidence="{word}",
            PatientTelephoneNumbers="+49 {digits}",
        ),
    ),
    Case(
        "person's circumstances",
        "MilitaryRank, EthnicGroup, Occupation, PatientReligiousPreference",
        attributes(
            MilitaryRank="{word}",
            EthnicGroup="{word}",
            Occupation="{word}",
            PatientReligiousPreference="{word}",
        ),
    ),
    Case(
        "history",
        "PatientComments, AdditionalPatientHistory, MedicalAlerts, Allergies, PatientState",
        attributes(
            PatientComments="Tochter von Frau {word}",
            AdditionalPatientHistory="seen by {word}",
            MedicalAlerts="{word}",
            Allergies="{word}",
            PatientState="{word}",
        ),
    ),
    Case(
        "guardian",
        "ResponsiblePerson",
        attributes(ResponsiblePerson="{word}^Uta", ResponsibleOrganization="{word}"),
    ),
    Case(
        "insurance",
        "PatientInsurancePlanCodeSequence",
        changed(lambda ds, c: _code(ds, "PatientInsurancePlanCodeSequence", c)),
    ),
    Case(
        "name in the sex",
        "PatientSex",
        changed(lambda ds, c: ds.add_new("PatientSex", "CS", c.word.upper())),
        lost=("PatientSex",),
    ),
    Case(
        "name in the age",
        "PatientAge",
        changed(lambda ds, c: ds.add_new("PatientAge", "AS", c.word[-4:])),
        lost=(),
    ),
)
STAFF: Final = (
    Case("physicians and operators", "every name, address and telephone of staff", changed(people)),
    Case(
        "institution",
        "InstitutionName, InstitutionAddress, InstitutionalDepartmentName",
        attributes(
            InstitutionName="Klinik {word}",
            InstitutionAddress="{word} 1",
            InstitutionalDepartmentName="{word}",
        ),
    ),
    Case("station", "StationName", attributes(StationName="{word}")),
    Case(
        "device numbers",
        "DeviceSerialNumber, GantryID, DetectorID, PlateID, CassetteID",
        attributes(
            DeviceSerialNumber="{word}{digits}",
            GantryID="{word}",
            DetectorID="{word}",
            PlateID="{word}",
            CassetteID="{word}",
        ),
    ),
    Case(
        "order numbers",
        "StudyID, AdmissionID, PlacerOrderNumberImagingServiceRequest",
        attributes(
            StudyID="{digits}",
            AdmissionID="{digits}",
            PlacerOrderNumberImagingServiceRequest="{word}",
        ),
    ),
    Case(
        "application titles",
        "RetrieveAETitle, ScheduledStationAETitle",
        attributes(
            RetrieveAETitle="{word}",
            ScheduledStationAETitle="{word}",
        ),
    ),
)
DATES: Final = (
    Case("dates and times", "every DA, DT and TM of study, series, content and calibration", changed(dates)),
    *(
        Case(
            f"date in free text, {name}",
            "StudyDescription, ImageComments",
            attributes(StudyDescription=f"CT vom {form}", ImageComments=f"geb. {form}"),
        )
        for name, form in (
            ("ISO", "{born:%Y-%m-%d}"),
            ("German", "{born:%d.%m.%Y}"),
            ("American", "{born:%m/%d/%Y}"),
            ("month in letters", "{born:%d %B %Y}"),
            ("compact", "{born:%Y%m%d}"),
        )
    ),
    Case(
        "birth date as an exposure",
        "ExposureInuAs, a number of eight digits",
        attributes(ExposureInuAs="{born:%Y%m%d}"),
        outcome=VERIFY,
    ),
    Case(
        "telephone as a window",
        "WindowCenter, a number of ten digits",
        attributes(WindowCenter="{digits}", WindowWidth="400"),
    ),
)
TEXT: Final = (
    *(
        Case(f"name in {keyword}", keyword, attributes(**{keyword: "Thorax {word}"}))
        for keyword in (
            "StudyDescription",
            "SeriesDescription",
            "ImageComments",
            "ProtocolName",
            "DerivationDescription",
        )
    ),
    *(
        Case(f"name in {keyword}", keyword, attributes(**{keyword: "{word}"}))
        for keyword in (
            "ConvolutionKernel",
            "SequenceName",
            "SoftwareVersions",
            "WindowCenterWidthExplanation",
            "RescaleType",
            "BodyPartExamined",
            "RequestedProcedureDescription",
            "ContrastBolusAgent",
            "FilterType",
            "AcquisitionDeviceProcessingDescription",
            "PresentationLUTShape",
            "LossyImageCompressionMethod",
        )
    ),
    Case(
        "name in ImageType",
        "a further value of ImageType",
        changed(lambda ds, c: setattr(ds, "ImageType", ["ORIGINAL", "PRIMARY", c.word.upper()])),
    ),
    Case("name in ViewPosition", "ViewPosition", attributes(ViewPosition="{word}"), lost=("ViewPosition",)),
    Case(
        "name in PatientOrientation",
        "one of the two values of PatientOrientation",
        attributes(PatientOrientation=["L", "{word}"]),
    ),
    Case(
        "patient's name as maker and model",
        "Manufacturer and ManufacturerModelName equal to the patient's family name",
        attributes(Manufacturer="{family}", ManufacturerModelName="{family} {given}"),
        lost=("Manufacturer", "ManufacturerModelName"),
    ),
    Case(
        "stranger as maker",
        "Manufacturer alone, a name that stands nowhere else in the file",
        attributes(Manufacturer="{word}"),
        lost=("Manufacturer", "ManufacturerModelName"),
        check=coded("Manufacturer", "ManufacturerModelName"),
    ),
    Case(
        "stranger as model",
        "ManufacturerModelName alone, a name that stands nowhere else in the file",
        attributes(ManufacturerModelName="{word}"),
        lost=("ManufacturerModelName",),
        check=coded("ManufacturerModelName"),
    ),
    Case(
        "stranger after a maker",
        "Manufacturer and ManufacturerModelName of a known device, each with a name after it",
        attributes(Manufacturer="SIEMENS {word}", ManufacturerModelName="Prisma {word}"),
        lost=("Manufacturer", "ManufacturerModelName"),
        check=coded("Manufacturer", "ManufacturerModelName"),
    ),
    Case(
        "operator's name as model",
        "ManufacturerModelName equal to OperatorsName",
        attributes(ManufacturerModelName="{word}", OperatorsName="{word}^Uta"),
        lost=("ManufacturerModelName",),
    ),
    Case(
        "name in a remark and as model",
        "ManufacturerModelName equal to a name in PatientComments",
        attributes(ManufacturerModelName="{word} 7", PatientComments="for Frau {word}"),
        lost=("ManufacturerModelName",),
    ),
    Case(
        "number as model",
        "ManufacturerModelName equal to PatientID",
        attributes(ManufacturerModelName="{patient}"),
        lost=("ManufacturerModelName",),
    ),
    Case(
        "birth date as model",
        "ManufacturerModelName holds PatientBirthDate",
        attributes(ManufacturerModelName="DR {born:%d.%m.%Y}"),
        lost=("ManufacturerModelName",),
    ),
    *map(_wrong_number, ("KVP", "Exposure", "PixelSpacing")),
    Case(
        "words typed as a decimal", "KVP with VR DS and letters as its value", typed_as_decimal, lost=("KVP",)
    ),
    Case("unlimited text", "TextValue, UT of 8 KiB", element(0x0040A160, "UT", lambda c: f"{c.word} " * 800)),
    Case("web address", "RetrieveURL, UR", element(0x00081190, "UR", "http://pacs/{word}?id={digits}")),
)


def _code(ds: Dataset, keyword: str, canary: Canary) -> None:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = canary.digits, "99LOCAL", canary.word
    setattr(ds, keyword, [item])


UIDS: Final = (
    Case(
        "telephone in a UID",
        "StudyInstanceUID ends in ten digits of a telephone",
        attributes(StudyInstanceUID="1.2.3.{digits}"),
    ),
    Case(
        "birth date in a UID",
        "SeriesInstanceUID holds PatientBirthDate",
        attributes(SeriesInstanceUID="1.2.3.{born:%Y%m%d}.1"),
    ),
    Case(
        "patient's number in a UID",
        "FrameOfReferenceUID and SOPInstanceUID",
        attributes(
            FrameOfReferenceUID="1.2.3.{digits}",
            SOPInstanceUID="1.2.4.{digits}.{born:%Y%m%d}",
        ),
    ),
    Case("words in a UID", "StudyInstanceUID with letters", attributes(StudyInstanceUID="1.2.{word}.3")),
    Case(
        "UIDs of other images",
        "ReferencedStudySequence, SourceImageSequence",
        changed(
            lambda ds, c: [
                setattr(ds, k, [_reference(c)])
                for k in ("ReferencedStudySequence", "SourceImageSequence", "ReferencedPatientSequence")
            ],
        ),
    ),
)


def _reference(canary: Canary) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = (
        "1.2.840.10008.3.1.2.3.1",
        f"1.9.{canary.digits}",
    )
    return item


def _age(wanted: str) -> Callable[[Dataset, Dataset], None]:
    def check(_source: Dataset, kept: Dataset) -> None:
        assert kept.PatientAge == wanted

    return check


def _born_only(_source: Dataset, kept: Dataset) -> None:
    """From 1931..39 to 2041..43: over ninety years."""
    assert kept.PatientAge == "090Y"


AGES: Final = (
    Case("age 89", "PatientAge 089Y stays", attributes(PatientAge="089Y"), check=_age("089Y")),
    Case("age 95", "PatientAge 095Y is said as 090Y", attributes(PatientAge="095Y"), check=_age("090Y")),
    Case("age in weeks", "PatientAge 110W is two years", attributes(PatientAge="110W"), check=_age("002Y")),
    Case("age in days", "PatientAge 003D is no year", attributes(PatientAge="003D"), check=_age("000Y")),
    Case(
        "birth date only",
        "no PatientAge; the age follows from the dates",
        attributes(PatientAge=""),
        check=_born_only,
    ),
)
CASES: Final = (*PATIENT, *STAFF, *DATES, *TEXT, *UIDS, *AGES)
