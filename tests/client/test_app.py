"""The courier: carries, reads nothing, imports nothing heavy, lets no text out."""

from __future__ import annotations

import subprocess
import sys

import pytest
from flwr.app import Context, Message, RecordDict

from client import direct
from client.app import app
from client.socket import serve
from common import wire
from common.code import code_digest
from common.messages import Instruction, Kind, Refusal, SiteMetrics
from common.plan import dump_plan
from simulations.grid import InProcessGrid
from tests.toy import toy_plan, toy_service


def _message(kind="query", content=None, virtual=""):
    InProcessGrid([])  # says who this process is, as Flower's runtimes do
    plan = toy_plan()
    survey = Instruction(Kind.SURVEY, "run-1", 0, dump_plan(plan), plan.digest, code_digest(), {})
    records = content if content is not None else wire.to_records(wire.pack(survey), virtual)
    return Message(records, 1, kind, ttl=30.0)


def _context(**config):
    return Context(
        run_id=1, node_id=1, node_config=config, state=RecordDict(), run_config={"federation": "/"}
    )


def _reply(message, **config):
    answer = app(message, _context(**config))
    assert answer.has_content()
    return wire.unpack(wire.from_records(answer.content))


def test_it_imports_no_torch_no_pydantic_and_no_reader_of_images():
    code = (
        "import sys, client.app;"
        "print(*[m for m in ('torch', 'monai', 'pydantic', 'pydicom', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == ""


def test_in_a_deployment_it_carries_to_the_socket_and_holds_no_reader_of_data(tmp_path):
    service = toy_service(tmp_path, "alpha")
    server = serve(service, tmp_path / "site.sock")
    reply = _reply(_message(), **{"service-socket": str(tmp_path / "site.sock")})
    server.stop(grace=None).wait()
    assert isinstance(reply, SiteMetrics)
    assert reply.site == "alpha"


@pytest.mark.parametrize("kind", ["query", "train", "evaluate"])
def test_every_kind_of_flower_message_has_the_same_handler(tmp_path, kind):
    direct.host(toy_service(tmp_path, "alpha"))
    assert isinstance(_reply(_message(kind), **{"site-folder": str(tmp_path / "alpha")}), SiteMetrics)


def test_flowers_simulation_finds_the_nth_hospital_by_name(tmp_path):
    for name in ("beta", "alpha"):
        direct.host(toy_service(tmp_path, name))
    replies = [_reply(_message(virtual=str(tmp_path)), **{"partition-id": n}) for n in range(3)]
    assert [reply.site for reply in replies] == ["alpha", "beta", ""]
    assert replies[2].code == "no-site"


def test_a_server_cannot_point_a_real_node_at_a_folder(tmp_path):
    """Only Flower's simulation runtime gives a node a partition; a hospital's node has a socket."""
    direct.host(toy_service(tmp_path, "alpha"))
    assert _reply(_message(virtual=str(tmp_path))).code == "no-service"
    gone = {"service-socket": str(tmp_path / "gone.sock"), "partition-id": 0}
    assert _reply(_message(virtual=str(tmp_path)), **gone).code == "no-service"


def test_what_cannot_be_read_gets_a_code_and_never_an_exception():
    assert _reply(_message(content=RecordDict())).code == "wire"
    reply = _reply(_message(content=wire.to_records(b"junk")))
    assert isinstance(reply, Refusal)
    assert (reply.site, reply.run, reply.round) == ("", "", 0)


def test_a_broken_node_configuration_gets_a_code(tmp_path):
    assert _reply(_message(virtual=str(tmp_path)), **{"partition-id": "x"}).code == "courier"
    assert _reply(_message(), **{"site-folder": str(tmp_path / "none")}).code == "settings"
