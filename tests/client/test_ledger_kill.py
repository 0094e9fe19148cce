"""The service is killed after the update was stored and before it was sent: what does the server get then?"""

from __future__ import annotations

import signal
import subprocess
import sys

from client.privacy.ledger import Ledger, Release
from client.service import SiteService
from common import plan as plans
from common import wire
from common.arrays import digest
from common.audit import read
from common.code import code_digest
from common.messages import Instruction, Kind, Update
from server.start import start_of
from tests.client.made import made_plan
from tests.sites import image_site

PLAN = made_plan(privacy={"mode": "patient-dp"}, evaluation={"min_cell": 1, "bootstrap": 100})
_DIES = """
import os, signal, sys
from pathlib import Path
from client.duties import ImagingDuties
from client.service import SiteService
from client.site import load_site

class Dies(ImagingDuties):
    def train(self, instruction, plan):
        super().train(instruction, plan)
        os.kill(os.getpid(), signal.SIGKILL)

site = load_site(Path(sys.argv[1]))
print(SiteService(site, Dies(site)).answer(Path(sys.argv[2]).read_bytes())[:400])
"""


def test_the_same_bytes_leave_after_the_kill_and_cost_nothing_more(tmp_path):
    site = image_site(tmp_path / "alpha", "alpha")
    arrays = start_of(PLAN).arrays
    text = plans.dump_plan(PLAN)
    asked = Instruction(Kind.TRAIN, "run-1", 1, text, PLAN.digest, code_digest(), arrays)
    (tmp_path / "instruction").write_bytes(wire.pack(asked))
    command = [sys.executable, "-c", _DIES, site.folder, tmp_path / "instruction"]
    died = subprocess.run(command, capture_output=True, timeout=300, check=False)
    assert died.returncode == -signal.SIGKILL, (died.stdout, died.stderr[-2000:])
    assert "egress.release" not in [line["event"] for line in read(site.audit)]
    with Ledger(site.ledger, simulated=True) as ledger:
        stored = ledger.replay(Release("run-1", 1, PLAN.digest, digest(arrays)))
        head, charges = ledger.head, len(ledger.charges)
    assert charges == 1
    sent = [SiteService(site).answer(wire.pack(asked)) for _ in range(2)]
    assert sent == [stored, stored]
    update = wire.unpack(sent[0])
    assert isinstance(update, Update)
    assert update.head is not None
    assert update.head.sequence == head.sequence - 1, "the charge's row; the update's own came after"
    with Ledger(site.ledger, simulated=True) as ledger:
        assert (ledger.head, len(ledger.charges)) == (head, 1)
    assert [line["event"] for line in read(site.audit)].count("update.replayed") == 2
