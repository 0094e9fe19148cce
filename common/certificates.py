"""Keys of connections, requests for certificates, and certificates that others made: X.509 (RFC 5280), ECDSA P-256."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from common.errors import FederationError, SettingsError, StorageError
from common.identity import write_once
from common.types import Digest


@dataclass(frozen=True)
class Certificate:
    """A certificate that was read: whose, from when to when, and how it is named."""

    name: str
    federation: str
    serial: int
    fingerprint: Digest
    begins: datetime
    ends: datetime
    pem: str

    def left(self, now: datetime) -> timedelta:
        """Time until it ends; negative afterwards, and before it begins, as of one that was made by a wrong clock."""
        return self.ends - now if now >= self.begins else now - self.begins


def make_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A new key in a new file at 0600: of a TLS connection, or of a Flower node.

    Raises:
        StorageError: `key-exists`, or `storage` when it cannot be written.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    text = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    write_new(path, text)
    return key


def load_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The key that `make_key` wrote.

    Raises:
        SettingsError: `key-missing` or `key-unreadable`.
    """
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except OSError:
        raise SettingsError(
            path.name, "the key is missing", "Enrol again with a new invitation", code="key-missing"
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise SettingsError(
            path.name, "it holds no key", "Enrol again with a new invitation", code="key-unreadable"
        )
    return key


def request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """A request for a certificate, PEM, signed by the key it is for."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    made = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM).decode()


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    """The public half as PEM, as Flower registers a node."""
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def read_certificate(pem: str) -> Certificate:
    """What a certificate says; whether it may be believed, `certified` tells.

    Raises:
        FederationError: `certificate` when it is none.
    """
    return described(_certificate(pem))


def certified(pem: str, authority: str) -> bool:
    """Whether the authority with this certificate signed that one; says nothing about time or revocation."""
    try:
        _certificate(pem).verify_directly_issued_by(_certificate(authority))
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def belongs(pem: str, key: ec.EllipticCurvePrivateKey) -> bool:
    """Whether a certificate is for this key."""
    return _certificate(pem).public_key() == key.public_key()


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode())
    except (ValueError, TypeError):
        raise FederationError(
            "certificate", "it is not a certificate", "Ask for it again", code="certificate"
        ) from None


def described(certificate: x509.Certificate) -> Certificate:
    """What this certificate says."""

    def first(kind: x509.ObjectIdentifier) -> str:
        found = certificate.subject.get_attributes_for_oid(kind)
        return str(found[0].value) if found else ""

    digest = hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
    return Certificate(
        name=first(NameOID.COMMON_NAME),
        federation=first(NameOID.ORGANIZATION_NAME),
        serial=certificate.serial_number,
        fingerprint=Digest("sha256:" + digest),
        begins=certificate.not_valid_before_utc,
        ends=certificate.not_valid_after_utc,
        pem=as_pem(certificate),
    )


def key_of(asked: str) -> ec.EllipticCurvePublicKey:
    """The key that a request asks a certificate for.

    Args:
        asked: PKCS #10, PEM.

    Raises:
        FederationError: `request` when it is not a request for a P-256 key, signed by that key.
    """
    try:
        read = x509.load_pem_x509_csr(asked.encode())
        key, signed = read.public_key(), read.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key, signed = None, False
    if not signed or not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != "secp256r1":
        raise FederationError(
            "certificate request",
            "it is not a request for a P-256 key, signed by that key",
            "Repeat `consilium-site enrol`",
            code="request",
        )
    return key


def as_pem(certificate: x509.Certificate) -> str:
    """A certificate as text."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def write_new(path: Path, text: bytes) -> None:
    """A new secret file at 0600, in a folder that is made where needed.

    Raises:
        StorageError: `key-exists`, or `storage` when it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_once(path, text)
    except FileExistsError:
        raise StorageError(path.name, "there is a key already", "Use it", code="key-exists") from None
    except OSError:
        raise _unwritten(path) from None


def _unwritten(path: Path) -> StorageError:
    return StorageError(path.name, "it cannot be written", "Check free space and rights")
