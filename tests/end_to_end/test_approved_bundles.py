"""Real processes: a SuperLink, an executor, our node and its executor on loopback; the service of an enrolled hospital."""

from __future__ import annotations

import pytest

from client.approvals import Approvals
from client.node import command
from client.service import SiteService
from client.socket import serve
from client.studies import receive
from common import executor
from server.launch import _free_port
from server.release import app_folder, released
from tests.enrolled import consortium, enrol, hospital
from tests.flower import Flower, wait_for_record
from tests.toy import ToyDuties, toy_plan

ASKED = toy_plan(rounds=1, least_sites=1, deadline_s=60.0)
OTHER = toy_plan(rounds=2, least_sites=1, deadline_s=60.0)


@pytest.fixture
def world(tmp_path):
    server, site = consortium(tmp_path), hospital(tmp_path)
    enrol(server, site)
    duties = ToyDuties(site.name)
    path = tmp_path / "run" / "service.sock"
    service = serve(SiteService(site, duties), path)
    flower = Flower(tmp_path / "flower")
    port = _free_port()
    words = ("--insecure", "--superlink", flower.address, "--isolation", "process")
    words += ("--host", "127.0.0.1", "--port", str(port), "--superexec-auth-secret-file", str(flower.secret))
    flower.add("node", command(path, *words), "superlink", group="courier")
    flower.add(
        "courier",
        executor.command(f"127.0.0.1:{port}", str(flower.secret), couriers=True),
        "node",
        group="courier",
    )
    yield server, site, duties, flower
    service.stop(grace=None).wait()


def _offered(server, site, plan):
    made = released(server, plan)
    return receive(site, server.book.release(made.id).body)


def _run(server, flower, parcel, folder):
    app = app_folder(parcel.bundle, folder / "app" / "consilium")
    flower.submit(app, out=folder / "out", consortium=server.folder)
    return wait_for_record(folder / "out" / "federation.json")


def test_a_node_runs_approved_bundles_only_and_stays_up(world, tmp_path):
    """The first bundle is refused by a word, the second trains at the same node; no code of the first was loaded."""
    server, site, duties, flower = world
    refused, approved = _offered(server, site, OTHER), _offered(server, site, ASKED)
    Approvals(site).approve(approved)
    with flower.running() as kept:
        record = _run(server, flower, refused, tmp_path / "refused")
        assert record["status"] == "subset"
        assert list(record["refused"].values()) == ["not-approved"]
        assert not duties.seen
        pid = kept.pid("node")
        record = _run(server, flower, approved, tmp_path / "approved")
        assert record["status"] == "completed", (record["refused"], flower.said("node")[-2000:])
        assert record["trained"] == [site.name]
        assert kept.pid("node") == pid
        assert (kept.starts("node"), kept.starts("courier")) == (1, 1)
    assert "bundle.refused" in flower.said("node")
    assert [asked.plan_digest for asked in duties.seen] == [ASKED.digest] * len(duties.seen)
    assert [asked.kind.value for asked in duties.seen].count("train") == 1
