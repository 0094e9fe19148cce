"""Mutations of real DICOM files that know where elements begin; each follows from a seed and its number alone."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pydicom
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from client.intake.parse import quiet
from tests.client.acceptance.case import Canary
from tests.client.acceptance.corpus import DICOM

CANARY: Final = "QUIZKANARIUM"
"""Stands in no real file; where it may be put, nothing of it may be left."""
LARGEST: Final = 64 * 2**10
"""Bytes of a file that is mutated: what is looked for lies in headers, and small files make many tries."""
OWN: Final = frozenset(
    (
        "name of a file",
        "three sequences deep",
        "private block",
        "table's explanation",
        "undefined lengths",
        "deflated",
        "big endian",
        "implicit VR",
        "RLE",
        "JPEG comment",
        "JPEG 2000 comment",
        "JPEG-LS comment",
        "enhanced CT",
        "Japanese name",
    )
)
"""Kinds of the acceptance corpus that are mutated, too: half of all mutations."""
_LONG: Final = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"UC", b"UN", b"UR", b"UT")
_VRS: Final = tuple(
    b"AE AS AT CS DA DS DT FD FL IS LO LT OB OF OW PN SH SL SQ SS ST TM UC UI UL UN UR US UT ZZ".split()
)
_SYNTAXES: Final = tuple(
    f"1.2.840.10008.1.2{end}".encode()
    for end in (
        "",
        ".1",
        ".2",
        ".5",
        ".1.99",
        ".4.50",
        ".4.51",
        ".4.57",
        ".4.70",
        ".4.80",
        ".4.90",
        ".4.91",
        ".4.110",
    )
)
_HOMES: Final = (
    (0x0010, 0x0010, b"PN"),
    (0x0010, 0x4000, b"LT"),
    (0x0008, 0x0080, b"LO"),
    (0x0008, 0x1030, b"LO"),
    (0x0008, 0x0008, b"CS"),
    (0x0018, 0x1210, b"SH"),
    (0x0018, 0x0060, b"DS"),
    (0x0020, 0x000D, b"UI"),
    (0x0009, 0x0010, b"LO"),
    (0x0029, 0x1010, b"OB"),
    (0x0019, 0x1001, b"UN"),
    (0x0040, 0xA160, b"UT"),
    (0x6000, 0x3000, b"OW"),
    (0x5000, 0x3000, b"OW"),
    (0xFFFC, 0xFFFC, b"OB"),
)
"""Elements into which the canary goes; never a maker's or a model's name, where any word may stand."""
_PIXELS: Final = b"\xe0\x7f\x10\x00"
_SPARED: Final = frozenset((0x00080070, 0x00081090, 0x7FE00010, 0x00283006))
"""Values that are not overwritten with the canary: makers, and numbers that may spell anything."""


@dataclass(frozen=True)
class Place:
    """One element: where its head and its value begin in the file."""

    tag: int
    head: int
    value: int
    length: int


@dataclass(frozen=True)
class Source:
    """A real file and its elements in the order of the bytes."""

    name: str
    data: bytes
    places: tuple[Place, ...]


@dataclass
class Draft:
    """A file while it is mutated; `rng` decides everything."""

    data: bytearray
    places: Sequence[Place]
    rng: np.random.Generator
    others: Sequence[Source]
    spared: Sequence[bytes] = ()
    """Values that are not overwritten with the canary, as they were; what is put in before them moves them."""

    def pick(self) -> Place:
        """Any element."""
        return self.places[int(self.rng.integers(len(self.places)))]

    def spares(self, at: int) -> bool:
        """Whether the bytes here, as many as the canary has, lie in a value that is spared."""
        here = bytes(self.data[at : at + len(CANARY)])
        return any(here in value for value in self.spared)

    def number(self, below: int) -> int:
        """A number from 0."""
        return int(self.rng.integers(max(1, below)))


def sources(extra: Path | None = None) -> list[Source]:
    """Small files that come with pydicom, of `extra` where it is there, and of our own; in one order everywhere."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and "TINY" not in str(p))
    paths += sorted(extra.rglob("*.dcm")) if extra is not None and extra.is_dir() else []
    found = _own()
    found += [Source(p.name, p.read_bytes(), ()) for p in paths if 200 < p.stat().st_size <= LARGEST]
    return [Source(s.name, s.data, places) for s in found if (places := _places(s.data))]


def _own() -> list[Source]:
    """Honest images that are taken in, so that mutations of them reach the last gate; in many encodings."""
    with quiet():
        made = [(case.kind, case.make(Canary(n))) for n, case in enumerate(DICOM) if case.kind in OWN]
    return [Source(f"own {kind}", data, ()) for kind, data in made]


def shared() -> Path:
    """Where the real files lie when they are at hand."""
    here = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("CONSILIUM_TEST_DATA", here)) / "dicom_multivendor"


def _places(data: bytes) -> tuple[Place, ...]:
    if data[128:132] != b"DICM":
        return ()
    try:
        with quiet():
            ds = dcmread(pydicom.filebase.DicomBytesIO(data))
            explicit = not ds.original_encoding[0]
            found = [*_walk(ds.file_meta, explicit=True), *_walk(ds, explicit=explicit)]
    except Exception:  # noqa: BLE001 (some of these files are broken on purpose: they are not walked)
        return ()
    return tuple(
        sorted((p for p in found if 132 <= p.head < p.value <= len(data)), key=lambda place: place.head)
    )


def _walk(ds: Dataset, *, explicit: bool) -> Iterator[Place]:
    for tag in list(ds.keys()):
        raw = ds.get_item(tag)
        if isinstance(raw, RawDataElement):
            long = explicit and (raw.VR or "").encode() in _LONG
            yield Place(int(tag), raw.value_tell - (12 if long else 8), raw.value_tell, len(raw.value or b""))
        elif raw.VR == "SQ":
            for item in raw.value:
                yield from _walk(item, explicit=explicit)


def mutate(seed: int, number: int, files: Sequence[Source]) -> tuple[bytes, str]:
    """The mutated file and what was done to it; the same for the same seed, number and files."""
    rng = np.random.default_rng((seed, number))
    ours = [file for file in files if file.name.startswith("own ")]
    chosen = ours if rng.random() < 0.5 else files
    source = chosen[int(rng.integers(len(chosen)))]
    spared = [source.data[p.value : p.value + p.length] for p in source.places if p.tag in _SPARED]
    draft = Draft(bytearray(source.data), source.places, rng, files, spared)
    done = [source.name]
    for _ in range(int(rng.integers(1, 4))):
        step = STEPS[int(rng.integers(len(STEPS)))]
        step(draft)
        done.append(step.__name__)
    return bytes(draft.data), " ".join(done)


def flip_in_a_head(draft: Draft) -> None:
    """One byte of a tag, VR or length."""
    place = draft.pick()
    _set(draft, place.head + draft.number(place.value - place.head), draft.number(256))


def flip_a_length(draft: Draft) -> None:
    """A length that is too large, too small, odd or undefined."""
    place = draft.pick()
    wrong = (0, 1, place.length + 1, place.length * 2, 0xFFFFFFFF, 0x7FFFFFFF, draft.number(2**16))
    for n, byte in enumerate(struct.pack("<I", wrong[draft.number(len(wrong))])):
        _set(draft, place.value - 4 + n, byte)


def change_a_vr(draft: Draft) -> None:
    """Another value representation, or one that does not exist."""
    place = draft.pick()
    for n, byte in enumerate(_VRS[draft.number(len(_VRS))]):
        _set(draft, place.head + 4 + n, byte)


def flip_anywhere(draft: Draft) -> None:
    """Up to eight bytes, wherever they lie."""
    for _ in range(1 + draft.number(8)):
        _set(draft, 128 + draft.number(len(draft.data) - 128), draft.number(256))


def splice(draft: Draft) -> None:
    """An element of another file put in front of one of this."""
    other = draft.others[draft.number(len(draft.others))]
    place = other.places[draft.number(len(other.places))]
    _insert(draft, draft.pick().head, other.data[place.head : place.value + min(place.length, 4096)])


def duplicate(draft: Draft) -> None:
    """An element once more, elsewhere."""
    place = draft.pick()
    _insert(draft, draft.pick().head, bytes(draft.data[place.head : place.value + min(place.length, 4096)]))


def remove(draft: Draft) -> None:
    """An element less, or a piece of one."""
    place = draft.pick()
    del draft.data[place.head : place.head + 1 + draft.number(place.value - place.head + place.length)]


def truncate(draft: Draft) -> None:
    """The file ends early."""
    del draft.data[132 + draft.number(len(draft.data) - 132) :]


def swap_syntax(draft: Draft) -> None:
    """Another transfer syntax for the same bytes."""
    place = next((p for p in draft.places if p.tag == 0x00020010), None)
    if place is not None:
        uid = _SYNTAXES[draft.number(len(_SYNTAXES))][: place.length].ljust(place.length, b"\0")
        for n, byte in enumerate(uid):
            _set(draft, place.value + n, byte)


def insert_canary(draft: Draft) -> None:
    """An element with the canary, as it is or up to three sequences deep."""
    group, element, vr = _HOMES[draft.number(len(_HOMES))]
    inner = _element(group, element, vr, CANARY.encode())
    for _ in range(draft.number(4)):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(inner)) + inner
        inner = struct.pack("<HH2sHI", 0x0040, 0x0275, b"SQ", 0, len(item)) + item
    heads = [p.head for p in draft.places if p.tag >> 16 != 2]
    at = heads[draft.number(len(heads))] if heads else len(draft.data)
    inside = any(draft.spares(at + near) for near in (-len(CANARY), 0, len(CANARY)))
    if not inside or draft.data[at : at + 4] == _PIXELS:  # before them is not in them
        _insert(draft, at, inner)


def overwrite_with_canary(draft: Draft) -> None:
    """A value becomes the canary, cut or filled to the same length."""
    place = draft.pick()
    if place.length >= len(CANARY) and not draft.spares(place.value):
        for n, byte in enumerate(CANARY.encode()):
            _set(draft, place.value + n, byte)


def canary_around(draft: Draft) -> None:
    """In the preamble and behind the last element."""
    for n, byte in enumerate(CANARY.encode()):
        _set(draft, n, byte)
    draft.data += CANARY.encode()


STEPS: Final[tuple[Callable[[Draft], None], ...]] = (
    flip_in_a_head,
    flip_a_length,
    change_a_vr,
    flip_anywhere,
    splice,
    duplicate,
    remove,
    truncate,
    swap_syntax,
    insert_canary,
    insert_canary,
    insert_canary,
    overwrite_with_canary,
    overwrite_with_canary,
    canary_around,
)


def _element(group: int, element: int, vr: bytes, value: bytes) -> bytes:
    value += b" " * (len(value) % 2)
    if vr in _LONG:
        return struct.pack("<HH2sHI", group, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", group, element, vr, len(value)) + value


def _set(draft: Draft, at: int, byte: int) -> None:
    if 0 <= at < len(draft.data):
        draft.data[at] = byte


def _insert(draft: Draft, at: int, piece: bytes) -> None:
    draft.data[at:at] = piece
