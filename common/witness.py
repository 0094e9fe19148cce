"""What one side swears about both audit logs, each round: where its own ends, and how far it has seen the other's.

Neither side can rewrite its log afterwards without contradicting a word that the other one holds under the rewriter's
own key (`here`), nor deny having been shown the other's (`there`). All words are kept, not only the newest: a log that is
rewritten between two rounds agrees with every later word, and contradicts the earlier ones. The bytes that are signed are one line of
JSON, so that anybody can check them with openssl alone (docs/audit.md).
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any, Final

from common.audit import ANYWHERE, Head
from common.durability import push
from common.errors import InputError, StorageError
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


def keep(path: Path, given: Witness, at: float) -> None:
    """Add a word to those that are kept of one party; durable when the call returns.

    Args:
        path: of the words; made where there is none.
        given: whose signature was checked.
        at: when it came: seconds since 1970.

    Raises:
        StorageError: it cannot be written.
    """
    line = json.dumps({"at": int(at), **asdict(given)}, sort_keys=True).encode() + b"\n"
    try:
        with path.open("a+b") as file:
            # What a crash left of a line is not to swallow this one.
            if file.tell() and _last_byte(file) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            push(file.fileno())
    except OSError:
        raise StorageError(path.name, "it cannot be written", "Check free space and rights") from None


def kept(path: Path, key: str, since: float) -> list[Witness]:
    """The words of `keep` under one key, oldest first, each once.

    Args:
        path: as `keep` has it.
        key: of who swore them now; words under one that it had before are left out.
        since: words that came earlier are left out, and the first after them, which tells of a line of their time:
            the lines they are about may have been forgotten.

    Raises:
        StorageError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    except OSError:
        raise StorageError(path.name, "it cannot be read", "Check its rights") from None
    dated = [one for line in lines if (one := _dated(line)) is not None and one[1].key == key]
    young = list(dict.fromkeys(word for at, word in dated if at >= since))
    return young[1:] if any(at < since for at, _word in dated) else young


def _dated(line: bytes) -> tuple[int, Witness] | None:
    """The word of one line and when it came; None for a line that a crash cut off."""
    try:
        values = json.loads(line)
        return int(values.pop("at")), witness_from(values)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _last_byte(file: IO[bytes]) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def dump_witness(given: Witness, earlier: Sequence[Witness] = ()) -> bytes:
    """As a file that people hand to each other, with the words that came before it."""
    before = {"earlier": [asdict(word) for word in earlier]} if earlier else {}
    return json.dumps({"schema": SCHEMA, **asdict(given), **before}, indent=1, sort_keys=True).encode()


def load_witness(path: Path) -> Witness:
    """The newest word in a file of `dump_witness`; its signature is not checked yet.

    Raises:
        InputError: code `witness` when it cannot be read or is not one.
    """
    return load_witnesses(path)[0]


def load_witnesses(path: Path) -> list[Witness]:
    """Every word in a file of `dump_witness`, the newest first; no signature is checked yet.

    Raises:
        InputError: as `load_witness`.
    """
    try:
        values = json.loads(path.read_bytes())
        earlier = values.pop("earlier", []) if isinstance(values, dict) else []
        return [witness_from(values), *(witness_from(one) for one in earlier)]
    except (OSError, ValueError, TypeError, RecursionError):
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
