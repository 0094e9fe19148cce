"""Real processes: does a certificate renew itself under a running tunnel, and does a failure leave the old one?"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
from datetime import UTC, datetime, timedelta

import pytest

from client import parts, renewal, tunnel
from client.enrolment import certificate, enrol
from client.privacy.ledger import Ledger
from common.certificates import load_key
from common.enrolment import PREFIX
from common.pki import self_signed
from server import enrolment
from tests.world.consortium import hospital, make
from tests.world.processes import Processes, listening, until


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("renewal")
    with Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.41")
        made.start_api()
        made.start_edge()
        yield made


def member(world, folder, name: str, days_ago: int):
    """A hospital whose certificate was given so many days ago."""
    site = hospital(folder, name)
    kit, code = world.invite(name)
    enrol(site, kit, code)
    enrolment.admit(world.consortium, name, datetime.now(UTC) - timedelta(days=days_ago))
    assert enrol(site, kit, "").admitted
    return site


def roster_through(site) -> int:
    """The status of a question that goes through the hospital's tunnel."""
    context = ssl.create_default_context(cafile=str(tunnel.root_certificate(site)))
    line = http.client.HTTPSConnection(tunnel.HOST, site.federation.tunnel_port, timeout=60, context=context)
    try:
        line.request("GET", f"{PREFIX}/roster")
        return line.getresponse().status
    finally:
        line.close()


def test_a_certificate_is_changed_under_a_running_tunnel_without_anybody(world, tmp_path):
    """It ends in 29 days: the process renews it, the tunnel goes over to it, and the old one could be revoked."""
    site = member(world, tmp_path / "site", "st-keep", 61)
    old = certificate(site)
    world.processes.start("tunnel", tunnel.command(site))
    until("the tunnel listens", lambda: listening(tunnel.HOST, site.federation.tunnel_port))
    assert roster_through(site) == 200
    world.processes.start("renewal", [*renewal.command(site), "0.2"])
    until("a new certificate", lambda: certificate(site).fingerprint != old.fingerprint)
    assert certificate(site).left(datetime.now(UTC)) > timedelta(days=89)
    log = site.state / "federation" / "tunnel.log"
    until("the tunnel reads it", lambda: log.read_text().count("Configuration successful") == 2)
    assert roster_through(site) == 200
    rows = [row for row in world.consortium.book.sites() if row.name == "st-keep"]
    assert [row.state for row in rows] == ["member"]


def test_a_server_that_is_away_leaves_the_old_certificate_and_is_asked_again(world, tmp_path):
    site = member(world, tmp_path / "site", "st-away", 61)
    old = certificate(site)
    path = site.folder / "site.toml"
    good = path.read_text()
    path.write_text(good.replace("[federation]", '[federation]\naddress = "127.0.0.41:1"'))
    away = world.processes.start("renewal-away", [*renewal.command(site), "0.2"])
    until("it failed and says why", lambda: "unreachable" in world.processes.log("renewal-away"))
    assert away.poll() is None
    assert certificate(site) == old
    world.processes.kill(away)
    path.write_text(good)
    world.processes.start("renewal-back", [*renewal.command(site), "0.2"])
    until("a new certificate", lambda: certificate(site).fingerprint != old.fingerprint)


START = """
import sys
from pathlib import Path
from client.deployment import Start, serve
from client.site import load_site

serve(Start(load_site(Path(sys.argv[1])), look_s=0.2), lambda: True)
"""


@pytest.mark.parametrize("why", ["it ends in 29 days", "it is gone"])
def test_the_node_gets_the_tunnel_s_next_certificate_without_anybody(world, tmp_path, why):
    """Months after `start`: the node believes one certificate for as long as it runs, and that one ends."""
    site = member(world, tmp_path / "site", "st-long" if "ends" in why else "st-gone", 1)
    Ledger.create(site.ledger).close()
    child = world.processes.start(f"start-{site.name}", [sys.executable, "-c", START, str(site.folder)])
    names = ("tunnel", "node", "executor", "service", "renewal")
    until("all processes", lambda: None not in [pid(site, name) for name in names])
    before = {name: pid(site, name) for name in names}
    here = site.state / "federation" / "local.crt"
    if "ends" in why:
        key, old = load_key(site.secrets / "local.key"), datetime.now(UTC) - timedelta(days=61)
        here.write_text(self_signed(key, site.federation.tunnel_host, old).pem)
    else:
        here.unlink()
    until(
        "another node and tunnel",
        lambda: {pid(site, "node"), pid(site, "tunnel")}.isdisjoint((None, *before.values())),
    )
    handed = site.state / "tunnel.crt"
    assert handed.read_bytes() == here.read_bytes()
    assert not tunnel.ends_soon(site)
    until("the tunnel shows it", lambda: shown(site) == handed.read_text())
    assert roster_through(site) == 200
    until("another executor", lambda: pid(site, "executor") not in (None, before["executor"]))
    assert [pid(site, name) for name in ("service", "renewal")] == [before["service"], before["renewal"]]
    world.processes.kill(child)


def pid(site, name: str) -> int | None:
    try:
        told = json.loads((site.state / "processes" / "status.json").read_text())["programs"]
    except (OSError, ValueError):
        return None
    return told[name]["pid"]


def shown(site) -> str:
    """The certificate that the tunnel shows to its node."""
    try:
        return ssl.get_server_certificate((tunnel.HOST, site.federation.tunnel_port), timeout=10)
    except OSError:
        return ""


def test_parts_that_run_apart_see_that_the_tunnel_s_certificate_ends(world, tmp_path):
    """Looking changes nothing: the one that both sides still use must not be replaced under them."""
    site = member(world, tmp_path / "site", "st-apart", 1)
    courier = parts.hand_over(site)
    before = parts.stamp(site, courier), parts.stamp(None, courier)
    assert (parts.stamp(site, courier), parts.stamp(None, courier)) == before
    here = site.state / "federation" / "local.crt"
    ends = self_signed(
        load_key(site.secrets / "local.key"),
        site.federation.tunnel_host,
        datetime.now(UTC) - timedelta(days=61),
    )
    here.write_text(ends.pem)
    (courier / "tunnel.crt").write_text(ends.pem)
    now = parts.stamp(site, courier)
    assert now != before[0], "`connect` ends, and is started anew"
    assert here.read_text() == ends.pem
    parts.connecting(site)
    assert (courier / "tunnel.crt").read_bytes() == here.read_bytes() != ends.pem.encode()
    assert parts.stamp(None, courier) != before[1], "and then `courier` ends, and is started anew"
