"""Real processes: does a certificate renew itself under a running tunnel, and does a failure leave the old one?"""

from __future__ import annotations

import http.client
import ssl
from datetime import UTC, datetime, timedelta

import pytest

from client import renewal, tunnel
from client.enrolment import certificate, enrol
from common.enrolment import PREFIX
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
