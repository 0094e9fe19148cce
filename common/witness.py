"""What one side swears about both audit logs, each round: where its own ends, and how far it has seen the other's.

Neither side can rewrite its log afterwards without contradicting a word that the other one holds under the rewriter's
own key (`here`), nor deny having been shown the other's (`there`). The bytes that are signed are one line of
JSON, so that anybody can check them with openssl alone (docs/audit.md).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from common.audit import ANYWHERE, Head
from common.errors import InputError
from common.identity import Identity, verify
from common.messages import LogHead, Witness
from common.types import Digest, RunId, SiteName

SERVER: Final = "server"
SITE: Final = "site"
SCHEMA: Final = "consilium/witness/1"
_DOMAIN: Final = "consilium/audit-witness/1"
"""First in what is signed, so that no signature made for another purpose fits."""


@dataclass(frozen=True)
class Said:
    """What is sworn, before it is signed."""

    by: str
    site: SiteName
    here: LogHead
    there: LogHead | None
    run: RunId
    round: int


def witness(identity: Identity, said: Said) -> Witness:
    """Sign it."""
    bare = Witness(said.by, said.site, said.here, said.there, said.run, said.round, identity.public, "")
    return replace(bare, signature=identity.sign(signed_bytes(bare)))


def genuine(given: Witness, key: str) -> bool:
    """Whether this key signed exactly this."""
    return given.key == key and verify(key, given.signature, signed_bytes(given))


def signed_bytes(given: Witness) -> bytes:
    """The very bytes under the signature."""
    there = [] if given.there is None else [given.there.count, given.there.digest]
    what = [
        _DOMAIN,
        given.by,
        given.site,
        [given.here.count, given.here.digest],
        there,
        given.run,
        given.round,
        given.key,
    ]
    return json.dumps(what, separators=(",", ":")).encode()


def heads_of(given: Witness, log: str) -> list[Head]:
    """What it says of the log of one side.

    Args:
        given: whose signature was checked.
        log: `server` or `site`.
    """
    head = given.here if given.by == log else given.there
    return [] if head is None else [Head(ANYWHERE if head.count is None else head.count, head.digest)]


def dump_witness(given: Witness) -> bytes:
    """As a file that people hand to each other."""
    return json.dumps({"schema": SCHEMA, **asdict(given)}, indent=1, sort_keys=True).encode()


def load_witness(path: Path) -> Witness:
    """A file of `dump_witness`; its signature is not checked yet.

    Raises:
        InputError: code `witness` when it cannot be read or is not one.
    """
    try:
        return witness_from(json.loads(path.read_bytes()))
    except (OSError, ValueError, RecursionError):
        raise InputError(
            path.name,
            "it is not the word of the other side",
            "Ask for the file that `audit head` writes",
            code="witness",
        ) from None


def witness_from(values: Any) -> Witness:
    """From JSON's values, each of its declared type.

    Raises:
        ValueError: they are not a witness.
    """
    if not isinstance(values, dict) or values.pop("schema", SCHEMA) != SCHEMA:
        raise ValueError(SCHEMA)
    types = {"by": str, "site": str, "run": str, "round": int, "key": str, "signature": str}
    if set(values) != {*types, "here", "there"} or any(type(values[k]) is not t for k, t in types.items()):
        raise ValueError(SCHEMA)
    here = _head(values["here"])
    there = None if values["there"] is None else _head(values["there"])
    words = {name: values[name] for name in ("by", "round", "key", "signature")}
    return Witness(site=SiteName(values["site"]), run=RunId(values["run"]), here=here, there=there, **words)


def _head(values: Any) -> LogHead:
    if not isinstance(values, dict) or set(values) != {"count", "digest"}:
        raise ValueError(SCHEMA)
    if type(values["count"]) not in (int, type(None)) or not isinstance(values["digest"], str):
        raise ValueError(SCHEMA)
    return LogHead(Digest(values["digest"]), values["count"])
