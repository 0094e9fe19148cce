"""What `consilium-site start` starts and under whose account: only what needs the data runs where the data is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from client.deployment import Start, programs
from client.site import init_site, load_site
from common.errors import PolicyRefused
from tests.accounts import needs_root, with_courier


@pytest.fixture
def site(tmp_path):
    """A simulated one, which may be started without TLS."""
    return init_site(tmp_path / "alpha", "alpha", simulation_seed=1)


def test_node_and_executor_run_as_the_courier_and_the_service_does_not(site):
    needs_root()
    found = {one.name: one for one in programs(Start(with_courier(site, "10042"), "127.0.0.1:1"))}
    assert {name: one.account for name, one in found.items()} == {
        "service": None,
        "node": (10042, 10042),
        "executor": (10042, 10042),
    }
    assert [name for name, one in found.items() if one.sees_patients] == ["service"]
    words = " ".join(part for name in ("node", "executor") for part in found[name].command)
    assert str(site.secrets) not in words
    assert str(site.data) not in words
    courier = site.folder / "courier"
    assert found["node"].folder == found["executor"].folder == courier
    assert (courier / "executor.secret").stat().st_uid == 10042
    assert (courier / "executor.secret").stat().st_mode & 0o077 == 0


def test_a_real_hospital_is_not_started_without_tls(site):
    real = replace(load_site(site.folder), simulated=False)
    with pytest.raises(PolicyRefused) as refusal:
        programs(Start(real, "127.0.0.1:1"))
    assert refusal.value.code == "loopback"
