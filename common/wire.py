"""Messages as bytes, and as Flower records around those bytes.

The bytes are a safetensors file: the tensors as they are, and in the metadata one JSON object with
the kind of message, its other fields, and the order of the tensors. The same bytes go through Flower and through
the hospital's socket, and their digest is what a site's audit log records. Decoding runs no code and accepts
only what `common.messages` declares. A courier handles bytes only; heavier imports are made when a message is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final, NoReturn

from flwr.app import Array, ConfigRecord, RecordDict

from common import tensors, wire_fields
from common.envelope import is_sealed, split
from common.errors import FederationError
from common.messages import (
    Consent,
    Countersignature,
    Instruction,
    Keys,
    Masked,
    Opened,
    Refusal,
    Shares,
    SiteMetrics,
    Tally,
    Update,
)
from common.parts import RECORD, array_of, bytes_of, parts, parts_in, recorded
from common.tensors import Blob
from common.types import Arrays

Message = Instruction | Update | SiteMetrics | Refusal | Keys | Shares | Masked | Consent | Opened | Tally
_WITH_ARRAYS: Final = (Instruction, Update, Masked)

VIRTUAL: Final = "virtual"
_KINDS: Final[dict[str, type[Message]]] = {
    "instruction": Instruction,
    "update": Update,
    "metrics": SiteMetrics,
    "refusal": Refusal,
    "keys": Keys,
    "shares": Shares,
    "masked": Masked,
    "consent": Consent,
    "opened": Opened,
    "tally": Tally,
}


def pack(message: Message) -> bytes:
    """The message as bytes; its tensors keep their dtype and order.

    Raises:
        FederationError: code `wire` when a number is not finite or a value is not a message's.
    """
    return b"".join(pieces(message))


def pieces(message: Message) -> Iterator[bytes | memoryview]:
    """The bytes of `pack` in pieces, of which none is a copy of a tensor; see `common.tensors.pieces`.

    Raises:
        FederationError: as `pack`.
    """
    kind = next((k for k, cls in _KINDS.items() if type(message) is cls), None)
    if kind is None:
        _malformed()
    arrays = dict(getattr(message, "arrays", {}))
    bare = replace(message, arrays={}) if isinstance(message, _WITH_ARRAYS) else message
    body = asdict(bare)
    body.pop("arrays", None)
    try:
        text = json.dumps({"kind": kind, "body": body, "order": list(arrays)}, allow_nan=False)
        # One key, because safetensors keeps no order among several, and the bytes are to be the same.
        metadata = {RECORD: text}
        yield from tensors.pieces(arrays, metadata)
    except (ValueError, TypeError, KeyError):
        _malformed()


def unpack(blob: Blob, *, viewed: tuple[type[Message], ...] = ()) -> Message:
    """The message in these bytes, each field checked against its declared type.

    Args:
        blob: of `pack`.
        viewed: kinds of messages whose tensors are views into `blob`, not to be written; others get copies.

    Raises:
        FederationError: code `wire` for anything that is not exactly a message.
    """

    def arrays(kind: type[Message], found: Arrays, order: list[str]) -> Arrays:
        if kind in viewed:
            return tensors.Mapped(blob, found).ordered(order)
        return {name: found[name].copy() for name in order}

    return _unpacked(blob, arrays)


def unpack_file(path: Path, offset: int = 0) -> Message:
    """The message in a file; its tensors stay there, mapped, and memory holds one of them at a time.

    Raises:
        FederationError: as `unpack`.
        StorageError: when the file cannot be read.
    """
    try:
        pages, found = tensors.mapped(path, offset)
    except (ValueError, RecursionError):
        _malformed()
    return _unpacked(memoryview(pages)[offset:], lambda _kind, _found, order: found.ordered(order))


def _unpacked(blob: tensors.Buffer, arrays: Callable[[type[Message], Arrays, list[str]], Arrays]) -> Message:
    from pydantic import ValidationError  # noqa: PLC0415 - a courier that only forwards never pays for it

    try:
        message = _read_head(blob)
        kind = _KINDS[message["kind"]]
        order: list[str] = message["order"]
        found = tensors.views(blob)
        values = wire_fields.checked(kind, message["body"])
        if sorted(order) != sorted(found) or (found and kind not in _WITH_ARRAYS):
            _malformed()
        if kind in _WITH_ARRAYS:
            values["arrays"] = arrays(kind, found, order)
        return kind(**values)
    except (
        ValidationError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        _malformed()


def head(blob: Blob) -> dict[str, Any]:
    """The fields of a message without its tensors, unchecked; empty when it cannot be read."""
    try:
        body = _read_head(split(blob)[1] if isinstance(blob, bytes) and is_sealed(blob) else blob)["body"]
    except (ValueError, KeyError, TypeError, RecursionError, FederationError):
        return {}
    return body if isinstance(body, dict) else {}


def addressed(blob: bytes, countersignature: Mapping[str, Any]) -> bytes:
    """The same instruction with one site's countersignature in it; its tensors are not read.

    Raises:
        FederationError: code `wire` when these bytes are no instruction.
    """
    try:
        size = int.from_bytes(blob[:8], "little")
        header = json.loads(blob[8 : 8 + size])
        message = _read_head(blob)
        if message["kind"] != "instruction":
            _malformed()
        message["body"]["countersignature"] = dict(countersignature)
        header["__metadata__"] = {RECORD: json.dumps(message, allow_nan=False)}
        text = json.dumps(header, separators=(",", ":")).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        _malformed()
    # A header is padded with blanks, so that the tensors behind it begin at a multiple of eight.
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, memoryview(blob)[8 + size :]))


def to_records(
    blob: Blob | Mapping[str, Array],
    virtual: str = "",
    countersignature: Countersignature | None = None,
    envelope: bytes = b"",
) -> RecordDict:
    """Bytes, or the arrays that `common.parts.parts` made of them, as the content of a Flower message.

    `countersignature` belongs to one site: it travels beside the bytes that all sites share, and the courier
    puts it in (`from_records`). So does the head of an `envelope`; in it the countersignature is sealed, too.
    `virtual` names the folder of a virtual federation. Only a node that Flower's simulation runtime
    made looks at it (`client.app`).
    """
    if not envelope and isinstance(blob, bytes) and is_sealed(blob):
        envelope, blob = split(blob)
    arrays = dict(blob if isinstance(blob, Mapping) else parts(blob))
    if envelope:
        arrays["envelope"] = array_of(envelope)
    elif countersignature is not None:
        arrays["countersignature"] = array_of(beside(countersignature))
    records = RecordDict({RECORD: recorded(arrays)})
    if virtual:
        records[VIRTUAL] = ConfigRecord({"federation": virtual})
    return records


def from_records(records: RecordDict) -> bytes:
    """The bytes in a Flower message, a countersignature beside them put in.

    Raises:
        FederationError: code `wire` when the records are not ours.
    """
    try:
        arrays = records.array_records[RECORD]
        body = parts_in(arrays)
        if "envelope" in arrays:
            return b"".join((bytes_of(arrays["envelope"]), *body))
        blob = b"".join(body)
        return with_beside(
            blob, bytes(bytes_of(arrays["countersignature"])) if "countersignature" in arrays else b""
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        _malformed()


def parts_of(records: RecordDict) -> tuple[bytes, bytes]:
    """The head of the envelope, empty where there is none, and the body; errors as `spread`."""
    head_, body, _ = spread(records)
    return head_, b"".join(body)


def spread(records: RecordDict) -> tuple[bytes, list[bytes | memoryview], bytes]:
    """Envelope, what all sites share in parts, and what travels beside it for one; nothing is copied.

    Raises:
        FederationError: code `wire` when the records are not ours.
    """
    try:
        arrays = records.array_records[RECORD]
        own = [bytes(bytes_of(arrays[n])) if n in arrays else b"" for n in ("envelope", "countersignature")]
        return own[0], parts_in(arrays), own[1]
    except (KeyError, ValueError, TypeError):
        _malformed()


def beside(countersignature: Countersignature) -> bytes:
    """A countersignature as it travels beside what all sites share."""
    return json.dumps(asdict(countersignature)).encode()


def with_beside(blob: bytes, own: bytes) -> bytes:
    """An instruction with what travelled beside it put in; the same bytes where nothing did.

    Raises:
        FederationError: code `wire`.
    """
    try:
        return addressed(blob, json.loads(own)) if own else blob
    except (ValueError, TypeError, RecursionError):
        _malformed()


def _read_head(blob: tensors.Buffer) -> dict[str, Any]:
    size = int.from_bytes(bytes(blob[:8]), "little")
    header = json.loads(bytes(blob[8 : 8 + size]))
    message = json.loads(header["__metadata__"][RECORD], parse_constant=_not_a_number)
    if set(message) != {"kind", "body", "order"}:
        _malformed()
    return dict(message)


def _not_a_number(_text: str) -> NoReturn:
    _malformed()


def _malformed() -> NoReturn:
    raise FederationError(
        "message", "it is not one of the messages both sides agreed on", "Compare the releases", code="wire"
    ) from None
