"""Messages as bytes, and as Flower records around those bytes.

The bytes are a safetensors file: the tensors as they are, and in the metadata one JSON object with
the kind of message, its other fields, and the order of the tensors. The same bytes go through Flower and through
the hospital's socket, and their digest is what a site's audit log records. Decoding runs no code
and accepts only what `common.messages` declares.

A courier handles bytes only; the heavier imports are made when a message is read.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any, Final, NoReturn, get_type_hints

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

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
    Update,
)

Message = Instruction | Update | SiteMetrics | Refusal | Keys | Shares | Masked | Consent | Opened
_WITH_ARRAYS: Final = (Instruction, Update, Masked)

RECORD: Final = "consilium"
VIRTUAL: Final = "virtual"
_STYPE: Final = "consilium/1"
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
}


def pack(message: Message) -> bytes:
    """The message as bytes; its tensors keep their dtype and order.

    Raises:
        FederationError: code `wire` when a number is not finite or a value is not a message's.
    """
    from safetensors.numpy import save  # noqa: PLC0415 - a courier that only forwards never pays for it

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
        return bytes(save({n: np.ascontiguousarray(a) for n, a in arrays.items()}, metadata=metadata))
    except (ValueError, TypeError, KeyError):
        _malformed()


def unpack(blob: bytes) -> Message:
    """The message in these bytes, each field checked against its declared type.

    Raises:
        FederationError: code `wire` for anything that is not exactly a message.
    """
    from pydantic import ValidationError  # noqa: PLC0415 - as above
    from safetensors import SafetensorError  # noqa: PLC0415
    from safetensors.numpy import load  # noqa: PLC0415

    try:
        message = _read_head(blob)
        kind = _KINDS[message["kind"]]
        order: list[str] = message["order"]
        tensors = load(blob)
        _check_finite(message["body"])
        values = _validated(message["kind"], message["body"])
        if sorted(order) != sorted(tensors) or (tensors and kind not in _WITH_ARRAYS):
            _malformed()
        if kind in _WITH_ARRAYS:
            values["arrays"] = {name: tensors[name] for name in order}
        return kind(**values)
    except (
        ValidationError,
        SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        RecursionError,
    ):
        _malformed()


def head(blob: bytes) -> dict[str, Any]:
    """The fields of a message without its tensors, unchecked; empty when it cannot be read."""
    try:
        body = _read_head(split(blob)[1] if is_sealed(blob) else blob)["body"]
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
    blob: bytes, virtual: str = "", countersignature: Countersignature | None = None, envelope: bytes = b""
) -> RecordDict:
    """Bytes as the content of a Flower message.

    `countersignature` belongs to one site: it travels beside the bytes that all sites share, and the courier
    puts it in (`from_records`), so that a server holds one copy of the model and not one for every site.
    For the same reason the head of an `envelope` travels beside its body; in it the countersignature is sealed, too.
    `virtual` names the folder of a virtual federation. Only a node that Flower's simulation runtime
    made looks at it (`client.app`).
    """
    if not envelope and is_sealed(blob):
        envelope, blob = split(blob)
    arrays = {"message": _array(blob)}
    if envelope:
        arrays["envelope"] = _array(envelope)
    elif countersignature is not None:
        arrays["countersignature"] = _array(beside(countersignature))
    records = RecordDict({RECORD: ArrayRecord(arrays)})
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
        blob = _bytes_of(arrays["message"])
        if "envelope" in arrays:
            return _bytes_of(arrays["envelope"]) + blob
        return with_beside(
            blob, _bytes_of(arrays["countersignature"]) if "countersignature" in arrays else b""
        )
    except (KeyError, ValueError, TypeError, RecursionError):
        _malformed()


def parts_of(records: RecordDict) -> tuple[bytes, bytes]:
    """The head of the envelope, empty where there is none, and the body; nothing is copied.

    Raises:
        FederationError: code `wire` when the records are not ours.
    """
    try:
        arrays = records.array_records[RECORD]
        head_ = _bytes_of(arrays["envelope"]) if "envelope" in arrays else b""
        return head_, _bytes_of(arrays["message"])
    except (KeyError, ValueError, TypeError):
        _malformed()


def shared_of(records: RecordDict) -> tuple[bytes, bytes]:
    """The bytes that all sites share, and what travels beside them for one; nothing is copied.

    Raises:
        FederationError: code `wire` when the records are not ours.
    """
    try:
        arrays = records.array_records[RECORD]
        own = _bytes_of(arrays["countersignature"]) if "countersignature" in arrays else b""
        return _bytes_of(arrays["message"]), own
    except (KeyError, ValueError, TypeError):
        _malformed()


def beside(countersignature: Countersignature) -> bytes:
    """A countersignature as it travels beside the bytes that all sites share."""
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


def _array(blob: bytes) -> Array:
    return Array(dtype="uint8", shape=(len(blob),), stype=_STYPE, data=blob)


def _bytes_of(array: Array) -> bytes:
    if array.stype != _STYPE or not isinstance(array.data, bytes):
        _malformed()
    return array.data


def _read_head(blob: bytes) -> dict[str, Any]:
    size = int.from_bytes(blob[:8], "little")
    header = json.loads(blob[8 : 8 + size])
    message = json.loads(header["__metadata__"][RECORD], parse_constant=_not_a_number)
    if set(message) != {"kind", "body", "order"}:
        _malformed()
    return dict(message)


@functools.cache
def _adapters(name: str) -> dict[str, Any]:
    from pydantic import TypeAdapter  # noqa: PLC0415 - as above

    kind = _KINDS[name]
    hints = get_type_hints(kind)
    return {f.name: TypeAdapter(hints[f.name]) for f in fields(kind) if f.name != "arrays"}


def _validated(kind: str, body: dict[str, Any]) -> dict[str, Any]:
    adapters = _adapters(kind)
    if set(body) != set(adapters):
        _malformed()
    return {name: a.validate_json(json.dumps(body[name]), strict=True) for name, a in adapters.items()}


def _check_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        _malformed()
    for part in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_finite(part)


def _not_a_number(_text: str) -> NoReturn:
    _malformed()


def _malformed() -> NoReturn:
    raise FederationError(
        "message", "it is not one of the messages both sides agreed on", "Compare the releases", code="wire"
    ) from None
