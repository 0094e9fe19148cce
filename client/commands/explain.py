"""What de-identification does with an attribute, in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from common.cli import JsonFlag, grid, show
from common.errors import InputError

if TYPE_CHECKING:
    from client.deid.profile import Explained


def explain_deid(
    attribute: Annotated[
        str | None, typer.Argument(help="A keyword or tag, e.g. PatientName or (0010,0010).")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what happens to one attribute, or list every attribute that may stay and in what form.

    Whatever is not listed is removed.
    """
    from client.deid.profile import explain

    rows = explain() if attribute is None else [explain_one(attribute)]
    result = [row._asdict() for row in rows]
    show(result, as_json, lambda: grid("De-identification", ("attribute", "what happens", "why"), rows))


def explain_one(attribute: str) -> Explained:
    """What happens to one attribute, given by keyword or tag.

    Raises:
        InputError: when DICOM knows no such attribute.
    """
    from client.deid.profile import explain

    keyword = _keyword(attribute)
    *listed, everything_else = explain()
    found = (row for row in listed if row.attribute == keyword)
    return next(found, everything_else._replace(attribute=keyword))


def _keyword(attribute: str) -> str:
    from pydicom.datadict import keyword_for_tag, tag_for_keyword

    digits = re.fullmatch(r"\(?([0-9a-fA-F]{4}),? ?([0-9a-fA-F]{4})\)?", attribute.strip())
    if digits is not None and int(digits[1], 16) % 2:
        return f"({digits[1]},{digits[2]})"  # private: known to no dictionary, never in the profile
    keyword = keyword_for_tag(int(digits[1] + digits[2], 16)) if digits else attribute.strip()
    if not keyword or tag_for_keyword(keyword) is None:
        raise InputError(
            attribute, "DICOM knows no such attribute", "Give a keyword like PatientName, or (gggg,eeee)"
        )
    return keyword
