"""Preprocessing: exact against pydicom where pydicom is right, a clear word where it is not."""

from __future__ import annotations

import subprocess
import sys
import warnings

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence

from client.deid.pixels import decode as decode_any
from client.preprocess import decode, presentation, to_tensor
from client.preprocess.modality import to_units
from client.preprocess.resample import fit, pad, resize
from client.preprocess.samples import stored
from client.preprocess.tensor import decode_exact, equalise, pixel_aspect
from common.errors import FileRefused
from common.plan import Input, Window
from tests.client.made import made_image, noise
from tests.data import shared_data

TWELVE_BIT_JPEG = ("1.2.840.10008.1.2.4.51", "1.2.840.10008.1.2.4.53", "1.2.840.10008.1.2.4.55")
ZSCORE = Input(modalities=("DX",), shape=(16, 16))


def windows(ds: Dataset) -> int:
    """How many windows a file has."""
    return ds["WindowCenter"].VM if ds.get("WindowCenter") is not None else 1


def twelve_bit_jpeg(ds: Dataset) -> bool:
    """Whether only intake's own decoder reads the pixels, and pydicom declines."""
    return ds.file_meta.TransferSyntaxUID in TWELVE_BIT_JPEG and ds.BitsStored > 8


def shown_by_pydicom(ds: Dataset, units: np.ndarray, index: int) -> np.ndarray:
    """pydicom's own answer, turned round by hand for MONOCHROME1."""
    shown = apply_voi_lut(units, ds, index).astype(np.float64)
    if ds.PhotometricInterpretation == "MONOCHROME1":
        return (0 + 2**ds.BitsStored - 1) - shown
    return shown


def test_every_real_grey_file_is_exact_against_pydicom() -> None:
    """Rescale, every window and MONOCHROME1, bit for bit, on every grey file of the set."""
    compared = 0
    for path in sorted(shared_data("dicom_multivendor").glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom complains of the headers of real files
            ds = pydicom.dcmread(path)
            if not str(ds.PhotometricInterpretation).startswith("MONOCHROME"):
                continue
            raw = decode_any(ds) if twelve_bit_jpeg(ds) else ds.pixel_array
            units = to_units(ds, raw) if twelve_bit_jpeg(ds) else decode_exact(ds)
            reference = apply_modality_lut(raw, ds)
            assert np.array_equal(units, reference)
            for index in range(windows(ds)):
                assert np.array_equal(presentation(ds, units, index), shown_by_pydicom(ds, reference, index))
        compared += 1
    assert compared >= 110


def test_every_real_grey_file_reaches_the_network() -> None:
    for path in sorted(shared_data("dicom_multivendor").glob("*.dcm")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ds = pydicom.dcmread(path)
            if not str(ds.PhotometricInterpretation).startswith("MONOCHROME") or twelve_bit_jpeg(ds):
                continue
            tensor = to_tensor(ds, Input(modalities=("CT",), shape=(48, 64)))
        assert tensor.shape == (48, 64)
        assert tensor.dtype == np.float32
        assert np.isfinite(tensor).all()
        assert tensor.std() > 0


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@settings(max_examples=40, deadline=None)
@given(
    centre=st.floats(-2000, 6000),
    width=st.floats(1, 5000),
    slope=st.sampled_from([1.0, 2.568, -1.0]),
    signed=st.booleans(),
)
def test_windows_are_exact(function: str, centre: float, width: float, slope: float, *, signed: bool) -> None:
    raw = noise(0).astype(np.int16) - 2048 if signed else noise(0)
    ds = made_image(raw, RescaleSlope=slope, RescaleIntercept=-1024, VOILUTFunction=function)
    ds.WindowCenter, ds.WindowWidth = f"{centre:.6f}", f"{width:.6f}"
    units = decode_exact(ds)
    with np.errstate(all="ignore"):
        expected = apply_voi_lut(units, ds)
    assert np.array_equal(presentation(ds, units), expected)


def lookup(first: int, bits: int, entries: list[int]) -> Dataset:
    """One item of a lookup table sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(entries), first, bits])
    item.add_new("LUTData", "US", entries)
    return item


@settings(max_examples=30, deadline=None)
@given(first=st.integers(0, 3000), entries=st.lists(st.integers(0, 65535), min_size=2, max_size=300))
def test_lookup_tables_are_exact(first: int, entries: list[int]) -> None:
    ds = made_image(noise(1))
    ds.VOILUTSequence = Sequence([lookup(first, 16, entries)])
    raw = ds.pixel_array
    assert np.array_equal(presentation(ds, raw), apply_voi_lut(raw, ds))
    ds.ModalityLUTSequence = Sequence([lookup(first, 16, entries)])
    assert np.array_equal(decode_exact(ds), apply_modality_lut(raw, ds))


def test_a_table_goes_before_a_window_and_the_second_can_be_asked_for() -> None:
    ds = made_image(noise(1), WindowCenter=2000, WindowWidth=100)
    ds.VOILUTSequence = Sequence([lookup(0, 16, [1, 2]), lookup(0, 16, [30, 40])])
    assert set(np.unique(presentation(ds, ds.pixel_array, 1))) <= {30.0, 40.0}


def test_a_short_8_bit_table_is_not_wrapped_round() -> None:
    """pydicom counts places in the type of the entries, which wraps beyond 255 of them."""
    ds = made_image(np.full((4, 4), 300, dtype=np.uint16))
    ds.VOILUTSequence = Sequence([lookup(0, 8, list(range(200)) + [7] * 200)])
    assert (presentation(ds, ds.pixel_array) == 7).all()


@pytest.mark.parametrize("item", [lookup(0, 16, [1, 2]), Dataset()])
def test_a_table_that_contradicts_its_description_is_refused(item: Dataset) -> None:
    if "LUTDescriptor" in item:
        item.LUTDescriptor = [40, 0, 16]
    ds = made_image(noise(1))
    ds.ModalityLUTSequence = Sequence([item])
    with pytest.raises(FileRefused) as refused:
        decode(ds)
    assert refused.value.code == "lut-broken"


def test_monochrome1_reaches_the_network_as_monochrome2() -> None:
    raw = noise(2)
    inverted = made_image(4095 - raw, PhotometricInterpretation="MONOCHROME1")
    upright = made_image(raw)
    for normalisation in ("zscore", "minmax", "equalise"):
        spec = Input(modalities=("DX",), shape=(16, 16), normalisation=normalisation)
        np.testing.assert_allclose(to_tensor(inverted, spec), to_tensor(upright, spec), atol=1e-5)


def test_monochrome1_with_a_window_is_shown_the_other_way_round() -> None:
    raw = noise(2)
    tags = {"WindowCenter": 1000, "WindowWidth": 700}
    inverted = made_image(raw, PhotometricInterpretation="MONOCHROME1", **tags)
    shown = presentation(inverted, raw)
    assert np.array_equal(shown, 4095 - presentation(made_image(raw, **tags), raw))


# the traps


@pytest.mark.parametrize(
    "tags",
    [
        {"WindowCenter": 500, "WindowWidth": 0},
        {"WindowCenter": 500, "WindowWidth": -5},
        {"WindowCenter": None, "WindowWidth": 100},
        {"WindowCenter": "", "WindowWidth": 100},
        {"WindowCenter": 500, "WindowWidth": 100, "VOILUTFunction": "CUBIC"},
    ],
)
def test_a_window_that_cannot_be_is_passed_over(tags: dict) -> None:
    ds = made_image(noise(3), **tags)
    assert np.array_equal(presentation(ds, ds.pixel_array), ds.pixel_array)


def test_a_window_index_out_of_range_is_refused() -> None:
    ds = made_image(noise(3), WindowCenter=[40, 400], WindowWidth=[80, 2000])
    presentation(ds, ds.pixel_array, 1)
    for index in (2, -1):
        with pytest.raises(FileRefused) as refused:
            presentation(ds, ds.pixel_array, index)
        assert refused.value.code == "window-index"


@pytest.mark.parametrize(
    ("slope", "intercept", "code"),
    [
        (None, 0, "rescale-empty"),
        ("", 0, "rescale-empty"),
        (1, None, "rescale-empty"),
        (0, 5, "rescale-zero"),
    ],
)
def test_a_rescale_that_cannot_be_is_refused(slope: object, intercept: object, code: str) -> None:
    ds = made_image(noise(3), RescaleSlope=slope, RescaleIntercept=intercept)
    with pytest.raises(FileRefused) as refused:
        decode(ds)
    assert refused.value.code == code


def test_pixels_that_cannot_be_decoded_are_refused_without_a_name() -> None:
    ds = made_image(noise(3), PatientName="DOE^JANE")
    ds.PixelData = b"\0" * 10
    with pytest.raises(FileRefused) as refused:
        stored(ds)
    assert refused.value.code == "pixels-undecodable"
    assert "DOE" not in str(refused.value)


def test_colour_is_refused() -> None:
    with pytest.raises(FileRefused) as refused:
        stored(made_image(noise(3), SamplesPerPixel=3, PhotometricInterpretation="RGB"))
    assert refused.value.code == "pixels-colour"


def enhanced(frames: np.ndarray) -> Dataset:
    """An enhanced object with its own slope for every frame, on which pydicom's function does nothing."""
    ds = made_image(frames, Modality="CT")
    ds.SharedFunctionalGroupsSequence = Sequence([Dataset()])
    groups = []
    for number in range(len(frames)):
        transform = Dataset()
        transform.RescaleSlope, transform.RescaleIntercept = number + 1, -1024
        group = Dataset()
        group.PixelValueTransformationSequence = Sequence([transform])
        groups.append(group)
    ds.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return ds


def test_each_frame_of_an_enhanced_object_has_its_own_rescale() -> None:
    frames = noise(4, (3, 8, 8))
    units = decode(enhanced(frames))
    for number in range(3):
        assert np.array_equal(units[number], frames[number].astype(np.float32) * (number + 1) - 1024)
    assert to_tensor(enhanced(frames), ZSCORE).shape == (16, 16)


# what the network sees


def test_zscore_has_mean_zero_and_deviation_one() -> None:
    tensor = to_tensor(made_image(noise(5)), ZSCORE)
    assert abs(tensor.mean()) < 1e-6
    assert abs(tensor.std() - 1) < 1e-6


def test_a_window_preset_is_in_hounsfield_units() -> None:
    raw = np.array([[0, 1024 - 160, 1024 + 40, 1024 + 240]] * 4, dtype=np.uint16)
    ds = made_image(raw, Modality="CT", RescaleSlope=1, RescaleIntercept=-1024)
    spec = Input(
        modalities=("CT",), shape=(4, 4), normalisation="window", window=Window(centre=40, width=400)
    )
    np.testing.assert_allclose(to_tensor(ds, spec)[0], [0, 0, 0.5, 1], atol=1e-6)


def test_equalising_keeps_order_and_spreads_evenly() -> None:
    values = np.random.default_rng(0).exponential(size=(64, 64))
    scaled = (values - values.min()) / np.ptp(values)
    flat = equalise(scaled)
    assert flat.min() == 0
    assert flat.max() == 1
    assert (np.diff(flat.ravel()[np.argsort(scaled, axis=None, kind="stable")]) >= 0).all()
    assert np.abs(np.histogram(flat, 8, (0, 1))[0] / flat.size - 1 / 8).max() < 0.02


def test_a_constant_image_gives_zeros_and_no_division_by_zero() -> None:
    ds = made_image(np.full((8, 8), 100, dtype=np.uint16))
    for normalisation in ("zscore", "minmax", "equalise"):
        spec = Input(modalities=("DX",), shape=(16, 16), normalisation=normalisation)
        assert not to_tensor(ds, spec).any()


def test_padding_pixels_do_not_count() -> None:
    raw = noise(6).astype(np.int16)
    padded = raw.copy()
    padded[:3] = -2000
    raw[:3] = raw[3:].min()
    with_tag = made_image(padded, Modality="CT", PixelPaddingValue=-2000)
    assert np.array_equal(to_tensor(with_tag, ZSCORE), to_tensor(made_image(raw, Modality="CT"), ZSCORE))


def test_the_anatomy_keeps_its_shape() -> None:
    """A circle in a wide image is still round, and pixels that are not square are made so."""
    rows, cols = np.mgrid[:64, :128]
    circle = ((rows - 32) ** 2 + (cols - 64) ** 2 < 30**2).astype(np.uint16) * 4000
    tensor = to_tensor(made_image(circle), Input(modalities=("DX",), shape=(32, 32), normalisation="minmax"))
    inside = tensor > 0.5
    assert inside.any(axis=0).sum() == inside.any(axis=1).sum() == 14  # of 59 pixels, a quarter
    squeezed = made_image(circle[:, ::2].copy(), PixelSpacing=[1, 2])
    again = to_tensor(squeezed, Input(modalities=("DX",), shape=(32, 32), normalisation="minmax"))
    assert np.abs((again > 0.5).sum(axis=1) - inside.sum(axis=1)).max() <= 1


@pytest.mark.parametrize("value", [None, "", [0, 1], ["1", "1000"]])
def test_absurd_spacing_is_not_believed(value: object) -> None:
    assert pixel_aspect(made_image(noise(0), ImagerPixelSpacing=value)) == 1.0


@settings(max_examples=50, deadline=None)
@given(
    rows=st.integers(1, 40), cols=st.integers(1, 40), to_rows=st.integers(1, 40), to_cols=st.integers(1, 40)
)
def test_shrinking_keeps_the_mean_and_stays_within_the_range(
    rows: int, cols: int, to_rows: int, to_cols: int
) -> None:
    image = np.random.default_rng(rows * 41 + cols).uniform(-5, 9, (rows, cols))
    small = resize(image, (to_rows, to_cols))
    assert small.shape == (to_rows, to_cols)
    assert small.min() >= image.min() - 1e-9
    assert small.max() <= image.max() + 1e-9
    if to_rows <= rows and to_cols <= cols:
        assert small.mean() == pytest.approx(image.mean())


def test_shrinking_by_an_odd_factor_weighs_pixels_by_area() -> None:
    np.testing.assert_allclose(resize(np.array([[0.0, 3.0, 9.0]]), (1, 2)), [[1.0, 7.0]])


def test_shrinking_does_not_alias() -> None:
    """A checkerboard finer than the grid must come out grey, not as a coarser pattern."""
    board = np.indices((90, 90)).sum(axis=0) % 2
    assert np.ptp(resize(board, (32, 32))) < 0.25


def test_growing_draws_lines_between_pixels() -> None:
    np.testing.assert_allclose(resize(np.array([[0.0, 1.0]]), (1, 4)), [[0, 0.25, 0.75, 1]])


def test_padding_is_even_and_of_the_value_given() -> None:
    out = pad(np.ones((2, 4)), (4, 4), -1.0)
    assert (out[[0, 3]] == -1).all()
    assert (out[1:3] == 1).all()
    assert fit(np.ones((10, 1)), (4, 4)).shape == (4, 1)


def test_no_training_library_is_imported() -> None:
    program = "import sys, client.preprocess, client.store; print('torch' in sys.modules, 'highdicom' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
