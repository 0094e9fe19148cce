"""Does the authority certify what it was told and nothing a request asks for, and is its key kept?"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from common.certificates import belongs, certified, load_key, make_key, read_certificate, request
from common.errors import ConsiliumError
from common.pki import AUTHORITY_DAYS, CERTIFICATE_DAYS, Authority, Revoked

PASSPHRASE = b"a long enough passphrase"


def refused(code, action):
    with pytest.raises(ConsiliumError) as refusal:
        action()
    assert refusal.value.code == code


def test_a_certificate_is_for_the_key_asked_and_the_name_given(tmp_path):
    """A request that names another hospital gets the name that the consortium decided."""
    authority = Authority.make("lungs", PASSPHRASE)
    key = make_key(tmp_path / "tls.key")
    given = authority.issue(request(key, "somebody-else"), "st-anna", "lungs")
    assert (given.name, given.federation) == ("st-anna", "lungs")
    assert belongs(given.pem, key)
    assert not belongs(given.pem, make_key(tmp_path / "two.key"))
    assert certified(given.pem, authority.pem)
    assert not certified(given.pem, Authority.make("lungs", PASSPHRASE).pem)
    assert read_certificate(given.pem) == given
    left = given.left(datetime.now(UTC))
    assert timedelta(days=CERTIFICATE_DAYS - 1) < left <= timedelta(days=CERTIFICATE_DAYS)


def test_a_certificate_can_be_a_client_only_and_certify_nobody(tmp_path):
    authority = Authority.make("lungs", PASSPHRASE)
    given = authority.issue(request(make_key(tmp_path / "k"), "a"), "st-anna", "lungs")
    read = x509.load_pem_x509_certificate(given.pem.encode())
    assert list(read.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert not read.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_that_is_none_or_is_not_signed_by_its_key_is_refused(tmp_path):
    authority = Authority.make("lungs", PASSPHRASE)
    good = x509.load_pem_x509_csr(request(make_key(tmp_path / "k"), "a").encode())
    broken = bytearray(good.public_bytes(serialization.Encoding.DER))
    broken[-1] ^= 1
    forged = x509.load_der_x509_csr(bytes(broken)).public_bytes(serialization.Encoding.PEM).decode()
    for key in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP384R1())):
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
        other = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()
        refused("request", lambda other=other: authority.issue(other, "a", "lungs"))
    for text in ("", "hello", forged):
        refused("request", lambda text=text: authority.issue(text, "a", "lungs"))


def test_the_authoritys_key_lies_encrypted_and_opens_with_its_passphrase_alone(tmp_path):
    made = Authority.make("lungs", PASSPHRASE)
    made.save(tmp_path, PASSPHRASE)
    text = (tmp_path / "ca.key").read_bytes()
    assert b"ENCRYPTED PRIVATE KEY" in text
    assert (tmp_path / "ca.key").stat().st_mode & 0o777 == 0o600
    assert Authority.load(tmp_path, PASSPHRASE).pem == made.pem
    refused("passphrase", lambda: Authority.load(tmp_path, b"another passphrase here"))
    refused("key-exists", lambda: made.save(tmp_path, PASSPHRASE))
    refused("passphrase", lambda: Authority.make("lungs", b"short"))
    Authority.make("lungs", PASSPHRASE).save(tmp_path / "two", PASSPHRASE)
    (tmp_path / "ca.crt").write_bytes((tmp_path / "two" / "ca.crt").read_bytes())
    refused("key-missing", lambda: Authority.load(tmp_path, PASSPHRASE))
    refused("key-missing", lambda: Authority.load(tmp_path / "nowhere", PASSPHRASE))


def test_the_revocation_list_names_the_revoked_and_outlives_every_certificate(tmp_path):
    authority = Authority.make("lungs", PASSPHRASE)
    given = authority.issue(request(make_key(tmp_path / "k"), "a"), "st-anna", "lungs")
    now = datetime.now(UTC)
    text = authority.revocations([Revoked(given.serial, now)])
    read = x509.load_pem_x509_crl(text.encode())
    assert read.get_revoked_certificate_by_serial_number(given.serial) is not None
    assert read.get_revoked_certificate_by_serial_number(given.serial + 1) is None
    assert read.next_update_utc - now > timedelta(days=AUTHORITY_DAYS - 1)
    assert read.is_signature_valid(x509.load_pem_x509_certificate(authority.pem.encode()).public_key())


def test_a_server_certificate_names_hosts_and_addresses(tmp_path):
    authority = Authority.make("lungs", PASSPHRASE)
    asked = request(make_key(tmp_path / "edge.key"), "edge")
    given = authority.issue_server(asked, "lungs", ["consilium.example", "127.0.0.9"])
    (tmp_path / "edge.crt").write_text(given.pem)
    ssl.create_default_context().load_cert_chain(tmp_path / "edge.crt", tmp_path / "edge.key")
    names = x509.load_pem_x509_certificate(given.pem.encode()).extensions.get_extension_for_class(
        x509.SubjectAlternativeName
    )
    assert names.value.get_values_for_type(x509.DNSName) == ["consilium.example"]
    assert [str(one) for one in names.value.get_values_for_type(x509.IPAddress)] == ["127.0.0.9"]


def test_a_missing_or_broken_connection_key_is_named(tmp_path):
    refused("key-missing", lambda: load_key(tmp_path / "tls.key"))
    (tmp_path / "tls.key").write_text("no key")
    refused("key-unreadable", lambda: load_key(tmp_path / "tls.key"))
    refused("key-exists", lambda: make_key(tmp_path / "tls.key"))
    refused("certificate", lambda: read_certificate("no certificate"))
