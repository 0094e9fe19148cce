"""Refused originals at rest: sealed in authenticated chunks under a key that is itself sealed by the site's.

A sealed file is a head (magic, 7 random bytes) and chunks of AES-256-GCM in the STREAM construction
(Hoang, Reyhanitabar, Rogaway and Vizár 2015): the nonce is the random bytes, the chunk's number and a flag that is
set for the last chunk only; the file's identifier and the same three are authenticated with it. So a
cut, a swap of chunks or of files, and a changed byte are all found.

The data key of a quarantine is random and lies beside it, wrapped under a key that HKDF-SHA256 makes of the
pseudonym key. A new pseudonym key therefore costs one small file and not the quarantine: see `reseal`.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from client.files import storage_error, whole_file
from common.errors import StorageError

CHUNK_BYTES: Final = 2**20
KEY_FILE: Final = "data.key"
_LABEL: Final = b"consilium quarantine key 1"
_MAGIC: Final = b"CSEAL\x01"
_PREFIX_BYTES: Final = 7
_TAG_BYTES: Final = 16
_NONCE_BYTES: Final = 12
_KEY_BYTES: Final = 32


@dataclass(frozen=True)
class Seal:
    """The data key of one quarantine; it never shows in a repr."""

    key: bytes = field(repr=False)

    def write(self, pieces: Iterator[bytes], target: IO[bytes], name: str) -> None:
        """Seal a stream under a name; `pieces` may have any size.

        Raises:
            OSError: the target cannot be written, or the source not be read.
        """
        prefix = secrets.token_bytes(_PREFIX_BYTES)
        target.write(_MAGIC + prefix)
        cipher = AESGCM(self.key)
        for number, (chunk, last) in enumerate(_chunks(pieces)):
            nonce = _nonce(prefix, number, last=last)
            target.write(cipher.encrypt(nonce, chunk, _bound(name, nonce)))

    def read(self, source: IO[bytes], name: str) -> Iterator[bytes]:
        """The content of a sealed stream, piece by piece; every piece was authenticated before it comes.

        Raises:
            StorageError: `quarantine-damaged`: bytes were changed, cut, moved or belong to another file.
            OSError: the source cannot be read.
        """
        head = source.read(len(_MAGIC) + _PREFIX_BYTES)
        if len(head) != len(_MAGIC) + _PREFIX_BYTES or not head.startswith(_MAGIC):
            raise _damaged(name)
        prefix, cipher, number = head[len(_MAGIC) :], AESGCM(self.key), 0
        chunk = source.read(CHUNK_BYTES + _TAG_BYTES)
        while True:
            following = source.read(CHUNK_BYTES + _TAG_BYTES)
            nonce = _nonce(prefix, number, last=not following)
            try:
                yield cipher.decrypt(nonce, chunk, _bound(name, nonce))
            except (InvalidTag, ValueError):
                raise _damaged(name) from None
            if not following:
                return
            chunk, number = following, number + 1


def open_seal(folder: Path, site_key: bytes) -> Seal:
    """The seal of a quarantine; its data key is made when there is none, and old wraps of it are dropped.

    Args:
        folder: the quarantine.
        site_key: the pseudonym key.

    Raises:
        StorageError: `quarantine-key`: the data key was wrapped under another site key; or the disk refuses.
    """
    wraps = _wraps(folder)
    if not wraps:
        fresh = Seal(secrets.token_bytes(_KEY_BYTES))
        _keep(folder, [_wrap(fresh, site_key)])
        return fresh
    opened = [(wrap, seal) for wrap in wraps if (seal := _unwrap(wrap, site_key)) is not None]
    if not opened:
        raise StorageError(
            f"quarantine/{KEY_FILE}",
            "the originals were sealed under another pseudonym key",
            "Restore that key, or move the quarantine folder away: its originals are then lost",
            code="quarantine-key",
        )
    if len(wraps) > 1:
        _keep(folder, [opened[0][0]])
    return opened[0][1]


def reseal(folder: Path, old_key: bytes, new_key: bytes) -> None:
    """Let a new pseudonym key open a quarantine as well; call it before the new key takes the old one's place.

    Both keys open it until `open_seal` has been called with one of them, so that a rotation may be
    interrupted anywhere and repeated. Nothing happens where nothing was ever sealed.

    Raises:
        StorageError: `quarantine-key`: neither key opens it; or the disk refuses.
    """
    wraps = _wraps(folder)
    if not wraps or any(_unwrap(wrap, new_key) for wrap in wraps):
        return
    seal = open_seal(folder, old_key)
    _keep(folder, [_wrap(seal, old_key), _wrap(seal, new_key)])


def _chunks(pieces: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Chunks of one size but the last, which is flagged; an empty stream is one empty chunk."""
    held = b""
    for piece in pieces:
        held += piece
        while len(held) > CHUNK_BYTES:
            yield held[:CHUNK_BYTES], False
            held = held[CHUNK_BYTES:]
    yield held, True


def _nonce(prefix: bytes, number: int, *, last: bool) -> bytes:
    return prefix + number.to_bytes(4, "big") + bytes([last])


def _bound(name: str, nonce: bytes) -> bytes:
    return _MAGIC + nonce + name.encode("utf-8")


def _wrapping_key(site_key: bytes) -> bytes:
    return HKDF(SHA256(), _KEY_BYTES, salt=None, info=_LABEL).derive(site_key)


def _wrap(seal: Seal, site_key: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(_wrapping_key(site_key)).encrypt(nonce, seal.key, _LABEL)


def _unwrap(wrap: bytes, site_key: bytes) -> Seal | None:
    try:
        key = AESGCM(_wrapping_key(site_key)).decrypt(wrap[:_NONCE_BYTES], wrap[_NONCE_BYTES:], _LABEL)
    except (InvalidTag, ValueError):
        return None
    return Seal(key)


def _wraps(folder: Path) -> list[bytes]:
    try:
        return [bytes.fromhex(wrap) for wrap in json.loads((folder / KEY_FILE).read_bytes())["wraps"]]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise storage_error(error, f"quarantine/{KEY_FILE}") from None
    except (KeyError, TypeError, ValueError):
        raise StorageError(
            f"quarantine/{KEY_FILE}",
            "it is not the key file of a quarantine",
            "Restore it from the backup, or move the quarantine folder away: its originals are then lost",
            code="quarantine-key",
        ) from None


def _keep(folder: Path, wraps: list[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with whole_file(folder / KEY_FILE) as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(json.dumps({"wraps": [wrap.hex() for wrap in wraps]}).encode("ascii"))


def _damaged(name: str) -> StorageError:
    return StorageError(
        f"quarantine {name}",
        "the sealed original is damaged or was changed",
        "Send the file again from its source; discard this one",
        code="quarantine-damaged",
    )
