"""A site service that does not start: whoever reads the supervisor's log, which keeps no free words, learns why."""

from __future__ import annotations

import json
import sys
import time

import pytest

from client.privacy.ledger import Ledger
from client.site import init_site
from common.supervisor import Program, Supervisor


@pytest.mark.parametrize("code", ["settings", "ledger-missing"])
def test_what_ends_the_service_is_in_its_log_by_its_code(tmp_path, code):
    site = init_site(tmp_path / "site", "st-anna")
    if code == "settings":
        Ledger.create(site.ledger).close()
        with (site.folder / "site.toml").open("a") as file:
            file.write("\n[canary-maria]\nkey = 1\n")
    command = (sys.executable, "-m", "client.cli", "serve", "--site", str(site.folder))
    kept = Supervisor([Program("service", command, tmp_path, sees_patients=True)], tmp_path / "processes")
    log = tmp_path / "processes" / "service.log"
    try:
        started = time.monotonic()
        while "serve.failed" not in (log.read_text() if log.exists() else ""):
            assert time.monotonic() - started < 180
            kept.tick()
            time.sleep(0.05)
    finally:
        kept.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert code in [line.get("code") for line in lines]
    assert "withheld" in [line["event"] for line in lines], "the same in free words"
    assert "maria" not in log.read_text()
