"""Compose files are valid by the specification's own schema, and keep to what is promised of them."""

from __future__ import annotations

import copy
import json
import re

import jsonschema
import pytest

from client.site_keys import KEY_BYTES
from tests.deploy.files import DEPLOY, SCHEMAS, SIDES, compose, services, variables

SCHEMA = json.loads((SCHEMAS / "compose-spec.json").read_text())
FILES = ("server/compose.yaml", "site/compose.yaml", "site/cuda.yaml")
SERVICES = services()
NAMES = [f"{side}-{name}" for side, name, _ in SERVICES]


@pytest.mark.parametrize("name", FILES)
def test_it_is_a_compose_file_by_the_specification(name: str) -> None:
    jsonschema.Draft7Validator(SCHEMA).validate(compose(name))


def test_the_schema_sees_a_misspelt_key() -> None:
    wrong = copy.deepcopy(compose("site/compose.yaml"))
    wrong["services"]["service"]["readonly"] = True
    with pytest.raises(jsonschema.ValidationError, match="readonly"):
        jsonschema.Draft7Validator(SCHEMA).validate(wrong)


@pytest.mark.parametrize(("side", "name", "service"), SERVICES, ids=NAMES)
def test_every_part_is_locked_down(side: str, name: str, service: dict) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert "privileged" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert re.fullmatch(r"1000[12]:1000[12]", service["user"])
    assert {"cpus", "mem_limit", "shm_size", "pids_limit", "healthcheck", "stop_grace_period"} <= set(service)
    assert service["ulimits"]["core"] == 0, "a core file would hold patients"
    assert service["restart"] == "always"
    assert all("noexec" in mount and "size=" in mount for mount in service["tmpfs"])
    assert "pid" not in service
    assert "ipc" not in service


@pytest.mark.parametrize(("side", "name", "service"), SERVICES, ids=NAMES)
def test_no_secret_stands_in_an_environment(side: str, name: str, service: dict) -> None:
    words = re.compile(r"password|passphrase|secret|token|key", re.IGNORECASE)
    for key, value in service.get("environment", {}).items():
        assert not words.search(key) or str(value).startswith("/run/secrets/"), key


@pytest.mark.parametrize("side", SIDES)
def test_every_variable_has_an_example_and_every_example_is_used(side: str) -> None:
    text = (DEPLOY / side / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+)", text)) == set(variables(side))
    required = set(re.findall(r"\$\{(\w+):\?", text))
    assert {name for name in variables(side) if name.endswith(("_FOLDER", "_IMAGE", "_FILE"))} == required


@pytest.mark.parametrize("side", SIDES)
def test_no_image_is_the_latest(side: str) -> None:
    image = variables(side)[f"CONSILIUM_{side.upper()}_IMAGE"]
    assert ":" in image
    assert not image.endswith(":latest")


class TestHospital:
    SITE = compose("site/compose.yaml")
    PARTS = SITE["services"]

    def test_the_service_has_no_network_and_the_courier_no_way_out(self) -> None:
        assert self.PARTS["service"]["network_mode"] == "none"
        assert "networks" not in self.PARTS["service"]
        assert self.PARTS["courier"]["networks"] == ["inside"]
        assert self.SITE["networks"]["inside"] == {"internal": True}
        outside = [name for name, part in self.PARTS.items() if "outside" in part.get("networks", {})]
        assert outside == ["connect"], "one way out"

    def test_nothing_of_a_hospital_listens_to_the_world(self) -> None:
        assert not [name for name, part in self.PARTS.items() if "ports" in part or "expose" in part]

    def test_the_courier_is_another_user_and_sees_neither_site_nor_keys(self) -> None:
        assert self.PARTS["courier"]["user"] != self.PARTS["service"]["user"]
        mounted = [str(volume) for volume in self.PARTS["courier"]["volumes"]]
        assert not [volume for volume in mounted if "CONSILIUM_SITE_FOLDER" in volume]
        assert "group_add" not in self.PARTS["courier"]

    def test_the_connection_sees_no_data_and_a_decoy_for_the_keys_of_pseudonyms(self) -> None:
        connect = self.PARTS["connect"]
        bound = {volume["target"] for volume in connect["volumes"] if isinstance(volume, dict)}
        assert bound == {f"/srv/consilium/{part}" for part in ("site.toml", "state/federation", "secrets")}
        hidden = {config["target"].rpartition("/")[2] for config in connect["configs"]}
        assert hidden == {"pseudonym.key", "spend.key"}

    def test_the_decoy_has_the_form_of_a_key(self) -> None:
        assert len(self.SITE["configs"]["no_key"]["content"].encode()) == KEY_BYTES
        assert len((DEPLOY / "no.key").read_bytes()) == KEY_BYTES

    def test_parts_agree_on_where_they_meet(self) -> None:
        settings = self.PARTS["service"]["environment"]
        assert self.PARTS["connect"]["environment"] == settings
        assert (
            settings["CONSILIUM__FEDERATION__TUNNEL_HOST"]
            in self.PARTS["connect"]["networks"]["inside"]["aliases"]
        )
        assert self.PARTS["courier"]["command"] == [
            "courier",
            "--folder",
            settings["CONSILIUM__COURIER__FOLDER"],
        ]
        assert self.PARTS["courier"]["user"].startswith(settings["CONSILIUM__COURIER__USER"].strip('"') + ":")
        door = settings["CONSILIUM__COURIER__SOCKET"].rpartition("/")[0]
        assert f"door:{door}" in self.PARTS["service"]["volumes"]
        assert {"type": "volume", "source": "door", "target": door, "read_only": True} in self.PARTS[
            "courier"
        ]["volumes"]


def test_a_server_publishes_its_edge_alone_and_begins_no_connection() -> None:
    server = compose("server/compose.yaml")
    (service,) = server["services"].values()
    assert [port["target"] for port in service["ports"]] == [8443]
    assert "8443" in service["environment"]["CONSILIUM__EDGE__LISTEN"]
    options = server["networks"]["door"]["driver_opts"]
    assert options == {"com.docker.network.bridge.enable_ip_masquerade": "false"}
    assert set(service["secrets"]) == set(server["secrets"])
