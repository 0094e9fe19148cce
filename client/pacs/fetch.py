"""The ways to fetch: what they have in common, and which one a remote supports."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

from pynetdicom.presentation import PresentationContext, build_context
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from client.intake.classes import ACCEPTED, WAITING
from client.pacs.dimse import Offer, accepted, associated
from client.pacs.query import Finder
from client.pacs.remote import Caller
from common.errors import InputError, PacsError

GET, MOVE, WEB = "get", "move", "web"
VIAS: Final = (GET, WEB, MOVE)
"""In the order in which they are tried: C-MOVE last, for it needs the archive to know our address."""
MAX_CONTEXTS: Final = 128
"""Presentation contexts of one association (PS3.8 9.3.2.2: odd numbers to 255)."""
SYNTAXES: Final = (
    "1.2.840.10008.1.2.1",  # explicit little endian
    "1.2.840.10008.1.2",  # implicit little endian
    "1.2.840.10008.1.2.4.90",  # JPEG 2000 lossless
    "1.2.840.10008.1.2.4.70",  # JPEG lossless
    "1.2.840.10008.1.2.4.80",  # JPEG-LS lossless
    "1.2.840.10008.1.2.5",  # RLE
    "1.2.840.10008.1.2.4.91",  # JPEG 2000
    "1.2.840.10008.1.2.4.50",  # JPEG baseline
    "1.2.840.10008.1.2.4.51",  # JPEG extended
    "1.2.840.10008.1.2.4.57",  # JPEG lossless, any predictor
    "1.2.840.10008.1.2.4.81",  # JPEG-LS near lossless
)
"""Transfer syntaxes asked for, the commonest first: where not all fit, the last ones are left out."""
CLASSES: Final = (*ACCEPTED, *WAITING)
"""What is fetched: images that are taken in, and those that wait for a person."""
_IMAGE: Final = "1.2.840.10008.5.1.4.1.1."
_OF_MODALITY: Final = {
    "CR": ("1", "1.1"),
    "DX": ("1.1", "1.1.1", "1"),
    "MG": ("1.2", "1.2.1"),
    "CT": ("2", "2.1", "2.2"),
    "MR": ("4", "4.1", "4.4"),
    "US": ("3", "3.1", "6", "6.1"),
}
"""Ends of the SOP class UIDs that a series of this modality is made of, beside captures."""


@dataclass(frozen=True)
class Target:
    """What to fetch: a series, or some instances of it."""

    study: str = field(repr=False)
    series: str = field(repr=False)
    instances: tuple[str, ...] = field(default=(), repr=False)
    """Empty: all of the series."""
    modality: str = ""
    """Of the series; empty when it is not known."""


class Way(Protocol):
    """One way to fetch; what arrives goes to `Arrivals` and is found in the journal."""

    name: str
    whole_series: bool
    """Whether it may be asked for a series without naming the instances."""
    together: int
    """Instances it may be asked for at once."""

    def fetch(self, target: Target) -> None:
        """Fetch; some instances may have come even if it fails.

        Raises:
            PacsError: the archive does not answer, refuses, or says that some failed.
            StorageError: the inbox cannot take more.
        """
        ...

    def close(self) -> None:
        """End connections."""
        ...


@dataclass(frozen=True)
class Connection:
    """A finder and a way that belong together."""

    finder: Finder
    way: Way


def only_images(modality: str) -> bool:
    """Whether a series of this modality is of images alone, and may be fetched without looking into it."""
    return modality in _OF_MODALITY


def classes_of(modality: str) -> tuple[str, ...]:
    """SOP classes to expect in a series; all of them when its modality says nothing."""
    ends = _OF_MODALITY.get(modality)
    if ends is None:
        return CLASSES
    own = tuple(_IMAGE + end for end in ends)
    return (*own, *(uid for uid in WAITING if uid.startswith(_IMAGE + "7") and uid not in own))


def storage_contexts(classes: tuple[str, ...]) -> list[PresentationContext]:
    """A context for each class and transfer syntax, so that an archive need not re-encode anything.

    One context holds one syntax: of several the archive would choose one for all instances of the class. As many
    syntaxes as fit beside the service's own context are asked for.
    """
    room = min(len(SYNTAXES), (MAX_CONTEXTS - 1) // len(classes))
    return [build_context(sop_class, syntax) for syntax in SYNTAXES[:room] for sop_class in classes]


def choose(caller: Caller, via: str | None) -> str:
    """The way to use: the one asked for, else the first of `VIAS` that the remote supports.

    Raises:
        InputError: no way of that name.
        PacsError: the remote does not answer, or supports none.
    """
    if via is not None:
        if via not in VIAS:
            raise InputError("--via", "there is no such way", "Choose get, move or web")
        return via
    if caller.dimse and _offers(caller, str(StudyRootQueryRetrieveInformationModelGet)):
        return GET
    if caller.remote.dicomweb:
        return WEB
    if caller.dimse and _offers(caller, str(StudyRootQueryRetrieveInformationModelMove)):
        return MOVE
    raise PacsError(
        f"remote {caller.name}",
        "it offers neither C-GET nor DICOMweb nor C-MOVE",
        "Complete its [[pacs.remotes]] section, and let the archive allow one of them",
        code="pacs-unsupported",
    )


def _offers(caller: Caller, service: str) -> bool:
    models = (StudyRootQueryRetrieveInformationModelGet, StudyRootQueryRetrieveInformationModelMove)
    with associated(caller, Offer([build_context(model) for model in models])) as association:
        return accepted(association, service)
