"""QIDO-RS: studies, series and instances of DICOMweb."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from client.pacs.failures import bad_answer, check_uid
from client.pacs.query import InstanceFound, SeriesFound, StudyFound, Wanted, study_keys
from client.pacs.web import DICOM_JSON, Query, Web

PAGE: Final = 500
_STUDY, _SERIES, _SOP, _CLASS = "0020000D", "0020000E", "00080018", "00080016"
_DATE, _ACCESSION, _LISTED = "00080020", "00080050", "00080061"
_MODALITY, _BODY_PART, _COUNT = "00080060", "00180015", "00201209"
_Answer = Mapping[str, Any]


class WebFinder:
    """Asks page by page."""

    def __init__(self, web: Web) -> None:
        self._web = web

    def close(self) -> None:
        """Nothing to end: the client belongs to who made it."""

    def studies(self, wanted: Wanted) -> Iterator[StudyFound]:
        """Studies that may be wanted, without their series.

        Raises:
            PacsError: the archive does not answer, or not as the standard says.
        """
        for keys in study_keys(wanted):
            query: Query = {key: value.replace("\\", ",") for key, value in keys.items()}
            for answer in self._pages("studies", query):
                yield StudyFound(
                    uid=_text(answer, _STUDY),
                    date=_text(answer, _DATE),
                    accession=_text(answer, _ACCESSION),
                    listed=tuple(_texts(answer, _LISTED)),
                )

    def series(self, study: str) -> list[SeriesFound]:
        """All series of a study. Raises as `studies`."""
        # One key for each: in a list the comma goes encoded, and Orthanc 1.10 then sees one unknown name.
        fields: Query = {"includefield": [_BODY_PART, _COUNT]}
        return [
            SeriesFound(
                _text(answer, _SERIES),
                _text(answer, _MODALITY),
                _text(answer, _BODY_PART).upper(),
                _number(_text(answer, _COUNT)),
            )
            for answer in self._pages(f"studies/{check_uid(self._web.name, study)}/series", fields)
        ]

    def instances(self, study: str, series: str, *, classes: bool) -> list[InstanceFound]:  # noqa: ARG002
        """All instances of a series; servers say the SOP class unasked. Raises as `studies`."""
        name = self._web.name
        path = f"studies/{check_uid(name, study)}/series/{check_uid(name, series)}/instances"
        return [
            InstanceFound(check_uid(name, _text(answer, _SOP)), _text(answer, _CLASS))
            for answer in self._pages(path, {})
        ]

    def _pages(self, path: str, query: Query) -> Iterator[_Answer]:
        """All answers. A server that knows no pages sends the first again: what it repeats ends the asking."""
        last: list[object] | None = None
        offset = 0
        while True:
            page = {**query, "limit": str(PAGE), "offset": str(offset)}
            answers = self._web.json(path, page, DICOM_JSON)
            if not isinstance(answers, list) or not all(isinstance(one, dict) for one in answers):
                raise bad_answer(self._web.name, "its QIDO-RS answer is not a list of data sets")
            if answers == last:
                return
            yield from answers
            # A server may have a limit of its own below ours: only an empty page is the end for certain.
            if not answers or len(answers) > PAGE:
                return
            last, offset = answers, offset + len(answers)


def _texts(answer: _Answer, tag: str) -> list[str]:
    element = answer.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return [str(one).strip(" \0") for one in values if one is not None] if isinstance(values, list) else []


def _text(answer: _Answer, tag: str) -> str:
    return next(iter(_texts(answer, tag)), "")


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0
