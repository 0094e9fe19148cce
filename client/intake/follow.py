"""What follows from a commit and can be done again: receipts, bounds, volumes."""

from __future__ import annotations

from client.index import Index
from client.intake.receipt import deliver, receipt
from client.intake.report import IngestReport
from client.preprocess import assemble_volumes
from client.quality_site import refresh_percentiles
from client.site import Site
from common.errors import StorageError


def follow(site: Site, index: Index, report: IngestReport | None = None) -> int:
    """Do what follows; returns the number of volumes made.

    Args:
        site: where.
        index: of the site.
        report: of the ingestion, for its receipt; None after a release, which has lines of its own.

    Raises:
        StorageError: `storage-after`; the images are in.
    """
    try:
        deliver(site, index)
        refresh_percentiles(index)
        if report is not None:
            receipt(site, report)
        return assemble_volumes(site)
    except StorageError as error:
        raise StorageError(
            error.subject,
            f"the images are taken in, but not all that follows from them could be written: {error.rule}",
            "Free space or mend the disk, then repeat the same command: it goes on from here",
            code="storage-after",
        ) from None
