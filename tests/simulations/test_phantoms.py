"""Phantoms: drawn chance is recorded, truth is where the finding is, and the geometry is that of a cone."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from simulations import phantoms
from simulations.phantoms import texture
from simulations.phantoms.anatomy import MU_WATER
from simulations.phantoms.view import GEOMETRY, Exposure, View


def _patient(seed: int, positive: bool) -> phantoms.Patient:
    return phantoms.draw_patient(np.random.default_rng(seed), positive)


def test_the_same_draw_renders_the_same_map_and_a_new_pose_does_not() -> None:
    patient = _patient(1, positive=True)
    pose = phantoms.draw_pose(np.random.default_rng(2), "PA")
    first, again = phantoms.render(patient, "PA", pose=pose), phantoms.render(patient, "PA", pose=pose)
    assert np.array_equal(first.attenuation, again.attenuation)
    other = phantoms.render(patient, "PA", pose=phantoms.draw_pose(np.random.default_rng(3), "PA"))
    assert not np.array_equal(first.attenuation, other.attenuation)


def test_maps_are_finite_line_integrals_of_a_human_chest() -> None:
    """Lung 1 to 4.5, behind the heart and spine 3 to 8 at 60 keV; nothing negative."""
    for seed in range(8):
        anatomy = phantoms.render(_patient(seed, positive=seed % 2 == 0), "PA" if seed % 3 else "AP")
        mu = anatomy.attenuation
        assert mu.dtype == np.float32
        assert np.isfinite(mu).all()
        assert mu.min() >= 0
        assert 1.0 < np.median(mu[anatomy.lung]) < 4.5
        assert 3.0 < mu[150:170, 124:132].mean() < 8.0
        assert 0.12 < anatomy.lung.mean() < 0.40


def test_a_finding_changes_the_lung_by_exactly_what_truth_says() -> None:
    """Rendering the same body without its opacities differs by the recorded opacity, where no vessel is."""
    patient = _patient(5, positive=True)
    healthy = dataclasses.replace(patient, opacities=())
    sick, well = phantoms.render(patient, "PA"), phantoms.render(healthy, "PA")
    added = sick.soft - well.soft
    assert added.min() > -1e-4
    assert (added <= sick.opacity + 1e-4).all()
    assert np.allclose(added, sick.opacity, atol=0.35)
    assert np.median(np.abs(added - sick.opacity)[sick.finding]) < 1e-4
    assert np.array_equal(sick.bone, well.bone)


def test_truth_lies_in_the_lungs_and_healthy_patients_have_none() -> None:
    for seed in range(6):
        anatomy = phantoms.render(_patient(seed, positive=True), "PA")
        assert anatomy.finding.any()
        assert (anatomy.opacity[~anatomy.lung] < 12 * MU_WATER).all()
        assert not phantoms.render(_patient(seed, positive=False), "PA").finding.any()


def test_grades_are_graded() -> None:
    """Each grade adds more attenuation than the one before it, on average."""
    rng = np.random.default_rng(0)
    sums: dict[str, list[float]] = {grade.name: [] for grade in phantoms.GRADES}
    while min(len(values) for values in sums.values()) < 6:
        patient = phantoms.draw_patient(rng, True)
        sums[patient.grade].append(float(phantoms.render(patient, "PA").opacity.sum()))
    means = [float(np.mean(sums[grade.name])) for grade in phantoms.GRADES]
    assert means == sorted(means)
    assert means[-1] > 4 * means[0]


def test_label_does_not_leak_into_build() -> None:
    """With one seed the body is the same with and without the finding: only the opacities tell."""
    sick, well = _patient(11, positive=True), _patient(11, positive=False)
    assert dataclasses.replace(sick, positive=False, grade="", opacities=()) == well


def test_ap_enlarges_the_heart_as_the_cone_says() -> None:
    patient = _patient(3, positive=False)
    wide = {}
    for projection in ("PA", "AP"):
        exposure = Exposure(GEOMETRY[projection], patient, phantoms.Pose(), 256)
        wide[projection] = exposure.magnification(0.33)
    assert 1.04 < wide["PA"] < 1.10
    assert 1.15 < wide["AP"] < 1.30
    front = [Exposure(GEOMETRY["PA"], patient, phantoms.Pose(), 256).magnification(z) for z in (0.0, 1.0)]
    assert front[0] < front[1]


def test_pixels_and_millimetres_are_inverse() -> None:
    """Vessels are splatted with the inverse of the mapping that organs are evaluated with."""
    pose = phantoms.Pose((7.0, -5.0), 0.03, 4.0, 2.0)
    exposure = Exposure(GEOMETRY["AP"], _patient(4, positive=False), pose, 128)
    x, y = View(exposure, slice(0, 128)).at(0.5)
    columns, rows = exposure.to_pixels(x, y, 0.5)
    expected_rows, expected_columns = np.mgrid[0:128, 0:128]
    assert np.abs(columns - expected_columns).max() < 2e-3
    assert np.abs(rows - expected_rows).max() < 2e-3


def test_size_changes_sampling_not_anatomy() -> None:
    patient = _patient(6, positive=False)
    large, small = phantoms.render(patient, "PA", 256), phantoms.render(patient, "PA", 128)
    coarse = large.bone.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    assert small.pitch_mm == pytest.approx(2 * large.pitch_mm)
    assert np.corrcoef(coarse.ravel(), small.bone.ravel())[0, 1] > 0.97


def test_mottle_has_the_spectrum_it_claims() -> None:
    """Power falls as f^-3 between the largest and the finest scales (slope within 0.3)."""
    field = np.mean(
        [np.abs(np.fft.fft2(texture.mottle(np.random.default_rng(s), 256))) ** 2 for s in range(12)], axis=0
    )
    radius = np.hypot(*np.meshgrid(np.fft.fftfreq(256), np.fft.fftfreq(256)))
    rings = [(0.012, 0.02), (0.02, 0.04), (0.04, 0.08)]
    power = [np.log(field[(radius >= low) & (radius < high)].mean()) for low, high in rings]
    middle = [np.log(radius[(radius >= low) & (radius < high)].mean()) for low, high in rings]
    assert np.polyfit(middle, power, 1)[0] == pytest.approx(-3, abs=0.3)


def test_images_per_patient_follow_their_shares() -> None:
    rng = np.random.default_rng(0)
    counts = np.bincount([phantoms.images_per_patient(rng) for _ in range(4000)], minlength=5)
    assert counts[0] == 0
    assert np.allclose(counts[1:] / 4000, (0.50, 0.25, 0.15, 0.10), atol=0.03)
