"""The one door out of a hospital: typed records, suppressed, coarsened, measured, written down, then bytes.

The rules, in order:
1. Only an Update, SiteMetrics, Tally, Refusal or an answer of a masked round leaves; every field has its declared type,
   every number is finite, every word is of its field's closed list or form (`client.vocabulary`).
2. Figures and groups that the policy does not name are taken out; so is the learning curve of a private plan.
3. Groups with a cell below the minimum become None, figures, counts and name, and so does what would tell them by
   subtraction. The minimum is the larger of the plan's and the policy's (`client.coarsen`).
4. What is left leaves coarsened: patients in steps of five, files in tens or two digits, figures to 0.001.
5. The message's size, SHA-256 and addressee are in the site's audit log before the bytes are handed over.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

from client.addressee import Addressee
from client.coarsen import Rules, cleaned
from client.vocabulary import may_be_said
from common import wire
from common.audit import AuditLog
from common.errors import FederationError, PolicyRefused
from common.messages import (
    Consent,
    Keys,
    Masked,
    Opened,
    Refusal,
    Reply,
    Shares,
    SiteMetrics,
    Tally,
    Update,
)
from common.types import Digest

_LEAVE: Final = (Update, SiteMetrics, Refusal, Keys, Shares, Masked, Consent, Opened, Tally)
_PLAIN: Final = (np.float32, np.int8, np.int16)
_MASKED: Final = (np.uint8, np.uint16, np.uint32, np.uint64)
"""A masked update is integers modulo a power of two, so that a plain one cannot pass for it."""
NOBODY: Final = Addressee()
RELEASED: Final = "egress.release"
"""The event under which the audit log has everything that left."""


@dataclass(frozen=True)
class Released:
    """What left: the record as suppressed, and the very bytes that were written down."""

    reply: Reply
    blob: bytes


class Egress:
    """The door of one hospital."""

    def __init__(self, audit: AuditLog) -> None:
        self._audit = audit

    def release(
        self,
        reply: Reply,
        rules: Rules,
        to: Addressee = NOBODY,
        keep: Callable[[bytes], None] | None = None,
    ) -> Released:
        """Suppress, coarsen, check, write down, and return the bytes that may leave.

        Args:
            reply: as the work produced it, exact.
            rules: of policy and plan.
            to: for the log.
            keep: given the bytes before anything else is done with them.

        Raises:
            PolicyRefused: code `egress` when the reply is not what may leave.
            StorageError: when the audit log cannot be written; then nothing leaves.
        """
        clean = cleaned(reply, rules)
        check(clean)
        try:
            blob = wire.pack(clean)
        except FederationError:
            raise _refused("its fields are not those of a message") from None
        if keep is not None:
            keep(blob)
        self._write_down(clean, blob, to)
        return Released(clean, blob)

    def again(self, blob: bytes, to: Addressee = NOBODY) -> Released:
        """Let bytes that left before leave once more; they are written down once more, too.

        Raises:
            PolicyRefused: code `egress` when they are not a reply of today's rules for words and numbers.
            StorageError: as `release`.
        """
        try:
            reply = wire.unpack(blob)
        except FederationError:
            raise _refused("its bytes are not those of a message") from None
        if not isinstance(reply, _LEAVE):
            raise _refused("only an Update, SiteMetrics, a Refusal or an answer of a masked round may leave")
        check(reply)
        self._write_down(reply, blob, to)
        return Released(reply, blob)

    def _write_down(self, reply: Reply, blob: bytes, to: Addressee) -> None:
        fields: dict[str, object] = {
            "kind": type(reply).__name__.lower(),
            "run": reply.run,
            "round": reply.round,
            "bytes": len(blob),
            "digest": digest_of(blob),
            **to.fields,
        }
        if isinstance(reply, Refusal):
            fields["code"] = reply.code
        self._audit.append(RELEASED, **fields)


def digest_of(blob: bytes) -> Digest:
    """SHA-256 of the bytes of a message, as the audit log names them."""
    return Digest("sha256:" + hashlib.sha256(blob).hexdigest())


def check(reply: object) -> None:
    """Refuse whatever is not one of the records that may leave, with finite numbers and known words.

    Raises:
        PolicyRefused: code `egress`.
    """
    if type(reply) not in _LEAVE:
        raise _refused("only an Update, SiteMetrics, a Refusal or an answer of a masked round may leave")
    arrays = getattr(reply, "arrays", {})
    for array in arrays.values() if isinstance(arrays, dict) else ():
        _check_array(array, _MASKED if isinstance(reply, Masked) else _PLAIN)
    _check_value(reply, "")


def _check_value(value: object, name: str, group: str = "") -> None:
    if value is None or isinstance(value, (bool, int)):
        return
    if isinstance(value, float):
        if not math.isfinite(value):
            raise _refused("a number is not finite")
    elif isinstance(value, str):
        if not may_be_said(name, value, group):
            raise _refused("a word is not of its field's list or form")
    elif isinstance(value, np.ndarray):
        _check_array(value, (*_PLAIN, *_MASKED))
    else:
        for part, of in _parts(value, name):
            _check_value(part, of, getattr(value, "group", ""))


def _parts(value: object, name: str) -> list[tuple[object, str]]:
    """What a value is made of, each with the name of its field."""
    if dataclasses.is_dataclass(value) and type(value).__module__.startswith("common.messages"):
        return [(getattr(value, field.name), field.name) for field in dataclasses.fields(value)]
    if isinstance(value, tuple):
        return [(part, name) for part in value]
    if isinstance(value, dict):
        return [(part, name) for part in (*value.keys(), *value.values())]
    raise _refused("a value is of a kind that never leaves")


def _check_array(array: object, kinds: tuple[type, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype not in kinds:
        raise _refused("a tensor is not of the kind that this message holds")
    if not bool(np.all(np.isfinite(array))):
        raise _refused("a tensor holds a value that is not finite")


def _refused(rule: str) -> PolicyRefused:
    return PolicyRefused("reply", rule, "Look at what produced it; nothing has left", code="egress")
