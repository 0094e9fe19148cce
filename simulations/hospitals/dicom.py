"""One exposure as an identified DX or CR object, the way a modality sends it to its archive."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from simulations.hospitals.machines import Shot
from simulations.hospitals.people import Person
from simulations.phantoms import Projection

SYNTAX_UID: Final = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "jpeg2000": JPEG2000Lossless,
    "jpegls": JPEGLSLossless,
    "rle": RLELossless,
}
PRIVATE_GROUP: Final = 0x0019
SOURCE_TO_DETECTOR_MM: Final = {"PA": 1800.0, "AP": 1050.0}


@dataclass(frozen=True)
class Study:
    """What the images of one visit share."""

    person: Person
    institution: str
    station: str
    accession: str
    moment: datetime
    study_uid: str
    series_uid: str
    projection: Projection


@dataclass(frozen=True)
class Picture:
    """One image of a study."""

    study: Study
    shot: Shot
    pixels: npt.NDArray[np.uint16]
    sop_uid: str
    number: int
    burned_in: bool = False


def draw_uid(rng: np.random.Generator) -> str:
    """A UID under 2.25 from 128 random bits (PS3.5 B.2)."""
    return f"2.25.{int.from_bytes(rng.bytes(16), 'big')}"


def to_bytes(picture: Picture, *, monochrome1: bool = False, syntax: str = "explicit") -> bytes:
    """The whole file, preamble and file meta included; the same input gives the same bytes."""
    dx = picture.shot.sop == "DX"
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = (
        DigitalXRayImageStorageForPresentation if dx else ComputedRadiographyImageStorage
    )
    meta.MediaStorageSOPInstanceUID = picture.sop_uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian if syntax == "implicit" else SYNTAX_UID[syntax]
    if not SYNTAX_UID[syntax].is_compressed:
        meta.TransferSyntaxUID = SYNTAX_UID[syntax]
    ds = FileDataset("", {}, file_meta=meta, preamble=bytes(128))
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, picture.sop_uid
    ds.SpecificCharacterSet = "ISO_IR 100"
    _identify(ds, picture.study)
    _describe_visit(ds, picture)
    _describe_exposure(ds, picture)
    _describe_image(ds, picture, monochrome1)
    if SYNTAX_UID[syntax].is_compressed:
        ds.PixelData = picture_bytes(picture, monochrome1)
        ds["PixelData"].VR = "OW"
        ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        ds.compress(SYNTAX_UID[syntax], generate_instance_uid=False)
    else:
        ds.PixelData = picture_bytes(picture, monochrome1)
        ds["PixelData"].VR = "OW"
    out = io.BytesIO()
    pydicom.dcmwrite(out, ds, enforce_file_format=True)
    return out.getvalue()


def picture_bytes(picture: Picture, monochrome1: bool) -> bytes:  # noqa: FBT001 - a photometric interpretation
    """Pixel data, little endian; MONOCHROME1 holds the complement."""
    top = 2**picture.shot.bits - 1
    return (np.uint16(top) - picture.pixels if monochrome1 else picture.pixels).astype("<u2").tobytes()


def _identify(ds: Dataset, study: Study) -> None:
    """Everything that tells who the patient is, in the places real archives have it."""
    person = study.person
    ds.PatientName, ds.PatientID = person.name, person.number
    ds.IssuerOfPatientID = study.institution
    ds.PatientBirthDate = person.birth.strftime("%Y%m%d")
    ds.PatientSex = person.sex
    ds.PatientAge = f"{person.age_at(study.moment.date()):03d}Y"
    ds.OtherPatientNames = f"{person.family}^{person.given[0]}"
    ds.PatientAddress = person.address
    ds.PatientTelephoneNumbers = f"+00 555 {person.number[-7:]}"
    ds.AccessionNumber = study.accession
    ds.StudyInstanceUID, ds.SeriesInstanceUID = study.study_uid, study.series_uid
    ds.StudyID = study.accession[-6:]
    ds.ReferringPhysicianName = study.person.doctor
    ds.OperatorsName = "Technologist^Night"
    ds.InstitutionName = study.institution
    ds.InstitutionAddress = f"1 Hospital Drive, {study.institution}"
    ds.StationName = study.station
    ds.ImageComments = f"Repeat for {person.given} {person.family}, born {person.birth.isoformat()}"
    request = Dataset()
    request.ScheduledProcedureStepDescription = f"Chest for {person.family}"
    request.RequestedProcedureID = study.accession
    ds.RequestAttributesSequence = Sequence([request])
    block = ds.private_block(PRIVATE_GROUP, "CONSOLE NOTES 1", create=True)
    block.add_new(0x01, "LO", f"{person.given} {person.family}")
    block.add_new(0x02, "LO", person.number)
    block.add_new(0x03, "UN", f"{person.name}|{study.accession}".encode("latin-1"))


def _describe_visit(ds: Dataset, picture: Picture) -> None:
    study, shot = picture.study, picture.shot
    day, clock = study.moment.strftime("%Y%m%d"), study.moment.strftime("%H%M%S")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.SeriesTime = clock
    ds.AcquisitionTime = ds.ContentTime = f"{clock}.{picture.number:03d}"
    ds.StudyDescription, ds.SeriesDescription = "Chest", f"Chest {study.projection}"
    ds.Modality = shot.sop
    ds.Manufacturer, ds.ManufacturerModelName = shot.manufacturer, shot.model
    ds.SoftwareVersions = "3.1"
    ds.DeviceSerialNumber = f"SN-{study.station}-0042"
    ds.SeriesNumber, ds.InstanceNumber = 1, picture.number


def _describe_exposure(ds: Dataset, picture: Picture) -> None:
    shot, study = picture.shot, picture.study
    ds.BodyPartExamined, ds.ViewPosition = "CHEST", study.projection
    ds.PatientOrientation = ["L", "F"]
    ds.KVP = f"{shot.kvp:.0f}"
    ds.Exposure = max(1, round(shot.mas))
    ds.DistanceSourceToDetector = f"{SOURCE_TO_DETECTOR_MM[study.projection]:.0f}"
    pitch = f"{shot.pitch_mm:.3f}"
    ds.ImagerPixelSpacing = [pitch, pitch]
    if shot.sop == "CR":
        ds.PixelSpacing = [pitch, pitch]
        ds.PlateType = "ST"
        return
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.DetectorType = "DIRECT" if shot.direct else "SCINTILLATOR"
    ds.ImageLaterality = "U"
    ds.PositionerType = "NONE"


def _describe_image(ds: Dataset, picture: Picture, monochrome1: bool) -> None:  # noqa: FBT001 - as above
    bits = picture.shot.bits
    rows, columns = picture.pixels.shape
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""] if picture.shot.sop == "DX" else ["ORIGINAL", "PRIMARY"]
    ds.SamplesPerPixel, ds.Rows, ds.Columns = 1, rows, columns
    ds.PhotometricInterpretation = "MONOCHROME1" if monochrome1 else "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, bits, bits - 1, 0
    ds.PixelIntensityRelationship = "LOG"
    ds.PixelIntensityRelationshipSign = 1 if monochrome1 else -1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = "0", "1", "US"
    ds.WindowCenter, ds.WindowWidth = f"{2 ** (bits - 1)}", f"{2**bits}"
    ds.PresentationLUTShape = "INVERSE" if monochrome1 else "IDENTITY"
    ds.LossyImageCompression = "01" if picture.shot.lossy else "00"
    if picture.shot.lossy:
        ds.LossyImageCompressionMethod = picture.shot.lossy
        ds.LossyImageCompressionRatio = f"{picture.shot.ratio:.1f}"
    ds.BurnedInAnnotation = "YES" if picture.burned_in else "NO"


def burn_in(pixels: npt.NDArray[np.uint16], text: str, bits: int) -> npt.NDArray[np.uint16]:
    """The same pixels with white text in the lower left corner, about 11 pixels high."""
    from PIL import Image, ImageDraw, ImageFont  # noqa: PLC0415 - a dozen images of a hospital need it

    rows, columns = pixels.shape
    canvas = Image.new("L", (columns, rows))
    draw = ImageDraw.Draw(canvas)
    size = max(8, math.floor(rows / 20))
    draw.text((5, rows - 2 * size), text, fill=255, font=ImageFont.load_default(size))
    drawn = np.asarray(canvas) > 100
    return np.where(drawn, np.uint16(2**bits - 1), pixels)
