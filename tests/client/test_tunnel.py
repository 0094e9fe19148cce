"""A real stunnel before a real edge that is known by its name, as most are."""

from __future__ import annotations

import json

import pytest

from client import parts, tunnel
from client.enrolment import enrol, renew
from client.site import init_site
from common.errors import ConsiliumError
from tests.client.test_renewal import roster_through
from tests.world.consortium import hospital, make
from tests.world.processes import Processes, free_ports, listening, until
from tests.world.proxy import proxy


def test_an_edge_with_a_name_is_reached_directly_and_through_a_proxy(tmp_path):
    with Processes(tmp_path / "logs") as processes, proxy() as way:
        world = make(tmp_path / "consortium", processes, "localhost")
        world.start_api()
        world.start_edge()
        for name, settings in (("st-direct", {}), ("st-proxy", {"proxy": way.address})):
            site = hospital(tmp_path / name, name, **settings)
            world.enrol(site)
            processes.start(f"tunnel-{name}", tunnel.command(site))
            until("the tunnel listens", lambda site=site: listening(tunnel.HOST, site.federation.tunnel_port))
            assert roster_through(site) == 200
        assert way.asked
        assert set(way.asked) == set(world.consortium.settings.federation.addresses)


@pytest.mark.parametrize("host", ["[::1]", "127.0.0.82"])
def test_an_edge_is_found_by_the_next_address_of_the_kit_also_in_version_6(tmp_path, host):
    """At the first address nobody answers: enrolment, renewal and the running tunnel go to the next by themselves."""
    with Processes(tmp_path / "logs") as processes, proxy() as way:
        (nobody,) = free_ports(1, "127.0.0.83")
        world = make(tmp_path / "consortium", processes, host, dead=f"127.0.0.83:{nobody}")
        world.start_api()
        world.start_edge()
        for name, settings in (("st-direct", {}), ("st-proxy", {"proxy": way.address})):
            site = hospital(tmp_path / name, name, **settings)
            world.enrol(site)
            assert renew(site, always=True) is not None
            processes.start(f"tunnel-{name}", tunnel.command(site))
            until("the tunnel listens", lambda site=site: listening(tunnel.HOST, site.federation.tunnel_port))
            assert roster_through(site) == 200
        assert way.asked[-1] == world.consortium.settings.federation.addresses[1]


def test_a_tunnel_goes_over_to_the_address_that_answers(tmp_path):
    """The kit's first address answered at enrolment and is gone since."""
    with Processes(tmp_path / "logs") as processes:
        world = make(tmp_path / "consortium", processes, "127.0.0.84")
        world.start_api()
        world.start_edge()
        site = hospital(tmp_path / "site", "st-moved")
        world.enrol(site)
        (nobody,) = free_ports(1, "127.0.0.83")
        kit = site.state / "federation" / "kit.json"
        values = json.loads(kit.read_text())
        values["addresses"].insert(0, f"127.0.0.83:{nobody}")
        kit.write_text(json.dumps(values))
        assert renew(site, always=True) is not None
        (program,) = (one for one in parts.connecting(site) if one.name == "tunnel")
        assert f"output = {program.logs[0]}" in tunnel.write(site).read_text(), (
            "what stunnel writes is bounded"
        )
        processes.start("tunnel", tunnel.command(site))
        until("the tunnel listens", lambda: listening(tunnel.HOST, site.federation.tunnel_port))
        assert roster_through(site) == 200


def test_without_enrolment_or_password_there_is_no_tunnel(tmp_path):
    with pytest.raises(ConsiliumError) as refusal:
        tunnel.command(init_site(tmp_path / "new", "st-new"))
    assert refusal.value.code == "not-enrolled"
    with Processes(tmp_path / "logs") as processes:
        world = make(tmp_path / "consortium", processes, "127.0.0.81")
        settings = {"proxy": "127.0.0.1:1", "proxy_user": "house", "proxy_password_file": "missing"}
        site = hospital(tmp_path / "site", "st-word", **settings)
        with pytest.raises(ConsiliumError) as refusal:
            enrol(site, *world.invite("st-word"))
        assert refusal.value.code == "settings"
