"""What the consortium offers, kept here: each release as it was received, and what changed since the last approved one.

<state>/federation/releases/<id>.zip   a parcel, believed anew whenever it is opened
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.approvals import Approval, Approvals
from client.membership import FOLDER, Membership, load_membership
from common.checkpoints import write_whole
from common.enrolment import PREFIX
from common.errors import FederationError, InputError, StorageError
from common.plan import Plan, as_dict
from common.release import LARGEST, Parcel, open_parcel

if TYPE_CHECKING:
    from client.site import Site

RELEASES: Final = "releases"
_ID: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,99}")
ABSENT: Final = "–"
"""Stands for a key that one of two plans does not have."""


@dataclass(frozen=True)
class Change:
    """One key of the plan under which two plans differ."""

    key: str
    before: str
    now: str


@dataclass(frozen=True)
class FileChange:
    """One file of the code in which two releases differ, counted in lines."""

    path: str
    added: int
    removed: int


@dataclass(frozen=True)
class Changes:
    """What a release has that the one approved last did not have."""

    since: str
    """Identifier of the release approved last; empty when nothing was."""
    plan: tuple[Change, ...] = ()
    code: tuple[FileChange, ...] = ()


def enrolled(site: Site) -> Membership:
    """The membership of a hospital that has one.

    Raises:
        FederationError: code `not-enrolled`.
    """
    found = load_membership(site)
    if found is None:
        raise FederationError(
            "site",
            "this hospital has not been enrolled in a federation",
            "Run `consilium-site enrol` with the consortium's kit",
            code="not-enrolled",
        )
    return found


def receive(site: Site, blob: bytes) -> Parcel:
    """Keep a parcel, once it is the pinned server's.

    Raises:
        FederationError: `release`, `not-enrolled`.
        StorageError: it cannot be written.
    """
    parcel = open_parcel(blob, enrolled(site).server_key)
    write_whole(_folder(site) / f"{parcel.release.id}.zip", blob)
    return parcel


def receive_file(site: Site, path: Path) -> Parcel:
    """As `receive`, from a file that came by another way.

    Raises:
        InputError: there is no such file, or it is too large.
    """
    try:
        size = path.stat().st_size
        if size > LARGEST:
            raise InputError(path.name, "it is too large for a release", "Give the consortium's parcel")
        blob = path.read_bytes()
    except OSError:
        raise InputError(path.name, "it cannot be read", "Give the parcel of a release") from None
    return receive(site, blob)


def fetch(site: Site) -> list[str]:
    """Take in every release that the federation offers and is not here; gives their identifiers.

    Raises:
        ConsiliumError: as `Link.ask` where nobody answers, as `receive` where what came is not believed.
    """
    from client.enrolment import link_of  # noqa: PLC0415 - httpx, for those who fetch

    link, new = link_of(site), []
    try:
        offered = [str(one["id"]) for one in json.loads(link.ask("GET", f"{PREFIX}/plans"))["plans"]]
    except (ValueError, KeyError, TypeError):
        raise FederationError(
            "the list of releases", "it cannot be read", "Compare the releases", code="release"
        ) from None
    for id_ in offered:
        if _ID.fullmatch(id_) and not (_folder(site) / f"{id_}.zip").exists():
            receive(site, link.ask("GET", f"{PREFIX}/plans?id={id_}"))
            new.append(id_)
    return new


def received(site: Site) -> list[Parcel]:
    """Every release that is here, oldest first.

    Raises:
        FederationError: `release` when one was changed here, `not-enrolled`.
    """
    key = enrolled(site).server_key
    found = [open_parcel(_read(path), key) for path in sorted(_folder(site).glob("*.zip"))]
    return sorted(found, key=lambda parcel: (parcel.release.at, parcel.release.id))


def find(site: Site, id_: str) -> Parcel:
    """One release.

    Raises:
        InputError: it is not here.
    """
    found = {parcel.release.id: parcel for parcel in received(site)}
    if id_ not in found:
        known = ", ".join(found) or "none has been received"
        raise InputError(f"study {id_}", "no release of this identifier is here", f"Choose one of: {known}")
    return found[id_]


def changes(site: Site, parcel: Parcel) -> Changes:
    """What is new since the release that was approved last: of the same study if one was, else of any."""
    before = _before(site, parcel)
    if before is None:
        return Changes("")
    return Changes(
        before.release.id,
        plan_changes(before.plan, parcel.plan),
        code_changes(before.code, parcel.code),
    )


def plan_changes(before: Plan, now: Plan) -> tuple[Change, ...]:
    """Key by key; defaults that are not written in a plan count as its values."""
    one, other = _flat(as_dict(before)), _flat(as_dict(now))
    keys = [*one, *(key for key in other if key not in one)]
    return tuple(
        Change(key, one.get(key, ABSENT), other.get(key, ABSENT))
        for key in keys
        if one.get(key) != other.get(key)
    )


def code_changes(before: Mapping[str, bytes], now: Mapping[str, bytes]) -> tuple[FileChange, ...]:
    """File by file, in lines added and removed."""
    found = []
    for path in sorted({*before, *now}):
        if before.get(path) != now.get(path):
            lines = [*_compared(before.get(path, b""), now.get(path, b""))]
            added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
            removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
            found.append(FileChange(path, added, removed))
    return tuple(found)


def code_difference(site: Site, parcel: Parcel) -> str:
    """The code's differences line by line, as `diff -u` writes them; empty when there is none."""
    before = _before(site, parcel)
    if before is None:
        return ""
    one, other = before.code, parcel.code
    paths = sorted(path for path in {*one, *other} if one.get(path) != other.get(path))
    return "".join(
        line + "\n" for path in paths for line in _compared(one.get(path, b""), other.get(path, b""), path)
    )


def approvals_of(site: Site, parcel: Parcel) -> tuple[Approval, ...]:
    """Every approval this release ever had here."""
    return tuple(one for one in Approvals(site).all() if one.bundle_digest == parcel.release.bundle_digest)


def _before(site: Site, parcel: Parcel) -> Parcel | None:
    given = [one for one in Approvals(site).all() if one.id != parcel.release.id]
    own = [one for one in given if one.study == parcel.release.study]
    here = {one.release.id: one for one in received(site)}
    return next((here[one.id] for one in reversed(own or given) if one.id in here), None)


def _compared(before: bytes, now: bytes, path: str = "") -> list[str]:
    one, other = (text.decode("utf-8", "replace").splitlines() for text in (before, now))
    return list(difflib.unified_diff(one, other, f"approved/{path}", f"asked/{path}", lineterm=""))


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat: dict[str, str] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return flat


def _folder(site: Site) -> Path:
    return site.state / FOLDER / RELEASES


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        raise StorageError(path.name, "it cannot be read", "Remove it and fetch it again") from None
