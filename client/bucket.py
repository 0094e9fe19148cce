"""A hospital's public number of training patients: coarse, and taken once.

It weighs the hospital's updates and divides its noisy sums, so it must not follow the exact count
from round to round. What site.toml declares goes first; otherwise it is read once from the data for
each way of splitting them, written down, and never taken again.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Final

from client.dataset import public_bucket
from client.site import Site
from common.checkpoints import write_whole
from common.errors import StorageError
from common.plan import Plan

_FILE: Final = "buckets.json"


def bucket_of(site: Site, plan: Plan, training_patients: int) -> int:
    """The public bucket of a site under a plan; 0 for a site without training patients.

    Raises:
        StorageError: when the note of it cannot be read or written.
    """
    if training_patients == 0:
        return 0
    if site.patients_bucket > 0:
        return public_bucket(site.patients_bucket)
    key = json.dumps([asdict(plan.data), plan.input.modalities], sort_keys=True)
    known = _read(site)
    if key not in known:
        known[key] = public_bucket(training_patients)
        write_whole(site.state / _FILE, json.dumps(known, indent=1, sort_keys=True).encode())
    return known[key]


def _read(site: Site) -> dict[str, int]:
    path = site.state / _FILE
    try:
        if not path.exists():
            return {}
        return {str(key): int(value) for key, value in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError):
        raise StorageError(
            path.name,
            "it is not readable",
            "Restore it from backup, or set site.patients_bucket in site.toml",
        ) from None
