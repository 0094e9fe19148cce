"""The keys of one round: two X25519 pairs a hospital, signed by its enrolled Ed25519 identity.

One pair gives the pairwise masks, the other seals shares; they are apart because the first one's secret is
opened when its hospital vanishes. X25519 is RFC 7748, HKDF is RFC 5869 over SHA-256.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from common.errors import FederationError
from common.identity import Identity, verify
from common.messages import SignedKeys
from common.secagg.labels import keys_statement, packed
from common.types import SiteName

KEY_BYTES: Final = 32


@dataclass(frozen=True)
class Secrets:
    """What a hospital alone knows in one round; never in a repr."""

    mask: bytes = field(repr=False)
    """X25519 secret whose shared secrets give the pairwise masks."""
    seal: bytes = field(repr=False)
    """X25519 secret under whose shared secrets shares travel."""
    own: bytes = field(repr=False)
    """The seed of the mask of its own."""


def new_secrets() -> Secrets:
    """Fresh secrets from the operating system's generator."""
    return Secrets(*(secrets.token_bytes(KEY_BYTES) for _ in range(3)))


def public_of(secret: bytes) -> str:
    """The public key of an X25519 secret, 64 hexadecimal digits."""
    return X25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw().hex()


def signed_keys(identity: Identity, site: SiteName, held: Secrets, context: bytes) -> SignedKeys:
    """The public keys of this round, signed for this round only."""
    mask_key, seal_key = public_of(held.mask), public_of(held.seal)
    statement = keys_statement(context, site, mask_key, seal_key)
    return SignedKeys(site, mask_key, seal_key, identity.sign(statement))


def genuine(keys: SignedKeys, identity: str, context: bytes) -> bool:
    """Whether the holder of the Ed25519 key `identity` signed these keys for this context."""
    statement = keys_statement(context, keys.site, keys.mask_key, keys.seal_key)
    return keys.mask_key != keys.seal_key and verify(identity, keys.signature, statement)


def agreed(secret: bytes, public: str) -> bytes:
    """The shared secret of two parties; 32 bytes.

    Raises:
        FederationError: `secagg-key` for a public key that is none, or of small order.
    """
    try:
        other = X25519PublicKey.from_public_bytes(bytes.fromhex(public))
        return X25519PrivateKey.from_private_bytes(secret).exchange(other)
    except ValueError:
        raise FederationError(
            "secure aggregation", "a public key is none", "Look at the site it names", code="secagg-key"
        ) from None


def derived(material: bytes, salt: bytes, purpose: str, *parts: str) -> bytes:
    """32 bytes for one purpose only, from secret material and the digest it is bound to."""
    info = packed(purpose, *parts)
    return HKDF(algorithm=hashes.SHA256(), length=KEY_BYTES, salt=salt, info=info).derive(material)


def pair_seed(secret: bytes, own: str, public: str, other: str, bond: bytes) -> bytes:
    """The seed of the mask between two hospitals; the same for both."""
    first, second = sorted((own, other))
    return derived(agreed(secret, public), bond, "pair", first, second)


def own_seed(own: bytes, site: str, bond: bytes) -> bytes:
    """The seed of a hospital's own mask."""
    return derived(own, bond, "own", site)


def commitment_of(own: bytes, site: str, group: bytes) -> str:
    """What binds a hospital to its own seed before it is opened; 64 hexadecimal digits that say nothing of it."""
    return derived(own, group, "commitment", site).hex()
