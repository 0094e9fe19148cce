"""All looks in their order: machine, state, archives, federation. None needs another to have gone well."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from client.doctor import machine, member, network, state
from client.doctor.check import Check, Outcome, failed, looked, passed, skipped, warned
from client.doctor.machine import Machine
from client.doctor.network import Route
from common.errors import SettingsError

if TYPE_CHECKING:
    from client.site import Site
    from common.kit import Kit


@dataclass(frozen=True)
class Visit:
    """What to look at."""

    folder: Path
    """Of the site; need not hold one yet."""
    kit: Path | None = None
    """An enrolment kit, to look at the way before enrolment."""
    where: Machine = field(default_factory=Machine)


def examine(visit: Visit) -> Iterator[Check]:
    """Every line, as it is found; nothing is raised."""
    for name, look in (
        ("memory", machine.memory),
        ("processors", machine.processors),
        ("shared memory", machine.shared_memory),
        ("GPU", machine.gpu),
    ):
        yield from looked(name, partial(look, visit.where))
    yield from looked("site", partial(_site, visit))
    site = _loaded(visit)
    if site is None:
        yield from looked("disk", partial(machine.disk, "disk", visit.folder))
        yield skipped("federation", "there is no site yet")
        return
    yield from _places(site)
    for name, look_at in (
        ("keys", state.keys),
        ("ledger", state.ledger),
        ("audit log", state.audit),
        ("index", state.index),
        ("archives", state.archives),
    ):
        yield from looked(name, partial(look_at, site))
    yield from looked("federation", partial(_federation, site, visit.kit))


def worst(checks: list[Check]) -> Outcome:
    """The gravest of all lines."""
    for outcome in (Outcome.FAIL, Outcome.WARN):
        if any(check.outcome is outcome for check in checks):
            return outcome
    return Outcome.PASS


def _site(visit: Visit) -> Iterator[Check]:
    from client.site import load_site  # noqa: PLC0415 - settings classes, paid by this look alone

    if not (visit.folder / "site.toml").exists():
        yield failed(
            "site", "there is no site.toml in this folder", "Run `consilium-site init NAME`, or give --site"
        )
        return
    site = load_site(visit.folder)
    yield passed("site", f"{site.name}{', simulated' if site.simulated else ''}")


def _loaded(visit: Visit) -> Site | None:
    from client.site import load_site  # noqa: PLC0415 - as above

    try:
        return load_site(visit.folder)
    except SettingsError:
        return None  # the line above has said why


def _places(site: Site) -> Iterator[Check]:
    """The disk of the data, and that of the state where it is another one."""
    yield from looked("disk of data", partial(machine.disk, "disk of data", site.data))
    if site.state.stat().st_dev != site.data.stat().st_dev:
        yield from looked("disk of state", partial(machine.disk, "disk of state", site.state))


def _federation(site: Site, kit: Path | None) -> Iterator[Check]:
    """The way to the federation, of an enrolled hospital or of one that holds a kit."""
    from client.enrolment import kit_of  # noqa: PLC0415 - httpx, as above
    from common.kit import read_kit  # noqa: PLC0415

    known = kit_of(site)
    if known is None and kit is not None:
        known = read_kit(kit, site.name)
    if known is None:
        yield skipped("federation", "not enrolled; give --kit kit.zip to look at the way there")
        return
    route, gone = _open_way([route_to(site, known, at) for at in range(_ways(site, known))])
    yield from gone
    for name, look in (
        ("DNS", network.dns),
        ("connection", network.connection),
        ("TLS", network.tls),
    ):
        lines = list(looked(name, partial(look, route)))
        yield from lines
        if worst(lines) is Outcome.FAIL:
            yield skipped("clock, bandwidth", "there is no way to the federation to measure them over")
            break
    else:
        yield from looked("clock", partial(network.clock, route))
        yield from looked("bandwidth", partial(network.bandwidth, route))
    yield from looked("certificate", partial(network.certificate, route))
    if route.certificate is not None:
        yield from looked("membership", partial(member.membership, site))
        yield from looked("tunnel", partial(member.tunnel, site))


def _ways(site: Site, kit: Kit) -> int:
    return 1 if site.federation.address else len(kit.addresses)


def _open_way(routes: list[Route]) -> tuple[Route, list[Check]]:
    """The first way that leads somewhere, with a warning for each before it; the first of all where none does."""
    gone: list[Check] = []
    for route in routes:
        line = next(network.connection(route))
        if line.outcome is not Outcome.FAIL:
            return route, gone
        gone.append(warned(line.name, line.seen, f"{line.remedy}; the kit's next address is used instead"))
    return routes[0], []


def route_to(site: Site, kit: Kit, at: int = 0) -> Route:
    """How this hospital reaches the edge of a kit.

    Args:
        site: this hospital.
        kit: where the edge is.
        at: which of the kit's addresses, where site.toml names none.

    Raises:
        SettingsError: the proxy's password cannot be read.
    """
    from client.link import proxy_password  # noqa: PLC0415 - httpx, as above

    settings = site.federation
    host, port = _split(settings.address or kit.addresses[at])
    login = (settings.proxy_user, proxy_password(settings, site.folder)) if settings.proxy_user else None
    pair = (site.secrets / "tls.crt", site.secrets / "tls.key")
    return Route(
        host=host,
        port=port,
        authority=kit.authority,
        proxy=_split(settings.proxy) if settings.proxy else None,
        proxy_login=login,
        certificate=pair if all(path.exists() for path in pair) else None,
    )


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
