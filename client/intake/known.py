"""Images the index holds already, with the keyed names that a label may use for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from pydicom import dcmread

from client.index import ImageRow, Index, Percentiles
from client.intake.join import Known


def known(folder: Path, rows: Iterable[ImageRow], kind: str) -> Iterator[Known]:
    """Give each image its keyed names; the accession stands in its file only, and is read from there.

    Args:
        folder: `site.dicom`.
        rows: images of the index.
        kind: what the label table goes by.
    """
    for row in rows:
        keys = {"study": row.study_uid, "instance": row.sop_uid}
        if kind == "accession":
            keys["accession"] = _accession(folder / row.file)
        yield Known(row, keys)


def bounds(index: Index) -> dict[tuple[str, str], Percentiles]:
    """The site's own quality bounds, by modality and scanner."""
    pairs = {(row.modality, row.scanner) for row in index.images()}
    found = {pair: index.percentiles(*pair) for pair in sorted(pairs)}
    return {pair: percentiles for pair, percentiles in found.items() if percentiles is not None}


def _accession(path: Path) -> str:
    try:
        return str(dcmread(path, specific_tags=["AccessionNumber"]).get("AccessionNumber", ""))
    except OSError:
        return ""
