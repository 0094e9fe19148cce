"""Which codes of PS3.16 CID 7050 an image may carry: what was really done to it, and no more.

113109 (Retain Device Identity) is never claimed. The option keeps what names the device: its serial
number, station name and unique identifier. Here a keyed code stands in the serial number's place and the others
go. Manufacturer and model, which are kept, are not in table E.1-1, so the basic profile itself leaves them.
113103, 113104 and 113105 (clean graphics, structured content, descriptors) are never claimed either: graphics,
documents and descriptions are not cleaned but removed, which the basic profile covers.
"""

from __future__ import annotations

from typing import Final

from client.deid.profile import Profile
from client.deid.settings import DeidSettings

MEANINGS: Final = {
    "113100": "Basic Application Confidentiality Profile",
    "113101": "Clean Pixel Data Option",
    "113102": "Clean Recognizable Visual Features Option",
    "113107": "Retain Longitudinal Temporal Information Modified Dates Option",
    "113108": "Retain Patient Characteristics Option",
    "113111": "Retain Safe Private Option",
}
"""Code to its meaning, of every code that is ever written here."""


def methods(
    settings: DeidSettings,
    *,
    blanked: bool,
    searched: bool,
    defaced: bool,
    profile: Profile | None = None,
) -> tuple[str, ...]:
    """The codes for one image, in ascending order; `MEANINGS` says each in words.

    Args:
        settings: what the hospital keeps.
        blanked: whether something was blanked in this image's pixels.
        searched: whether its pixels were searched for text.
        defaced: whether the face was removed from the volume it belongs to.
        profile: the profile that was applied; an option of which a stricter profile left nothing is not claimed.
    """
    done = {
        "113100": True,
        "113101": searched and blanked,
        "113102": defaced,
        "113107": settings.longitudinal_dates and _left(profile, "dates"),
        "113108": settings.patient_characteristics and _left(profile, "patient-characteristics"),
        "113111": bool(settings.private_creators) and _left(profile, "private"),
    }
    return tuple(code for code, true in done.items() if true)


def flags(codes: tuple[str, ...]) -> dict[str, str]:
    """Further attributes that PS3.15 E.2 and E.3 ask for beside the codes: keyword to value."""
    found = {"LongitudinalTemporalInformationModified": "MODIFIED" if "113107" in codes else "REMOVED"}
    if "113101" in codes:
        found["BurnedInAnnotation"] = "NO"
    if "113102" in codes:
        found["RecognizableVisualFeatures"] = "NO"
    return found


def _left(profile: Profile | None, option: str) -> bool:
    return profile is None or option in profile.options
