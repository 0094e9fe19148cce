"""Each stage of a radiograph against the formula that it claims: noise power, slanted edge, variance, ratios."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import special, stats

from simulations.scanners import xray
from simulations.scanners.xray import beam, faults, noise, scatter, sharpness
from simulations.scanners.xray.machine import QUANTA_PER_MM2_UGY

SIZE = 256


def even(value: float = 1.5, size: int = SIZE) -> xray.Subject:
    flat = np.full((size, size), value, np.float32)
    return xray.Subject(flat, np.zeros_like(flat), 0.75)


def ideal(name: str = "caesium-wall", **panel: float) -> xray.Exposure:
    """An exposure with nothing but quantum noise and blur: no heel, scatter, grid, motion or faults."""
    site = xray.SITES[name]
    calm = {
        "gain_spread": 0.0,
        "offset_spread": 0.0,
        "line_noise": 0.0,
        "dead_ppm": 0.0,
        "dead_lines": 0.0,
        "electronic": 0.0,
    }
    machine = replace(
        site.machine,
        grid=None,
        tube=replace(site.machine.tube, target_depth=0.0),
        panel=replace(site.machine.panel, **(calm | panel)),
    )
    exposure = xray.draw(np.random.default_rng(0), replace(site, machine=machine), "PA", 0.75)
    return replace(
        exposure,
        scatter_to_primary=0.0,
        motion_mm=0.0,
        step=1.0,
        kvp=120.0,
        distance_mm=1e6,
        object_mm=0.0,
        field_mm=(-9.0, -9.0, -9.0, -9.0),
        marker=replace(exposure.marker, stamped=True),
    )


def power(exposure: xray.Exposure, stage: str, fields: int = 12) -> tuple[np.ndarray, float]:
    """Noise power [256, 256] per pixel (an even spectrum has the variance), and the mean of the signal."""
    # A field that does not close on itself would leak low frequencies into high ones.
    taper = np.outer(np.hanning(SIZE), np.hanning(SIZE))
    taper /= np.sqrt((taper**2).mean())
    total, means = np.zeros((SIZE, SIZE)), []
    for seed in range(fields):
        image = xray.expose_until(even(), replace(exposure, seed=seed), stage).image.astype(float)
        means.append(image.mean())
        total += np.abs(np.fft.fft2((image - image.mean()) * taper)) ** 2 / image.size
    return total / fields, float(np.mean(means))


def along(spectrum: np.ndarray, cycles: float) -> float:
    """Mean near this frequency on both axes."""
    frequency = np.abs(np.fft.fftfreq(SIZE))
    near, low = np.abs(frequency - cycles) < 0.02, frequency < 0.03
    return float((spectrum[near][:, low].mean() + spectrum[low][:, near].mean()) / 2)


@pytest.mark.parametrize("name", xray.SITES)
def test_noise_power_is_quanta_times_the_square_of_the_light_spread(name: str) -> None:
    """N / A · M(f)² within 6%, or a two-thousandth of N / A, up to 0.4 cycles a pixel, for every kind of panel."""
    exposure = ideal(name)
    panel = exposure.machine.panel
    spectrum, mean = power(exposure, "light")
    assert mean == pytest.approx(exposure.quanta * np.exp(-1.5), rel=0.005)
    # On both axes at once, as each of the two Gaussians is: averaged over the same rings as what was measured.
    radius = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None, :]) / exposure.sample_mm
    transfer = np.vectorize(lambda f: scatter.light_transfer(f, panel))(radius)
    for cycles in (0.05, 0.15, 0.25, 0.4):
        expected = along(mean / panel.swank * transfer**2, cycles)
        assert along(spectrum, cycles) == pytest.approx(expected, rel=0.06, abs=5e-4 * mean / panel.swank)


@pytest.mark.parametrize("name", xray.SITES)
def test_efficiency_at_frequency_zero_is_fill_absorption_swank(name: str) -> None:
    """DQE(0) = 1 / (quanta arriving · NNPS(0)), measured without electronic noise."""
    exposure = ideal(name)
    spectrum, mean = power(exposure, "light")
    arriving = exposure.kerma_ugy * QUANTA_PER_MM2_UGY * exposure.sample_mm**2 * np.exp(-1.5)
    transfer = scatter.light_transfer(0.05 / exposure.sample_mm, exposure.machine.panel)
    measured = transfer**2 * mean**2 / (along(spectrum, 0.05) * arriving)
    assert measured == pytest.approx(exposure.machine.panel.dqe0, rel=0.06)


def test_variance_of_counts_is_their_mean_by_swank() -> None:
    """Over three decades of dose, within 3%; averaging elements multiplies quanta by their number."""
    for kerma in (0.5, 5.0, 50.0):
        exposure = replace(ideal(), kerma_ugy=kerma)
        spectrum, mean = power(exposure, "quanta", 2)
        assert spectrum[1:].mean() == pytest.approx(mean / exposure.machine.panel.swank, rel=0.03)
    assert replace(ideal(), binning=5.0).quanta == pytest.approx(25 * ideal().quanta)


def test_electronic_noise_adds_its_variance_in_quanta() -> None:
    for binning in (1.0, 4.0):
        exposure = replace(ideal(electronic=3000.0), binning=binning, kerma_ugy=0.1)
        loud, _ = power(exposure, "electronic", 3)
        quiet, _ = power(replace(ideal(), binning=binning, kerma_ugy=0.1), "electronic", 3)
        added = (3000.0 / exposure.machine.panel.electrons * binning) ** 2
        assert (loud - quiet)[:, 100:].mean() == pytest.approx(added, rel=0.03)


@pytest.mark.parametrize("mean", [0.5, 3.0, 5.5, 12.0, 40.0])
def test_counts_have_the_distribution_that_is_claimed(mean: float) -> None:
    """Against exact Poisson, between the steps: off by less than 0.01 with 200,000 draws (their own chance: 0.004)."""
    drawn = noise.counted(np.full((400, 500), mean, np.float32), np.random.default_rng(2)).ravel()
    assert drawn.mean() == pytest.approx(mean, rel=0.01)
    assert drawn.var() == pytest.approx(mean * (1 + 1 / (18 * mean) * (mean >= 5)), rel=0.015)
    counts = np.arange(int(mean + 4 * np.sqrt(mean)) + 1)
    # A whole number k stands for k - 1/2 to k + 1/2 of the continuous draw.
    found = np.array([(drawn <= k + 0.5).mean() for k in counts])
    assert np.abs(found - stats.poisson.cdf(counts, mean)).max() < 0.01


@pytest.mark.parametrize(("mean", "bound"), [(5.0, 0.0035), (15.0, 0.001), (100.0, 0.0002)])
def test_the_error_of_the_corrected_bell_is_what_is_stated(mean: float, bound: float) -> None:
    """Without chance: N + sqrt(N) z + (z² - 1)/6 solved for z at every k + 1/2, against Poisson's distribution function."""
    counts = np.arange(int(mean + 8 * np.sqrt(mean)) + 3)
    inside = mean + 4 / 6 * (1 / 6 + counts + 0.5 - mean)
    root = np.sqrt(np.maximum(inside, 0))
    low, high = (3 * (-np.sqrt(mean) + sign * root) for sign in (-1, 1))
    claimed = stats.norm.cdf(high) - stats.norm.cdf(low)
    assert np.abs(claimed - stats.poisson.cdf(counts, mean)).max() < bound


def slanted_edge(exposure: xray.Exposure, stage: str, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Frequencies (cycles per pixel) and MTF of the chain up to this stage, by an edge tilted by 3 degrees.

    The edge that goes in is an error function of 0.6 pixels: sampled points of a sharper one would alias. Its own transform
    is divided out.
    """
    soft, tilt = 0.6, np.tan(np.radians(3.0))
    rows, columns = np.mgrid[:SIZE, :SIZE] - (SIZE - 1) / 2
    away = (columns - tilt * rows) * np.cos(np.arctan(tilt))
    fluence = 0.3 + 0.6 * (0.5 + 0.5 * special.erf(away / soft / np.sqrt(2)))
    fluence = fluence if axis == 1 else fluence.T
    mu = -np.log(fluence).astype(np.float32)
    frame = xray.expose_until(xray.Subject(mu, np.zeros_like(mu), 0.75), exposure, stage)
    image = frame.image if axis == 1 else frame.image.T
    bins = np.round(away * 4).astype(int)
    inside = np.abs(bins) <= 120
    sums = np.bincount(bins[inside] + 120, image[inside])
    spread = np.diff(sums / np.bincount(bins[inside] + 120))
    transfer = np.abs(np.fft.rfft(spread))
    cycles = np.fft.rfftfreq(spread.size, 0.25)
    known = np.exp(-2 * (np.pi * soft * cycles) ** 2) * np.sinc(cycles / 4) ** 2
    return cycles, transfer / transfer[0] / known


@pytest.mark.parametrize("binning", [1.0, 4.0])
@pytest.mark.parametrize("name", xray.SITES)
def test_slanted_edge_gives_the_transfer_function_of_spot_aperture_and_light(
    name: str, binning: float
) -> None:
    """Of one element, and of blocks of sixteen, which collect over the whole block."""
    calm = replace(ideal(name), kerma_ugy=1e7, distance_mm=1800.0, object_mm=250.0)
    exposure = replace(calm, binning=binning)
    machine, side = exposure.machine, exposure.sample_mm
    cycles, measured = slanted_edge(exposure, "light", 1)
    spot = machine.tube.focal_mm * 250 / (1800 - 250) / side
    aperture = machine.panel.fill if binning == 1 else 1.0
    for f in (0.1, 0.2, 0.3, 0.4):
        expected = np.sinc(f * spot) * np.sinc(f * aperture)
        expected *= scatter.light_transfer(f / side, machine.panel)
        assert np.interp(f, cycles, measured) == pytest.approx(expected, abs=0.02)


def test_slanted_edge_sees_movement_along_the_body_only() -> None:
    exposure = replace(ideal("selenium-stand"), kerma_ugy=1e7, motion_mm=0.4)
    panel, side = exposure.machine.panel, exposure.sample_mm
    for axis, moved in ((0, 0.4), (1, 0.0)):
        cycles, measured = slanted_edge(exposure, "light", axis)
        for f in (0.1, 0.2, 0.4):
            expected = np.sinc(f * moved / side) * np.sinc(f * panel.fill)
            expected *= scatter.light_transfer(f / side, panel)
            assert np.interp(f, cycles, measured) == pytest.approx(abs(expected), abs=0.02)


def test_slanted_edge_shows_edge_enhancement() -> None:
    """1 + k (1 - G) on top of the blur, measured on display values of a small step."""
    exposure = replace(ideal(), kerma_ugy=1e7)
    display = replace(exposure.machine.display, edge_gain=0.8, edge_mm=0.3)
    exposure = replace(exposure, machine=replace(exposure.machine, display=display))
    cycles, before = slanted_edge(exposure, "density", 1)
    _, after = slanted_edge(exposure, "edge", 1)
    sigma = 0.3 / exposure.sample_mm
    for f in (0.05, 0.1, 0.2, 0.35):
        expected = 1 + 0.8 * (1 - np.exp(-2 * (np.pi * sigma * f) ** 2))
        ratio = np.interp(f, cycles, after) / np.interp(f, cycles, before)
        assert ratio == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize("width", [0.3, 1.0, 2.7, 6.0])
def test_kernels_meet_their_transfer_function(width: float) -> None:
    taps = sharpness._boxes((width, 1.0))
    cycles = np.linspace(0, 0.5, 101)
    half = taps.size // 2
    found = (taps[None, :] * np.cos(2 * np.pi * cycles[:, None] * np.arange(-half, half + 1))).sum(axis=1)
    wrong = np.abs(found - np.sinc(cycles * width) * np.sinc(cycles))
    assert wrong.max() < 0.02
    assert wrong[cycles < 0.4].max() < 0.006


def test_heel_falls_towards_the_anode_as_its_way_through_the_target() -> None:
    tube = xray.Tube(12.0, 0.05, anode_down=True, focal_mm=1.0)
    at = beam.heel(tube, np.array([-190.0, 0.0, 190.0]), 1800.0)
    degrees = np.degrees(np.arctan(190 / 1800))
    expected = np.exp(-0.05 * (1 / np.sin(np.radians(12 - degrees)) - 1 / np.sin(np.radians(12))))
    assert at[1] == pytest.approx(1.0)
    assert at[2] == pytest.approx(expected)
    assert at[2] < 1 < at[0]
    turned = beam.heel(replace(tube, anode_down=False), np.array([-190.0, 0.0, 190.0]), 1800.0)
    assert turned == pytest.approx(at[::-1])
    assert np.isfinite(beam.heel(tube, np.array([600.0]), 1000.0)).all()


def test_scatter_meets_its_ratio_and_the_grid_takes_more_of_it() -> None:
    exposure = replace(ideal(), scatter_to_primary=1.8, scatter_mm=40.0)
    frame = xray.expose_until(even(2.0), exposure, "scatter")
    behind = frame.mu > 0.2
    assert frame.scattered[behind].mean() / frame.image[behind].mean() == pytest.approx(1.8, rel=0.03)
    screen = xray.Grid(primary=0.7, scatter=0.14, lines_per_mm=4.0, lead_share=0.16, residue=0.0)
    with_grid = replace(exposure, machine=replace(exposure.machine, grid=screen))
    through = xray.expose_until(even(2.0), with_grid, "grid").image.mean()
    assert through == pytest.approx(0.7 * np.exp(-2.0) + 0.14 * frame.scattered.mean(), rel=0.01)


def test_grid_lines_fold_to_where_sampling_puts_them() -> None:
    """4 lines per mm on elements of 0.143 mm: 0.572 cycles an element appear at 0.428; of 5 averaged, at 0.14."""
    site = xray.SITES["caesium-wall"]
    screen = replace(site.machine.grid, residue=1.0)
    depth, cycles = scatter.lines(screen, site.machine.panel, 1.0)
    assert cycles == pytest.approx(1 - 4.0 * 0.143)
    assert scatter.lines(screen, site.machine.panel, 5.0)[1] == pytest.approx(abs(0.428 * 5 - 2), abs=1e-9)
    base = ideal()
    exposure = replace(base, machine=replace(base.machine, grid=screen))
    row = xray.expose_until(even(), exposure, "grid").image[7]
    spectrum = np.abs(np.fft.rfft((row / row.mean() - 1) * np.hanning(SIZE)))
    peak = np.fft.rfftfreq(SIZE)[spectrum.argmax()]
    assert peak == pytest.approx(cycles, abs=1 / SIZE)
    assert spectrum.max() == pytest.approx(depth * np.hanning(SIZE).sum() / 2, rel=0.15)


def test_residual_gain_and_offset_stay_with_the_machine() -> None:
    """Mean of many exposures shows the pattern with the strength claimed; a calibration gives another."""
    exposure = replace(ideal(gain_spread=0.01, offset_spread=400.0), kerma_ugy=1e8)
    ratio = xray.expose_until(even(), exposure, "gain").image
    ratio = ratio / xray.expose_until(even(), exposure, "light").image
    assert (ratio - 1).std() == pytest.approx(0.01, rel=0.02)
    fixed = faults.pattern(exposure.machine.pattern, SIZE, SIZE)
    assert np.corrcoef((ratio - 1).ravel(), fixed.gain.ravel())[0, 1] > 0.99
    calibrated = replace(exposure, machine=replace(exposure.machine, pattern=9))
    other = xray.expose_until(even(), calibrated, "gain").image
    other = other / xray.expose_until(even(), calibrated, "light").image
    assert abs(np.corrcoef((ratio - 1).ravel(), (other - 1).ravel())[0, 1]) < 0.02


def test_dead_elements_are_black_or_filled_and_grow_in_number() -> None:
    shown = replace(ideal(dead_ppm=1000.0, dead_lines=2.0, unmapped=1.0), kerma_ugy=1e4)
    black = xray.expose_until(even(), shown, "dead").image == 0
    lines = black.mean(axis=0) > 0.9, black.mean(axis=1) > 0.9
    assert lines[0].sum() + lines[1].sum() == 2
    points = black[~lines[1]][:, ~lines[0]]
    assert points.sum() == pytest.approx(0.001 * SIZE * SIZE, abs=3)
    filled = replace(ideal(dead_ppm=1000.0, dead_lines=2.0, unmapped=0.0), kerma_ugy=1e4)
    frame = xray.expose_until(even(), filled, "dead")
    assert frame.image.min() > 0.5 * frame.image.mean()
    more = xray.expose_until(
        even(), replace(ideal(dead_ppm=2000.0, dead_lines=2.0, unmapped=1.0), kerma_ugy=1e4), "dead"
    )
    assert ((more.image == 0) >= black).all()


def test_curve_has_its_slope_in_the_middle_and_bends_to_its_ends() -> None:
    base = ideal()
    ramp = np.tile(np.linspace(0.2, 6, SIZE, dtype=np.float32), (SIZE, 1))
    chest = xray.Subject(ramp, np.zeros_like(ramp), 0.75)
    for bend in (0.0, 0.5, 1.0):
        display = replace(base.machine.display, bend=bend, anchor=0.5, gamma=0.6, edge_gain=0.0)
        exposure = replace(base, kerma_ugy=1e7, machine=replace(base.machine, display=display))
        value = xray.expose_until(chest, exposure, "curve").image[SIZE // 2]
        middle = np.abs(value - 0.5).argmin()
        slope = (value[middle + 8] - value[middle - 8]) / (ramp[0, middle + 8] - ramp[0, middle - 8])
        assert slope == pytest.approx(0.6 / np.log(10), rel=0.03)


@pytest.mark.parametrize("bits", [8, 10, 12])
def test_rounding_adds_a_twelfth_of_a_step_squared(bits: int) -> None:
    base = ideal()
    display = replace(
        base.machine.display, bits=bits, shutter=False, edge_gain=0.0, compression="none", strength=()
    )
    exposure = replace(base, machine=replace(base.machine, display=display), kerma_ugy=3.0)
    chest = even()
    before = xray.expose_until(chest, exposure, "window").image * (2**bits - 1)
    after = xray.expose_until(chest, exposure, "digits").pixels
    assert (after - before).var() == pytest.approx(1 / 12, rel=0.03)


def test_shutter_and_collimator_and_both_kinds_of_letter() -> None:
    base = replace(ideal(), field_mm=(20.0, 10.0, 30.0, 15.0))
    pixels = xray.expose(even(), base)
    stamped = pixels == 2**12 - 1
    assert stamped.any()
    pixels = pixels * ~stamped
    assert (pixels[:38] == 0).all()
    assert (pixels[:, :25] == 0).all()
    assert pixels[130:200, 60:200].min() > 0
    lead = replace(base, marker=replace(base.marker, stamped=False))
    change = xray.expose_until(even(), lead, "letter").image / xray.expose_until(even(), base, "letter").image
    assert change.min() == pytest.approx(0.03, rel=0.01)
    columns = np.nonzero(change < 0.5)[1]
    assert columns.mean() > SIZE / 2


@pytest.mark.parametrize(("kind", "bits", "strength"), [("jpeg", 8, (60.0,)), ("jpeg2000", 12, (20.0,))])
def test_compression_loses_more_where_it_is_stronger(kind: str, bits: int, strength: tuple[float]) -> None:
    base = ideal()

    def loss(amount: float) -> float:
        display = replace(base.machine.display, bits=bits, compression=kind, strength=strength)
        exposure = replace(base, machine=replace(base.machine, display=display), strength=amount)
        before = xray.expose_until(even(), exposure, "stamp").pixels.astype(float)
        return float(np.abs(xray.expose(even(), exposure) - before).mean())

    weak, strong = (95.0, 40.0) if kind == "jpeg" else (4.0, 40.0)
    assert 0 < loss(weak) < loss(strong)


def test_every_stage_says_formula_unit_and_source() -> None:
    for stage in xray.STAGES:
        told = stage.told()
        assert told.title, stage.name
        assert told.formula, stage.name
        assert told.unit, stage.name
        assert told.source, stage.name
