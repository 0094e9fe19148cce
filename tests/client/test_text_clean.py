"""Burned-in text: what is blanked, what stays, what a person sees, and what the second scan can read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset

from client.deid.settings import DeidSettings, Region
from client.deid.text.clean import LEAST_MARGIN, clean, words_in
from client.deid.text.detect import AT_ONCE, Candidate, candidates
from client.deid.text.found import Box, Decision, TextReview
from client.deid.text.look import Looker, _is_plain, _judged, _turned_back
from client.deid.text.reader import Word
from client.deid.text.windows import renderings
from tests.client.text_pictures import covered, ground, write

FIND = DeidSettings()


def header(**fields: object) -> Dataset:
    ds = Dataset()
    ds.PhotometricInterpretation = "MONOCHROME2"
    for keyword, value in fields.items():
        setattr(ds, keyword, value)
    return ds


@pytest.mark.parametrize("seed", range(3))
def test_a_clean_picture_comes_back_as_the_very_same_array(seed):
    pixels = ground(seed=seed)
    cleaned = clean(pixels, header(), FIND)
    assert (cleaned.hits, cleaned.blanked, cleaned.searched) == ((), (), True)
    assert cleaned.pixels is pixels or np.shares_memory(cleaned.pixels, pixels)


@pytest.mark.parametrize(
    ("value", "turned", "height"),
    [
        (4000, False, 12),
        (4095, False, 20),
        (0, False, 14),
        (3400, True, 14),
        (4095, False, 9),
        (310, True, 18),
    ],
)
def test_a_name_bright_or_dark_upright_or_turned_is_blanked_and_nothing_readable_is_left(
    value, turned, height
):
    pixels, box = write(ground(), value=value, turned=turned, height=height)
    cleaned = clean(pixels, header(), FIND)
    assert covered(box, cleaned.blanked) == 1.0
    assert not any("abend" in word for word in words_in(cleaned.pixels))
    assert any("abend" in word for word in words_in(pixels))


@pytest.mark.parametrize("turned", [False, True])
def test_what_is_blanked_reaches_beyond_what_was_read(turned):
    """The first and last letter are the first that a reader loses, and smoothed ink lies around all of them."""
    pixels, _ = write(ground(384), at=(190, 60), turned=turned, height=14)
    cleaned = clean(pixels, header(), FIND)
    read = [hit.box for hit in cleaned.hits if hit.kind == "text"]
    assert read
    for box, wide in zip(read, cleaned.blanked, strict=True):
        ends = (box.top - wide.top, wide.bottom - box.bottom), (box.left - wide.left, wide.right - box.right)
        along, across = ends if turned else ends[::-1]
        thick = min(box.bottom - box.top, box.right - box.left)
        assert min(across) >= LEAST_MARGIN
        assert min(along) >= min(thick, LEAST_MARGIN)


def test_what_looks_like_text_after_blanking_goes_to_a_person_who_may_let_it_pass():
    """A line that runs over the edge: what is read is blanked, and the rest of a letter is left."""
    pixels, _ = write(ground(), at=(90, 90), height=14)
    (first,) = Looker().look([pixels])
    assert {hit.kind for hit in first.hits} == {"text"}, "nothing was open before"
    with pytest.raises(TextReview) as caught:
        clean(pixels, header(), FIND)
    assert len(caught.value.boxes) > len(first.hits)
    assert clean(pixels, header(), FIND, Decision(waive=("review-text",))).blanked


def test_blanking_uses_a_value_that_the_image_holds_already():
    for kind, pick in (("MONOCHROME2", np.min), ("MONOCHROME1", np.max)):
        pixels, _ = write(ground(), value=3900)
        cleaned = clean(pixels, header(PhotometricInterpretation=kind), FIND)
        box = cleaned.blanked[0]
        assert np.unique(cleaned.pixels[box.top : box.bottom, box.left : box.right]) == pick(pixels)
        assert cleaned.pixels.min() >= pixels.min()
        assert cleaned.pixels.max() <= pixels.max()
        assert cleaned.pixels.dtype == pixels.dtype


def test_text_saturated_at_the_top_of_a_narrow_bright_range_is_found():
    bright = (ground() // 16 + 3800).astype("<u2")
    pixels, box = write(bright, value=4095, height=14)
    assert covered(box, clean(pixels, header(), FIND).blanked) == 1.0


def test_signed_values_are_searched_like_others():
    shifted = ground().astype("<i2") - 1024
    pixels, box = write(shifted, value=2500, height=14)
    assert covered(box, clean(pixels, header(), FIND).blanked) == 1.0


@pytest.mark.parametrize("marker", ["AP", "PORTABLE", "SUPINE", "L"])
def test_a_marker_of_side_or_position_stays(marker):
    pixels, box = write(ground(), text=marker, at=(40, 60), height=18)
    cleaned = clean(pixels, header(), FIND)
    assert covered(box, cleaned.blanked) == 0.0
    assert {hit.kind for hit in cleaned.hits} <= {"marker"}


def test_a_name_beside_a_marker_is_blanked_though_the_marker_would_stay():
    pixels, _ = write(ground(), text="AP", at=(40, 60), height=18)
    pixels, box = write(pixels)
    assert covered(box, clean(pixels, header(), FIND).blanked) == 1.0


def test_of_many_frames_only_those_with_text_are_blanked():
    frames = np.stack([ground(seed=n) for n in (1, 2, 2, 3)])
    frames[2], box = write(frames[2], height=16)
    cleaned = clean(frames, header(), FIND)
    assert {one.frame for one in cleaned.blanked} == {2}
    assert covered(box._replace(frame=2), cleaned.blanked) == 1.0
    for frame in (0, 1, 3):
        assert np.array_equal(cleaned.pixels[frame], frames[frame])


def test_equal_frames_are_looked_at_once():
    frame = write(ground(), height=16)[0]
    looker = Looker()
    seen = looker.look([frame] * 40)
    assert [hit.box.frame for one in seen for hit in one.hits if hit.kind == "text"][:1] == [0]
    assert seen[39].hits[0].box.frame == 39
    assert len(looker._now) == 1


def test_fixed_regions_and_a_persons_boxes_are_blanked_first_in_every_frame_they_name():
    region = Region("US", "Aster Imaging", "E-1", 256, 256, ((0, 0, 20, 256),))
    source = header(
        Modality="US", Manufacturer="Aster Imaging", ManufacturerModelName="E-1", Rows=256, Columns=256
    )
    frames = np.stack([ground(seed=1), ground(seed=2)])
    decision = Decision(blank=(Box(1, 100, 100, 140, 900), Box(7, 0, 0, 5, 5), Box(0, -3, -3, 2, 2)))
    cleaned = clean(frames, source, DeidSettings(regions=(region,)), decision)
    assert (cleaned.pixels[:, :20] == frames.min()).all()
    assert (cleaned.pixels[1, 100:140, 100:] == frames.min()).all()
    assert np.array_equal(cleaned.pixels[0, 20:], frames[0, 20:])


def test_a_site_that_does_not_search_says_so_and_still_blanks_what_it_named():
    pixels, _ = write(ground())
    cleaned = clean(
        pixels, header(), DeidSettings(burned_in_text="ignore"), Decision(blank=(Box(0, 0, 0, 9, 9),))
    )
    assert cleaned.searched is False
    assert (cleaned.pixels[:9, :9] == pixels.min()).all()
    assert np.array_equal(cleaned.pixels[9:], pixels[9:])


def scribble(seed: int = 5) -> np.ndarray:
    """Rows of strokes that look like handwriting and are none."""
    rng = np.random.default_rng(seed)
    pixels = ground()
    for column in range(40, 200, 11):
        for _ in range(3):
            at = rng.integers(0, 12, 4)
            start, end = (column + int(at[0]), 120 + int(at[1])), (column + int(at[2]), 120 + int(at[3]))
            cv2.line(pixels, start, end, 4000, 1)
    return pixels


def test_what_looks_like_text_and_cannot_be_read_goes_to_a_person_until_one_has_looked():
    pixels = scribble()
    with pytest.raises(TextReview) as caught:
        clean(pixels, header(), FIND)
    assert caught.value.code == "review-text"
    assert covered(Box(0, 122, 50, 130, 190), caught.value.boxes) > 0.8
    waived = clean(pixels, header(), FIND, Decision(waive=("review-text",)))
    assert waived.searched
    with pytest.raises(TextReview):
        clean(pixels, header(), FIND, Decision(waive=("review-derived",)))
    blanked = clean(pixels, header(), FIND, Decision(blank=caught.value.boxes))
    assert (blanked.pixels[122:130, 50:190] == pixels.min()).all()


def test_the_words_of_the_reader_are_in_no_error():
    with pytest.raises(TextReview) as caught:
        clean(scribble(), header(), FIND)
    assert "ABEND" not in f"{caught.value!r} {caught.value} {caught.value.__dict__}".upper()


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        (Word("DOE", 0.95, 1, 1, 9, 40), "text"),
        (Word("JD", 0.95, 1, 1, 9, 40), "text"),
        (Word("DOE", 0.60, 1, 1, 9, 40), "unread"),
        (Word("LAT", 0.60, 1, 1, 9, 40), "marker"),
        (Word("D", 0.99, 1, 1, 9, 40), None),
        (Word("DO", 0.60, 1, 1, 9, 40), None),
        (Word("DOE", 0.20, 1, 1, 9, 40), None),
    ],
)
def test_how_sure_a_reading_must_be(word, kind):
    hits = list(_judged([word], Candidate(1.0, 0, 0, 10, 50)))
    assert [hit.kind for hit in hits] == ([] if kind is None else [kind])


def test_a_plain_line_goes_to_a_person_unread_and_one_plain_letter_does_not():
    assert _is_plain(Candidate(5.0, 0, 0, 12, 80))
    assert not _is_plain(Candidate(5.0, 0, 0, 20, 16))
    assert not _is_plain(Candidate(3.0, 0, 0, 12, 80))


def test_a_picture_too_small_for_text_and_a_constant_one_have_no_candidates():
    assert candidates(np.zeros((20, 20), np.uint16)) == []
    assert candidates(np.full((300, 200), 7, np.uint16)) == []
    assert candidates(np.full((300, 200), np.float32(1e30))) == []


def test_renderings_of_a_constant_crop_are_left_out():
    assert list(renderings(np.full((9, 9), 5, np.uint16), (5.0, 5.0), (0.0, 0.0))) == []


MEMORY = """
import json, sys
import numpy as np
from pydicom.dataset import Dataset
from client.intake.limits import limit_memory
from client.deid.settings import DeidSettings
from client.deid.text.clean import clean
from client.deid.text.found import TextReview
sys.path.insert(0, {root!r})
from tests.client.text_pictures import ground, write
import client.intake.bench
limit_memory(2**30)
{before}
pixels = write(ground(2048), at=(1900, 100), height=60)[0]
try:
    print(json.dumps({{"blanked": len(clean(pixels, Dataset(), DeidSettings()).blanked)}}))
except Exception as error:
    print(json.dumps({{"code": getattr(error, "code", type(error).__name__)}}))
"""


def limited(before: str = "") -> dict[str, object]:
    root = str(Path(__file__).parents[2])
    code = MEMORY.format(root=root, before=before)
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=root
    )
    return json.loads(ended.stdout.splitlines()[-1])


def test_a_large_image_is_read_within_a_workers_memory():
    assert limited().get("blanked", 0) >= 1


def test_without_a_reader_nothing_that_looks_like_text_passes():
    gone = limited("sys.modules['rapidocr_onnxruntime'] = None")
    assert gone == {"code": "review-reader"}


def test_a_very_large_image_is_looked_at_in_bands_and_text_at_their_borders_is_found():
    large = np.tile(ground(512), (10, 8))
    pixels, box = write(large, at=(976, 300), height=24)
    assert large.size > 4 * AT_ONCE
    assert covered(box, tuple(Box(0, *one.box) for one in candidates(pixels))) > 0.9


@pytest.mark.parametrize("turned", [False, True])
def test_words_are_placed_where_they_stand_also_when_the_picture_was_turned_to_read_them(turned):
    pixels, box = write(ground(), height=16, turned=turned)
    (seen,) = Looker().look([pixels])
    assert seen.hits
    for hit in seen.hits:
        assert (
            covered(
                hit.box,
                (Box(0, max(0, box.top - 40), max(0, box.left - 40), box.bottom + 40, box.right + 40),),
            )
            == 1.0
        )
    word = _turned_back(Word("X", 1.0, 3, 5, 9, 30), (100, 40))
    picture = np.zeros((100, 40), np.uint8)
    picture[word.top : word.bottom, word.left : word.right] = 1
    assert np.rot90(picture)[3:9, 5:30].all()
    assert picture.sum() == 6 * 25
