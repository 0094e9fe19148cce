"""What this hospital approved: a plan, a bundle and the code in it, by digest; withdrawn at any time.

<state>/federation/approvals.json   every approval ever given, and when it was withdrawn

1. A release is approved by a person, after the pinned server's signature, the installed code and the policy were checked.
2. An approval is on disk and in the audit log before anything is done under it.
3. It holds for the installed code only: after an upgrade the same release is approved again, or runs no more.
4. Nothing is forgotten. A file that cannot be read approves nothing.
"""

from __future__ import annotations

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from client import policy
from client.membership import FOLDER
from common.audit import AuditLog
from common.checkpoints import write_whole
from common.code import code_digest, sources
from common.errors import FederationError, InputError, PolicyRefused, StorageError
from common.locks import awaited
from common.release import Parcel
from common.types import Digest

if TYPE_CHECKING:
    from client.site import Site

_SCHEMA: Final = "consilium/approvals/1"
_FILE: Final = "approvals.json"
_SHOWN: Final = 5
"""Files that a refusal names; `consilium-site studies` lists all."""


@dataclass(frozen=True)
class Approval:
    """One release that somebody here approved."""

    id: str
    study: str
    plan_digest: Digest
    bundle_digest: Digest
    code_digest: Digest
    at: str
    """UTC, ISO 8601."""
    by: str
    """Account of this machine."""
    withdrawn: str = ""
    """When; empty while it holds."""

    @property
    def holds(self) -> bool:
        """Whether it lets anything run now: not withdrawn, and of the code that is installed."""
        return not self.withdrawn and self.code_digest == code_digest()


class Approvals:
    """The approvals of one site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._path = site.state / FOLDER / _FILE

    def all(self) -> tuple[Approval, ...]:
        """Every approval in the order given, withdrawn ones too.

        Raises:
            StorageError: code `approvals` when the file cannot be read.
        """
        try:
            values = json.loads(self._path.read_text(encoding="utf-8"))
            found = tuple(Approval(**one) for one in values["approvals"])
            if values["schema"] != _SCHEMA:
                raise _damaged()
        except FileNotFoundError:
            return ()
        except (OSError, ValueError, KeyError, TypeError):
            raise _damaged() from None
        return found

    def approve(self, parcel: Parcel, by: str = "") -> Approval:
        """Let a release run here; one that is approved already stays as it is.

        Args:
            parcel: opened with the pinned server's key.
            by: account; this process's own when not given.

        Raises:
            FederationError: `code-mismatch` when its code is not the installed code, naming the files.
            PolicyRefused: the first rule of the policy that its plan breaks.
            PrivacyRefused: `accounting-…`.
        """
        check_code(parcel)
        policy.check(self._site.policy, parcel.plan)
        release, now = parcel.release, datetime.now(UTC).isoformat(timespec="seconds")
        given = Approval(
            release.id,
            release.study,
            release.plan_digest,
            release.bundle_digest,
            release.code_digest,
            now,
            by or _account(),
        )
        with self._locked():
            known = self.all()
            for one in known:
                if one.bundle_digest == given.bundle_digest and one.holds:
                    return one
            self._note("study.approved", given)
            self._write((*known, given))
        return given

    def withdraw(self, id_: str) -> Approval:
        """Let a release run no more, from the next question on.

        Raises:
            InputError: it is not approved.
        """
        now = datetime.now(UTC).isoformat(timespec="seconds")
        with self._locked():
            known = self.all()
            ended = [one for one in known if one.id == id_ and not one.withdrawn]
            if not ended:
                raise InputError(
                    f"study {id_}",
                    "it is not approved here",
                    "`consilium-site studies` lists what is",
                )
            self._write(
                tuple(replace(one, withdrawn=now) if one in ended else one for one in known),
            )
            self._note("study.withdrawn", ended[-1])
        return replace(ended[-1], withdrawn=now)

    def check_plan(self, digest: Digest) -> None:
        """Refuse a plan that no approval holds for.

        Raises:
            PolicyRefused: code `not-approved`.
        """
        if not any(one.plan_digest == digest and one.holds for one in self.all()):
            raise PolicyRefused(
                "the plan",
                "nobody at this hospital approved it for the installed release",
                "Read it with `consilium-site studies`, then `consilium-site approve ID`",
                code="not-approved",
            )

    def has_bundle(self, digest: Digest) -> bool:
        """Whether a node may run this bundle."""
        return any(one.bundle_digest == digest and one.holds for one in self.all())

    def _note(self, event: str, about: Approval) -> None:
        AuditLog(self._site.audit).append(
            event, study=about.study, plan=about.plan_digest, digest=about.bundle_digest, user=about.by
        )

    def _write(self, approvals: tuple[Approval, ...]) -> None:
        values = {"schema": _SCHEMA, "approvals": [asdict(one) for one in approvals]}
        write_whole(self._path, json.dumps(values, indent=1).encode())

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            turn = awaited(self._path.with_suffix(".lock"))
        except OSError:
            raise StorageError(_FILE, "its folder cannot be written", "Check free space and rights") from None
        with turn:
            yield


def check_code(parcel: Parcel) -> None:
    """Refuse a bundle whose code is not, file by file, the installed code.

    Raises:
        FederationError: code `code-mismatch`, with both versions and the first of the files.
    """
    differing = differing_files(parcel.code, sources())
    if differing:
        more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
        raise FederationError(
            f"release {parcel.release.id}",
            f"its code is not the code installed here: {', '.join(differing[:_SHOWN])}{more}. It was made with "
            f"Consilium {parcel.release.consilium}, {parcel.release.code_digest[:19]}; installed is {code_digest()[:19]}",
            "Install the release that the consortium runs, from where you always get it, and look again",
            code="code-mismatch",
        )


def differing_files(one: dict[str, bytes], other: dict[str, bytes]) -> list[str]:
    """Paths whose content differs, or which only one of the two has."""
    return sorted(path for path in {*one, *other} if one.get(path) != other.get(path))


def _account() -> str:
    """Who types, as this machine knows them; only what a log may hold."""
    try:
        return getpass.getuser().lower()
    except (KeyError, OSError):
        return "unknown"


def _damaged() -> StorageError:
    return StorageError(
        _FILE, "it does not hold approvals", "Restore state/federation from backup", code="approvals"
    )
