"""What an enrolled hospital's doctor says of its membership and of the tunnel that its node uses: each failure is made."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import replace

import pytest

from client import parts, tunnel
from client.doctor import member
from client.doctor.check import looked
from client.doctor.examine import Visit, examine
from client.enrolment import kit_of, renew
from client.membership import offered, pin
from client.privacy.ledger import Ledger
from client.site import load_site
from server import enrolment
from tests.world.consortium import hospital, make
from tests.world.processes import Processes, free_ports, listening, until


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("doctor-member")
    with Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.34")
        made.start_api()
        made.start_edge()
        yield made


def joined(world, folder, name: str):
    """An enrolled hospital."""
    site = hospital(folder, name)
    Ledger.create(site.ledger).close()
    world.enrol(site)
    return load_site(site.folder)


def line(name: str, look, site) -> tuple[str, str, str]:
    """The only line, as (outcome, what it says, remedy)."""
    (check,) = looked(name, lambda: look(site))
    assert check.name == name
    return check.outcome.value, check.seen, check.remedy


def test_a_member_is_told_so_and_what_waits_and_a_revoked_one_is_told_too(world, tmp_path):
    """The direct lines pass for a revoked hospital, whose every question is refused: this one does not."""
    site = joined(world, tmp_path / "site", "st-ina")
    version = world.consortium.book.roster().version
    assert line("membership", member.membership, site)[:2] == ("pass", f"a member; roster version {version}")
    joined(world, tmp_path / "other", "st-new")
    found, seen, remedy = line("membership", member.membership, site)
    assert (found, "waits" in seen, "consilium-site roster" in remedy) == ("warn", True, True)
    renew(site)
    pin(site, offered(site), world.consortium.identity.public)
    assert line("membership", member.membership, site)[0] == "pass"
    enrolment.revoke(world.consortium, site.name)
    found, seen, remedy = line("membership", member.membership, site)
    assert (found, "certificate" in seen, "invitation" in remedy) == ("fail", True, True)
    assert {c.name: c.outcome.value for c in examine(Visit(site.folder))}["membership"] == "fail"


def test_a_server_that_was_put_back_to_an_older_state_is_named(world, tmp_path):
    site = joined(world, tmp_path / "site", "st-old")
    known = world.consortium.book.roster()
    path = site.state / "federation" / "roster.json"
    newer = enrolment.sign_roster(world.consortium.identity, "lungs", known.version + 3, known.members)
    pin(site, newer, world.consortium.identity.public)
    found, seen, remedy = line("membership", member.membership, site)
    assert (found, f"version {known.version}, and {known.version + 3}" in seen) == ("warn", True)
    assert "runbook" in remedy
    assert path.exists()


def test_a_tunnel_that_runs_one_that_does_not_and_one_that_leads_nowhere(world, tmp_path):
    site = joined(world, tmp_path / "site", "st-way")
    assert line("tunnel", member.tunnel, site)[0] == "skip"
    assert not parts.alive("connect", site, None)
    child = world.processes.start("tunnel", tunnel.command(site))
    until("the tunnel listens", lambda: listening(tunnel.HOST, site.federation.tunnel_port))
    assert line("tunnel", member.tunnel, site)[0] == "pass"
    assert parts.alive("connect", site, None)
    world.processes.kill(child)
    (nobody,) = free_ports(1, "127.0.0.83")
    lost = replace(site, federation=replace(site.federation, address=f"127.0.0.83:{nobody}"))
    world.processes.start("tunnel", tunnel.command(lost))
    until("the tunnel listens", lambda: listening(tunnel.HOST, site.federation.tunnel_port))
    found, seen, remedy = line("tunnel", member.tunnel, site)
    assert (found, "does not answer" in seen, "tunnel.log" in remedy) == ("fail", True, True)


def test_two_sites_of_one_machine_at_one_port(world, tmp_path):
    """A hospital in two consortia: the second tunnel cannot listen, and both sites' doctors know whose port it is."""
    first, second = (joined(world, tmp_path / name, name) for name in ("st-one", "st-two"))
    second = replace(second, federation=replace(second.federation, tunnel_port=first.federation.tunnel_port))
    world.processes.start("tunnel-one", tunnel.command(first))
    until("the tunnel listens", lambda: listening(tunnel.HOST, first.federation.tunnel_port))
    child = world.processes.start("tunnel-two", tunnel.command(second))
    assert child.wait(timeout=60)
    assert line("tunnel", member.tunnel, first)[0] == "pass"
    found, seen, remedy = line("tunnel", member.tunnel, second)
    assert (found, "another site's" in seen, "tunnel_port" in remedy) == ("fail", True, True)
    assert parts.alive("connect", first, None)
    assert not parts.alive("connect", second, None)


def test_what_speaks_no_tls_at_the_tunnels_port_is_another_program(world, tmp_path):
    site = joined(world, tmp_path / "site", "st-plain")
    tunnel.write(site)
    with socket.create_server((tunnel.HOST, site.federation.tunnel_port)) as server:
        other = threading.Thread(target=_greet, args=(server,), daemon=True)
        other.start()
        found, seen, _ = line("tunnel", member.tunnel, site)
        assert (found, "another program" in seen) == ("fail", True)
        other.join(timeout=60)


def _greet(server: socket.socket) -> None:
    """Two callers, as the look is one and the question another."""
    for _ in range(2):
        caller, _address = server.accept()
        with caller, contextlib.suppress(OSError):
            caller.sendall(b"SSH-2.0-other\r\n")
            while caller.recv(4096):
                pass


def test_the_kits_next_address_is_used_where_the_first_is_gone_and_that_is_said(world, tmp_path):
    site = joined(world, tmp_path / "site", "st-next")
    (nobody,) = free_ports(1, "127.0.0.83")
    kit = site.state / "federation" / "kit.json"
    kit.write_text(kit.read_text().replace('"addresses": [', f'"addresses": [ "127.0.0.83:{nobody}", '))
    assert len(kit_of(site).addresses) == 2
    lines = [(c.name, c.outcome.value, c.remedy) for c in examine(Visit(site.folder))]
    warned = [remedy for name, outcome, remedy in lines if (name, outcome) == ("connection", "warn")]
    assert len(warned) == 1
    assert "next address" in warned[0]
    assert ("TLS", "pass") in [one[:2] for one in lines]
    assert ("membership", "pass") in [one[:2] for one in lines]
