"""The words with which `consilium-server start` starts Flower: what keeps strangers out is in them, as in the tests' own."""

from __future__ import annotations

import re

from server.deployment import Start, programs
from server.federation_folder import Consortium


def words(tmp_path, *, loopback: bool = False) -> dict[str, str]:
    """Command line of each process."""
    made = Consortium.init(tmp_path / f"consortium-{loopback}", "lungs", ["localhost:9443"])
    return {one.name: " ".join(one.command) for one in programs(Start(made, loopback))}


def test_the_superlink_is_on_loopback_knows_its_nodes_and_gives_work_to_who_has_the_secret(tmp_path):
    told = words(tmp_path)
    folder = tmp_path / "consortium-False"
    secret = f"--superexec-auth-secret-file {folder / 'secrets' / 'executor.secret'}"
    for expected in (
        "--host 127.0.0.1 ",
        "--enable-supernode-auth",
        "--isolation process",
        f"--ssl-certfile {folder / 'pki' / 'superlink.crt'}",
        f"--ssl-ca-certfile {folder / 'pki' / 'ca.crt'}",
        "--disable-runtime-dependency-installation",
        secret,
    ):
        assert expected in told["superlink"], expected
    assert "insecure" not in told["superlink"]
    assert str(folder / "secrets" / "executor.secret") in told["executor"]
    assert {"edge", "api", "dashboard"} <= set(told)


def test_what_nginx_writes_is_kept_from_growing(tmp_path):
    """Whatever the edge's settings name as a log is among the files that the supervisor bounds."""
    made = Consortium.init(tmp_path / "consortium", "lungs", ["localhost:9443"])
    (edge,) = (one for one in programs(Start(made)) if one.name == "edge")
    conf = (made.run / "edge.conf").read_text()
    named = re.findall(r"^\s*(?:access_log|error_log) (\S+?)[ ;]", conf, re.MULTILINE)
    assert len(named) == 3
    assert set(named) == {str(path) for path in edge.logs}


def test_without_tls_the_executor_still_shows_its_secret_and_nobody_else_is_served(tmp_path):
    """For simulated hospitals of this machine."""
    told = words(tmp_path, loopback=True)
    assert "--host 127.0.0.1 " in told["superlink"]
    assert "--superexec-auth-secret-file" in told["superlink"]
    assert "--isolation process" in told["superlink"]
    assert not {"edge", "api"} & set(told)
