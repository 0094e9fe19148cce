"""Faces out of staged head MR series, where the site's settings ask for it; outcomes follow what was done."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pydicom import dcmread

from client.deid.deface import CODE, Defaced, Staged, deface_staged
from client.deid.text.found import Decision
from client.intake.digests import stored_digest, tail_digest
from client.intake.outcome import Outcome
from client.intake.process import Desk, Effort, Finished, prove
from common.errors import FileRefused

REVIEW_DEFACE = "review-deface"


def without_faces(
    desk: Desk, finished: Sequence[Finished], effort: Effort, decision: Decision | None = None
) -> list[Finished]:
    """The same files, in order: head MR defaced, or waiting for a person where that was not possible.

    What was written anew is scanned anew: a defaced file is called de-identified only when that agrees.

    Args:
        desk: where they are staged.
        finished: every file of the ingestion.
        effort: at what cost the second scan is made.
        decision: what a person decided about these files.

    Raises:
        StorageError: a staged file cannot be written.
        IntakeError: no worker process can be started.
    """
    waived = decision is not None and REVIEW_DEFACE in decision.waive
    staged = [
        Staged(one.key, desk.staging.image(one.key), one.row.series_uid, waived)
        for one in finished
        if one.row is not None and one.outcome.accepted and one.row.modality == "MR"
    ]
    done = deface_staged([one for one in staged if one.path.exists()])
    anew = {key for key, became in done.items() if became.refusal is None}
    proved = prove(desk, [one for one in finished if one.key in anew and one.outcome.accepted], effort)
    became = {key: _agreed(one, proved.get(key)) for key, one in done.items()}
    return [_followed(desk, one, became[one.key]) if one.key in became else one for one in finished]


def _agreed(became: Defaced, scan: Outcome | None) -> Defaced:
    """What became of a file once the second scan has spoken too."""
    if scan is None or scan.accepted:
        return became
    return Defaced(refusal=FileRefused("a defaced image", scan.rule, scan.remedy, code=scan.code))


def _followed(desk: Desk, one: Finished, became: Defaced) -> Finished:
    """The outcome of a file that was defaced or held; copies of it keep theirs."""
    if one.row is None or not one.outcome.accepted:
        return one
    refusal = became.refusal
    if refusal is not None:
        desk.staging.drop(one.key)
        held = replace(
            one.outcome, code=refusal.code, rule=refusal.rule, remedy=refusal.remedy, row=None, digest=""
        )
        return Finished(one.file, one.key, held)
    image = dcmread(desk.staging.image(one.key))
    row = replace(one.row, pixel_digest=stored_digest(image, tail_digest(image.PixelData)))
    methods = tuple(sorted({*one.outcome.methods, CODE}))
    fields = {**(one.outcome.row or {}), "pixel_digest": row.pixel_digest}
    outcome = replace(one.outcome, digest=became.digest, methods=methods, row=fields)
    desk.staging.keep(one.key, outcome)
    return Finished(one.file, one.key, outcome, row)
