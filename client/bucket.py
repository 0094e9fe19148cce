"""A hospital's public number of training patients: coarse, and taken once.

It weighs the hospital's updates and divides its noisy sums, so it must not follow the exact count
from round to round. What site.toml declares goes first; otherwise it is read once from the data,
written down, and never taken again. A plan that splits the patients otherwise gets that number in
proportion, not a new one: from many fractions, one after another, the exact count could be worked out.
"""

from __future__ import annotations

import json
import math
from typing import Final

from client.dataset import public_bucket
from client.site import Site
from common.checkpoints import write_whole
from common.errors import StorageError
from common.plan import Data, Plan

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
    key, share = " ".join(sorted(set(plan.input.modalities))), _share(plan.data)
    known = _read(site)
    if key not in known:
        known[key] = (public_bucket(training_patients), share)
        write_whole(site.state / _FILE, json.dumps(known, indent=1, sort_keys=True).encode())
    bucket, taken_at = known[key]
    return bucket if share == taken_at else public_bucket(max(1, math.floor(bucket * share / taken_at)))


def _share(data: Data) -> float:
    """The part of the patients that a plan leaves for training."""
    return 1.0 - data.test_fraction - data.validation_fraction


def _read(site: Site) -> dict[str, tuple[int, float]]:
    """By modalities: the bucket, and the share of training patients when it was taken."""
    path = site.state / _FILE
    try:
        if not path.exists():
            return {}
        found = json.loads(path.read_text()).items()
        return {str(key): (int(bucket), float(share)) for key, (bucket, share) in found}
    except (OSError, ValueError, AttributeError, TypeError):
        raise StorageError(
            path.name,
            "it is not readable",
            "Restore it from backup, or set site.patients_bucket in site.toml",
        ) from None
