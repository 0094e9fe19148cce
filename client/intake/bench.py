"""What a worker does with one file: parse, de-identify, clean its pixels, write, scan again, judge."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from client.deid.colour import describe_as_grey
from client.deid.deidentify import Deidentifier, encode, mark
from client.deid.lookup import seal
from client.deid.methods import methods as methods_done
from client.deid.pixels import decode
from client.deid.plain import Header
from client.deid.pseudonyms import Pseudonyms
from client.deid.settings import DeidSettings
from client.deid.text.clean import clean
from client.deid.text.found import Decision
from client.deid.tighten import effective
from client.deid.wanted import identifiers
from client.deid.work import identity
from client.files import storage_error
from client.index_rows import Percentiles
from client.intake.classes import WAITING, check_class, sop_class
from client.intake.digests import stored_digest
from client.intake.failed import failure
from client.intake.judge import judge
from client.intake.outcome import ACCEPTED, CHANGED, Outcome, Task, modality_word
from client.intake.parse import MAX_FILE_BYTES, quiet, read, too_much
from client.intake.proof import Proof, write_proved
from client.intake.stamp import stamp_of
from client.intake.wrap import wrap
from client.preprocess.modality import to_units32
from client.quality_hash import perceptual_hash
from common.errors import FileRefused, StorageError

_FIELDS: Final = {
    "sop_uid": 0x00080018,
    "modality": 0x00080060,
    "manufacturer": 0x00080070,
    "model": 0x00081090,
    "patient": 0x00100020,
    "sex": 0x00100040,
    "age": 0x00101010,
    "scanner": 0x00181000,
    "projection": 0x00185101,
    "study_uid": 0x0020000D,
    "series_uid": 0x0020000E,
}
"""Of an image's row in the index: the attribute of the de-identified image that it repeats."""


@dataclass
class Bench:
    """What a worker needs for every file; made once."""

    deidentifier: Deidentifier
    settings: DeidSettings = field(default_factory=DeidSettings)
    percentiles: Mapping[tuple[str, str], Percentiles] = field(default_factory=dict)

    @classmethod
    def of(cls, hello: Mapping[str, Any]) -> Self:
        """The bench that a parent's first line describes; see `client.intake.hand.Setup.hello`."""
        names = Pseudonyms(bytes.fromhex(hello["key"]), bytes.fromhex(hello["spend"]))
        settings = DeidSettings(**hello["deid"])
        percentiles = {
            (m, s): Percentiles(n, {k: (a, b) for k, (a, b) in d.items()})
            for m, s, n, d in hello["percentiles"]
        }
        return cls(Deidentifier(effective(settings, hello["tighten"]), names), settings, percentiles)

    def process(self, task: Task) -> Outcome:
        """Bring one file to its outcome. Never raises for what a file holds.

        Raises:
            StorageError: the staged file cannot be written.
        """
        found: dict[str, Any] = {}
        try:
            with quiet():
                row = self._prove(task) if task.prove else self._take(task, found)
        except FileRefused as refusal:
            return _refused(refusal, found)
        except (RecursionError, MemoryError):
            return _refused(too_much(), found)
        except StorageError:
            raise
        except Exception as error:  # noqa: BLE001 (an untrusted file can make a parser raise anything)
            return _refused(failure(error), found)
        return Outcome(ACCEPTED, row=row, **found)

    def _prove(self, task: Task) -> dict[str, Any]:
        """Scan a staged file that was changed after its own scan; there is nothing new for the index."""
        wanted = identifiers(_source(task))
        try:
            data = (Path(task.staging) / f"{task.key}.dcm").read_bytes()
        except OSError as error:
            raise storage_error(error, "staging") from None
        searched = self.settings.burned_in_text == "find"
        Proof(wanted, self.settings.private_creators, searched).hold(data)
        return {}

    def _take(self, task: Task, found: dict[str, Any]) -> dict[str, Any]:
        source = _source(task)
        found["modality"] = modality_word(source.get("Modality"))
        found["keys"] = self._keys(source)
        found |= self._patient(source)
        try:
            row = self._made(task, source, found)
        except FileRefused:
            found["image"] = self._image(_pixels(source), found)
            raise
        found["image"] = self._image(row["pixel_digest"].encode(), found)
        return row

    def _made(self, task: Task, source: Dataset, found: dict[str, Any]) -> dict[str, Any]:
        """The image, de-identified, proved and staged; its row in the index."""
        if task.person is None:  # what we wrapped ourselves is of the class we gave it
            check_class(source, self.settings, task.decision)
        wanted = identifiers(source)
        pixels = decode(source, colour=sop_class(source) in WAITING)
        describe_as_grey(source)
        cleaned = clean(pixels, source, self.settings, task.decision)
        tally: Counter[str] = Counter(blanked=len(cleaned.blanked))
        target = self.deidentifier.apply(source, cleaned.pixels, tally, wanted)
        methods = self._methods(blanked=bool(cleaned.blanked), searched=cleaned.searched)
        mark(target, methods)
        # Whoever looks at an element makes an object of it, which would have to be made bytes again.
        header = Header(dict(zip(target.keys(), target.values(), strict=True)))
        row = self._row(header, cleaned.pixels, found, task.decision)
        data = encode(target)
        proof = Proof(wanted, self.settings.private_creators, searched=cleaned.searched)
        path = Path(task.staging) / f"{task.key}.dcm"
        written = write_proved(path, data, proof)
        row["pixel_digest"] = stored_digest(header, written.tail)
        found["digest"] = written.digest
        found |= {"actions": dict(tally), "methods": methods, "boxes": cleaned.blanked}
        return row

    def _methods(self, *, blanked: bool, searched: bool) -> tuple[str, ...]:
        profile = self.deidentifier.profile
        return methods_done(self.settings, blanked=blanked, searched=searched, defaced=False, profile=profile)

    def _keys(self, source: Dataset) -> dict[str, str]:
        names = self.deidentifier.names
        made = {
            "accession": (names.accession, source.get("AccessionNumber")),
            "study": (names.uid, source.get("StudyInstanceUID")),
            "instance": (names.uid, source.get("SOPInstanceUID")),
        }
        return {kind: name(str(value)) for kind, (name, value) in made.items() if value}

    def _patient(self, source: Dataset) -> dict[str, Any]:
        """Whose file it is, so that it can be found when they withdraw even if it is refused."""
        names = self.deidentifier.names
        try:
            who = identity(source)
        except FileRefused:
            return {}  # refused for that later, if for nothing else before
        return {
            "patient": names.patient(who),
            "spend_key": names.spend_key(who),
            "sealed": seal(names, source),
        }

    def _image(self, pixels: bytes, found: Mapping[str, Any]) -> str:
        """By which two files that say the same in other bytes are known to hold one image."""
        instance, patient = found["keys"].get("instance", ""), found.get("patient", "")
        if not (pixels and instance):
            return ""
        return self.deidentifier.names.content(pixels, instance.encode(), patient.encode())

    def _row(
        self,
        target: Dataset,
        pixels: npt.NDArray[np.integer[Any]],
        found: dict[str, Any],
        decision: Decision | None,
    ) -> dict[str, Any]:
        """The image's row in the index, once its quality is judged."""
        units = to_units32(target, pixels)
        said = {int(tag): item for tag, item in zip(target.keys(), target.values(), strict=True)}
        row = {field: _written(said.get(tag)) for field, tag in _FIELDS.items()}
        where = (row["modality"], row["scanner"])
        waived = decision.waive if decision else ()
        figures, refusal = judge(units, target, self.percentiles.get(where), waived)
        found |= {"scanner": where[1], "figures": figures}
        if refusal is not None:
            raise refusal
        return {
            **row,
            "age": int(row["age"][:3]) if row["age"] else None,
            "spend_key": found["spend_key"],
            "file": f"{row['patient']}/{row['sop_uid']}.dcm",
            "rows": pixels.shape[-2],
            "cols": pixels.shape[-1],
            "quality": figures,
            "perceptual_hash": perceptual_hash(units),
        }


def _pixels(source: Dataset) -> bytes:
    """The pixels as they came, encoded or not; empty where there are none."""
    item = source.get_item("PixelData") if "PixelData" in source else None
    return item.value if item is not None and isinstance(item.value, bytes) else b""


def _written(item: RawDataElement | DataElement | None) -> str:
    """The text of an element of ours; it is ASCII."""
    if item is None or not item.value:
        return ""
    raw = item.value
    return (raw.decode("ascii") if isinstance(raw, bytes) else str(raw)).strip(" \0")


def _refused(refusal: FileRefused, found: Mapping[str, Any]) -> Outcome:
    """The outcome of a refusal, with the places a person should look at where the gate named some."""
    boxes = tuple(getattr(refusal, "boxes", ()))
    return Outcome(refusal.code, refusal.rule, refusal.remedy, **{**found, "boxes": boxes})


def _source(task: Task) -> Dataset:
    try:
        with Path(task.path).open("rb", buffering=0) as file:
            data, same = _bytes(file, task)
    except OSError:
        raise FileRefused(
            "a file", "it cannot be read", "Check its rights and the disk it lies on", code="file-unreadable"
        ) from None
    if not same:
        raise FileRefused(
            "a file",
            "it changed while it was being taken in",
            "Wait until it is written to its end, then repeat the same command",
            code=CHANGED,
        )
    return read(data) if task.person is None else wrap(data, task.person)


def _bytes(file: FileIO, task: Task) -> tuple[bytes, bool]:
    """What it holds, and whether that is what the task's key was made from."""
    before = stamp_of(file.fileno())
    if before.size > MAX_FILE_BYTES:
        raise FileRefused(
            "a file",
            f"it is larger than {MAX_FILE_BYTES >> 20} MiB",
            "Split or leave it out",
            code="file-size",
        )
    data = file.read(before.size + 1)
    if task.stamp == before == stamp_of(file.fileno()) and len(data) == before.size:
        return data, True
    data += file.readall()
    return data, not task.digest or hashlib.sha256(data).hexdigest() == task.digest
