"""The hospital's one way out: stunnel, from a loopback port to the federation's edge.

Flower's node shows no certificate of its own and insists on TLS when its key is checked. So one stunnel does two
things: it ends the node's TLS with a certificate made here for this machine alone, and opens the connection to
the edge with the hospital's certificate, through the hospital's proxy where there is one. Nothing listens but on
loopback. docs/adr/0013 says what else was tried.

<state>/federation/local.crt, <secrets>/local.key   the tunnel's own certificate, for 127.0.0.1 only
<state>/federation/tunnel.conf                      stunnel's settings; may hold the proxy's password
"""

from __future__ import annotations

import os
import shutil
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.enrolment import certificate, kit_of
from client.link import proxy_password
from client.membership import FOLDER
from common.certificates import load_key, make_key, read_certificate
from common.checkpoints import write_whole
from common.errors import FederationError, SettingsError
from common.pki import RENEW_DAYS, self_signed

if TYPE_CHECKING:
    from client.site import Site
    from common.kit import Kit

CONF: Final = "tunnel.conf"
LOCAL: Final = "local.crt"
HOST: Final = "127.0.0.1"
"""Where its two halves meet; nowhere else."""
_LEAVE_S: Final = 75
"""Seconds an idle connection is kept, as long as the edge keeps it."""


def address(site: Site) -> str:
    """`host:port` that Flower's node is given as its SuperLink."""
    return f"{site.federation.tunnel_host}:{site.federation.tunnel_port}"


def root_certificate(site: Site) -> Path:
    """What Flower's node is given as root certificate: the tunnel's own, made where it is missing or ends soon."""
    path, key = site.state / FOLDER / LOCAL, site.secrets / "local.key"
    if not ends_soon(site):
        return path
    made = load_key(key) if key.exists() else make_key(key)
    write_whole(path, self_signed(made, site.federation.tunnel_host).pem.encode())
    return path


def ends_soon(site: Site) -> bool:
    """Whether the tunnel's own certificate is missing, for another host, or due to be made anew; nothing is written."""
    path = site.state / FOLDER / LOCAL
    if not path.exists() or not (site.secrets / "local.key").exists():
        return True
    known = read_certificate(path.read_text())
    return known.name != site.federation.tunnel_host or known.left(datetime.now(UTC)).days < RENEW_DAYS


def is_known_by(site: Site, handed: Path) -> bool:
    """Whether whoever was handed this copy believes the tunnel, and will for a while."""
    try:
        same = handed.read_bytes() == (site.state / FOLDER / LOCAL).read_bytes()
    except OSError:
        return False
    return same and not ends_soon(site)


def write(site: Site) -> Path:
    """Write stunnel's settings for an enrolled hospital.

    Returns:
        Their path.

    Raises:
        FederationError: `not-enrolled`, or `certificate`.
        SettingsError: the proxy's password cannot be read, or `tunnel-path` for a folder that stunnel cannot be told.
    """
    kit = kit_of(site)
    if kit is None:
        raise FederationError(
            site.name, "it has not been enrolled", "Run `consilium-site enrol kit.zip`", code="not-enrolled"
        )
    certificate(site)
    folder = (site.state / FOLDER).resolve()
    authority = folder / "ca.crt"
    write_whole(authority, kit.authority.encode())
    inner = f"{HOST}:{site.federation.tunnel_port + 1}"
    lines = [*_general(folder), *_node_side(site, inner), *_edge_side(site, kit, authority, inner)]
    if any("\n" in line for line in lines):
        raise SettingsError(
            site.folder.name, "its path has a line break", "Move the site to a plain path", code="tunnel-path"
        )
    path = folder / CONF
    path.touch(mode=0o600)
    path.chmod(0o600)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def command(site: Site) -> list[str]:
    """Write the settings, and give the process that serves by them; it stays in the foreground.

    Raises:
        SettingsError: `tunnel-missing` when there is no stunnel on this machine.
        FederationError, SettingsError: as `write`.
    """
    return [_stunnel(), str(write(site))]


def reload(site: Site) -> bool:
    """Tell a running tunnel to read its settings and certificate again; False when none runs."""
    return _signalled(site, signal.SIGHUP)


def runs(site: Site) -> bool:
    """Whether this site's own stunnel runs, whoever else may listen at its port."""
    return _signalled(site, 0)


def logs(site: Site) -> tuple[Path, ...]:
    """What stunnel writes, and somebody has to keep from growing."""
    return (site.state / FOLDER / "tunnel.log",)


def _signalled(site: Site, number: int) -> bool:
    """Whether it took a signal; 0 asks only whether it is there, and it is also where another account's may not be sent one."""
    try:
        os.kill(int((site.state / FOLDER / "tunnel.pid").read_text()), number)
    except PermissionError:
        return not number
    except (OSError, ValueError):
        return False
    return True


def _general(folder: Path) -> list[str]:
    return [
        "; Written by consilium-site; changes belong into [federation] of site.toml.",
        "foreground = quiet",
        f"pid = {folder / 'tunnel.pid'}",
        f"output = {folder / 'tunnel.log'}",
        "syslog = no",
        "debug = notice",
        "socket = l:TCP_NODELAY=1",
        "socket = r:TCP_NODELAY=1",
        f"TIMEOUTidle = {_LEAVE_S}",
        "TIMEOUTclose = 5",
        "sslVersionMin = TLSv1.3",
        "",
    ]


def _node_side(site: Site, inner: str) -> list[str]:
    return [
        "[node]",
        f"accept = {address(site)}",
        f"connect = {inner}",
        f"cert = {root_certificate(site).resolve()}",
        f"key = {(site.secrets / 'local.key').resolve()}",
        "",
    ]


def _edge_side(site: Site, kit: Kit, authority: Path, inner: str) -> list[str]:
    edges = (site.federation.address,) if site.federation.address else kit.addresses
    hosts = list(dict.fromkeys(edge.rpartition(":")[0].strip("[]") for edge in edges))
    names = [host for host in hosts if not _is_ip(host)]
    lines = [
        "[edge]",
        "client = yes",
        f"accept = {inner}",
        f"cert = {(site.secrets / 'tls.crt').resolve()}",
        f"key = {(site.secrets / 'tls.key').resolve()}",
        f"CAfile = {authority}",
        "verifyChain = yes",
        *(f"{'checkIP' if _is_ip(host) else 'checkHost'} = {host}" for host in hosts),
        "sessionResume = no",
        # An empty name sends none; without this line stunnel would name the proxy.
        f"sni = {names[0] if names else ''}",
    ]
    settings = site.federation
    if not settings.proxy:
        return [*lines, "failover = prio", *(f"connect = {_plain(edge)}" for edge in edges)]
    # A proxy is told one address: that by which this hospital enrolled.
    lines += [f"connect = {_plain(settings.proxy)}", "protocol = connect", f"protocolHost = {edges[0]}"]
    if settings.proxy_user:
        word = proxy_password(settings, site.folder)
        lines += [f"protocolUsername = {settings.proxy_user}", f"protocolPassword = {word}"]
        lines += ["protocolAuthentication = basic"]
    return lines


def _plain(address: str) -> str:
    """`host:port` as stunnel reads it: what stands before the last colon is looked up as it is, so without brackets."""
    host, _, port = address.rpartition(":")
    return f"{host.strip('[]')}:{port}"


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _stunnel() -> str:
    path = f"{os.environ.get('PATH', '')}:/usr/bin:/usr/sbin"
    found = shutil.which("stunnel4", path=path) or shutil.which("stunnel", path=path)
    if found is None:
        raise SettingsError(
            "stunnel",
            "it is not on this machine",
            "Install it, e.g. apt-get install stunnel4",
            code="tunnel-missing",
        )
    return found
