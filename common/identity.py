"""A party's own key: made once, kept at 0600, and used to sign what others hold it to.

Ed25519 (RFC 8032). The private key is a PKCS #8 file that its owner alone can read; a file that
others can read too is refused, because nobody can say any more who signed. A public key is 64 hexadecimal
digits, a signature 128, a fingerprint the digest of the public key.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Final, NewType

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from common.durability import push, push_folder
from common.errors import SettingsError, StorageError
from common.types import Digest

PublicKey = NewType("PublicKey", str)
"""64 hexadecimal digits."""
Signature = NewType("Signature", str)
"""128 hexadecimal digits."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class Identity:
    """A private key in memory; it never shows in a repr."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        raw = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.public = PublicKey(raw.hex())

    @classmethod
    def make(cls, path: Path) -> Identity:
        """A new key in a new file, durable when the call returns.

        Raises:
            StorageError: `key-exists` when there is a file already, `storage` when it cannot be written.
        """
        key = Ed25519PrivateKey.generate()
        text = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_once(path, text)
        except FileExistsError:
            raise StorageError(
                path.name, "there is a key already", "Use it; a key is made once", code="key-exists"
            ) from None
        except OSError:
            raise StorageError(
                path.name, "the key cannot be written", "Check free space and rights"
            ) from None
        return cls(key)

    @classmethod
    def load(cls, path: Path) -> Identity:
        """The key in this file.

        Raises:
            SettingsError: `key-missing`, `key-rights` when others may read it, `key-unreadable`.
        """
        try:
            if stat.S_IMODE(path.stat().st_mode) & _OTHERS:
                raise _wrong(path, "others than its owner may use it", f"chmod 600 {path.name}", "rights")
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except OSError:
            raise _wrong(path, "the key is missing", "Restore it from its backup", "missing") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _wrong(path, "it holds no key", "Restore it from its backup", "unreadable") from None
        if not isinstance(key, Ed25519PrivateKey):
            raise _wrong(path, "its key is not Ed25519", "Restore it from its backup", "unreadable")
        return cls(key)

    def sign(self, message: bytes) -> Signature:
        """The signature of this party over these bytes."""
        return Signature(self._key.sign(message).hex())


def verify(public: str, signature: str, message: bytes) -> bool:
    """Whether `signature` is the holder of `public`'s, over exactly these bytes; False for malformed ones."""
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), message)
    except (ValueError, InvalidSignature):
        return False
    return True


def fingerprint(public: str) -> Digest:
    """What people compare by telephone: the digest of a public key."""
    return Digest("sha256:" + hashlib.sha256(public.encode()).hexdigest())


def write_once(path: Path, text: bytes) -> None:
    """A new secret file at 0600, durable when the call returns.

    Raises:
        FileExistsError: there is a file already.
        OSError: it cannot be written.
    """
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(text)
        file.flush()
        push(file.fileno())
    push_folder(path.parent)


def _wrong(path: Path, rule: str, remedy: str, word: str) -> SettingsError:
    return SettingsError(path.name, rule, remedy, code=f"key-{word}")
