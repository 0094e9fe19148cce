"""Computed tomography: noise and sharpness against their formulas and against a real filtered back-projection."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from scipy import ndimage, special

from common.errors import DataError
from simulations.phantoms.trunk import Trunk, draw_trunk, render_trunk
from simulations.scanners import ct, history
from simulations.scanners.ct import chain
from simulations.scanners.record import from_record, to_record

SIZE = 256
PITCH = 1.0


def trunk(seed: int = 0, positive: bool = True) -> Trunk:
    return render_trunk(draw_trunk(np.random.default_rng(seed), positive), SIZE)


def of(image: np.ndarray) -> Trunk:
    return Trunk(image[None].astype(np.float32), np.zeros((1, *image.shape), bool), PITCH, 1.0)


def cylinder(across_mm: float, along_mm: float) -> np.ndarray:
    """Water in air, an ellipse of these half axes."""
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    inner = 1 - np.hypot(columns / across_mm, rows / along_mm)
    return -1000 * (1 - np.clip(inner * min(across_mm, along_mm) + 0.5, 0, 1))


def ideal(**changes: object) -> ct.CtAcquisition:
    drawn = ct.draw(np.random.default_rng(1), ct.SITES["thick-soft"])
    calm = {
        "kvp": 120.0,
        "ray_mm": PITCH,
        "water_hu": 0.0,
        "electronic": 0.0,
        "kernel": ct.Kernel("soft", 0.45, 0.0),
    }
    return replace(drawn, **(calm | changes))


def noise(image: np.ndarray, made: ct.CtAcquisition, fields: int) -> np.ndarray:
    """Noise alone, [fields, rows, columns] in Hounsfield units."""
    found = np.stack(
        [chain.scan_until(of(image), replace(made, seed=seed), "kernel").image for seed in range(fields)]
    )
    return (found - found.mean(axis=0)) * np.sqrt(fields / (fields - 1))


@pytest.mark.parametrize("name", ct.SITES)
def test_the_same_record_gives_the_same_bits(name: str) -> None:
    scanned = trunk()
    before = scanned.hounsfield.copy()
    made = ct.draw(np.random.default_rng(2), ct.SITES[name])
    pixels = ct.scan(scanned, made)
    assert pixels.dtype == np.uint16
    assert pixels.max() < 2**made.bits
    again = from_record(ct.CtAcquisition, to_record(made))
    assert again == made
    assert np.array_equal(pixels, ct.scan(scanned, again))
    assert not np.array_equal(pixels, ct.scan(scanned, replace(made, seed=1)))
    assert np.array_equal(before, scanned.hounsfield)


def test_nodules_lie_in_the_lungs_and_end_along_the_body() -> None:
    found = [trunk(seed).finding for seed in range(6)]
    assert all(one.any() for one in found)
    assert not trunk(0, positive=False).finding.any()
    sick = trunk(3)
    assert (sick.hounsfield[sick.finding] > -300).mean() > 0.9


@pytest.mark.parametrize(("kernel", "mas"), [(("soft", 0.45, 0.0), 100.0), (("sharp", 0.5, 1.5), 25.0)])
def test_variance_in_the_middle_of_water_meets_the_formula(
    kernel: tuple[str, float, float], mas: float
) -> None:
    """pi^2 d var(p) / views times the integral of f^2 K^2 over both signs: within 8%."""
    made = ideal(kernel=ct.Kernel(*kernel), mas=mas)
    water = cylinder(100, 100)
    start = made.quanta_per_mas * mas * made.ray_mm * made.thickness_mm / made.views
    unsure = np.exp(200 * chain.MU_WATER_PER_MM) / start
    f = np.linspace(0, made.kernel.cutoff_per_mm, 4001)
    share = f / made.kernel.cutoff_per_mm
    window = 0.5 * (1 + np.cos(np.pi * share)) * (1 + made.kernel.boost * np.sin(np.pi * share) ** 2)
    area = np.trapezoid((f * window) ** 2, f)
    expected = np.pi**2 * made.ray_mm * unsure / made.views * 2 * area * (1000 / chain.MU_WATER_PER_MM) ** 2
    measured = noise(water, made, 60)[:, 117:139, 117:139].var()
    assert measured == pytest.approx(expected, rel=0.08)


def test_noise_power_rises_with_frequency_and_falls_with_the_kernel() -> None:
    """f K(f)^2 in the middle of a cylinder, in rings, within 10%."""
    made = ideal()
    fields = noise(cylinder(110, 110), made, 40)[:, 96:160, 96:160]
    taper = np.outer(np.hanning(64), np.hanning(64))
    power = (np.abs(np.fft.fft2(fields * taper)) ** 2).mean(axis=0)
    radius = np.hypot(np.fft.fftfreq(64, PITCH)[:, None], np.fft.fftfreq(64, PITCH)[None, :])
    share = np.minimum(radius / 0.45, 1)
    expected = radius * (0.5 * (1 + np.cos(np.pi * share))) ** 2
    rings = [(radius > low) & (radius <= low + 0.05) for low in (0.05, 0.1, 0.15, 0.2, 0.25)]
    measured = np.array([power[ring].mean() for ring in rings])
    claimed = np.array([expected[ring].mean() for ring in rings])
    assert measured / measured.sum() == pytest.approx(claimed / claimed.sum(), rel=0.1)


@pytest.mark.parametrize(
    ("change", "factor"), [({"mas": 640.0}, 0.5), ({"thickness_mm": 1.25}, 2.0), ({"kvp": 80.0}, None)]
)
def test_noise_follows_dose_and_thickness(change: dict[str, float], factor: float | None) -> None:
    """A root of dose and of thickness; less voltage, more noise."""
    water = cylinder(90, 90)
    base = noise(water, ideal(mas=160.0, thickness_mm=5.0), 6)[:, 100:156, 100:156].std()
    other = noise(water, ideal(**({"mas": 160.0, "thickness_mm": 5.0} | change)), 6)[
        :, 100:156, 100:156
    ].std()
    if factor is None:
        assert other > 1.4 * base
    else:
        assert other / base == pytest.approx(factor, rel=0.03)


def test_electronic_noise_hurts_where_few_quanta_arrive() -> None:
    for width, mas, least, most in ((60, 160.0, 1.0, 1.05), (120, 2.0, 1.15, 10.0)):
        loud, quiet = (
            noise(cylinder(width, width), ideal(mas=mas, electronic=e), 4)[:, 118:138, 118:138].std()
            for e in (12.0, 0.0)
        )
        assert least <= loud / quiet <= most


def backprojected(
    image: np.ndarray, made: ct.CtAcquisition, rng: np.random.Generator, views: int
) -> np.ndarray:
    """A real filtered back-projection of noise: parallel rays through the image, one Gaussian number for each.

    Filtered views are read between their samples by Fourier interpolation: linear interpolation would take noise away.
    """
    mu = np.maximum(1 + image / 1000, 0) * chain.MU_WATER_PER_MM * PITCH
    start = made.quanta_per_mas * made.mas * made.ray_mm * made.thickness_mm / made.views
    f, fine = np.fft.rfftfreq(SIZE, PITCH), 8
    ramp = f * 0.5 * (1 + np.cos(np.pi * np.minimum(f / made.kernel.cutoff_per_mm, 1)))
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    total = np.zeros_like(image)
    for degrees in np.arange(views) * 180 / views:
        turned = ndimage.rotate(mu, degrees, reshape=False, order=1)
        drawn = rng.standard_normal(SIZE) * np.sqrt(np.exp(turned.sum(axis=0)) / start)
        filtered = np.fft.irfft(np.fft.rfft(drawn) * ramp, SIZE * fine) * fine
        # Where the ray of each pixel meets the turned image's columns.
        angle = np.radians(degrees)
        at = columns * np.cos(angle) + rows * np.sin(angle) + (SIZE - 1) / 2
        total += filtered[np.clip(np.rint(at * fine), 0, SIZE * fine - 1).astype(int)]
    # Fewer views than the scanner's: noise falls with their root.
    return total * np.pi / views * np.sqrt(views / made.views) * 1000 / chain.MU_WATER_PER_MM


def test_noise_is_that_of_a_real_back_projection_in_strength_and_direction() -> None:
    """An ellipse twice as wide as deep, level and aslant: strength at five places, power in four directions."""
    made, level = ideal(mas=40.0), cylinder(115, 58)
    for degrees in (0, 30):
        wide = ndimage.rotate(level, degrees, reshape=False, order=1, cval=-1000.0)
        ours = noise(wide, made, 10)
        rng = np.random.default_rng(5)
        theirs = np.stack([backprojected(wide, made, rng, 60) for _ in range(4)])
        for place in ((128, 128), (128, 60), (95, 128), (128, 200), (80, 60)):
            rows, columns = (slice(at - 14, at + 14) for at in place)
            strength = ours[:, rows, columns].std() / theirs[:, rows, columns].std()
            assert strength == pytest.approx(1, abs=0.2), (degrees, place)
        measured, expected = (directions(one[:, 100:156, 100:156]) for one in (ours, theirs))
        assert expected.max() > 3 * expected.min()
        assert measured == pytest.approx(expected, abs=0.1), degrees


def directions(fields: np.ndarray) -> np.ndarray:
    """Shares of noise power by the direction of its waves: level, falling, upright, rising; float [4]."""
    power = (np.abs(np.fft.fft2(fields * np.outer(np.hanning(56), np.hanning(56)))) ** 2).mean(axis=0)
    down, across = np.fft.fftfreq(56)[:, None], np.fft.fftfreq(56)[None, :]
    inside = (np.hypot(down, across) > 0.05) & (np.hypot(down, across) < 0.3)
    sector = np.rint(np.arctan2(down, across) / (np.pi / 4)).astype(int) % 4
    shares = np.array([power[inside & (sector == number)].mean() for number in range(4)])
    return shares / shares.sum()


@pytest.mark.parametrize("kernel", [("soft", 0.45, 0.0), ("sharp", 0.48, 1.5)])
def test_slanted_edge_gives_the_kernels_transfer_function(kernel: tuple[str, float, float]) -> None:
    made = ideal(kernel=ct.Kernel(*kernel), mas=1e9)
    soft, tilt = 0.6, np.tan(np.radians(3.0))
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    away = (columns - tilt * rows) * np.cos(np.arctan(tilt))
    # A bar, not a step: the transform closes on itself at the border.
    edge = 100 * (
        special.erf(away / soft / np.sqrt(2)) - special.erf((np.abs(away) - 90) / soft / np.sqrt(2))
    )
    image = chain.scan_until(of(edge), made, "kernel").image
    bins = np.round(away * 4).astype(int)
    inside = (np.abs(bins) <= 160) & (np.abs(rows) < 100)
    sums = np.bincount(bins[inside] + 160, image[inside]) / np.bincount(bins[inside] + 160)
    spread = np.diff(sums)
    cycles = np.fft.rfftfreq(spread.size, 0.25)
    measured = np.abs(np.fft.rfft(spread))
    measured /= measured[0] * np.exp(-2 * (np.pi * soft * cycles) ** 2) * np.sinc(cycles / 4) ** 2
    for f in (0.08, 0.16, 0.25, 0.35):
        share = f / made.kernel.cutoff_per_mm
        expected = 0.5 * (1 + np.cos(np.pi * share)) * (1 + made.kernel.boost * np.sin(np.pi * share) ** 2)
        assert np.interp(f, cycles, measured) == pytest.approx(expected * np.sinc(f), abs=0.03)


def test_thick_slices_fade_small_things_by_their_share() -> None:
    """A disc of one thin slice among five: a fifth of its contrast in a box of 5 mm, all in 1 mm."""
    volume = np.full((5, SIZE, SIZE), 0.0, np.float32)
    volume[2, 120:136, 120:136] = 500
    layered = Trunk(volume, volume > 100, PITCH, 1.0)
    for thickness, profile, expected in ((5.0, 0.0, 100.0), (1.0, 0.0, 500.0), (3.0, 0.0, 500 / 3)):
        made = ideal(thickness_mm=thickness, profile=profile)
        found = chain.scan_until(layered, made, "thickness").image[128, 128]
        assert found == pytest.approx(expected, rel=1e-4)
    triangle = chain.slice_profile(9, 0.5, 2.0, 1.0)
    assert triangle.sum() == pytest.approx(1)
    assert triangle[2] / triangle[4] == pytest.approx(0.5)


def test_water_reads_what_calibration_says() -> None:
    made = ideal(water_hu=4.0, mas=1e7)
    pixels = ct.scan(of(cylinder(100, 100)), made).astype(float) - made.intercept
    assert pixels[120:136, 120:136].mean() == pytest.approx(4.0, abs=0.5)
    assert pixels[:20, :20].mean() == pytest.approx(-996.0, abs=1.0)


def test_real_slices_become_noisier_at_less_dose() -> None:
    ds = dcmread(str(get_testdata_file("CT_small.dcm", download=False)))
    real = ct.trunk_from_slices((ds.pixel_array * ds.RescaleSlope + ds.RescaleIntercept)[None], 0.66, 5.0)
    site = ct.SITES["low-dose"]
    noise_at = {}
    for mas in (400.0, 10.0):
        made = replace(ct.draw(np.random.default_rng(1), site), mas=mas)
        one, other = (ct.scan(real, replace(made, seed=seed)).astype(float) for seed in (1, 2))
        noise_at[mas] = (one - other).std()
        assert one.shape == (128, 128)
    assert noise_at[10.0] == pytest.approx(noise_at[400.0] * np.sqrt(40), rel=0.1)
    with pytest.raises(DataError, match="square slices"):
        ct.trunk_from_slices(np.zeros((4, 5)), 1.0, 1.0)


def test_two_scanners_of_a_kind_differ_and_are_reproducible() -> None:
    one, same, other = (ct.another_site(n, ct.SITES["low-dose"], 3) for n in ("a", "a", "b"))
    assert one == same
    assert one.mas != other.mas
    assert one.kernels != other.kernels


def test_a_scanner_drifts_and_is_calibrated() -> None:
    told = history.History(
        drifts=(history.Drift("water_hu.mean", 0.5, "additive"),),
        services=(history.Service(6, renews=("water_hu",)),),
    )
    site = ct.SITES["low-dose"]
    assert history.site_at(site, told, 5).water_hu.mean == pytest.approx(2.5)
    assert history.site_at(site, told, 8).water_hu.mean == pytest.approx(1.0)


def test_every_stage_says_formula_unit_and_source() -> None:
    for stage in ct.STAGES:
        told = stage.told()
        assert told.title, stage.name
        assert told.formula, stage.name
        assert told.unit, stage.name
        assert told.source, stage.name
