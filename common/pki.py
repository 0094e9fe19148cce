"""A federation's own certificate authority, and the certificates it gives: who may open a connection.

X.509 (RFC 5280) with ECDSA P-256 throughout. The authority certifies a hospital's request for 90 days and the
addresses of the edge for as long; it takes nothing from a request but its key. Its own key lies on disk encrypted
under a passphrase. A connection's key is short-lived and separate from a party's identity (`common.identity`),
which signs what is said over the connection.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from common.certificates import Certificate, as_pem, described, key_of, write_new
from common.errors import SettingsError, StorageError

AUTHORITY_DAYS: Final = 3650
CERTIFICATE_DAYS: Final = 90
"""How long a certificate lasts; a lost key is of no use after it."""
RENEW_DAYS: Final = 30
"""A certificate with less than this left is renewed: a hospital may be away for a month and come back."""
EARLY: Final = timedelta(minutes=10)
"""A certificate begins so long before it is made, because the other side's clock may be behind."""


@dataclass(frozen=True)
class Revoked:
    """One line of the revocation list."""

    serial: int
    at: datetime


class Authority:
    """The authority's key in memory; it never shows in a repr."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._key = key
        self._certificate = certificate
        self.pem = as_pem(certificate)

    @classmethod
    def make(cls, federation: str, passphrase: bytes, *, now: datetime | None = None) -> Authority:
        """A new authority for a federation; nothing is written.

        Raises:
            SettingsError: `passphrase` when it has fewer than 16 characters.
        """
        _strong(passphrase)
        key = ec.generate_private_key(ec.SECP256R1())
        name = _name(f"{federation} authority", federation)
        begins = (now or datetime.now(UTC)) - EARLY
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begins)
            .not_valid_after(begins + timedelta(days=AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(authority=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(key, made)

    def save(self, folder: Path, passphrase: bytes) -> None:
        """Write `ca.key`, encrypted, and `ca.crt`; never over an authority that is there.

        Raises:
            StorageError: `key-exists`, or `storage` when it cannot be written.
        """
        text = self._key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(passphrase),
        )
        write_new(folder / "ca.key", text)
        try:
            (folder / "ca.crt").write_text(self.pem)
        except OSError:
            raise StorageError("ca.crt", "it cannot be written", "Check free space and rights") from None

    @classmethod
    def load(cls, folder: Path, passphrase: bytes) -> Authority:
        """The authority in this folder.

        Raises:
            SettingsError: `key-missing`, or `passphrase` when it does not open the key.
        """
        try:
            text, certificate = (folder / "ca.key").read_bytes(), (folder / "ca.crt").read_bytes()
        except OSError:
            raise SettingsError(
                "ca.key", "the authority's key or certificate is missing", "Restore both", code="key-missing"
            ) from None
        try:
            key = serialization.load_pem_private_key(text, password=passphrase)
            read = x509.load_pem_x509_certificate(certificate)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise SettingsError(
                "ca.key",
                "the passphrase does not open it",
                "Name the right file as ca.passphrase_file",
                code="passphrase",
            ) from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != read.public_key():
            raise SettingsError("ca.crt", "it is not that of ca.key", "Restore both", code="key-missing")
        return cls(key, read)

    def issue(self, request: str, name: str, federation: str, *, now: datetime | None = None) -> Certificate:
        """A client certificate for the key in a request; the name is the one given here, not the request's.

        Args:
            request: PKCS #10, PEM.
            name: of the hospital.
            federation: its name.
            now: when it begins; the clock's when not given.

        Raises:
            FederationError: `request` when it is not a request or not signed by its own key.
        """
        builder = self._builder(key_of(request), _name(name, federation), now)
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
        return described(builder.add_extension(use, critical=True).sign(self._key, hashes.SHA256()))

    def issue_server(
        self,
        request: str,
        federation: str,
        addresses: Sequence[str],
        *,
        now: datetime | None = None,
        days: int | None = None,
    ) -> Certificate:
        """A server certificate for these host names and IP addresses, of which there is at least one.

        Args:
            request: PKCS #10, PEM.
            federation: its name.
            addresses: what it is good for.
            now: when it begins; the clock's when not given.
            days: how long it lasts; that of a client's when not given. It never outlasts the authority.

        Raises:
            FederationError: `request`, as `issue`.
        """
        builder = self._builder(key_of(request), _name(addresses[0], federation), now, days)
        use = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
        names = x509.SubjectAlternativeName([_general(address) for address in addresses])
        builder = builder.add_extension(use, critical=True).add_extension(names, critical=False)
        return described(builder.sign(self._key, hashes.SHA256()))

    def revocations(self, revoked: Iterable[Revoked], *, now: datetime | None = None) -> str:
        """The revocation list, PEM; good until the authority ends, since it is replaced on the spot.

        It dates from its newest line, and not from when it was signed: a clock that is ahead while it is signed would
        make a list that refuses everybody once the clock is mended.
        """
        at, lines = now or datetime.now(UTC), list(revoked)
        since = max((one.at for one in lines), default=self._certificate.not_valid_before_utc)
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self._certificate.subject)
            .last_update(min(since, at) - EARLY)
            .next_update(self._certificate.not_valid_after_utc)
        )
        for one in lines:
            line = x509.RevokedCertificateBuilder().serial_number(one.serial).revocation_date(one.at)
            builder = builder.add_revoked_certificate(line.build())
        made = builder.sign(self._key, hashes.SHA256())
        return made.public_bytes(serialization.Encoding.PEM).decode()

    def _builder(
        self, key: ec.EllipticCurvePublicKey, name: x509.Name, now: datetime | None, days: int | None = None
    ) -> x509.CertificateBuilder:
        at = now or datetime.now(UTC)
        ends = at + timedelta(days=days or CERTIFICATE_DAYS)
        authority = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(at - EARLY)
            .not_valid_after(min(ends, self._certificate.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(authority=False), critical=True)
            .add_extension(authority, critical=False)
        )


def same_list(one: str, other: str) -> bool:
    """Whether two revocation lists, PEM, say the same of the same time; one that cannot be read says nothing."""
    try:
        read = [x509.load_pem_x509_crl(text.encode()) for text in (one, other)]
    except ValueError:
        return False
    # The signature differs each time.
    return read[0].tbs_certlist_bytes == read[1].tbs_certlist_bytes


def self_signed(key: ec.EllipticCurvePrivateKey, address: str, now: datetime | None = None) -> Certificate:
    """A certificate for one address of this machine, believed only by who is given it; 90 days.

    Args:
        key: of the process that listens there.
        address: an IP address or host name.
        now: when it is made; the present when not given.
    """
    name, begins = _name(address, "this machine"), (now or datetime.now(UTC)) - EARLY
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begins)
        .not_valid_after(begins + timedelta(days=CERTIFICATE_DAYS))
        .add_extension(x509.SubjectAlternativeName([_general(address)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    return described(made.sign(key, hashes.SHA256()))


def _name(common: str, organisation: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _general(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _strong(passphrase: bytes) -> None:
    if len(passphrase) < 16:
        raise SettingsError(
            "ca.passphrase_file",
            "the passphrase has fewer than 16 characters",
            "Write a longer one into it",
            code="passphrase",
        )
