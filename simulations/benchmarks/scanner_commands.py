"""What is typed about scanners: `consilium-sim scanners`, `consilium-sim bench scanners | vendors`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from common.cli import JsonFlag, show
from common.errors import DataError, StorageError

if TYPE_CHECKING:
    from simulations.scanners.xray import Subject

NEEDED: Final = 0.9
"""Least share of held-out images whose machine a simple classifier names."""


def sheet(
    out: Annotated[Path, typer.Option(help="The picture; its records go beside it as .jsonl.")] = Path(
        "scanners.png"
    ),
    seed: Annotated[int, typer.Option(min=0, help="Of patients and exposures.")] = 1,
    image: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="A real chest image (PNG or JPEG) instead of the phantom."
        ),
    ] = None,
    month: Annotated[
        float, typer.Option(min=0, help="After so many months of the example's drift and service.")
    ] = 0.0,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """One contact sheet: the same chest, head and trunk through every virtual machine, for a radiologist to look at."""
    from simulations.scanners import xray  # noqa: PLC0415 - imaging libraries are for those who use them
    from simulations.scanners.sheet import contact_sheet  # noqa: PLC0415

    made = contact_sheet(seed, _read(image) if image else None, month, xray.AGEING if month else None)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        made.image().save(out)
        out.with_suffix(".jsonl").write_text("\n".join(made.records) + "\n", encoding="utf-8")
    except (OSError, ValueError):
        raise StorageError(
            str(out), "cannot be written as a picture", "Name a .png in a folder that can be written"
        ) from None
    records = out.with_suffix(".jsonl")
    told = f"The sheet is {out}; the record of every picture, in order, is in {records}"
    show({"sheet": str(out), "records": str(records), "pictures": len(made.records)}, as_json, lambda: told)


def speed(
    images: Annotated[int, typer.Option(min=3, help="Of each machine.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of patients and settings.")] = 1,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """Images of 512 x 512 per second on one core, every machine of every chain; status 1 below 50."""
    from simulations.benchmarks.scanners import LIMIT, scanner_speed, table  # noqa: PLC0415 - what is measured is heavy

    found = scanner_speed(images, seed)
    show(found, as_json, lambda: table(found))
    if min(one.per_second for one in found) < LIMIT:
        raise typer.Exit(1)


def vendors(
    patients: Annotated[int, typer.Option(min=20, help="Each exposed on all four machines.")] = 100,
    seed: Annotated[int, typer.Option(min=0, help="Of patients and exposures.")] = 5,
    as_json: JsonFlag = False,  # noqa: FBT002 - an option, as typer has them
) -> None:
    """How often a simple classifier names the X-ray machine from pixels of patients held out; status 1 below 0.9."""
    from simulations.scanners.vendor import recognise, table  # noqa: PLC0415 - what is measured is heavy

    found = [recognise(patients, seed, "element"), recognise(patients, seed, "area")]
    show(found, as_json, lambda: table(found))
    if min(one.accuracy for one in found) < NEEDED:
        raise typer.Exit(1)


def _read(path: Path) -> Subject:
    import numpy as np  # noqa: PLC0415 - as above
    from PIL import Image, UnidentifiedImageError  # noqa: PLC0415

    from simulations.scanners.xray import subject_from_image  # noqa: PLC0415

    try:
        with Image.open(path) as opened:
            pixels = np.asarray(opened.convert("F"))
    except (OSError, UnidentifiedImageError):
        raise DataError("image", "cannot be read as a picture", "Give a PNG or JPEG") from None
    return subject_from_image(pixels)
