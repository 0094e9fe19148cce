"""A program under another account: who it is, which groups it has, what it finds in its environment."""

from __future__ import annotations

import json
import pwd
import time

from common.supervisor import Program, Supervisor
from tests.accounts import NOBODY, needs_root, open_place, python_for

TELLS = (
    "import json, os; "
    "print(json.dumps([os.getuid(), os.getgid(), os.getgroups(), dict(os.environ)]), flush=True); "
    "import time; time.sleep(600)"
)


def test_a_program_under_another_account_has_no_other_group_and_no_secret_of_ours(monkeypatch, tmp_path):
    """What `consilium-site start` was told by its environment, a proxy's password say, is not for the courier."""
    needs_root()
    monkeypatch.setenv("CONSILIUM__FEDERATION__PROXY", "http://me:secret@proxy")
    monkeypatch.setenv("LANG", "C.UTF-8")
    known = pwd.getpwnam(NOBODY)
    with open_place() as place:
        program = Program(
            "one",
            (python_for(NOBODY), "-c", TELLS),
            place,
            {"GIVEN": "yes"},
            account=(known.pw_uid, known.pw_gid),
        )
        kept = Supervisor([program], tmp_path)
        until, log = time.monotonic() + 60, tmp_path / "one.log"
        try:
            while not (log.exists() and log.read_text().endswith("\n")):
                assert time.monotonic() < until
                kept.tick()
                time.sleep(0.02)
        finally:
            kept.stop()
        user, group, groups, environment = json.loads(log.read_text())
        assert (user, group) == (known.pw_uid, known.pw_gid)
        assert set(groups) <= {group}
        assert environment["GIVEN"] == "yes"
        assert environment["LANG"] == "C.UTF-8"
        assert environment["HOME"] == str(place)
        assert not any("secret" in value for value in environment.values())
        assert set(environment) <= {
            "GIVEN",
            "HOME",
            *("LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONPATH", "OMP_NUM_THREADS"),
        }
