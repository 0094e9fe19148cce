"""The two keys of a hospital, each 256 random bits in a file that only its user reads."""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path
from typing import Final

from common.durability import push
from common.errors import SettingsError

KEY_BYTES: Final = 32
PSEUDONYM: Final = "pseudonym.key"
SPEND: Final = "spend.key"
ROTATING: Final = "rotating.json"
"""In the folder of the keys while a rotation is under way."""


def make(folder: Path, name: str, simulation_seed: int | None) -> None:
    """New keys of a site; those of a virtual hospital follow from its name and the seed.

    Raises:
        FileExistsError: a key is there already.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    for key in (PSEUDONYM, SPEND):
        _write(folder / key, _drawn(name, key, simulation_seed))


def check_rotation(keys: Path) -> None:
    """See that no rotation has begun and not ended.

    Raises:
        SettingsError: `key-rotating`.
    """
    if (keys / ROTATING).exists():
        raise SettingsError(
            "pseudonym.key",
            "its rotation has begun and not ended",
            "Finish it: consilium-site deid rotate-key",
            code="key-rotating",
        )


def _drawn(name: str, key: str, simulation_seed: int | None) -> bytes:
    if simulation_seed is None:
        return secrets.token_bytes(KEY_BYTES)
    return hashlib.sha256(f"virtual hospital {name} {key} {simulation_seed}".encode()).digest()


def _write(path: Path, key: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        push(file.fileno())


def read(path: Path) -> bytes:
    """A key of a site.

    Raises:
        SettingsError: it is missing or malformed.
    """
    try:
        key = path.read_bytes()
    except OSError:
        raise SettingsError(
            path.name, "the key is missing", "Restore it from the hospital's key backup"
        ) from None
    if len(key) != KEY_BYTES:
        raise SettingsError(
            path.name, f"a key has {KEY_BYTES} bytes", "Restore it from the hospital's key backup"
        )
    return key
