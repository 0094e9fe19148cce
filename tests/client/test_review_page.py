"""The review page in a real browser: what a person draws is blanked in the stored pixels, what they refuse is gone."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pydicom import dcmread

from client.index import Index
from client.intake.ingest import ingest
from client.intake.quarantine import Quarantine
from client.site import Site, load_site
from common.audit import read, verify
from tests.browser import chromium
from tests.client.intake_files import chest, image, new_site, set_pixels, to_bytes
from tests.client.test_review import served
from tests.devtools import Page, page

SIDE = 320
NAME = (12, 12, 40, 150)
"""(top, left, bottom, right) around the words that are burned into every image."""
READY = "document.querySelector('#stage').dataset.shows && document.querySelector('#image').naturalWidth > 0"


def burned(number: int) -> np.ndarray:
    """A chest with a name in the pixels: [SIDE, SIDE] uint16."""
    picture = Image.fromarray((chest(number, SIDE) // 16).astype("u1"))
    ImageDraw.Draw(picture).text((18, 18), f"ABENDROTH {number}", fill=255, font_size=16)
    return np.asarray(picture).astype("<u2") * 16


@pytest.fixture(scope="module")
def taken(tmp_path_factory) -> Site:
    """A hospital in which three plain images wait, and one of three frames."""
    folder = tmp_path_factory.mktemp("archive")
    for number in range(3):
        ds = image(number, BurnedInAnnotation="YES")
        set_pixels(ds, burned(number))
        (folder / f"{number}.dcm").write_bytes(to_bytes(ds))
    several = image(
        9, SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1", Modality="US", ImageType=["ORIGINAL", "PRIMARY"]
    )
    set_pixels(several, burned(9))
    several.NumberOfFrames, several.PixelData = 3, np.stack([burned(9 + n) for n in range(3)]).tobytes()
    (folder / "frames.dcm").write_bytes(to_bytes(several))
    site = new_site(tmp_path_factory.mktemp("site") / "site")
    report = ingest(site, folder, None, workers=1)
    assert report.refused == {"review-burned-in": 3, "review-ultrasound": 1}
    return site


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Page]:
    """One browser for all tests."""
    chromium()
    with page(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture
def site(taken: Site, tmp_path: Path) -> Site:
    return load_site(Path(shutil.copytree(taken.folder, tmp_path / "site")))


@pytest.fixture
def desk(site: Site, tab: Page) -> Iterator[Page]:
    """The page, open, with the first image shown."""
    with served(site) as (address, _):
        tab.size(1200, 900)
        tab.go(address)
        tab.until(f"document.querySelector('#stage') && {READY}")
        yield tab


def choose(tab: Page, name: str) -> None:
    tab.click(f"#list button[data-id='{name}']")
    tab.until(f"document.querySelector('#stage').dataset.shows === '{name}' && {READY}")


def draw(tab: Page, box: tuple[int, int, int, int]) -> None:
    """Drag over these rows and columns of the image, wherever on the screen they are."""
    corners = []
    tab.run("document.querySelector('#stage').scrollIntoView({block: 'center', behavior: 'instant'})")
    for y, x in (box[:2], box[2:]):
        point = f"new DOMPoint({x}, {y}).matrixTransform(document.querySelector('#over').getScreenCTM())"
        corners.append(tuple(tab.run(f"(() => {{ const p = {point}; return [p.x, p.y]; }})()")))
    tab.drag(corners[0], corners[1])


def ids(site: Site, code: str) -> list[str]:
    return [one.id for one in Quarantine.of(site).refusals() if one.code == code]


def said(tab: Page) -> str:
    return str(
        tab.until(
            "!busy && !document.body.classList.contains('busy') && document.querySelector('#said').innerText"
        )
    )


def decided(site: Site) -> list[dict]:
    verify(site.audit)
    return [entry["fields"] for entry in read(site.audit) if entry["event"] == "quarantine.decided"]


def stored(site: Site) -> np.ndarray:
    with Index(site.index) as index:
        (row,) = index.images()
    return dcmread(site.dicom / row.file).pixel_array


def test_a_box_drawn_over_a_name_is_blanked_in_the_stored_pixels(desk: Page, site: Site) -> None:
    name = ids(site, "review-burned-in")[0]
    choose(desk, name)
    with Quarantine.of(site).original(name, site.data / "staging") as file:
        before = dcmread(file.path).pixel_array
    assert desk.run("document.querySelector('#blank').disabled") is True
    draw(desk, NAME)
    (top, left, bottom, right) = desk.until("boxes.length === 1 && boxes[0].box.slice(1)")
    assert np.abs(np.array((top, left, bottom, right)) - NAME).max() <= 2
    desk.run("document.querySelector('#note').value = 'ticket-12'")
    desk.click("#blank")
    assert f"{name} is taken in. What was boxed is blanked." in said(desk)
    after = stored(site)
    inside = np.zeros(before.shape, dtype=bool)
    inside[top:bottom, left:right] = True
    assert before[inside].std() > 300
    assert len(np.unique(after[inside])) == 1
    margin = np.zeros(before.shape, dtype=bool)
    margin[: bottom + 20, : right + 40] = True
    assert np.array_equal(after[~margin], before[~margin])
    (line,) = decided(site)
    assert (line["kind"], line["reason"], line["note"], line["blanked"]) == (
        "release",
        "blanked",
        "ticket-12",
        1,
    )
    assert desk.until("document.querySelectorAll('#list button').length === 3")


def test_refusing_removes_the_original_and_says_how_to_undo(desk: Page, site: Site) -> None:
    name = ids(site, "review-burned-in")[1]
    choose(desk, name)
    desk.run("document.querySelector('#why-refuse').value = 'unusable'")
    desk.click("#refuse")
    assert f"quarantine discard {name} --undo" in said(desk)
    assert not list(site.quarantine.glob(f"{name}*"))
    (line,) = decided(site)
    assert (line["kind"], line["reason"], line["quarantine"]) == ("discard", "unusable", name)


def test_by_keys_alone_a_box_is_added_sized_moved_removed_and_an_image_accepted(
    desk: Page, site: Site
) -> None:
    choose(desk, ids(site, "review-burned-in")[2])
    desk.run("document.activeElement.blur()")
    desk.press("n")
    first = desk.until("boxes.length === 1 && boxes[0].box")
    desk.press("ArrowUp")
    desk.press("ArrowLeft")
    desk.press("ArrowRight", shift=True)
    moved = desk.run("boxes[0].box")
    assert moved[1] < first[1]
    assert moved[2] < first[2]
    assert moved[4] - moved[2] > first[4] - first[2]
    desk.press("Delete")
    assert desk.until("boxes.length === 0 && document.querySelectorAll('#over rect').length === 0")
    desk.press("r")
    assert desk.run("document.activeElement.id") == "refuse"
    assert decided(site) == []  # a letter alone decides nothing
    desk.press("a")
    desk.run("document.querySelector('#why-accept').value = 'harmless'")
    desk.press("Enter")
    said(desk)
    assert decided(site)[0]["reason"] == "harmless"
    assert decided(site)[0]["blanked"] == 0


def test_a_box_goes_through_every_frame_unless_told_otherwise(desk: Page, site: Site) -> None:
    (name,) = ids(site, "review-ultrasound")
    choose(desk, name)
    desk.until("!document.querySelector('#frames').hidden && size.frames === 3")
    draw(desk, NAME)
    desk.until("boxes.length === 1")
    assert [box[0] for box in desk.run("chosenBoxes()")] == [0, 1, 2]
    desk.click("#all")
    assert [box[0] for box in desk.run("chosenBoxes()")] == [0]
    first = desk.run("document.querySelector('#image').src")
    desk.run(
        "document.querySelector('#frame').value = 2; document.querySelector('#frame').dispatchEvent(new Event('input'))"
    )
    desk.until(f"document.querySelector('#image').src !== '{first}' && frame() === 2")
    assert desk.until("document.querySelectorAll('#over rect').length === 0")
    desk.click("#all")
    desk.click("#blank")
    said(desk)
    (line,) = decided(site)
    assert line["blanked"] == 3


def test_windows_draw_another_picture(desk: Page) -> None:
    seen = {desk.run("document.querySelector('#image').src")}
    for view in ("dark", "bright"):
        before = desk.run("document.querySelector('#image').src")
        desk.run(
            f"document.querySelector('#view').value = '{view}'; "
            "document.querySelector('#view').dispatchEvent(new Event('change'))"
        )
        seen.add(
            desk.until(
                f"(document.querySelector('#image').src !== '{before}') && document.querySelector('#image').src"
            )
        )
    assert len(seen) == 3


@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_fits_wide_and_narrow_with_nothing_cut_off(desk: Page, width: int, tmp_path: Path) -> None:
    desk.size(width, 900)
    draw(desk, NAME)
    desk.until("boxes.length === 1")
    time.sleep(0.2)
    assert desk.run("document.documentElement.scrollWidth <= innerWidth")
    small = "[...document.querySelectorAll('aside button, aside select, .tools button')].filter((e) => e.offsetHeight < 24)"
    assert desk.run(f"{small}.length") == 0
    shots = Path(os.environ.get("CONSILIUM_SHOTS", str(tmp_path)))
    desk.screenshot(shots / f"review-{width}.png")
    assert (shots / f"review-{width}.png").stat().st_size > 10_000


def test_a_person_who_cannot_see_the_picture_hears_what_each_control_is(desk: Page) -> None:
    draw(desk, NAME)
    desk.until("boxes.length === 1")
    unnamed = (
        "[...document.querySelectorAll('button, select, input, rect')].filter((e) => !(e.getAttribute('aria-label') "
        "|| e.innerText || (e.labels && e.labels.length))).map((e) => e.outerHTML)"
    )
    assert desk.run(unnamed) == []


def test_the_command_that_ended_is_named(site: Site, tab: Page) -> None:
    with served(site) as (address, process):
        tab.size(1200, 900)
        tab.go(address)
        tab.until(f"document.querySelector('#stage') && {READY}")
        process.terminate()
        process.wait()
        tab.click("#refuse")
        assert "Is it still running?" in said(tab)


def test_what_cannot_be_shown_can_only_be_refused(desk: Page, site: Site) -> None:
    """Nobody accepts what they did not see; nor sees one image under another's name."""
    name = ids(site, "review-burned-in")[2]
    sealed = site.quarantine / f"{name}.sealed"
    sealed.write_bytes(sealed.read_bytes()[:-1])
    desk.click(f"#list button[data-id='{name}']")
    assert "damaged" in desk.until(
        "!document.querySelector('#broken').hidden && document.querySelector('#broken').innerText"
    )
    assert desk.run("['blank', 'accept', 'add'].every((id) => document.getElementById(id).disabled)")
    assert desk.run("document.querySelector('#image').hidden")
    desk.click("#refuse")
    said(desk)
    assert not sealed.exists()
