"""The one door out of a hospital: typed records, suppressed, measured, written down, then bytes.

The rules, in order:
1. Only an Update, SiteMetrics or Refusal leaves; every field has its declared type, every number is
   finite, every word is short and of a closed alphabet.
2. Counts below the minimum cell become None, and what could be computed only from a suppressed
   count goes with it; bins of a curve leave for all patients only, and never so that the rest of
   them is a small cell. The minimum is the larger of the plan's and the policy's.
3. Numbers of files are coarsened, so that differences of totals do not reveal small cells.
4. The message's size and SHA-256 are in the site's audit log before the bytes are handed over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import re
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from client.suppression import shown_bins
from common import wire
from common.audit import AuditLog
from common.errors import FederationError, PolicyRefused
from common.messages import GroupMetrics, IntakeSummary, ModelMetrics, Refusal, Reply, SiteMetrics, Update

_WORD: Final = re.compile(r"^[A-Za-z0-9 ._:+/()-]{0,128}$")
"""A level of a group may be a manufacturer's name; a digest has 71 characters."""
_COARSE: Final = 10
"""Numbers of files are rounded to this many."""


@dataclass(frozen=True)
class Released:
    """What left: the record as suppressed, and the very bytes that were written down."""

    reply: Reply
    blob: bytes


class Egress:
    """The door of one hospital."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def release(self, reply: Reply, min_cell: int) -> Released:
        """Suppress, check, write down, and return the bytes that may leave.

        Raises:
            PolicyRefused: code `egress` when the reply is not what may leave.
            StorageError: when the audit log cannot be written; then nothing leaves.
        """
        clean = suppress(reply, min_cell) if type(reply) is SiteMetrics else reply
        check(clean)
        try:
            blob = wire.pack(clean)
        except FederationError:
            raise _refused("its fields are not those of a message") from None
        self._audit.append(
            "egress.release",
            kind=type(clean).__name__.lower(),
            run=clean.run,
            round=clean.round,
            bytes=len(blob),
            digest="sha256:" + hashlib.sha256(blob).hexdigest(),
        )
        return Released(clean, blob)


def suppress(metrics: SiteMetrics, min_cell: int) -> SiteMetrics:
    """The same record without any cell smaller than `min_cell` patients, files in coarse numbers."""
    return replace(
        metrics,
        models=tuple(_suppress_model(model, min_cell) for model in metrics.models),
        intake=metrics.intake and _suppress_intake(metrics.intake, min_cell),
    )


def coarse(count: int | None, min_cell: int) -> int | None:
    """A number of files as it may leave: None below `min_cell`, else to the nearest ten."""
    if count is None or count < min_cell:
        return None
    return max(_COARSE, (count + _COARSE // 2) // _COARSE * _COARSE)


def check(reply: object) -> None:
    """Refuse whatever is not one of the three records with finite numbers and short words.

    Raises:
        PolicyRefused: code `egress`.
    """
    if type(reply) not in (Update, SiteMetrics, Refusal):
        raise _refused("only an Update, SiteMetrics or a Refusal may leave")
    _check_value(reply)


def _suppress_intake(intake: IntakeSummary, min_cell: int) -> IntakeSummary:
    return replace(
        intake,
        received=coarse(intake.received, min_cell),
        accepted=coarse(intake.accepted, min_cell),
        refused={code: coarse(count, min_cell) for code, count in intake.refused.items()},
    )


def _suppress_model(model: ModelMetrics, min_cell: int) -> ModelMetrics:
    return replace(model, groups=tuple(_suppress_group(group, min_cell) for group in model.groups))


def _suppress_group(group: GroupMetrics, min_cell: int) -> GroupMetrics:
    positives = group.positives if (group.positives or 0) >= min_cell else None
    negatives = group.negatives if (group.negatives or 0) >= min_cell else None
    both = positives is not None and negatives is not None
    anyone = positives is not None or negatives is not None
    patients = (group.positives or 0) + (group.negatives or 0)
    whole = anyone and group.group == "all"
    return replace(
        group,
        positives=positives,
        negatives=negatives,
        auroc=group.auroc if both else None,
        auprc=group.auprc if both else None,
        sensitivity=group.sensitivity if positives is not None else None,
        specificity=group.specificity if negatives is not None else None,
        precision=group.precision if positives is not None else None,
        f1=group.f1 if positives is not None else None,
        ece=group.ece if anyone else None,
        calibration=shown_bins(group.calibration, patients, min_cell) if whole else (),
    )


def _check_value(value: object) -> None:
    if value is None or isinstance(value, (bool, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused("a number is not finite")
    elif isinstance(value, str):
        if not _WORD.fullmatch(value):
            raise _refused("a word is too long or holds other characters than words do")
    elif isinstance(value, np.ndarray):
        _check_array(value)
    else:
        for part in _parts(value):
            _check_value(part)


def _parts(value: object) -> list[object]:
    if dataclasses.is_dataclass(value) and type(value).__module__ == "common.messages":
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    raise _refused("a value is of a kind that never leaves")


def _check_array(array: np.ndarray[Any, Any]) -> None:
    if array.dtype != np.float32:
        raise _refused("a tensor is not float32")
    if not bool(np.all(np.isfinite(array))):
        raise _refused("a tensor holds a value that is not finite")


def _refused(rule: str) -> PolicyRefused:
    return PolicyRefused("reply", rule, "Look at what produced it; nothing has left", code="egress")
