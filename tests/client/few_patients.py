"""A handful of made-up patients, large enough to learn from and small enough to reason about."""

from __future__ import annotations

import numpy as np

from client.patients import PatientSet
from common.plan import Plan, plan_from_dict


def few_patients(patients: int = 12, side: int = 16, seed: int = 0, most: int = 4) -> PatientSet:
    """Patients of 1 to `most` images; positives carry a bright square somewhere in the middle."""
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, most + 1, patients)
    truth = (np.arange(patients) % 2).astype(np.float32)
    patient_of = np.repeat(np.arange(patients), counts)
    images = rng.standard_normal((counts.sum(), side, side)).astype(np.float32)
    for i, p in enumerate(patient_of):
        if truth[p]:
            r, c = rng.integers(side // 4, side // 2, 2)
            images[i, r : r + side // 4, c : c + side // 4] += 2.0
    attributes = {"projection": np.array(["PA", "AP"])[patient_of // 2 % 2]}
    names = [f"p{i}" for i in range(patients)]
    rows = np.arange(len(images))
    keys = [f"k{i}" for i in range(patients)]
    return PatientSet(images, rows, truth[patient_of][:, None], patient_of, names, keys, attributes)


def small_plan(side: int = 16, **sections: dict) -> Plan:
    """A binary plan on `side` x `side` images; sections override keys."""
    raw = {
        "study": {"name": "test", "question": "Is there a square?"},
        "task": {"kind": "binary", "classes": ["square"]},
        "input": {"modalities": ["DX"], "shape": [side, side]},
        "labels": {"source": "synthetic", "provenance": "drawn"},
        "model": {"name": "small-cnn", "options": {"width": 4, "groups": 2}},
        "training": {"batch_patients": 4, "learning_rate": 0.05},
        "federation": {"rounds": 3},
    }
    for name, changes in sections.items():
        raw[name] = {**raw.get(name, {}), **changes}
    return plan_from_dict(raw)
