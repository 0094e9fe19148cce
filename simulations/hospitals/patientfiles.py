"""The files of one patient: visits, exposures, and the traps that real archives hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date, timedelta
from pathlib import Path
from typing import Final

import numpy as np

from simulations import phantoms
from simulations.hospitals.dicom import Picture, Study, burn_in, draw_uid, to_bytes
from simulations.hospitals.machines import MODELS, Room, aged, month_of, room_of, take
from simulations.hospitals.people import SCRAMBLE_7, Person, draw_person, initials_folder
from simulations.hospitals.population import Traits
from simulations.hospitals.spec import HospitalSpec, ImageTruth

SAME_VISIT: Final = 0.6
"""Probability that a further image belongs to the same study; otherwise it is a follow-up."""

REQUEST_FORM: Final = "%PDF-1.4\nScanned request form of {name}, accession {accession}\n"
"""What lies among the images though it is none."""
FIRST_EXTRA: Final = 90
"""Instance numbers of extra images start this far behind the patient's last."""
HEAD_CUT_BYTES: Final = 200
"""Preamble, prefix and the first file meta elements."""


@dataclass(frozen=True)
class PatientTask:
    """One patient to write: number within the hospital, label, and traps to add."""

    index: int
    positive: bool
    traps: tuple[str, ...] = ()
    traits: Traits | None = None
    """What a population drew of this patient; None: drawn with the patient."""

    @property
    def told(self) -> int | None:
        """What the label table says."""
        return int(self.positive) if self.traits is None else self.traits.told


@dataclass(frozen=True)
class Exposed:
    """One picture with what is known about it."""

    picture: Picture
    truth: ImageTruth


@dataclass(frozen=True)
class Visitor:
    """A patient as a body, as a person on paper, and as a task."""

    patient: phantoms.Patient
    person: Person
    task: PatientTask


@dataclass(frozen=True)
class _Machine:
    """On what a visit's images are taken."""

    name: str
    room: Room


def write_patient(spec: HospitalSpec, task: PatientTask, folder: Path, seed: int) -> list[ImageTruth]:
    """Write every file of one patient under `folder`; the same arguments write the same bytes.

    Raises:
        OSError: when the folder cannot be written.
    """
    truths = []
    for relative, data, truth in patient_files(spec, task, seed):
        path = folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        truths.append(truth)
    return truths


def patient_files(
    spec: HospitalSpec, task: PatientTask, seed: int
) -> Iterator[tuple[str, bytes, ImageTruth]]:
    """Relative path, bytes and truth of every file of one patient."""
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(spec.key, task.index)))
    given = task.traits
    if given is None:
        patient = phantoms.draw_patient(rng, task.positive)
        person = draw_person(rng, patient, task.index, spec.key)
    else:
        patient = phantoms.draw_patient(rng, task.positive, given.sex, given.age)
        person = draw_person(rng, patient, task.index, spec.key, given.day)
    last: Exposed | None = None
    for bare in _exposures(rng, spec, Visitor(patient, person, task)):
        last = exposed = replace(bare, truth=_as_told(bare.truth, spec, task))
        data = to_bytes(exposed.picture, monochrome1=spec.monochrome1, syntax=spec.syntax)
        yield exposed.truth.path, data, exposed.truth
    if last:
        for extra, trap in enumerate(task.traps, start=FIRST_EXTRA):
            number = last.picture.number + extra
            yield _trapped(spec, _extra(rng, last.picture, trap, number), last.truth, trap)


def _as_told(truth: ImageTruth, spec: HospitalSpec, task: PatientTask) -> ImageTruth:
    if task.traits is None:
        return replace(truth, told=task.told, reader=spec.label_source)
    return replace(truth, told=task.told, reader=task.traits.reader, split=task.traits.split)


def _exposures(rng: np.random.Generator, spec: HospitalSpec, visitor: Visitor) -> Iterator[Exposed]:
    """Visits and their images, in order of time."""
    patient = visitor.patient
    study: Study | None = None
    number, visit = 0, 0
    for _ in range(phantoms.images_per_patient(rng)):
        number += 1
        if study is None or rng.random() > SAME_VISIT:
            study, machine = _visit(rng, spec, visitor, visit)
            number, visit = 1, visit + 1
        pose = phantoms.draw_pose(rng, study.projection)
        anatomy = phantoms.render(patient, study.projection, pose=pose)
        taken = take(rng, machine.name, machine.room, anatomy, month_of(study.moment.date()))
        picture = Picture(study, taken.shot, taken.pixels, draw_uid(rng), number)
        seen = int(taken.on_image(anatomy.finding).sum()) if patient.positive else 0
        yield Exposed(picture, _truth(spec, picture, patient, seen))


def _visit(
    rng: np.random.Generator, spec: HospitalSpec, visitor: Visitor, visit: int
) -> tuple[Study, _Machine]:
    number, given = visitor.task.index * 10 + visit, visitor.task.traits
    first = visitor.person.first_study
    drawn = _drawn_machine(rng, spec.scanners[int(visitor.patient.positive)])
    moment = first + (number % 10) * timedelta(days=int(rng.integers(1, 20)), minutes=int(rng.integers(600)))
    name = drawn if given is None else _machine_of(rng, spec, given, moment.date())
    study = Study(
        person=visitor.person,
        institution=spec.institution,
        station=f"{spec.name[:4].upper()}{list(MODELS).index(name) + 1}",
        accession=f"{spec.name[:2].upper()}{spec.key % 97:02d}{(number * 7919 + spec.key) % SCRAMBLE_7:07d}",
        moment=moment,
        study_uid=draw_uid(rng),
        series_uid=draw_uid(rng),
        projection=_drawn_view(rng, spec.ap.get(name, 0.3)) if given is None else given.projection,
    )
    return study, _Machine(name, _room(spec, name, moment.date()))


def _room(spec: HospitalSpec, name: str, day: date) -> Room:
    """The hospital's machine of this kind, as it is on this day."""
    room = room_of(name, spec.name, spec.key)
    return aged(room, spec.population.histories.get(name) if spec.population else None, day)


def _drawn_view(rng: np.random.Generator, lying: float) -> phantoms.Projection:
    return "AP" if rng.random() < lying else "PA"


def _drawn_machine(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    shares = np.array(list(weights.values())) / sum(weights.values())
    return str(rng.choice(list(weights), p=shares))


def _machine_of(rng: np.random.Generator, spec: HospitalSpec, given: Traits, day: date) -> str:
    """The patient's machine, or one of those in use by then if theirs was replaced since."""
    population = spec.population
    if population is None or population.mix(day) == population.mix(given.day):
        return given.scanner
    return _drawn_machine(rng, population.mix(day))


def _truth(spec: HospitalSpec, picture: Picture, patient: phantoms.Patient, seen: int) -> ImageTruth:
    study = picture.study
    return ImageTruth(
        path=_path(spec, picture),
        patient=study.person.number,
        accession=study.accession,
        sop_uid=picture.sop_uid,
        label=int(patient.positive),
        scanner=picture.shot.machine,
        projection=study.projection,
        grade=patient.grade,
        opacity_pixels=seen,
    )


def _path(spec: HospitalSpec, picture: Picture) -> str:
    """Month, patient, study, series, instance: the nesting of an archive's export."""
    study = picture.study
    return "/".join(
        (
            study.moment.strftime("%Y-%m"),
            initials_folder(study.person),
            f"ST{study.accession}",
            "SE000001",
            f"IM{picture.number:06d}{spec.suffix}",
        )
    )


def _extra(rng: np.random.Generator, picture: Picture, trap: str, number: int) -> Picture:
    """The picture behind a trap: the same again, or a further one of the same exposure."""
    if trap == "duplicate":
        return picture
    further = replace(picture, sop_uid=draw_uid(rng), number=number)
    if trap != "burned-in":
        return further
    person, bits = picture.study.person, picture.shot.bits
    text = f"{person.family.upper()} {person.given.upper()}"
    return replace(further, pixels=burn_in(picture.pixels, text, bits), burned_in=True)


def _trapped(
    spec: HospitalSpec, picture: Picture, truth: ImageTruth, trap: str
) -> tuple[str, bytes, ImageTruth]:
    """One further file of the patient, broken where the trap says so."""
    data = to_bytes(picture, monochrome1=spec.monochrome1, syntax=spec.syntax)
    path = f"RESENT/{_path(spec, picture)}" if trap == "duplicate" else _path(spec, picture)
    return (
        path,
        _break(data, trap, picture.study),
        replace(truth, path=path, sop_uid=picture.sop_uid, trap=trap),
    )


def _break(data: bytes, trap: str, study: Study) -> bytes:
    match trap:
        case "empty":
            return b""
        case "truncated":
            return data[: len(data) * 6 // 10]
        case "header":
            return data[HEAD_CUT_BYTES:]
        case "not-dicom":
            form = REQUEST_FORM.format(name=study.person.name, accession=study.accession)
            return form.encode() * 20
        case _:
            return data
