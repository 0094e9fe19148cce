"""Keyed pseudonyms: HMAC-SHA256 under a key of the hospital, one purpose prefix each.

The same study sent twice gives the same pseudonyms. Without the key nothing can be turned back, nor
can anybody who guesses a patient's number check the guess. The spend key is another key, never
rotated, so that new pseudonyms do not hand a patient a fresh privacy budget.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache
from typing import Final

from client.site import Site
from client.site_keys import KEY_BYTES
from common.errors import SettingsError
from common.types import Pseudonym

_REMEMBERED: Final = 256
"""Names made last; each of an image's is asked for several times."""
MAX_SHIFT_DAYS: Final = 3650
"""Dates move 1 to 3650 days back: far enough that a true date is not met again by chance."""


@dataclass(frozen=True)
class Identity:
    """A patient as the source names them: number and the office that issued it."""

    patient_id: str
    issuer: str = ""


@dataclass(frozen=True)
class Pseudonyms:
    """Every keyed name of one site. Keys never show in a repr.

    Raises:
        SettingsError: a key is not 256 bits long.
    """

    key: bytes = field(repr=False)
    spend: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.key) != KEY_BYTES or len(self.spend) != KEY_BYTES:
            raise SettingsError(
                "pseudonym.key", f"a key has {KEY_BYTES} bytes", "Restore it from the hospital's key backup"
            )

    @classmethod
    def of(cls, site: Site) -> Pseudonyms:
        """The pseudonyms of this site."""
        return cls(site.pseudonym_key, site.spend_key)

    def patient(self, who: Identity) -> Pseudonym:
        """`P` and 128 bits in hexadecimal."""
        return Pseudonym("P" + _code(self.key, "patient", *_names(who)).hex()[:32])

    def spend_key(self, who: Identity) -> str:
        """The patient's name in the privacy ledger: 128 bits in hexadecimal, under the spend key."""
        return _code(self.spend, "spend", *_names(who)).hex()[:32]

    def accession(self, number: str) -> str:
        """`A` and 60 bits: the value representation allows 16 characters."""
        return "A" + _code(self.key, "accession", _plain(number)).hex()[:15]

    def scanner(self, serial: str, manufacturer: str, model: str) -> str:
        """`S` and 64 bits; without a serial number all devices of one model are one."""
        return "S" + _code(self.key, "scanner", *map(_plain, (serial, manufacturer, model))).hex()[:16]

    def device(self, kind: str, *words: str) -> str:
        """`maker-` or `model-` and 32 bits in hexadecimal, for a name that is on no list."""
        return f"{kind}-" + _code(self.key, kind, *words).hex()[:8]

    def uid(self, uid: str) -> str:
        """`2.25.` and 128 bits as a decimal number (PS3.5 B.2)."""
        return "2.25." + str(int.from_bytes(_code(self.key, "uid", _plain(uid))[:16], "big"))

    def shifted(self, who: Identity, day: date) -> date:
        """The date moved back by this patient's own number of days.

        Raises:
            OverflowError: the date would fall before the calendar begins.
        """
        number = int.from_bytes(_code(self.key, "shift", *_names(who))[:8], "big")
        return day - timedelta(days=1 + number % MAX_SHIFT_DAYS)

    def join(self, kind: str, value: str) -> str:
        """A label table's key (`path`) as it may lie on disk: 128 bits in hexadecimal."""
        return _code(self.key, "join", kind, value).hex()[:32]

    def content(self, *parts: bytes) -> str:
        """The name of an incoming file's content: 128 bits in hexadecimal."""
        digests = [hashlib.sha256(part).hexdigest() for part in parts]
        return _code(self.key, "content", *digests).hex()[:32]


def _names(who: Identity) -> tuple[str, str]:
    return _plain(who.patient_id), _plain(who.issuer)


def _plain(text: str) -> str:
    """One spelling for what DICOM calls the same: padding and Unicode form do not matter."""
    return unicodedata.normalize("NFC", text).strip(" \0")


@lru_cache(maxsize=_REMEMBERED)
def _code(key: bytes, purpose: str, *parts: str) -> bytes:
    """HMAC over the purpose and the parts, each preceded by its length so that none runs into the next."""
    message = b"".join(
        len(raw).to_bytes(4, "big") + raw for raw in (part.encode("utf-8") for part in (purpose, *parts))
    )
    made = _keyed(key).copy()
    made.update(message)
    return made.digest()


@lru_cache(maxsize=8)
def _keyed(key: bytes) -> hmac.HMAC:
    """HMAC-SHA-256 that has taken its key; only copies of it are used."""
    return hmac.new(key, None, "sha256")
