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

from common.errors import FederationError
from common.messages import Countersignature, Instruction, Refusal, SiteMetrics, Update

Message = Instruction | Update | SiteMetrics | Refusal

RECORD: Final = "consilium"
VIRTUAL: Final = "virtual"
_STYPE: Final = "consilium/1"
_KINDS: Final[dict[str, type[Message]]] = {
    "instruction": Instruction,
    "update": Update,
    "metrics": SiteMetrics,
    "refusal": Refusal,
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
    bare = replace(message, arrays={}) if isinstance(message, (Instruction, Update)) else message
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
        if sorted(order) != sorted(tensors) or (tensors and kind not in (Instruction, Update)):
            _malformed()
        if kind in (Instruction, Update):
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
        body = _read_head(blob)["body"]
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
    blob: bytes, virtual: str = "", countersignature: Countersignature | None = None
) -> RecordDict:
    """Bytes as the content of a Flower message.

    `countersignature` belongs to one site: it travels beside the bytes that all sites share, and the courier
    puts it in (`from_records`), so that a server holds one copy of the model and not one for every site.
    `virtual` names the folder of a virtual federation. Only a node that Flower's simulation runtime
    made looks at it (`client.app`).
    """
    array = Array(dtype="uint8", shape=(len(blob),), stype=_STYPE, data=blob)
    arrays = {"message": array}
    if countersignature is not None:
        own = json.dumps(asdict(countersignature)).encode()
        arrays["countersignature"] = Array(dtype="uint8", shape=(len(own),), stype=_STYPE, data=own)
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
        own = _bytes_of(arrays["countersignature"]) if "countersignature" in arrays else None
        return blob if own is None else addressed(blob, json.loads(own))
    except (KeyError, ValueError, TypeError, RecursionError):
        _malformed()


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
