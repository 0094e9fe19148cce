"""Every fixed word that may stand for a failure outside of a hospital; a closed list.

An error's `code` is chosen in our source, but a reply is only as safe as whoever filled it in: a worker that a
hostile file took over, or a mistake of ours, could put anything there. So at the door a word that does not
stand here is replaced by the nearest that does: `ledger-anything` becomes `ledger`, the rest `internal`
(of a file: `other`). A test reads the source and holds this list to the codes that are raised.
"""

from __future__ import annotations

from typing import Final

INTERNAL: Final = "internal"
OTHER: Final = "other"

REFUSALS: Final = frozenset(
    [
        "accounting-calibration",
        "accounting-disagree",
        "accounting-input",
        "accounting-mismatch",
        "admission",
        "arrays",
        "audit-broken",
        "audit-truncated",
        "bucket",
        "busy",
        "checkpoint",
        "checkpoint-version",
        "code-mismatch",
        "code-missing",
        "courier",
        "data",
        "data-empty",
        "data-few-patients",
        "data-label",
        "data-one-class",
        "data-split-conflict",
        "data-splits",
        "device-memory",
        "dp",
        "dp-batch-norm",
        "dp-count-noise",
        "dp-in-place",
        "dp-mixes-patients",
        "dp-nothing-to-train",
        "dp-padding",
        "dp-running-statistics",
        "dp-shared",
        "dp-stochastic-depth",
        "dp-unsupported",
        "dp-unused",
        "egress",
        "error",
        "federation",
        "file",
        "input",
        "intake",
        "internal",
        "key",
        "key-changed",
        "key-rotating",
        "kind",
        "labels",
        "labels-version",
        "ledger",
        "ledger-clock",
        "ledger-corrupt",
        "ledger-countersign",
        "ledger-empty",
        "ledger-exists",
        "ledger-fork",
        "ledger-journal",
        "ledger-locked",
        "ledger-missing",
        "ledger-non-private",
        "ledger-readonly",
        "ledger-rollback",
        "ledger-simulated",
        "ledger-spent",
        "ledger-write",
        "no-patients",
        "no-service",
        "no-site",
        "not-private",
        "one-class",
        "order",
        "plan",
        "plan-mismatch",
        "policy",
        "policy-architecture",
        "policy-clip",
        "policy-delta",
        "policy-epsilon",
        "policy-network",
        "policy-noise",
        "policy-non-private",
        "policy-plan",
        "policy-questions",
        "policy-run",
        "policy-sampling-rate",
        "policy-trainable",
        "privacy",
        "questions-damaged",
        "round",
        "run",
        "settings",
        "socket",
        "storage",
        "storage-busy",
        "storage-corrupt",
        "storage-full",
        "storage-io",
        "storage-locked",
        "storage-version",
        "subset",
        "test-only",
        "timeout",
        "training-diverged",
        "weights",
        "wire",
    ]
)
"""Codes of a Refusal."""

FILES: Final = frozenset(
    [
        "burned-in",
        "deflate-bomb",
        "deid-uid",
        "deid-value",
        "deid-verify",
        "file",
        "file-size",
        "file-unreadable",
        "frames",
        "frames-inconsistent",
        "head-ct",
        "labels",
        "lut",
        "lut-broken",
        "not-an-image",
        "not-dicom",
        "other",
        "parser-error",
        "parser-limit",
        "patient-unknown",
        "pixel",
        "pixel-colour",
        "pixel-decode",
        "pixel-size",
        "pixels",
        "pixels-colour",
        "pixels-not-finite",
        "pixels-undecodable",
        "quality",
        "quality-blank",
        "quality-broken",
        "quality-clipped",
        "quality-contrast",
        "quality-duplicate",
        "quality-exposure",
        "quality-laterality",
        "quality-noise",
        "quality-orientation",
        "quality-sharpness",
        "quality-small",
        "rescale",
        "rescale-empty",
        "rescale-zero",
        "review-burned-in",
        "review-deface",
        "review-derived",
        "review-reader",
        "review-screen-save",
        "review-secondary-capture",
        "review-text",
        "review-ultrasound",
        "sop-class",
        "sop-class-dicomdir",
        "sop-class-document",
        "sop-class-key-object",
        "sop-class-missing",
        "sop-class-nuclear",
        "sop-class-other",
        "sop-class-pet",
        "sop-class-presentation",
        "sop-class-radiotherapy",
        "sop-class-report",
        "sop-class-segmentation",
        "sop-class-ultrasound",
        "sop-class-waveform",
        "timeout",
        "transfer-syntax",
        "window",
        "window-index",
        "withdrawn",
        "worker-lost",
    ]
)
"""Reasons for which files are refused, as a hospital counts them for the consortium."""


def refusal_code(code: str) -> str:
    """The word of `REFUSALS` that may be said for this code."""
    return _nearest(code, REFUSALS) or INTERNAL


def file_code(code: str) -> str:
    """The word of `FILES` that may be said for this reason."""
    return _nearest(code, FILES) or OTHER


def _nearest(code: str, known: frozenset[str]) -> str:
    """The longest beginning of `code`, in whole words, that is known; empty when none is."""
    words = code.split("-")
    beginnings = ("-".join(words[:length]) for length in range(len(words), 0, -1))
    return next((one for one in beginnings if one in known), "")
