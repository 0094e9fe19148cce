"""C-FIND at study, series and image level, in the study root model."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from client.pacs.dimse import Offer, accepted, check_status, close_association, open_association
from client.pacs.failures import bad_answer, check_uid
from client.pacs.query import InstanceFound, SeriesFound, StudyFound, Wanted, study_keys
from client.pacs.remote import Caller
from common.errors import PacsError

_FIND: Final = StudyRootQueryRetrieveInformationModelFind
_STUDY: Final = ("StudyInstanceUID", "StudyDate", "AccessionNumber", "ModalitiesInStudy")
_SERIES: Final = ("SeriesInstanceUID", "Modality", "BodyPartExamined", "NumberOfSeriesRelatedInstances")
_PENDING: Final = (0xFF00, 0xFF01)
_IMAGE: Final = ("SOPInstanceUID", "SOPClassUID")


class DimseFinder:
    """One association for all questions, opened with the first and again when it was lost."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._association: Association | None = None

    def close(self) -> None:
        """End the association."""
        if self._association is not None:
            close_association(self._association)
            self._association = None

    def studies(self, wanted: Wanted) -> Iterator[StudyFound]:
        """Studies that may be wanted, without their series.

        Raises:
            PacsError: the archive does not answer, or not as the standard says.
        """
        for keys in study_keys(wanted):
            for answer in self._find("STUDY", _STUDY, keys):
                yield StudyFound(
                    uid=_text(answer, "StudyInstanceUID"),
                    date=_text(answer, "StudyDate"),
                    accession=_text(answer, "AccessionNumber"),
                    listed=tuple(_texts(answer, "ModalitiesInStudy")),
                )

    def series(self, study: str) -> list[SeriesFound]:
        """All series of a study. Raises as `studies`."""
        keys = {"StudyInstanceUID": check_uid(self._caller.name, study)}
        return [
            SeriesFound(
                _text(answer, "SeriesInstanceUID"),
                _text(answer, "Modality"),
                _text(answer, "BodyPartExamined").upper(),
                _number(_text(answer, "NumberOfSeriesRelatedInstances")),
            )
            for answer in self._find("SERIES", _SERIES, keys)
        ]

    def instances(self, study: str, series: str, *, classes: bool) -> list[InstanceFound]:
        """All instances of a series. Raises as `studies`.

        SOP classes are asked for only where they are needed: Orthanc 1.10 opens every file to tell them, which is
        slow, and fails as a whole where one file is damaged.
        """
        name = self._caller.name
        keys = {"StudyInstanceUID": check_uid(name, study), "SeriesInstanceUID": check_uid(name, series)}
        return [
            InstanceFound(check_uid(name, _text(answer, "SOPInstanceUID")), _text(answer, "SOPClassUID"))
            for answer in self._find("IMAGE", _IMAGE if classes else _IMAGE[:1], keys)
        ]

    def _find(self, level: str, asked: tuple[str, ...], keys: Mapping[str, str]) -> Iterator[Dataset]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom warns of odd values by quoting them
                found = self._open().send_c_find(identifier(level, asked, keys), _FIND)
                answers = matches(self._caller, found)
        except PacsError:
            self.close()
            raise
        except (ValueError, RuntimeError):  # what pynetdicom says of an association that ended meanwhile
            self.close()
            raise bad_answer(self._caller.name, "its association ended before it was asked") from None
        return iter(answers)

    def _open(self) -> Association:
        if self._association is None or not self._association.is_established:
            self.close()
            self._association = open_association(self._caller, Offer([build_context(_FIND)]))
            if not accepted(self._association, _FIND):
                self.close()
                raise PacsError(
                    f"remote {self._caller.name}",
                    "it does not offer C-FIND to us",
                    "Allow our AE title to query, or use its DICOMweb: --via web",
                    code="pacs-unsupported",
                )
        return self._association


def matches(caller: Caller, responses: Iterable[tuple[Dataset, Dataset | None]]) -> list[Dataset]:
    """Every match of one C-FIND, or none: a study that was left out would be missed by nobody.

    Args:
        caller: whom an error names.
        responses: status and identifier as pynetdicom gives them; one whose bytes it cannot read has no identifier.

    Raises:
        PacsError: a match that cannot be read, a list that the archive cut short, or a status that means failure.
    """
    answers: list[Dataset] = []
    for status, answer in responses:
        code = check_status(caller, "C-FIND", status)
        if answer is not None:
            answers.append(answer)
        elif code in _PENDING:
            raise bad_answer(caller.name, "one of its matches cannot be read")
        elif code:
            raise bad_answer(
                caller.name,
                "it ended with a warning that it may have more matches; ask for fewer studies at once",
            )
    return answers


def identifier(level: str, asked: tuple[str, ...], keys: Mapping[str, str]) -> Dataset:
    """A query: empty elements are asked for, the others are matched."""
    ds = Dataset()
    ds.QueryRetrieveLevel = level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of odd UIDs by quoting them
        for keyword in (*asked, *keys):
            setattr(ds, keyword, keys.get(keyword, ""))
    return ds


def _texts(answer: Dataset, keyword: str) -> list[str]:
    """The values of an element; whatever cannot be read is no value."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value: Any = answer.get(keyword)
    except Exception:  # noqa: BLE001 - a parser's errors are without number, and quote what they read
        return []
    values = value if isinstance(value, (MultiValue, list)) else [value]
    return [str(one).strip(" \0") for one in values if one not in (None, "")]


def _text(answer: Dataset, keyword: str) -> str:
    return next(iter(_texts(answer, keyword)), "")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
