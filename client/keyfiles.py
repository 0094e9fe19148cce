"""The keys with which this hospital opens connections, and how one pair follows another.

<secrets>/tls.key, tls.crt  opens its connections; 90 days, renewed with a new key each time
<secrets>/tls-next.*        the next pair while it is being asked for
<secrets>/node.key          of its Flower node, in OpenSSH's format, as Flower wants it; new with each enrolment
<secrets>/node-next.key     the same while it is being enrolled

A change that was cut short is finished by the next `settle`: the new certificate is on disk before the key is moved.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from common.certificates import Certificate, load_key, make_key, public_pem, request, write_new
from common.checkpoints import write_whole
from common.errors import StorageError

if TYPE_CHECKING:
    from client.site import Site

NODE: Final = "node.key"
NODE_NEXT: Final = "node-next.key"


def next_key(site: Site) -> ec.EllipticCurvePrivateKey:
    """The key to ask a certificate for: that of a request nobody answered yet, or a new one."""
    settle(site)
    path = site.secrets / "tls-next.key"
    if path.exists():
        return load_key(path)
    path.with_suffix(".csr").unlink(missing_ok=True)
    return make_key(path)


def request_of(site: Site, key: ec.EllipticCurvePrivateKey) -> str:
    """The request for this key, the same text each time, so that a repeated one is known as such."""
    path = site.secrets / "tls-next.csr"
    if not path.exists():
        write_whole(path, request(key, site.name).encode())
    return path.read_text()


def node_public(site: Site) -> str:
    """Public key of the Flower node to enrol, PEM; a new one each time, for Flower takes none back that left."""
    path = site.secrets / NODE_NEXT
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        kind = serialization.PrivateFormat.OpenSSH
        write_new(path, key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    read = serialization.load_ssh_private_key(path.read_bytes(), None)
    if not isinstance(read, ec.EllipticCurvePrivateKey):
        raise StorageError(path.name, "it holds no key of a node", "Remove it and enrol again")
    return public_pem(read)


def enrolling(site: Site) -> bool:
    """Whether a request to enrol waits for its answer."""
    settle(site)
    return (site.secrets / NODE_NEXT).exists()


def take(site: Site, given: Certificate) -> None:
    """Put the new pair in place of the old one; the certificate's arrival beside its key is what decides."""
    write_whole(site.secrets / "tls-next.crt", given.pem.encode())
    settle(site)


def settle(site: Site) -> None:
    """Finish a change of the pair that was cut short; nothing where there is none."""
    new, old = site.secrets / "tls-next.crt", site.secrets / "tls.crt"
    if not new.exists():
        return
    key: Path = site.secrets / "tls-next.key"
    node = site.secrets / NODE_NEXT
    if node.exists():
        node.replace(site.secrets / NODE)
    if key.exists():
        key.replace(site.secrets / "tls.key")
    new.replace(old)
    (site.secrets / "tls-next.csr").unlink(missing_ok=True)
