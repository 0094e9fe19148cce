"""Who the virtual patients are on paper: invented names, numbers, dates and addresses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Final

import numpy as np

from simulations.phantoms import Patient

_FAMILY: Final = (
    "Abernethy", "Bjornstad", "Castellano", "Dambrowski", "Echeverria", "Fairweather", "Grünewald",
    "Hakimzadeh", "Ingebrigt", "Jankowski", "Kowalewski", "Lindqvist", "Marchetti", "Nakagawa", "Okonkwo",
    "Papadakis", "Quintanilla", "Rasmussen", "Sørensen", "Tomaszewski", "Umezawa", "Villanueva",
    "Wojciechow", "Xanthopoulos", "Yamashiro", "Zimmerling", "Achterberg", "Bellefleur", "Czerwinski",
    "Desrosiers", "Eisenhauer", "Fitzmorris", "Gallardo", "Holmgren", "Ivanisevic", "Jørgensen",
)  # fmt: skip
_GIVEN: Final = {
    "F": ("Adelheid", "Brunhilde", "Clementine", "Dorothea", "Eleonora", "Fridoline", "Genoveva",
          "Henrietta", "Isidora", "Josephine", "Kunigunde", "Leokadia", "Mathilda", "Ottilie",
          "Philippa", "Rosalinde", "Seraphina", "Theodora", "Valentina", "Wilhelmine"),
    "M": ("Ambrosius", "Balthasar", "Cornelius", "Dagobert", "Ekkehard", "Ferdinand", "Gottlieb",
          "Hieronymus", "Ignatius", "Justinian", "Konstantin", "Leopold", "Maximilian", "Nathaniel",
          "Octavius", "Perceval", "Rutherford", "Sebastian", "Thaddeus", "Vladislav"),
}  # fmt: skip
_STREETS: Final = ("Quarrybank Lane", "Thistledown Road", "Millrace Street", "Harbourgate", "Oldfountain Way")
_DOCTORS: Final = ("Strickland^Prudence", "Montague^Ferris", "Vandermeer^Lotte", "Ashworthy^Giles")

FIRST_DAY: Final = date(2021, 1, 4)
DAYS: Final = 1400
"""Studies fall between January 2021 and November 2024."""

SCRAMBLE_7: Final = 9_999_991
SCRAMBLE_8: Final = 99_999_989
"""The largest primes of 7 and 8 digits: multiples of another prime modulo these never meet, so running
numbers become identifiers that look like any other and stay unique."""


@dataclass(frozen=True)
class Person:
    """A patient as the hospital's records know them."""

    family: str
    given: str
    sex: str
    number: str
    """The patient identifier, ten digits."""
    birth: date
    address: str
    doctor: str
    first_study: datetime

    @property
    def name(self) -> str:
        """Family name and given name as DICOM writes them."""
        return f"{self.family}^{self.given}"

    def age_at(self, day: date) -> int:
        """Completed years."""
        before = (day.month, day.day) < (self.birth.month, self.birth.day)
        return day.year - self.birth.year - before


def draw_person(
    rng: np.random.Generator, patient: Patient, index: int, site: int, first: date | None = None
) -> Person:
    """Draw the paper side of a patient; the number is unique within the site.

    Args:
        rng: drawn from equally often whether a day is given or not.
        patient: whose sex and age the paper must agree with.
        index: number of the patient within the site.
        site: number of the site.
        first: day of the first study; drawn when None.
    """
    drawn = FIRST_DAY + timedelta(days=int(rng.integers(DAYS)))
    day = drawn if first is None else first
    moment = datetime.combine(day, time()) + timedelta(seconds=int(rng.integers(7 * 3600, 20 * 3600)))
    birth = day - timedelta(days=int(patient.age_years * 365.25 + rng.integers(20, 340)))
    return Person(
        family=str(rng.choice(_FAMILY)),
        given=str(rng.choice(_GIVEN[patient.sex])),
        sex=patient.sex,
        number=f"{site % 90 + 10:02d}{(index * 7919 + site) % SCRAMBLE_8:08d}",
        birth=birth,
        address=f"{int(rng.integers(1, 200))} {rng.choice(_STREETS)}",
        doctor=str(rng.choice(_DOCTORS)),
        first_study=moment,
    )


def initials_folder(person: Person) -> str:
    """A folder as some archives name them: the patient's own name and number, in plain ASCII."""
    plain = person.family.replace("ü", "ue").replace("ø", "oe")
    return f"{plain.upper()}_{person.given.upper()}_{person.number}"
