"""What is asked of an archive and what it says it has: one question and one answer for DIMSE and DICOMweb.

Archives differ in which keys they match, and some match more than was asked for: whatever comes back is judged
here once more (`Wanted.study`, `Wanted.series`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Final, Protocol

from client.deid.profile import built_in
from client.deid.pseudonyms import Pseudonyms

STUDIES_AT_ONCE: Final = 50
"""Study UIDs in one question; a list of UIDs is matching that every archive must support (PS3.4 C.2.2.2.2)."""
_CODE: Final = 16
# fmt: off
_MODALITIES: Final = frozenset((
    "AU", "BI", "CR", "CT", "DOC", "DX", "ECG", "ES", "GM", "IO", "IVUS", "KO", "MG", "MR", "NM", "OCT", "OP", "OPT",
    "OT", "PR", "PT", "PX", "REG", "RF", "RG", "RTDOSE", "RTIMAGE", "RTPLAN", "RTSTRUCT", "SC", "SEG", "SM", "SR", "TG", "US", "XA", "XC",
))
# fmt: on
"""Defined terms of PS3.3 C.7.3.1.1.1 that an archive may hold."""


@dataclass(frozen=True)
class Wanted:
    """Which studies; an empty field asks for no restriction, several values for any of them."""

    modalities: tuple[str, ...] = ()
    begin: date | None = None
    """First study date."""
    end: date | None = None
    """Last study date."""
    body_parts: tuple[str, ...] = ()
    accessions: tuple[str, ...] | None = field(default=None, repr=False)
    """None: any. Exactly these otherwise."""
    studies: tuple[str, ...] = field(default=(), repr=False)
    """Study instance UIDs."""

    @property
    def dates(self) -> str:
        """The range as DICOM writes it; empty for any date."""
        if self.begin is None and self.end is None:
            return ""
        return "-".join("" if day is None else f"{day:%Y%m%d}" for day in (self.begin, self.end))

    def study(self, found: StudyFound) -> bool:
        """Whether date, accession number and UID of the study are as wanted."""
        if self.accessions is not None and found.accession not in self.accessions:
            return False
        if self.studies and found.uid not in self.studies:
            return False
        if self.begin is not None and found.date < f"{self.begin:%Y%m%d}":
            return False
        return self.end is None or (bool(found.date) and found.date <= f"{self.end:%Y%m%d}")

    def series(self, found: SeriesFound) -> bool:
        """Whether modality and body part of the series are as wanted."""
        if self.modalities and found.modality not in self.modalities:
            return False
        return not self.body_parts or found.body_part in self.body_parts


@dataclass(frozen=True)
class SeriesFound:
    """One series of a study."""

    uid: str = field(repr=False)
    modality: str
    body_part: str = field(repr=False)
    instances: int
    """As the archive counts them; 0 when it does not say."""


@dataclass(frozen=True)
class StudyFound:
    """One study with the series that are wanted."""

    uid: str = field(repr=False)
    date: str = field(repr=False)
    """YYYYMMDD, or empty."""
    accession: str = field(repr=False)
    listed: tuple[str, ...] = ()
    """Modalities as the archive lists them for the whole study."""
    series: tuple[SeriesFound, ...] = ()

    @property
    def modalities(self) -> tuple[str, ...]:
        """Of the wanted series."""
        return tuple(sorted({one.modality for one in self.series}))

    @property
    def instances(self) -> int:
        """Of the wanted series."""
        return sum(one.instances for one in self.series)


@dataclass(frozen=True)
class InstanceFound:
    """One instance of a series."""

    uid: str = field(repr=False)
    sop_class: str
    """Empty when it was not asked for or not said."""


class Finder(Protocol):
    """One way to ask."""

    def studies(self, wanted: Wanted) -> Iterator[StudyFound]:
        """Studies that may be wanted, without their series."""
        ...

    def series(self, study: str) -> list[SeriesFound]:
        """All series of a study."""
        ...

    def instances(self, study: str, series: str, *, classes: bool) -> list[InstanceFound]:
        """All instances of a series; with `classes` also their SOP classes, for which an archive may open files."""
        ...


def find(finder: Finder, wanted: Wanted) -> Iterator[StudyFound]:
    """Every wanted study once, with its wanted series; studies without one are left out.

    Raises:
        PacsError: the archive does not answer, or not as the standard says.
    """
    seen: set[str] = set()
    for study in finder.studies(wanted):
        if study.uid in seen or not wanted.study(study):
            continue
        seen.add(study.uid)
        if wanted.modalities and study.listed and not set(study.listed) & set(wanted.modalities):
            continue
        series = tuple(one for one in finder.series(study.uid) if wanted.series(one))
        if series:
            yield replace(study, series=series)


def study_keys(wanted: Wanted) -> Iterator[dict[str, str]]:
    """The questions at study level that together cover what is wanted, as keyword to matching value.

    Lists are asked one by one, except UIDs: a list of other values is not matching that archives must support.
    """
    dates = {"StudyDate": wanted.dates} if wanted.dates else {}
    if wanted.studies:
        for start in range(0, len(wanted.studies), STUDIES_AT_ONCE):
            uids = wanted.studies[start : start + STUDIES_AT_ONCE]
            yield {**dates, "StudyInstanceUID": "\\".join(uids)}
    elif wanted.accessions is not None:
        for number in wanted.accessions:
            yield {**dates, "AccessionNumber": number}
    elif wanted.modalities:
        for modality in wanted.modalities:
            yield {**dates, "ModalitiesInStudy": modality}
    else:
        yield dates


@dataclass(frozen=True)
class Summary:
    """What may be shown and written anywhere: counts and codes."""

    remote: str
    studies: int
    series: int
    instances: int
    by_modality: dict[str, int]
    """Studies with a series of it; `other` for words that the standard does not know."""
    by_year: dict[str, int]
    by_body_part: dict[str, int]
    accessions_not_found: int
    """Accession numbers asked for that no study has."""
    codes: tuple[StudyCode, ...]


@dataclass(frozen=True)
class StudyCode:
    """One study without what identifies it."""

    study: str
    """Keyed code: the same study has the same code in every message of this site."""
    modalities: str
    series: int
    instances: int


def study_code(names: Pseudonyms, uid: str) -> str:
    """The keyed code of a study, for people: 64 bits in hexadecimal."""
    return names.join("pacs-study", uid)[:_CODE]


def summarise(remote: str, studies: Iterable[StudyFound], wanted: Wanted, names: Pseudonyms) -> Summary:
    """Counts and codes of what was found. Words from the archive show only where the standard knows them."""
    found = list(studies)
    parts = _body_parts()
    missing = set(wanted.accessions or ()) - {study.accession for study in found}
    return Summary(
        remote=remote,
        studies=len(found),
        series=sum(len(study.series) for study in found),
        instances=sum(study.instances for study in found),
        by_modality=_counted(_known(m, _MODALITIES) for study in found for m in study.modalities),
        by_year=_counted(_year(study.date) for study in found),
        by_body_part=_counted(
            part for study in found for part in {_known(one.body_part, parts) for one in study.series}
        ),
        accessions_not_found=len(missing),
        codes=tuple(
            StudyCode(
                study_code(names, study.uid),
                "/".join(sorted({_known(m, _MODALITIES) for m in study.modalities})),
                len(study.series),
                study.instances,
            )
            for study in found
        ),
    )


def _year(day: str) -> str:
    return day[:4] if len(day) == 8 and day.isascii() and day.isdigit() else "unknown"


def _known(word: str, known: frozenset[str]) -> str:
    return word if word in known else ("other" if word else "none")


def _body_parts() -> frozenset[str]:
    """Those that the profile lets through."""
    return built_in().rule("BodyPartExamined").values


def _counted(words: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(words).items()))
