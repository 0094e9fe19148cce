"""What every key, signature and share of a round is bound to, as digests over unambiguous bytes.

    context   the run, the round, plan, code, and the terms (roster, threshold, coding)
    group     the context, and the signed keys of everybody who takes part
    bond      the group, the commitments and sealed shares that went round, and the model to be trained

Whoever was told anything else than the others has another digest, and with it other masks: the sum is noise
then, never one hospital's update.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Final

from common.messages import Dealt, SignedKeys, Terms
from common.types import Digest, RunId, SiteName

DOMAIN: Final = "consilium/secagg/1"
"""First in everything that is hashed or signed here, so that nothing made for another purpose fits."""


def packed(purpose: str, *parts: object) -> bytes:
    """Parts as bytes that no other parts give: JSON, in which lists and words have one reading each."""
    return json.dumps([DOMAIN, purpose, *parts], separators=(",", ":"), allow_nan=False).encode()


def context_of(run: RunId, round_: int, plan: Digest, code: Digest, terms: Terms) -> bytes:
    """The digest of what is agreed before any key is made; 32 bytes."""
    agreed = [
        terms.roster,
        list(terms.members),
        terms.threshold,
        terms.bits,
        terms.range,
        terms.heaviest,
        terms.values,
    ]
    return _digest("context", run, round_, plan, code, agreed)


def group_of(context: bytes, keys: Iterable[SignedKeys]) -> bytes:
    """The digest of who takes part under which keys; 32 bytes. The keys are in the order of their sites."""
    said = [[one.site, one.mask_key, one.seal_key, one.signature] for one in keys]
    return _digest("group", context.hex(), said)


def bond_of(group: bytes, dealt: Mapping[SiteName, Dealt], model: Digest) -> bytes:
    """The digest from which all masks are derived; 32 bytes."""
    said = [[site, one.commitment, sorted(one.sealed.items())] for site, one in sorted(dealt.items())]
    return _digest("bond", group.hex(), said, model)


def keys_statement(context: bytes, site: str, mask_key: str, seal_key: str) -> bytes:
    """What a hospital's enrolled identity signs about its keys of this round."""
    return packed("keys", context.hex(), site, mask_key, seal_key)


def consent_statement(bond: bytes, alive: Iterable[str], dead: Iterable[str]) -> bytes:
    """What a hospital's enrolled identity signs about who answered and who vanished."""
    return packed("consent", bond.hex(), list(alive), list(dead))


def _digest(purpose: str, *parts: object) -> bytes:
    return hashlib.sha256(packed(purpose, *parts)).digest()
