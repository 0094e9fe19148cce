"""Magnetic resonance: each stage against its formula, and replay to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from scipy import stats

from common.errors import DataError
from simulations.phantoms.head import TISSUES, Head, draw_head, render_head
from simulations.scanners import history, mr
from simulations.scanners.mr import chain
from simulations.scanners.record import from_record, to_record

SIZE = 256


def head(seed: int = 0, positive: bool = True) -> Head:
    return render_head(draw_head(np.random.default_rng(seed), positive), SIZE)


def even(share: float = 1.0, size: int = SIZE) -> Head:
    """Cerebrospinal fluid everywhere."""
    shares = np.zeros((len(TISSUES), size, size), np.float32)
    shares[TISSUES.index("csf")] = share
    return Head(shares, np.zeros((size, size), bool), 240 / size)


def block() -> Head:
    made = even(0.0)
    made.shares[TISSUES.index("csf"), 96:160, 96:160] = 1
    return made


def ideal(**changes: object) -> mr.Acquisition:
    """No bias, motion, spikes or window; the matrix is the image's; noise that nobody sees."""
    drawn = mr.draw(np.random.default_rng(1), mr.SITES["middle-field"])
    calm = {
        "matrix": (SIZE, SIZE),
        "bias": (0.0,) * 9,
        "sway_mm": 0.0,
        "jump_mm": (0.0, 0.0),
        "spikes": (),
        "apodisation": 0.0,
        "noise": 1e-7,
    }
    return replace(drawn, **(calm | changes))


@pytest.mark.parametrize("name", mr.SITES)
def test_the_same_record_gives_the_same_bits(name: str) -> None:
    scanned = head()
    before = scanned.shares.copy()
    made = mr.draw(np.random.default_rng(2), mr.SITES[name], SIZE)
    pixels = mr.acquire(scanned, made)
    assert pixels.dtype == np.uint16
    assert pixels.max() < 2**made.bits
    again = from_record(mr.Acquisition, to_record(made))
    assert again == made
    assert np.array_equal(pixels, mr.acquire(scanned, again))
    assert not np.array_equal(pixels, mr.acquire(scanned, replace(made, seed=1)))
    assert np.array_equal(before, scanned.shares)


def test_head_is_made_of_shares_and_lesions_lie_in_white_matter() -> None:
    for seed in range(5):
        sick = head(seed)
        total = sick.shares.sum(axis=0)
        assert sick.shares.min() >= 0
        assert total.max() <= 1.001
        assert total[SIZE // 2, SIZE // 2] == pytest.approx(1, abs=1e-3)
        assert 0 < sick.finding.mean() < 0.02
        assert not head(seed, positive=False).finding.any()


def test_spin_echo_follows_the_bloch_equations() -> None:
    sequence = ideal().sequence
    found = chain.acquire_until(even(), ideal(), "signal").image
    expected = (1 - np.exp(-sequence.repetition_ms / 4300)) * np.exp(-sequence.echo_ms / 2000)
    assert found == pytest.approx(expected, rel=1e-5)


def test_inversion_nulls_fluid_at_ln2_of_its_t1() -> None:
    dark = mr.Sequence("null", 1e9, 10.0, 4300 * np.log(2))
    assert chain.acquire_until(even(), ideal(sequence=dark), "signal").image.max() < 1e-5


def test_t1_lengthens_with_the_field() -> None:
    """White matter at 1.5 T between 550 and 750 ms, at 3 T about a quarter to a third more."""
    low, high = chain.relaxation("white", 1.5), chain.relaxation("white", 3.0)
    assert 550 < low < 750
    assert high / low == pytest.approx(2**0.382, rel=1e-6)
    assert chain.relaxation("csf", 3.0) == chain.relaxation("csf", 0.5)


def test_bias_is_the_field_that_was_recorded_and_smooth() -> None:
    made = mr.draw(np.random.default_rng(4), mr.SITES["high-field"], SIZE)
    ratio = (
        chain.acquire_until(even(), made, "bias").image / chain.acquire_until(even(), made, "signal").image
    )
    assert ratio == pytest.approx(chain.coil(made.bias, (SIZE, SIZE)), rel=1e-5)
    power = np.abs(np.fft.fft2((ratio - ratio.mean()) * np.outer(np.hanning(SIZE), np.hanning(SIZE)))) ** 2
    frequency = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.fftfreq(SIZE)[None, :]) * SIZE
    assert power[frequency < 6].sum() > 0.99 * power.sum()
    assert ratio.max() / ratio.min() > 1.2


def test_whole_matrix_without_noise_gives_the_signal_back() -> None:
    made = ideal()
    back = chain.acquire_until(head(), made, "magnitude").image
    assert np.abs(back - chain.acquire_until(head(), made, "signal").image).max() < 2e-5


def test_truncation_overshoots_by_nine_percent() -> None:
    """Gibbs: the same at 64 and 128 lines, and gone with a Hann window."""
    signal = float(chain.acquire_until(even(), ideal(), "signal").image[0, 0])
    for lines in (64, 128):
        ringing = chain.acquire_until(block(), ideal(matrix=(lines, SIZE)), "magnitude").image
        middle = ringing[:, 128] / signal
        assert middle[96:160].max() - 1 == pytest.approx(0.0895, abs=0.02)
        soft = chain.acquire_until(block(), ideal(matrix=(lines, SIZE), apodisation=1.0), "magnitude").image
        assert soft[:, 128].max() / signal - 1 < 0.01


def test_air_is_rayleigh_and_tissue_is_rician() -> None:
    """Mean, variance and mean square over 65,536 pixels; and the whole distribution in air."""
    noisy = ideal(noise=0.02)
    air = chain.acquire_until(even(0.0), noisy, "magnitude").image.astype(float)
    s = chain.sigma(chain.acquire_until(even(0.0), noisy, "sampling"))
    assert air.mean() == pytest.approx(s * np.sqrt(np.pi / 2), rel=0.01)
    assert air.var() == pytest.approx((2 - np.pi / 2) * s**2, rel=0.02)
    assert stats.kstest(air.ravel()[::16] / s, "rayleigh").pvalue > 0.001
    for share in (0.02, 0.1, 0.5):
        bright = chain.acquire_until(even(share), noisy, "magnitude").image.astype(float)
        signal = float(chain.acquire_until(even(share), noisy, "signal").image[0, 0])
        assert (bright**2).mean() == pytest.approx(signal**2 + 2 * s**2, rel=0.01)


@pytest.mark.parametrize(
    ("change", "factor"),
    [
        ({"averages": 4}, 0.5),
        ({"bandwidth_hz": 520.0}, 2.0),
        ({"thickness_mm": 2.5}, 2.0),
        ({"field_t": 3.0}, 0.5),
        ({"matrix": (128, 256)}, 0.5 * np.sqrt(2)),
    ],
)
def test_noise_scales_with_volume_time_and_field(change: dict[str, object], factor: float) -> None:
    """Measured in air. Half the lines: voxels of double volume, measured in half the time."""
    base, other = (
        chain.acquire_until(even(0.0), ideal(noise=0.02, **one), "noise").kspace.real.std()
        for one in ({}, change)
    )
    assert other / base == pytest.approx(factor, rel=0.02)


def test_noise_is_white_over_the_acquired_matrix() -> None:
    frame = chain.acquire_until(even(0.0), ideal(noise=0.02, matrix=(128, 192)), "noise")
    power = np.abs(frame.kspace) ** 2
    assert frame.kspace.shape == (128, 192)
    quarters = [power[:64, :96], power[:64, 96:], power[64:, :96], power[64:, 96:]]
    assert [q.mean() / power.mean() for q in quarters] == pytest.approx([1] * 4, abs=0.05)


def test_a_spike_is_a_wave_of_its_own_frequency() -> None:
    still = chain.acquire_until(head(), ideal(), "magnitude").image
    # Beside full signal the wave's in-phase part shows: half of the head is bright enough for that.
    spiked = chain.acquire_until(even(), ideal(spikes=((20, 13, 0.05),)), "magnitude").image
    clean = chain.acquire_until(even(), ideal(), "magnitude").image
    spectrum = np.abs(np.fft.fft2(spiked - clean))
    line, sample = np.unravel_index(spectrum[: SIZE // 2].argmax(), (SIZE // 2, SIZE))
    assert (line, sample) in ((20, 13), (20, SIZE - 13))
    assert (spiked - clean).std() == pytest.approx(0.05 * clean.mean() / np.sqrt(2), rel=0.1)
    assert not np.allclose(
        still, chain.acquire_until(head(), ideal(spikes=((20, 13, 0.05),)), "magnitude").image, atol=1e-3
    )


def test_moving_from_the_start_only_shifts_and_swaying_makes_ghosts_at_its_frequency() -> None:
    pitch = 240 / SIZE
    still = chain.acquire_until(block(), ideal(), "magnitude").image
    moved = chain.acquire_until(
        block(), ideal(jump_mm=(5 * pitch, -3 * pitch), jump_at=0.0), "magnitude"
    ).image
    assert np.abs(np.roll(still, (5, -3), (0, 1)) - moved).max() < 1e-3
    swaying = chain.acquire_until(block(), ideal(sway_mm=0.5, sway_cycles=70.0), "magnitude").image
    ghost = swaying - still
    # The block's edges come again, 70 lines away in both directions along the phase encoding, and nowhere across.
    near = np.abs(ghost[96 - 70 - 4 : 96 - 70 + 4, 110:146]).mean()
    assert near > 20 * np.abs(ghost[:, :80]).mean()


def test_a_real_image_keeps_its_contrast_through_another_magnet() -> None:
    image = dcmread(str(get_testdata_file("MR_small.dcm", download=False))).pixel_array
    real = mr.head_from_image(image, 3.75)
    assert real.shares.shape == (len(TISSUES), 64, 64)
    quiet = mr.acquire(real, ideal(matrix=(64, 64))).astype(float)
    assert np.corrcoef(quiet.ravel(), np.minimum(image, np.quantile(image, 0.995)).ravel())[0, 1] > 0.97
    for name in mr.SITES:
        made = replace(mr.draw(np.random.default_rng(1), mr.SITES[name]), matrix=(48, 64))
        assert mr.acquire(real, made).shape == (64, 64)
    for bad in (np.zeros((4, 4)), np.array([[-1.0, 2]]), np.ones(3)):
        with pytest.raises(DataError, match="magnitudes"):
            mr.head_from_image(bad, 1.0)


def test_a_matrix_finer_than_the_image_is_refused() -> None:
    with pytest.raises(DataError, match="matrix"):
        mr.acquire(even(size=64), ideal(matrix=(128, 64)))


def test_two_magnets_of_a_kind_differ_and_are_reproducible() -> None:
    one, same, other = (mr.another_site(n, mr.SITES["high-field"], 3) for n in ("a", "a", "b"))
    assert one == same
    assert one.noise != other.noise
    assert one.bias != other.bias


def test_a_magnet_drifts_and_is_serviced() -> None:
    told = history.History(
        drifts=(history.Drift("bias.mean", 0.02), history.Drift("noise.median", 0.01)),
        services=(history.Service(10, renews=("bias",), sets={"averages": 2}),),
    )
    site = mr.SITES["high-field"]
    at = {month: history.site_at(site, told, month) for month in (0, 9, 12)}
    assert at[0] == site
    assert at[9].bias.mean == pytest.approx(site.bias.mean * 1.02**9)
    assert at[12].bias.mean == pytest.approx(site.bias.mean * 1.02**2)
    assert at[12].noise.median == pytest.approx(site.noise.median * 1.01**12)
    assert (at[9].averages, at[12].averages) == (1, 2)


def test_every_stage_says_formula_unit_and_source() -> None:
    for stage in mr.STAGES:
        told = stage.told()
        assert told.title, stage.name
        assert told.formula, stage.name
        assert told.unit, stage.name
        assert told.source, stage.name
