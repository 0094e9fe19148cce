"""What a pseudonym stands for, and how one is sealed so that only the pseudonym key opens it."""

from __future__ import annotations

import base64
import json
import os
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.site_keys import KEY_BYTES
from common.errors import StorageError

_PURPOSE: Final = b"consilium look-up table 1"
_NONCE_BYTES: Final = 12


@dataclass(frozen=True)
class Original:
    """What a pseudonym stands for. Shown to the person who asked, written nowhere."""

    kind: str
    """`patient`, `accession` or `study`."""
    value: str
    """The patient's number, the accession number, or the study's UID, as the source has it."""
    issuer: str = ""
    """Of a patient's number: the office that issued it."""


@lru_cache(maxsize=4)
def cipher_of(key: bytes) -> AESGCM:
    """What seals and opens under a pseudonym key."""
    return AESGCM(HKDF(hashes.SHA256(), KEY_BYTES, salt=None, info=_PURPOSE).derive(key))


def sealed(cipher: AESGCM, pseudonym: str, original: Original) -> str:
    """An original as it is kept, for this pseudonym and no other."""
    nonce = os.urandom(_NONCE_BYTES)
    plain = json.dumps([original.kind, original.value, original.issuer]).encode("utf-8")
    return base64.b64encode(nonce + cipher.encrypt(nonce, plain, pseudonym.encode("ascii"))).decode("ascii")


def opened(cipher: AESGCM, pseudonym: str, text: str) -> Original:
    """The original that was sealed for this pseudonym.

    Raises:
        StorageError: `lookup-unreadable`.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        plain = cipher.decrypt(raw[:_NONCE_BYTES], raw[_NONCE_BYTES:], pseudonym.encode("ascii"))
        return Original(*json.loads(plain))
    except (InvalidTag, ValueError, TypeError):
        raise StorageError(
            "the look-up table",
            "this entry was not sealed with this site's key, or is damaged",
            "Restore the pseudonym key and the table from backups of the same day",
            code="lookup-unreadable",
        ) from None
