"""What this hospital keeps: its keys, its ledger, its index, its audit log, its archives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from client.doctor.check import Check, failed, passed, skipped, warned

if TYPE_CHECKING:
    from client.site import Site


_PUBLIC: Final = (".crt", ".csr")
"""Certificates and requests for them lie beside their keys, and are shown to whoever answers."""


def keys(site: Site) -> Iterator[Check]:
    """The keys were read with the site; here it is told whether others can read them too."""
    open_to = sorted(
        path.name
        for path in site.secrets.iterdir()
        if path.is_file() and path.suffix not in _PUBLIC and path.stat().st_mode & 0o077
    )
    if site.secrets.stat().st_mode & 0o022:
        yield failed("keys", "others can write into the folder of the keys", "chmod 700 it")
    elif open_to:
        yield failed("keys", f"others can read {', '.join(open_to)}", "chmod 600 these files")
    else:
        yield passed("keys", "present; readable by this user alone")


def ledger(site: Site) -> Iterator[Check]:
    """Whether the privacy ledger is whole, and how near to its limits."""
    from client.privacy.desk import Desk  # noqa: PLC0415 - accounting, paid by this look alone
    from client.privacy.ledger import Limits  # noqa: PLC0415

    with Desk(site).open() as book:
        uses = book.usage(Limits.of_policy(site.policy))
        near = [f"{use.share:.0%} of the limit per {use.span}" for use in uses if use.near]
        count = book.head.sequence
    if near:
        yield warned("ledger", f"whole, {count} rows; {', '.join(near)}", "Plan the studies that are left")
    else:
        yield passed("ledger", f"whole, {count} rows")


def audit(site: Site) -> Iterator[Check]:
    """Whether the hash chain of the audit log holds."""
    from client.connection_log import check  # noqa: PLC0415 - as above
    from common.audit import verify  # noqa: PLC0415 - as above

    if not site.audit.exists():
        yield skipped("audit log", "not begun")
        return
    asked = check(site)
    beside = f", and {asked} of the connection's" if asked else ""
    yield passed("audit log", f"whole, {verify(site.audit).count} lines{beside}")


def index(site: Site) -> Iterator[Check]:
    """Whether the index opens, and how many patients it knows."""
    from client.index import Index  # noqa: PLC0415 - as above

    if not site.index.exists():
        yield skipped("index", "nothing has been taken in")
        return
    with Index(site.index) as held:
        count = len(held.patients())
    least = site.policy.min_patients
    if count < least:
        yield warned("index", f"{count} patients", f"The policy's least is {least}; take in more")
    else:
        yield passed("index", f"{count} patients")


def archives(site: Site) -> Iterator[Check]:
    """Whether each archive of site.toml answers."""
    if not site.pacs.remotes:
        yield skipped("archives", "site.toml names none")
        return
    from client.pacs.echo import echoes  # noqa: PLC0415 - pynetdicom, as above

    for echo in echoes(site):
        name = f"archive {echo.remote}, {echo.what}"
        if echo.ok:
            yield passed(name, f"answers in {1000 * echo.seconds:.0f} ms")
        else:
            yield failed(name, f"{echo.rule} ({echo.code})", echo.remedy)
