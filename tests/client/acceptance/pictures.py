"""PNG and JPEG radiographs with a table: chunks, comments, tails, and names of files and folders."""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from PIL import Image, PngImagePlugin

from tests.client.acceptance.case import BLANKED, Canary, Case
from tests.client.acceptance.drawn import AT, write_on
from tests.client.intake_files import chest


def _grey(canary: Canary) -> np.ndarray:
    return (chest(canary.number, 128) >> 4).astype("u1")


def png(canary: Canary, *, pixels: np.ndarray | None = None) -> bytes:
    """A picture with names in every kind of text chunk."""
    chunks, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    chunks.add_text("Patient", canary.word)
    chunks.add_text("Comment", canary.word * 40, zip=True)
    chunks.add_itxt("Author", canary.word)
    Image.fromarray(_grey(canary) if pixels is None else pixels).save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def png_tail(canary: Canary) -> bytes:
    """Letters behind the end of the picture."""
    return png(canary) + canary.word.encode() * 3


def jpeg(canary: Canary) -> bytes:
    """EXIF, with a place on the earth, and a comment."""
    exif, buffer = Image.Exif(), io.BytesIO()
    exif[0x010E] = exif[0x013B] = exif[0x8298] = canary.word
    Image.fromarray(_grey(canary)).save(buffer, "JPEG", quality=95, comment=canary.word.encode(), exif=exif)
    return buffer.getvalue()


def colour(canary: Canary) -> bytes:
    """A photograph, not a radiograph."""
    grey, buffer = _grey(canary), io.BytesIO()
    Image.fromarray(np.stack([grey, grey // 2, 255 - grey], axis=-1)).save(
        buffer, "JPEG", comment=canary.word.encode()
    )
    return buffer.getvalue()


def drawn(canary: Canary) -> bytes:
    """A name in the pixels of a PNG."""
    pixels = write_on(chest(canary.number, 512), canary.family.upper(), AT, 4000)
    return png(canary, pixels=(pixels >> 4).astype("u1"))


CASES: Final = (
    Case("PNG text", "tEXt, zTXt and iTXt chunks", png, name="{number:03d}.png"),
    Case("PNG tail", "bytes after the end of the picture", png_tail, name="{number:03d}.png"),
    Case("JPEG EXIF", "EXIF and COM of a JPEG file", jpeg, name="{number:03d}.jpg"),
    Case("name of a picture", "the file's name", png, name="{word} {born:%Y%m%d}.png"),
    Case("name of its folder", "two folders above the file", png, name="{word}/{digits}/{number:03d}.png"),
    Case("colour picture", "COM of a colour JPEG", colour, outcome="pixel-colour", name="{number:03d}.jpeg"),
    Case("name on a picture", "white letters on a PNG", drawn, outcome=BLANKED, name="{number:03d}.png"),
)
