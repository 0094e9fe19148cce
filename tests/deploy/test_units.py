"""Units for those without containers: systemd itself reads them."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.deploy.files import UNITS, unit
from tests.orthanc import program

EXPOSURE = 2.0
"""Of systemd's 0 (sealed) to 10 (open); a service without any setting has 9.6."""
REQUIRED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "ProtectKernelTunables": "yes",
    "RestrictNamespaces": "yes",
    "SystemCallErrorNumber": "EPERM",
    "LimitCORE": "0",
    "UMask": "0077",
    "Restart": "always",
}
NAMES = [path.stem for path in UNITS]


def test_there_is_a_unit_for_every_part() -> None:
    assert NAMES == ["consilium-connect", "consilium-courier", "consilium-server", "consilium-service"]


@pytest.mark.parametrize("path", UNITS, ids=NAMES)
def test_it_is_hardened(path: Path) -> None:
    values = unit(path)
    assert {key: values.get(key) for key in REQUIRED} == {key: [value] for key, value in REQUIRED.items()}
    assert values["User"][0] not in ("root", "0")
    assert "/srv/consilium" not in values["ReadWritePaths"][0].split() or path.stem == "consilium-service"


@pytest.mark.parametrize("path", UNITS, ids=NAMES)
def test_systemd_reads_it_and_finds_little_to_complain_of(path: Path) -> None:
    analyze = program("systemd-analyze", "systemd")
    said = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, check=False)
    lines = [line for line in (said.stdout + said.stderr).splitlines() if path.name in line]
    assert [line for line in lines if "is not executable: No such file" not in line] == []
    command = [analyze, "security", "--offline=true", str(path)]
    judged = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"exposure level for \S+: ([\d.]+)", judged.stdout)
    assert found, judged.stderr
    assert float(found[1]) <= EXPOSURE


def test_the_service_has_no_network_and_the_courier_only_this_machine() -> None:
    found = {path.stem: unit(path) for path in UNITS}
    assert found["consilium-service"]["PrivateNetwork"] == ["yes"]
    assert found["consilium-courier"]["IPAddressDeny"] == ["any"]
    assert found["consilium-courier"]["IPAddressAllow"] == ["localhost"]
    assert found["consilium-courier"]["User"] != found["consilium-service"]["User"]
    assert found["consilium-courier"]["InaccessiblePaths"] == ["-/srv/consilium"]


def test_the_connection_sees_no_data_and_decoys_for_the_keys_of_pseudonyms() -> None:
    (connect,) = [unit(path) for path in UNITS if path.stem == "consilium-connect"]
    assert "-/srv/consilium/data" in connect["InaccessiblePaths"][0].split()
    bound = [pair.partition(":") for pair in connect["BindReadOnlyPaths"][0].split()]
    assert [target.rpartition("/")[2] for _, _, target in bound] == ["pseudonym.key", "spend.key"]
