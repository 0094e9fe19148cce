"""A node that was killed signs its predecessor off, and is let in at once; and what is assumed of Flower for it."""

from __future__ import annotations

import importlib
import inspect

import httpx
import pytest
from flwr.proto.fleet_pb2 import ActivateNodeRequest, ActivateNodeResponse, DeactivateNodeResponse

from client.reentry import NAME, PLACE, returning

NODE = 2**63 + 11


class SuperLink:
    """Lets a node in that is not present, as Flower's does."""

    def __init__(self, *, present=False, other=False):
        self.present, self.other, self.asked = present, other, []

    def ActivateNode(self, _request):  # noqa: N802 - as Flower calls it
        self.asked.append("activate")
        if self.present:
            raise self._no()
        self.present = True
        return ActivateNodeResponse(node_id=NODE)

    def DeactivateNode(self, request):  # noqa: N802
        self.asked.append("deactivate")
        if self.other or request.node_id != NODE:
            raise self._no()
        self.present = False
        return DeactivateNodeResponse()

    def _no(self):
        answer = httpx.Response(409, request=httpx.Request("POST", "http://127.0.0.1/"))
        return httpx.HTTPStatusError("no", request=answer.request, response=answer)


def _node(tmp_path, **how):
    return returning(SuperLink, tmp_path / "number")(**how)


def test_a_node_that_was_killed_is_let_in_at_once_under_its_number(tmp_path):
    first = _node(tmp_path)
    assert first.ActivateNode(ActivateNodeRequest()).node_id == NODE
    assert first.asked == ["activate"]
    again = _node(tmp_path, present=True)
    assert again.ActivateNode(ActivateNodeRequest()).node_id == NODE
    assert again.asked == ["activate", "deactivate", "activate"]


@pytest.mark.parametrize("memory", ["", "nonsense", "7"])
def test_one_that_does_not_know_its_number_or_another_s_is_refused_as_ever(tmp_path, memory):
    (tmp_path / "number").write_text(memory)
    node = _node(tmp_path, present=True)
    with pytest.raises(httpx.HTTPStatusError):
        node.ActivateNode(ActivateNodeRequest())
    assert node.asked.count("activate") == 1


def test_a_folder_that_cannot_be_written_keeps_no_node_out(tmp_path):
    node = returning(SuperLink, tmp_path / "none" / "number")()
    assert node.ActivateNode(ActivateNodeRequest()).node_id == NODE


def test_flower_finds_its_client_by_that_name_and_activates_through_it():
    place = importlib.import_module(PLACE)
    source = inspect.getsource(place)
    assert source.count(f"{NAME}.from_server_address(") == 1
    assert "client.ActivateNode," in source
    client = getattr(place, NAME)
    assert "cls(" in inspect.getsource(client.from_server_address)
    for name in ("ActivateNode", "DeactivateNode"):
        assert list(inspect.signature(getattr(client, name)).parameters) == ["self", "request"]
