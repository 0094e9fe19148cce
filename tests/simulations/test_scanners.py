"""Scanners: each stage against its formula, replay to the bit, and machines that can be told apart."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from sklearn.linear_model import LogisticRegression

from simulations import phantoms, scanners
from simulations.scanners import SCANNERS, WEAK, chain
from simulations.scanners.scanner import QUANTA_PER_MM2_UGY

CLEAN = dataclasses.replace(
    SCANNERS["aster-dr"],
    heel=0.0,
    scatter_to_primary=0.0,
    motion_elements=0.0,
    pitch_mm=1.5,
    detector=scanners.Detector(0.143, 0.45, 0.0, 0.0, 0.0, 0.0, 0.0, 6.0),
)
"""A machine with quantum noise only."""


def _settings(scanner: scanners.Scanner, seed: int = 0) -> scanners.Settings:
    return scanners.draw(np.random.default_rng(seed), scanner)


def _anatomy(seed: int = 0, positive: bool = True) -> phantoms.Anatomy:
    return phantoms.render(phantoms.draw_patient(np.random.default_rng(seed), positive), "PA")


@pytest.mark.parametrize("name", SCANNERS)
def test_apply_replays_to_the_bit_and_stays_in_its_bits(name: str) -> None:
    settings, anatomy = _settings(SCANNERS[name]), _anatomy()
    pixels = scanners.apply(anatomy, settings)
    assert pixels.dtype == np.uint16
    assert pixels.shape == (256, 256)
    assert pixels.max() < 2 ** SCANNERS[name].bits
    assert np.array_equal(pixels, scanners.apply(anatomy, settings))
    louder = dataclasses.replace(settings, noise_seed=settings.noise_seed + 1)
    assert not np.array_equal(pixels, scanners.apply(anatomy, louder))


def test_apply_leaves_the_anatomy_alone() -> None:
    """Also on the scanner that lays bedding into the beam."""
    anatomy = _anatomy()
    before = anatomy.soft.copy(), anatomy.bone.copy()
    for scanner in SCANNERS.values():
        scanners.apply(
            anatomy,
            dataclasses.replace(_settings(scanner), scanner=dataclasses.replace(scanner, pitch_mm=1.5)),
        )
    assert np.array_equal(anatomy.soft, before[0])
    assert np.array_equal(anatomy.bone, before[1])


def test_quantum_noise_has_poisson_variance() -> None:
    """Variance of counts equals their mean within 3% over 65,536 elements."""
    settings = dataclasses.replace(_settings(CLEAN), kerma_ugy=2.0)
    kappa = 2.0 * QUANTA_PER_MM2_UGY * 0.143**2 * 0.45
    flat = np.full((256, 256), 0.25, dtype=np.float32)
    counts = chain._detect(flat, settings, np.random.default_rng(0)) * kappa
    assert counts.mean() == pytest.approx(0.25 * kappa, rel=0.01)
    assert counts.var() == pytest.approx(0.25 * kappa, rel=0.03)


def test_light_spread_has_the_mtf_it_claims() -> None:
    """The spectrum of the noise falls as the square of exp(-2 (pi s f)^2), within 5%."""
    scanner = dataclasses.replace(CLEAN, detector=dataclasses.replace(CLEAN.detector, blur_elements=0.8))
    settings = _settings(scanner)
    flat = np.full((256, 256), 0.25, dtype=np.float32)
    fields = [chain._detect(flat, settings, np.random.default_rng(seed)) for seed in range(6)]
    power = np.mean([np.abs(np.fft.fft2(f - f.mean())) ** 2 for f in fields], axis=0)
    frequency = np.fft.fftfreq(256)[:, None] + np.zeros((1, 256))
    low = power[np.abs(frequency) < 0.03].mean()
    for f in (0.1, 0.2):
        measured = power[np.abs(np.abs(frequency) - f) < 0.01].mean() / low
        expected = np.exp(-2 * (np.pi * 0.8 * f) ** 2) ** 2
        assert measured == pytest.approx(expected, rel=0.05)


def test_scatter_meets_its_ratio_and_fills_the_mediastinum() -> None:
    anatomy, settings = _anatomy(), dataclasses.replace(_settings(SCANNERS[WEAK]), scatter_to_primary=2.0)
    mu = chain._attenuation(anatomy, settings)
    primary = np.exp(-mu)
    scatter = chain._scatter(primary, mu, settings)
    behind = mu > 0.2
    assert scatter[behind].mean() / primary[behind].mean() == pytest.approx(2.0, rel=0.15)
    ratio = scatter / primary
    assert np.median(ratio[120:200, 120:136]) > 3 * np.median(
        ratio[chain._resample(anatomy.lung.astype(np.float32), 1.05) > 0.9]
    )


def test_heel_falls_along_the_tube_and_turns_with_it() -> None:
    cathode = chain._beam(SCANNERS["borealis-cr"], 256)[:, 0]
    assert cathode[0] == pytest.approx(1.0)
    assert cathode[-1] == pytest.approx(1 - SCANNERS["borealis-cr"].heel)
    turned = chain._beam(SCANNERS["cygnus-dr"], 256)[:, 0]
    assert turned[0] < turned[-1]


def test_bone_fades_faster_than_soft_tissue_at_higher_voltage() -> None:
    anatomy, settings = _anatomy(), _settings(CLEAN)

    def share(kvp: float) -> float:
        mu = chain._attenuation(anatomy, dataclasses.replace(settings, kvp=kvp))
        soft = chain._attenuation(
            dataclasses.replace(anatomy, bone=np.zeros_like(anatomy.bone)),
            dataclasses.replace(settings, kvp=kvp),
        )
        return float(((mu - soft).sum()) / mu.sum())

    assert share(80) > share(120) > share(133)


def test_resampling_follows_pitch() -> None:
    """A detector with twice the pitch sees the middle half as big; linear ramps stay linear."""
    ramp = np.tile(np.arange(256, dtype=np.float32), (256, 1))
    half = chain._resample(ramp, 0.5)
    assert half[10, 128] - half[10, 127] == pytest.approx(0.5)
    assert half.mean() == pytest.approx(127.5, abs=1e-3)


def test_truth_mask_moves_with_the_pixels() -> None:
    """A marked square of lead lands where the mask says, at another pitch."""
    anatomy = _anatomy(positive=False)
    mask = np.zeros((256, 256), dtype=bool)
    mask[100:120, 60:90] = True
    scanner = dataclasses.replace(CLEAN, pitch_mm=1.62, field_mm=(0.0, 0.0), edge=(0.0, 1.0))
    settings = dataclasses.replace(_settings(scanner), kerma_ugy=1e4)
    leaded = dataclasses.replace(anatomy, soft=anatomy.soft + np.float32(4) * mask)
    change = scanners.apply(leaded, settings).astype(int) - scanners.apply(anatomy, settings).astype(int)
    moved = scanners.on_detector(mask, anatomy, settings)
    inner = ndimage.binary_erosion(moved, iterations=1)
    assert np.median(change[inner]) > 10 * abs(np.median(change[~moved])) + 100


def test_side_marker_stands_on_the_side_it_names() -> None:
    for name, side in (("aster-dr", "L"), ("cygnus-dr", "R")):
        settings = _settings(SCANNERS[name])
        flat = np.ones((256, 256), dtype=np.float32)
        chain._lay_letter(flat, settings)
        columns = np.nonzero(flat < 1)[1]
        assert SCANNERS[name].marker == side
        assert (columns.mean() > 128) == (side == "L")


def test_findings_drown_on_the_weak_scanner_only() -> None:
    """Contrast of the finding against its own healthy body, over the local unrest of the image."""
    clear: dict[str, list[float]] = {name: [] for name in SCANNERS}
    for seed in range(4):
        patient = phantoms.draw_patient(np.random.default_rng(seed), True)
        sick = phantoms.render(patient, "PA")
        well = phantoms.render(dataclasses.replace(patient, opacities=()), "PA")
        for name, scanner in SCANNERS.items():
            settings = _settings(scanner, seed)
            other = dataclasses.replace(settings, noise_seed=settings.noise_seed + 1)
            with_it, without = (
                ndimage.uniform_filter(scanners.apply(a, s).astype(float), 8)
                for a, s in ((sick, settings), (well, other))
            )
            change, inside = with_it - without, scanners.on_detector(sick.finding, sick, settings)
            lungs = scanners.on_detector(sick.lung & ~sick.finding, sick, settings)
            clear[name].append(change[inside].mean() / change[lungs].std())
    strength = {name: float(np.mean(values)) for name, values in clear.items()}
    assert all(strength[name] > 2.5 * strength[WEAK] for name in SCANNERS if name != WEAK), strength


def test_scanners_can_be_told_apart_from_small_images() -> None:
    """A linear classifier on 16 x 16 pixels names the machine, as one names real vendors."""
    rng = np.random.default_rng(3)
    features, names = [], []
    for index in range(48):
        projection = "AP" if index % 2 else "PA"
        anatomy = phantoms.render(phantoms.draw_patient(rng, index % 3 == 0), projection)
        for name, scanner in SCANNERS.items():
            pixels = scanners.apply(anatomy, scanners.draw(rng, scanner)) / 2**scanner.bits
            features.append(pixels.reshape(16, 16, 16, 16).mean(axis=(1, 3)).ravel())
            names.append(name)
    half = len(names) // 2
    model = LogisticRegression(max_iter=500).fit(features[:half], names[:half])
    assert model.score(features[half:], names[half:]) > 0.9
