"""`[deid]` of site.toml: what a hospital decides about de-identification, within what the release allows."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

_STRICT = ConfigDict(extra="forbid")
Side = Annotated[int, Field(ge=0)]
_DEVICE: Final = r"^[A-Za-z0-9][A-Za-z0-9 .,&()/_+-]{0,63}$"
"""Names of makers and models, as the profile permits them."""


@dataclass(frozen=True, config=_STRICT)
class Region:
    """One scanner whose text always stands in the same places; with them blanked its images may pass."""

    modality: Annotated[str, Field(pattern=r"^[A-Z]{2}$")]
    manufacturer: str
    """Exactly as the image says it."""
    model: str
    rows: Annotated[int, Field(ge=1)]
    cols: Annotated[int, Field(ge=1)]
    boxes: tuple[tuple[Side, Side, Side, Side], ...]
    """(top, left, bottom, right) in pixels, half open; blanked in every frame."""


@dataclass(frozen=True, config=_STRICT)
class OwnMaker:
    """A maker whose machines this hospital has and the release's list does not know, or further models of a known one."""

    name: Annotated[str, Field(pattern=_DEVICE)]
    """As it shall be written; matched without regard to capitals and signs."""
    models: tuple[Annotated[str, Field(pattern=_DEVICE)], ...] = ()


@dataclass(frozen=True, config=_STRICT)
class DeidSettings:
    """The whole section; the defaults are the strictest that still let a study be trained."""

    tighten: str = ""
    """The site's own TOML of attributes to treat more strictly, relative to site.toml; empty: none."""
    patient_characteristics: bool = True
    """Keep age in years and sex (113108)."""
    device_make: bool = True
    """Keep manufacturer and model, and a keyed code of the scanner."""
    longitudinal_dates: bool = True
    """Keep dates shifted by the patient's own number of days (113107)."""
    private_creators: tuple[str, ...] = ()
    """Of the release's short list of safe private blocks, those kept here (113111)."""
    burned_in_text: Literal["find", "ignore"] = "find"
    """Whether pixels are searched for text; `ignore` is written into every receipt."""
    head_ct: Literal["refuse", "accept"] = "refuse"
    """A face can be rebuilt from a head CT, and nothing removes it reliably."""
    derived_primary: tuple[Literal["CR", "DX", "MG", "CT", "MR"], ...] = ()
    """Modalities whose DERIVED\\PRIMARY images (processed, not annotated) pass as ORIGINAL\\PRIMARY ones do."""
    deface_head_mr: bool = False
    """Remove the face of head MR volumes; needs the optional extra `deface`."""
    makers: tuple[OwnMaker, ...] = ()
    """Machines written by name beside those of the release's list; the name of any other becomes a keyed code."""
    regions: tuple[Region, ...] = ()
    """Scanners of ultrasound and secondary capture let through with fixed regions blanked."""
    retired_key: Literal["until-confirmed", "destroy"] = "until-confirmed"
    """What becomes of the old pseudonym key at a rotation: kept until a person confirms it, or destroyed at once."""
