"""Under TLS both sides show a certificate of the hospital's authority; nobody else gets as far as a title."""

from __future__ import annotations

import datetime as dt
import ipaddress
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from client.site import Site
from common.errors import SettingsError
from tests.client.pacs.listening import CALLED, association, held, listener, listening_site, send
from tests.orthanc import running
from tests.studies import study


@dataclass(frozen=True)
class Authority:
    """A CA of a test, and what it signs."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def path(self) -> Path:
        """Its certificate."""
        return self.folder / "ca.pem"

    def sign(self, name: str, days: int = 1) -> tuple[Path, Path]:
        """A certificate and key for localhost; with negative days, one that has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, self.certificate.subject, self.key, days)
        return _write(self.folder, name, key, certificate)


def authority(folder: Path) -> Authority:
    """A new one."""
    folder.mkdir()
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Test authority")])
    certificate = _certificate("Test authority", key, name, key, 1, ca=True)
    _write(folder, "ca", key, certificate)
    return Authority(folder, key, certificate)


def _certificate(
    subject: str, key: object, issuer: x509.Name, signer: object, days: int, *, ca: bool = False
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    names = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=9))
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .sign(signer, hashes.SHA256())
    )


def _write(folder: Path, name: str, key: object, certificate: x509.Certificate) -> tuple[Path, Path]:
    pem, secret = folder / f"{name}.pem", folder / f"{name}.key"
    pem.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    )
    return pem, secret


@pytest.fixture
def ours(tmp_path: Path) -> Authority:
    """The hospital's authority."""
    return authority(tmp_path / "ca")


@pytest.fixture
def site(tmp_path: Path, ours: Authority) -> Site:
    """A hospital that listens under TLS."""
    certificate, key = ours.sign("listener")
    tls = {"certificate": str(certificate), "key": str(key), "authorities": str(ours.path)}
    return listening_site(tmp_path / "site", tls=tls)


def client_tls(trusted: Authority, shown: tuple[Path, Path] | None) -> dict[str, object]:
    """What a sender shows and trusts."""
    context = ssl.create_default_context(cafile=trusted.path)
    if shown is not None:
        context.load_cert_chain(*shown)
    return {"tls_args": (context, "localhost")}


def test_the_right_certificate_gets_in(site: Site, ours: Authority) -> None:
    """And its instances are kept."""
    with listener(site):
        assert send(site, study(0, 3), **client_tls(ours, ours.sign("sender"))) == [0, 0, 0]
    assert len(held(site)) == 3


def test_names_of_certificates_are_relative_to_the_settings(tmp_path: Path, ours: Authority) -> None:
    """As all other paths in site.toml are; the working directory has no say."""
    folder = tmp_path / "site"
    names = {}
    for name, path in zip(
        ("certificate", "key", "authorities"), (*ours.sign("kept"), ours.path), strict=True
    ):
        (folder / "tls").mkdir(parents=True, exist_ok=True)
        (folder / "tls" / f"{name}.pem").write_bytes(path.read_bytes())
        names[name] = f"tls/{name}.pem"
    site = listening_site(folder, tls=names)
    with listener(site):
        assert send(site, study(0), **client_tls(ours, ours.sign("sender"))) == [0]


@pytest.mark.parametrize("which", ["none", "another authority's", "expired", "plain text"])
def test_a_wrong_certificate_or_none_does_not(
    site: Site, ours: Authority, which: str, tmp_path: Path
) -> None:
    """Nothing is kept, and the listener goes on for the others."""
    if which == "none":
        options = client_tls(ours, None)
    elif which == "another authority's":
        options = client_tls(ours, authority(tmp_path / "other").sign("sender"))
    elif which == "expired":
        options = client_tls(ours, ours.sign("sender", days=-2))
    else:
        options = {}
    with listener(site):
        with_it = association(site, study(0), **options)
        assert not with_it.is_established
        assert send(site, study(1), **client_tls(ours, ours.sign("sender"))) == [0]
    assert len(held(site)) == 1


def test_old_protocols_are_refused(site: Site, ours: Authority) -> None:
    """TLS 1.1 does not come to an end."""
    context = client_tls(ours, ours.sign("sender"))["tls_args"][0]
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with listener(site):
        assert send(site, study(0), tls_args=(context, "localhost")) == [0]
        old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
        old.load_cert_chain(*ours.sign("old"))
        with pytest.warns(DeprecationWarning, match="TLSv1_1"):
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        with (
            socket.create_connection(("127.0.0.1", site.pacs.listen.port), timeout=10) as wire,
            pytest.raises(OSError),
            old.wrap_socket(wire) as secured,
        ):
            secured.recv(1)


def test_one_that_never_shakes_hands_holds_up_nobody(site: Site, ours: Authority) -> None:
    """Ten silent connections, and the eleventh is served at once."""
    silent = []
    with listener(site):
        try:
            silent = [socket.create_connection(("127.0.0.1", site.pacs.listen.port)) for _ in range(10)]
            assert send(site, study(0), **client_tls(ours, ours.sign("sender"))) == [0]
        finally:
            for wire in silent:
                wire.close()


def test_orthanc_sends_under_tls(tmp_path: Path, site: Site, ours: Authority) -> None:
    """A real archive with its own certificate."""
    certificate, key = ours.sign("archive")
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(certificate),
        "DicomTlsPrivateKey": str(key),
        "DicomTlsTrustedCertificates": str(ours.path),
    }
    with listener(site), running(tmp_path / "orthanc", options) as archive:
        archive.upload(*study(0, 3))
        archive.know("site", CALLED, site.pacs.listen.port, UseDicomTls=True)
        assert archive.store("site", *archive.studies())["FailedInstancesCount"] == 0
    assert len(held(site)) == 3


@pytest.mark.parametrize("change", [{"key": ""}, {"authorities": "/nowhere.pem"}, {"key": "other"}])
def test_certificates_that_do_not_work_are_named_at_the_start(
    tmp_path: Path, ours: Authority, change: dict[str, str]
) -> None:
    """Before anything listens."""
    certificate, key = ours.sign("listener")
    if change.get("key") == "other":
        change = {"key": str(ours.sign("other")[1])}
    tls = {"certificate": str(certificate), "key": str(key), "authorities": str(ours.path), **change}
    site = listening_site(tmp_path / "broken", tls=tls)
    with pytest.raises(SettingsError, match="tls"), listener(site):
        pass
