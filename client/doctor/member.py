"""An enrolled hospital's standing: whether the federation still takes its certificate, and whether its tunnel leads there.

The lines of `client.doctor.network` open connections of their own; these look at what the node will use.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Final

from client.doctor.check import Check, failed, passed, skipped, warned

if TYPE_CHECKING:
    from client.site import Site

_ANSWER_S: Final = 30.0
"""The tunnel gives its own connection ten seconds for each address of the edge."""
_GONE: Final = 403


def membership(site: Site) -> Iterator[Check]:
    """Whether the federation takes this hospital's certificate, and which roster it has.

    Raises:
        FederationError: a refusal, in the federation's words.
    """
    from client.enrolment import link_of  # noqa: PLC0415 - httpx, paid by this look alone
    from client.membership import load_membership  # noqa: PLC0415 - as above
    from common.enrolment import PREFIX  # noqa: PLC0415 - as above
    from common.roster import load_roster  # noqa: PLC0415 - as above

    newest = load_roster(link_of(site).ask("GET", f"{PREFIX}/roster")).version
    known = load_membership(site)
    pinned = known.roster.version if known else 0
    if newest > pinned:
        yield warned(
            "membership",
            f"a member; roster version {newest} waits, {pinned} is accepted here",
            "Look at `consilium-site roster`, and accept it",
        )
    elif newest < pinned:
        yield warned(
            "membership",
            f"a member; the federation has roster version {newest}, and {pinned} is accepted here",
            "Tell the consortium: its server was put back to an older state (runbook, Back up and restore)",
        )
    else:
        yield passed("membership", f"a member; roster version {newest}")


def tunnel(site: Site) -> Iterator[Check]:
    """Whether what listens at the tunnel's port is this hospital's tunnel, and leads to the edge."""
    from client.tunnel import LOCAL, address  # noqa: PLC0415 - as above

    at, local = site.federation, site.state / "federation" / LOCAL
    if not _listens(at.tunnel_host, at.tunnel_port):
        yield skipped("tunnel", f"nothing listens at {address(site)}; `consilium-site start` starts it")
        return
    try:
        status = _asked(at.tunnel_host, at.tunnel_port, str(local))
    except (ssl.SSLError, FileNotFoundError):
        yield failed(
            "tunnel",
            f"another program, or another site's tunnel, listens at {address(site)}",
            "Give federation.tunnel_port in site.toml a port whose next one is free too, and start anew",
        )
    except (OSError, http.client.HTTPException):
        yield failed(
            "tunnel",
            "it runs, and the federation does not answer through it",
            "If the lines above pass, start `connect` anew; read tunnel.log in state/federation",
        )
    else:
        yield _led(status)


def _led(status: int) -> Check:
    if status == _GONE:
        return failed(
            "tunnel",
            "it leads to the federation, which refuses the certificate it shows",
            "See the line membership; if that passes, start `connect` anew",
        )
    return passed("tunnel", "it runs and leads to the federation")


def _listens(host: str, port: int) -> bool:
    try:
        with socket.create_connection((host, port), timeout=_ANSWER_S):
            return True
    except OSError:
        return False


def _asked(host: str, port: int, authority: str) -> int:
    """Status of a question through the tunnel, which ends TLS with the certificate `authority`."""
    context = ssl.create_default_context(cafile=authority)
    line = http.client.HTTPSConnection(host, port, timeout=_ANSWER_S, context=context)
    with closing(line):
        line.request("GET", "/consilium/v1/roster")
        return line.getresponse().status
