"""A secret in shares, any `threshold` of which give it back and fewer say nothing; and shares under seal.

Shamir's scheme (1979) over GF(2^128) is PyCryptodome's, sixteen bytes at a time; see docs/adr/0015. A share is
sealed for its holder with AES-256-GCM under a key that the two parties alone have.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from Crypto.Protocol.SecretSharing import Shamir
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from common.errors import FederationError, WrongOrder
from common.secagg.keys import KEY_BYTES, agreed, derived
from common.secagg.labels import packed

_BLOCK: Final = 16
_NONCE_BYTES: Final = 12


@dataclass(frozen=True)
class Share:
    """What one holder keeps of one hospital's two secrets; 32 bytes each; never in a repr."""

    mask: bytes = field(repr=False)
    """Of the secret behind the pairwise masks; given away when its hospital vanished."""
    own: bytes = field(repr=False)
    """Of the seed of its own mask; given away when its hospital answered."""


def split(secret: bytes, threshold: int, holders: int) -> tuple[bytes, ...]:
    """Shares of 32 secret bytes for holders 1 to `holders`, in that order.

    Raises:
        WrongOrder: for a threshold below 2 or above the number of holders: a programmer's mistake.
    """
    if not 2 <= threshold <= holders or len(secret) != KEY_BYTES:
        raise WrongOrder("shares", "the threshold or the secret is not one", "Check the terms first")
    parts = [secret[at : at + _BLOCK] for at in range(0, KEY_BYTES, _BLOCK)]
    dealt = [Shamir.split(threshold, holders, part, ssss=False) for part in parts]
    return tuple(b"".join(one[holder][1] for one in dealt) for holder in range(holders))


def combine(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """The secret from the shares of at least `threshold` holders, numbered from 1.

    Raises:
        WrongOrder: for fewer shares, or shares that are none.
    """
    chosen = sorted(shares.items())[:threshold]
    if len(chosen) < max(threshold, 2) or any(len(share) != KEY_BYTES for _, share in chosen):
        raise WrongOrder("shares", "there are too few, or one is none", "Count them first")
    return b"".join(
        Shamir.combine([(holder, share[at : at + _BLOCK]) for holder, share in chosen], ssss=False)
        for at in range(0, KEY_BYTES, _BLOCK)
    )


@dataclass(frozen=True)
class Route:
    """From whom to whom a share travels, and in which group."""

    sender: str
    holder: str
    group: bytes

    def key(self, secret: bytes, public: str) -> bytes:
        """The key of this direction, from either side's secret and the other's public key."""
        return derived(agreed(secret, public), self.group, "seal", self.sender, self.holder)

    @property
    def label(self) -> bytes:
        """What a sealed share is bound to besides its key."""
        return packed("share", self.sender, self.holder, self.group.hex())


def seal(share: Share, route: Route, secret: bytes, public: str) -> str:
    """The share for its holder, in base64: nonce, ciphertext, tag; 124 characters."""
    nonce = secrets.token_bytes(_NONCE_BYTES)
    closed = AESGCM(route.key(secret, public)).encrypt(nonce, share.mask + share.own, route.label)
    return base64.b64encode(nonce + closed).decode()


def unseal(text: str, route: Route, secret: bytes, public: str) -> Share:
    """The share in these characters.

    Raises:
        FederationError: `secagg-share` when it was not sealed by its sender for this holder in this group.
    """
    try:
        closed = base64.b64decode(text, validate=True)
        opened = AESGCM(route.key(secret, public)).decrypt(
            closed[:_NONCE_BYTES], closed[_NONCE_BYTES:], route.label
        )
    except (InvalidTag, ValueError, binascii.Error):
        opened = b""
    if len(opened) != 2 * KEY_BYTES:
        raise FederationError(
            "secure aggregation",
            f"the share that {route.sender} sent does not open",
            "Another was put in its place, or the sites were told different things; the round is over here",
            code="secagg-share",
        )
    return Share(opened[:KEY_BYTES], opened[KEY_BYTES:])
