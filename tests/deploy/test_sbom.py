"""The bill of materials: valid by CycloneDX's own schema, true, and the same each time."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from common.sbom import dump_sbom
from tests.deploy.files import SCHEMAS

NAMES = ("bom-1.6.schema.json", "spdx.schema.json", "jsf-0.82.schema.json")


@pytest.fixture(scope="module")
def bill() -> dict:
    return json.loads(dump_sbom())


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft7Validator:
    schemas = {name: json.loads((SCHEMAS / name).read_text()) for name in NAMES}
    found = [
        (f"http://cyclonedx.org/schema/{name}", Resource.from_contents(s, DRAFT7))
        for name, s in schemas.items()
    ]
    return jsonschema.Draft7Validator(schemas[NAMES[0]], registry=Registry().with_resources(found))


def test_it_is_valid_by_the_specification(bill: dict, validator) -> None:
    validator.validate(bill)


def test_the_schema_sees_what_is_wrong(bill: dict, validator) -> None:
    wrong = copy.deepcopy(bill)
    wrong["components"][0]["type"] = "program"
    with pytest.raises(jsonschema.ValidationError):
        validator.validate(wrong)


def test_it_names_what_is_installed_with_its_version_and_no_tool_beside_it(bill: dict) -> None:
    versions = {row["name"]: row["version"] for row in bill["components"]}
    for name in ("torch", "flwr", "pydicom", "cryptography", "opacus"):
        assert versions[name] == version(name)
    assert not {"pytest", "ruff", "mypy", "pip"} & set(versions)
    assert bill["metadata"]["component"]["name"] == "consilium"


def test_every_dependency_leads_to_a_component(bill: dict) -> None:
    known = {row["bom-ref"] for row in [bill["metadata"]["component"], *bill["components"]]}
    assert {row["ref"] for row in bill["dependencies"]} == known
    assert all(set(row["dependsOn"]) <= known for row in bill["dependencies"])
    (root,) = [row for row in bill["dependencies"] if row["ref"].startswith("pkg:pypi/consilium@")]
    assert any(ref.startswith("pkg:pypi/flwr@") for ref in root["dependsOn"])


def test_the_command_writes_the_same_bytes_each_time(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("consilium-site")
    for name in ("one.json", "two.json"):
        command = [program, "sbom", "--out", name]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
