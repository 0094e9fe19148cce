"""The two ways out of the quarantine that a person opens: an image goes in after all, or its original goes.

Laws, in order:
1. Who, what and why stands in the audit log before anything is done, and what came of it after.
2. A released image takes the way of every image: limited worker, de-identification, second scan, gate, index.
   A person waives the doubts they looked into, and nothing else; a patient who withdrew stays out.
3. A release happens whole or not at all, also when it is killed; the original goes only once the index was told.
4. What must never go in, or was never looked at by anything that could understand it, cannot be released.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from client.deid.deface import check_extra
from client.deid.pseudonyms import Pseudonyms
from client.deid.text.found import Box, Decision
from client.index import FileOutcome, Index
from client.intake.begin import begun, release_staging
from client.intake.commit import WITHDRAWN, Commit
from client.intake.faces import without_faces
from client.intake.folder import Incoming
from client.intake.follow import follow
from client.intake.join import Joined
from client.intake.outcome import ACCEPTED, REVIEW
from client.intake.pool import Limits
from client.intake.process import DISCARDED, Desk, Effort, Finished, process
from client.intake.quarantine import ID_LENGTH, Quarantine, Refusal
from client.intake.reasons import DISCARD, RELEASE, Reason, check_boxes, check_reason
from client.intake.report import UNCHANGED, IngestReport
from client.intake.staging import Staging
from client.site import Site
from common.audit import AuditLog, this_user
from common.errors import FileRefused, InputError

RELEASABLE: Final = (REVIEW, "quality-")
"""Begin the codes of what a person may judge; every other code is never released."""
_NEVER: Final = frozenset(("quality-duplicate",))
DECIDED: Final = "quarantine.decided"
RELEASED: Final = "quarantine.released"
HELD: Final = "quarantine.held"
UNDONE: Final = "quarantine.undone"


@dataclass(frozen=True)
class Decided:
    """What came of a decision."""

    id: str
    state: str
    """`accepted`, `held` (another gate refused it) or `discarded`."""
    code: str
    """`accepted`, or the code of the refusal that stands now."""
    rule: str = ""
    remedy: str = ""
    boxes: tuple[Box, ...] = field(default=())
    """Blanked in an accepted image; to be looked at in one that is held."""


def release(
    site: Site, name: str, blank: Sequence[Box], reason: Reason, limits: Limits | None = None
) -> Decided:
    """Take a refused image in after all, with these places blanked first.

    Args:
        site: the hospital.
        name: the quarantine identifier.
        blank: every place to blank, in pixels of the image as it came.
        reason: of `RELEASE`.
        limits: what the file may cost.

    Raises:
        InputError: `quarantine-unknown`, `release-never`, or a reason, note or box that is none.
        FileRefused: `withdrawn`; or the worker could not read it this time.
        SettingsError: faces are to be removed, and what does it is not installed.
        StorageError: nothing was changed.
    """
    check_reason(reason, RELEASE)
    check_boxes(blank)
    if site.deid.deface_head_mr:
        check_extra()
    with begun(site) as index:
        quarantine = Quarantine.of(site)
        refusal = find(quarantine, name, index)
        _check_releasable(refusal, index)
        before = refusal.decision.waive
        waive = before if refusal.code in before else (*before, refusal.code)
        decision = Decision(tuple(blank), waive)
        _decided(site, refusal, "release", reason, len(blank))
        desk = Desk(site, index, Staging(release_staging(site)), Pseudonyms.of(site))
        try:
            with quarantine.original(refusal.id, site.data / "staging") as file:
                effort = Effort(1, limits or Limits(), lambda _done, _all: None)
                (one,) = _processed(desk, file, effort, decision)
                _check_read(refusal, one)
                report = _commit(desk, quarantine, one, decision)
        finally:
            desk.staging.clear()
        accepted = one.outcome.accepted and not report.refused
        made = _result(quarantine, refusal, one, accepted=accepted)
        event = RELEASED if accepted else HELD
        AuditLog(site.audit).append(event, quarantine=name, code=made.code, blanked=len(blank))
        follow(site, index)
    return made


def discard(site: Site, name: str, reason: Reason) -> Decided:
    """Remove a refused original for good; the same file, sent again, stays out.

    Args:
        site: the hospital.
        name: the quarantine identifier.
        reason: of `DISCARD`.

    Raises:
        InputError: `quarantine-unknown`, `quarantine-discarded`, or a reason or note that is none.
        StorageError: the disk refuses; repeat to finish.
    """
    check_reason(reason, DISCARD)
    with begun(site) as index:
        quarantine = Quarantine.of(site)
        refusal = find(quarantine, name, index)
        _decided(site, refusal, "discard", reason, 0)
        if refusal.key and refusal.code != WITHDRAWN.code:
            index.record_file(refusal.key, FileOutcome(DISCARDED.code, name))
            index.settle_quarantined(name, FileOutcome(DISCARDED.code, name))
        quarantine.drop(name)
    return Decided(name, "discarded", DISCARDED.code, DISCARDED.rule, DISCARDED.remedy)


def undo_discard(site: Site, name: str) -> None:
    """Let a file that was discarded by mistake come again: the next ingestion judges it anew.

    Raises:
        InputError: `quarantine-unknown`: nothing of this name was discarded.
    """
    _check_name(name)
    with begun(site) as index:
        if not index.forget_file(name, DISCARDED.code):
            raise _unknown(name)
        AuditLog(site.audit).append(UNDONE, quarantine=name, user=this_user())


def find(quarantine: Quarantine, name: str, index: Index | None = None) -> Refusal:
    """One refusal by its identifier as a person typed it.

    Args:
        quarantine: where it lies.
        name: its identifier.
        index: of the site; it remembers what was discarded, and the way back is named then.

    Raises:
        InputError: `quarantine-unknown`, or `quarantine-discarded`: a person discarded it.
    """
    _check_name(name)
    found = {refusal.id: refusal for refusal in quarantine.refusals()}.get(name)
    if found is not None:
        return found
    if index is not None and index.ended_as(name, DISCARDED.code):
        raise InputError(
            f"quarantine {name}",
            "a person looked at it and discarded it; its original is not kept",
            f"If that was a mistake: consilium-site quarantine discard {name} --undo, then send it again",
            code="quarantine-discarded",
        )
    raise _unknown(name)


def releasable(refusal: Refusal) -> bool:
    """Whether a person may let this image in."""
    return refusal.code.startswith(RELEASABLE) and refusal.code not in _NEVER


def _check_releasable(refusal: Refusal, index: Index) -> None:
    if not releasable(refusal):
        raise InputError(
            f"quarantine {refusal.id}",
            f"what was refused as {refusal.code} is never released",
            f"{refusal.remedy}; then take it in again, or discard this one",
            code="release-never",
        )
    if refusal.patient and index.is_withdrawn(refusal.patient, refusal.spend_key):
        raise FileRefused(
            f"quarantine {refusal.id}",
            WITHDRAWN.rule,
            "Repeat the withdrawal to finish it",
            code=WITHDRAWN.code,
        )


def _check_read(refusal: Refusal, one: Finished) -> None:
    """A worker that had too little time or memory today says nothing about the image: its reason stands."""
    if one.outcome.code.startswith("parser-"):
        said = one.outcome
        raise FileRefused(f"quarantine {refusal.id}", said.rule, said.remedy, code=said.code)


def _processed(desk: Desk, file: Incoming, effort: Effort, decision: Decision) -> list[Finished]:
    done = process(desk, [file], effort, decision)
    return without_faces(desk, done, effort, decision) if desk.site.deid.deface_head_mr else done


def _commit(desk: Desk, quarantine: Quarantine, one: Finished, decision: Decision) -> IngestReport:
    commit = Commit(desk, quarantine, Joined(), decision)

    def report() -> IngestReport:
        """Of this one file."""
        tally = commit.tally
        accepted, unchanged = tally.total(ACCEPTED), tally.total(UNCHANGED)
        patients, by_modality = len(desk.index.patients()), tally.by_modality()
        return IngestReport(1, accepted, unchanged, tally.refused(), patients, 0, 0, 0.0, 0, by_modality)

    return commit.run([one], report)


def _result(quarantine: Quarantine, refusal: Refusal, one: Finished, *, accepted: bool) -> Decided:
    if accepted:
        return Decided(refusal.id, "accepted", ACCEPTED, boxes=one.outcome.boxes)
    now = quarantine.find(refusal.id) or refusal
    return Decided(refusal.id, "held", now.code, now.rule, now.remedy, now.boxes)


def _decided(site: Site, refusal: Refusal, kind: str, reason: Reason, blanked: int) -> None:
    said: dict[str, object] = {"quarantine": refusal.id, "kind": kind, "code": refusal.code}
    said |= {"reason": reason.code, "blanked": blanked, "user": this_user()}
    if reason.note:
        said["note"] = reason.note
    AuditLog(site.audit).append(DECIDED, **said)


def _check_name(name: str) -> None:
    if not re.fullmatch(f"[0-9a-f]{{{ID_LENGTH}}}", name):
        raise _unknown("ID")


def _unknown(name: str) -> InputError:
    return InputError(
        f"quarantine {name}",
        "nothing of this identifier is there",
        "See consilium-site quarantine list --json",
        code="quarantine-unknown",
    )


__all__ = [
    "DISCARD",
    "RELEASE",
    "Decided",
    "Reason",
    "discard",
    "find",
    "releasable",
    "release",
    "undo_discard",
]
