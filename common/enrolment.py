"""What a hospital and its federation say to each other outside of rounds: JSON over TLS.

A request to enrol is signed by the hospital's own key, so that a request cannot be put under another name or
key on its way; a refusal carries a code, a rule and a remedy, never more than this file allows.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any, Final, TypeVar

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked

from common.errors import FederationError
from common.identity import Identity, verify

PREFIX: Final = "/consilium/v1"
SKEW_S: Final = 120
"""Seconds that two clocks may be apart."""
_STRICT: Final = ConfigDict(extra="forbid")
_DOMAIN: Final = "consilium/enrol/1"
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
Hex = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Pem = Annotated[str, Field(max_length=8192)]
T = TypeVar("T")


@checked(frozen=True, config=_STRICT)
class Ask:
    """A hospital asks to be enrolled, or asks again whether it was admitted."""

    federation: Annotated[str, Field(max_length=128)]
    site: Name
    identity: Hex
    """The key it will sign with."""
    node: Pem
    """Public key of its Flower node."""
    request: Pem
    """Request for a certificate."""
    time: int
    """Its clock, in seconds since 1970 UTC."""
    code: Annotated[str, Field(max_length=128)] = ""
    """The one-time code; empty when asking again."""
    signature: Annotated[str, Field(max_length=128)] = ""


@checked(frozen=True, config=_STRICT)
class Renew:
    """A hospital asks for its next certificate, over a connection with its present one."""

    request: Pem
    time: int
    signature: Annotated[str, Field(max_length=128)] = ""


@checked(frozen=True, config=_STRICT)
class Answer:
    """What the federation says to either: a certificate, or that somebody has to admit the hospital first."""

    admitted: bool
    certificate: str = ""
    roster: str = ""
    """JSON of the newest roster; only with the first certificate."""


@checked(frozen=True, config=_STRICT)
class Refused:
    """A refusal on its way to a hospital."""

    code: str
    subject: str
    rule: str
    remedy: str


def sign(message: T, identity: Identity, to: str) -> T:
    """The same message under this identity's signature, for this federation's server alone.

    Args:
        message: an `Ask` or a `Renew`.
        identity: the hospital's.
        to: public key of the server.
    """
    values = asdict(message) | {"signature": ""}  # type: ignore[call-overload]  # a dataclass of this module
    return type(message)(**(values | {"signature": identity.sign(_signed(values, to))}))


def signed_by(message: Ask | Renew, key: str, to: str) -> bool:
    """Whether the holder of `key` signed this message for the server `to`."""
    return verify(key, message.signature, _signed(asdict(message) | {"signature": ""}, to))


def parse(kind: type[T], text: bytes) -> T:
    """A message from JSON.

    Raises:
        FederationError: `message`, without saying what was in it.
    """
    try:
        return TypeAdapter(kind).validate_json(text)
    except ValidationError:
        raise FederationError(
            "message", "it is not one of this release", "Install the federation's release", code="message"
        ) from None


def check_clock(theirs: int, now: float, whose: str) -> None:
    """Whether two clocks agree well enough.

    Raises:
        FederationError: `clock`, with how far they are apart.
    """
    ahead = theirs - now
    if abs(ahead) > SKEW_S:
        word = "ahead of" if ahead > 0 else "behind"
        raise FederationError(
            f"the clock of {whose}",
            f"it is {abs(ahead):.0f} seconds {word} the federation's; {SKEW_S} are allowed",
            "Set both machines' clocks by NTP and try again",
            code="clock",
        )


def refusal(error: FederationError) -> dict[str, Any]:
    """A refusal as JSON values."""
    return asdict(Refused(error.code, error.subject, error.rule, error.remedy))


def _signed(values: dict[str, Any], to: str) -> bytes:
    return json.dumps([_DOMAIN, to, values], sort_keys=True, separators=(",", ":")).encode()
