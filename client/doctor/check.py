"""One line of the doctor: what was looked at, how it is, what was seen, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from common.errors import ConsiliumError
from common.logs import Log

_LOG: Final = Log("client.doctor")


class Outcome(StrEnum):
    """How it is."""

    PASS = "pass"  # noqa: S105 - a word, not a password
    WARN = "warn"
    """A round may complete, but something will go wrong before long or goes slowly."""
    FAIL = "fail"
    """No round can complete before this is put right."""
    SKIP = "skip"
    """It cannot be looked at yet; `seen` says why."""


@dataclass(frozen=True)
class Check:
    """One line."""

    name: str
    outcome: Outcome
    seen: str
    """What was found, with figures and units; never a patient."""
    remedy: str = ""
    """What to do; empty when nothing is."""


def passed(name: str, seen: str) -> Check:
    """All is well."""
    return Check(name, Outcome.PASS, seen)


def warned(name: str, seen: str, remedy: str) -> Check:
    """It will do for now."""
    return Check(name, Outcome.WARN, seen, remedy)


def failed(name: str, seen: str, remedy: str) -> Check:
    """It will not do."""
    return Check(name, Outcome.FAIL, seen, remedy)


def skipped(name: str, seen: str) -> Check:
    """Not yet."""
    return Check(name, Outcome.SKIP, seen)


Looking = Callable[[], Iterable[Check]]


def looked(name: str, look: Looking) -> Iterator[Check]:
    """The lines of one look; an error of ours becomes a failed line, and anything else one that names no text."""
    try:
        yield from look()
    except ConsiliumError as error:
        yield failed(name, f"{error.subject}: {error.rule} ({error.code})", error.remedy)
    except Exception as error:  # noqa: BLE001 - one broken look must not hide the others
        kind = type(error).__name__
        _LOG.error("look.failed", kind=kind.lower())
        yield failed(name, f"the look itself failed with {kind}", "Please report this line")
