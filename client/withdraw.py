"""A patient leaves: index, files, originals in quarantine, stores, scores and volumes; a tombstone stays.

Every step can be repeated: the tombstone comes first, so that nothing lists the patient any more, then
the files go, and only then the rows that say which files those were.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from client.deid.lookup import forget_originals
from client.deid.pseudonyms import Identity, Pseudonyms
from client.files import storage_error, sweep
from client.index import Index, Withdrawal
from client.intake.begin import release_staging
from client.intake.quarantine import Quarantine
from client.intake.staging import forget
from client.site import Site
from client.store import erase


def withdraw_patient(site: Site, patient_id: str, issuer: str = "") -> Withdrawal:
    """Withdraw a patient by the hospital's own number and the office that issued it; see `withdraw`."""
    names = Pseudonyms.of(site)
    who = Identity(patient_id, issuer)
    return withdraw(site, names.patient(who), names.spend_key(who))


def withdraw(site: Site, pseudonym: str, spend_key: str = "") -> Withdrawal:
    """Remove a patient from everything this site keeps, and from all future training.

    Models that were trained with the patient cannot be unlearned; their runs are listed. What the
    ledger spent on the patient stays spent.

    Args:
        site: where.
        pseudonym: of the patient; one that is not known gets a tombstone all the same.
        spend_key: the patient's name in the ledger, so that the tombstone outlives a change of pseudonyms.

    Returns:
        what was removed, and the runs that used the patient.

    Raises:
        StorageError: a file cannot be removed. The patient is unlisted already; repeat to finish.
    """
    with Index(site.index) as index:
        found = index.begin_withdrawal(pseudonym, spend_key)
        _remove(site.dicom, found.files)
        _remove(site.dicom, _moved(site, pseudonym))
        _remove(site.data / "volumes", found.volumes)
        for unfinished in (site.quarantine, site.data / "volumes"):
            sweep(unfinished)
        erase(site, frozenset(found.sop_uids))
        _remove_scores(site.scores)
        for waiting in (site.data / "staging", release_staging(site)):
            forget(waiting, pseudonym)
        forget_originals(site, pseudonym, spend_key)
        quarantined = Quarantine.of(site).withdraw(pseudonym, spend_key)
        index.finish_withdrawal(pseudonym, quarantined)
    return replace(found, quarantined=quarantined)


def _remove(folder: Path, files: tuple[str, ...]) -> None:
    try:
        for file in files:
            (folder / file).unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, "a file of a withdrawn patient") from None


def _moved(site: Site, pseudonym: str) -> tuple[str, ...]:
    """Images of a patient that an ingestion had moved into place when it was killed: no index names them."""
    if not pseudonym.isalnum():  # what a person types becomes part of a path here
        return ()
    return tuple(str(path.relative_to(site.dicom)) for path in (site.dicom / pseudonym).glob("*.dcm"))


def _remove_scores(folder: Path) -> None:
    """Scores name patients inside their files and can be computed again: all of them go."""
    _remove(folder, tuple(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()))
