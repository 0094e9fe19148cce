"""A hostile bundle that was approved by mistake, run as the courier runs: what it gets, and what it can only spoil."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest

from client.approvals import Approvals
from client.courier import CourierSettings, check_closed, courier_of, furnish
from client.egress import digest_of
from client.gate import Gate, peer_of
from client.index import Index
from client.policy import Policy
from client.site import load_site
from client.socket import call, healthy, serve
from client.studies import receive
from common import envelope, wire
from common import plan as plans
from common.audit import read
from common.code import code_digest
from common.envelope import Envelope
from common.errors import SettingsError
from common.messages import Instruction, Kind
from common.models import build, get_arrays
from server.release import released
from tests.client.made import fill, made_plan
from tests.enrolled import consortium, enrol, hospital

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = Path(__file__).with_name("hostile_courier.py")
NOBODY, OTHER = "nobody", "daemon"
SECRET = "what-only-the-service-was-told"
PLAN = made_plan(
    federation={"rounds": 1, "least_sites": 1, "deadline_s": 200.0},
    privacy={"mode": "patient-dp", "epsilon": 3.0, "sampling_rate": 0.2, "steps_per_round": 1},
)


def _needs_root():
    if os.geteuid() != 0:
        if os.environ.get("CI") == "true":
            pytest.fail("these tests change accounts and need root")
        pytest.skip("only root can run a process under another account")


def _python(account):
    """An interpreter of this version that the account may run; this one may lie in root's home."""
    found = [
        sys.executable,
        *(f"{place}/python3.{sys.version_info[1]}" for place in ("/usr/bin", "/usr/local/bin")),
    ]
    for program in found:
        with suppress(OSError):  # not there, or in a folder that is closed to the account
            if _as(account, [program, "-c", ""]).returncode == 0:
                return program
    return pytest.fail("no interpreter of this version that another account may run")


def _as(account, command, text="", **more):
    known = pwd.getpwnam(account)
    return subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        cwd="/",
        user=known.pw_uid,
        group=known.pw_gid,
        extra_groups=[],
        **more,
    )


@pytest.fixture
def place():
    """A folder that other accounts may enter, as /srv would be; pytest's own is closed to them."""
    folder = Path(tempfile.mkdtemp(prefix="consilium-courier-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _with_courier(site, user=NOBODY):
    path = site.folder / "site.toml"
    path.write_text(path.read_text() + f'\n[courier]\nuser = "{user}"\n')
    return load_site(site.folder)


@pytest.fixture
def world(place):
    """An enrolled hospital with patients, its service as `consilium-site serve` starts it, the courier's account named."""
    _needs_root()
    server, site = consortium(place), hospital(place, policy=Policy(min_patients=5))
    enrol(server, site)
    site.dicom.mkdir()
    fill(site, 40, 1, 2)
    made = released(server, PLAN)
    Approvals(site).approve(receive(site, server.book.release(made.id).body))
    site = _with_courier(site)
    process = subprocess.Popen(
        [sys.executable, "-m", "client.cli", "serve", "--site", str(site.folder)],
        env={**os.environ, "CANARY": SECRET, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    courier = courier_of(site)
    until = time.monotonic() + 120
    while not healthy(courier.socket, 1.0):
        assert process.poll() is None
        assert time.monotonic() < until
    yield server, site, process, courier
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def _clean():
    """The environment of a courier: where the code is, and nothing else."""
    code = [str(ROOT), *(place for place in sys.path if place.endswith("site-packages"))]
    return {"PATH": "/usr/bin:/bin", "PYTHONPATH": os.pathsep.join(code), "PYTHONDONTWRITEBYTECODE": "1"}


def _question(server, site):
    net = build(PLAN.model, PLAN.task.outputs, PLAN.input.shape)
    instruction = Instruction(
        Kind.TRAIN, "run-1", 1, plans.dump_plan(PLAN), PLAN.digest, code_digest(), get_arrays(net)
    )
    letter = Envelope("@lungs", f"{site.name}@lungs", "run-1", 1, envelope.nonce(), envelope.now_ms(), 300)
    return envelope.seal(wire.pack(instruction), server.identity, letter)


def _secrets_of(site):
    """Everything that must not be found in what the courier got: keys, pseudonyms, pictures, the ledger's names."""
    keys = [(site.secrets / name).read_bytes() for name in ("pseudonym.key", "spend.key", "identity.key")]
    with Index(site.index) as index:
        rows = index.images()
    named = {word for row in rows for word in (row.patient, row.spend_key, row.sop_uid, row.study_uid)}
    pictures = [next(iter(site.dicom.rglob("*.dcm"))).read_bytes()[-64:]]
    return [*keys, *pictures, *(word.encode() for word in named), SECRET.encode()]


def test_a_hostile_bundle_gets_no_file_key_memory_raw_update_or_patient(world, place):
    server, site, process, courier = world
    furnish(courier)
    asked = {
        "folders": [str(path) for path in (site.data, site.state, site.secrets)],
        "files": [
            *map(str, (site.ledger, site.index, site.audit, site.secrets / "pseudonym.key")),
            *map(str, (site.secrets / "identity.key", next(site.dicom.rglob("*.dcm")))),
            str(site.state / "federation" / "approvals.json"),
        ],
        "pid": process.pid,
        "socket": str(courier.socket),
        "inner": str(site.state / "service.sock"),
        "own": str(courier.folder),
        "question": _question(server, site).hex(),
    }
    done = _as(NOBODY, [_python(NOBODY), str(_copied(place))], json.dumps(asked), env=_clean())
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads(done.stdout)
    open_to_it = {"own environment", "genuine question", "kind of the answer"}
    words = {
        "bare question": "envelope",
        "question of its own": "envelope-signature",
        "question made worse": "envelope-signature",
        "once more": "envelope-replay",
    }
    for name, what in got.items():
        if name in words:
            assert what == words[name], name
        elif name not in open_to_it:
            assert what.startswith("denied"), (name, what[:80])
    assert got["kind of the answer"] == "Update"
    taken = b"".join(bytes.fromhex(got[name]) for name in open_to_it - {"kind of the answer"})
    assert not [secret[:8] for secret in _secrets_of(site) if secret in taken]
    assert process.poll() is None
    _only_what_left(site, bytes.fromhex(got["genuine question"]))


def _only_what_left(site, sealed):
    """The one thing it carried is the protected update, byte for byte as paid for; it was paid for once."""
    body = envelope.split(sealed)[1]
    departures = [one["fields"] for one in read(site.audit) if one["event"] == "egress.release"]
    assert [one["digest"] for one in departures if one["kind"] == "update"] == [digest_of(body)]
    assert {one["kind"] for one in departures} == {"update", "refusal"}


def _copied(place):
    """Where another account can read it."""
    path = place / "hostile.py"
    shutil.copy(HOSTILE, path)
    path.chmod(0o644)
    return path


def test_a_third_account_does_not_reach_the_service(world, place):
    """Not in the courier's group: the file says no. In it, but another account: the kernel's word says no."""
    _, _, _, courier = world
    asked = json.dumps({"knock": True, "socket": str(courier.socket)})
    program = [_python(OTHER), str(_copied(place))]
    done = _as(OTHER, program, asked, env=_clean())
    assert json.loads(done.stdout)["knock"].startswith("denied"), done.stderr
    known = pwd.getpwnam(OTHER)
    done = subprocess.run(
        program,
        input=asked,
        capture_output=True,
        text=True,
        check=True,
        timeout=100,
        cwd="/",
        user=known.pw_uid,
        group=courier.group,
        extra_groups=[courier.group],
        env=_clean(),
    )
    assert json.loads(done.stdout)["knock"].startswith("denied")
    assert healthy(courier.socket)


class Echo:
    """Answers with what it heard."""

    def answer(self, blob: bytes) -> bytes:
        return blob


@pytest.fixture
def gate(tmp_path):
    inner = serve(Echo(), tmp_path / "inner" / "s.sock")
    made = Gate(
        tmp_path / "outer" / "s.sock", tmp_path / "inner" / "s.sock", frozenset((os.geteuid(),)), os.getegid()
    )
    yield tmp_path / "outer" / "s.sock"
    made.stop()
    inner.stop(grace=None).wait()


def test_a_model_goes_through_the_gate_whole_and_many_times(gate):
    model = os.urandom(30 << 20)
    assert call(gate, model, 100) == model
    for number in range(50):
        assert call(gate, b"%d" % number, 20) == b"%d" % number
    assert healthy(gate)


def test_the_gate_lets_nobody_in_who_is_not_named(tmp_path):
    made = Gate(tmp_path / "s.sock", tmp_path / "inner.sock", frozenset((65534,)), os.getegid())
    try:
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(20)
            line.connect(str(tmp_path / "s.sock"))
            assert line.recv(1) == b""
    finally:
        made.stop()
    assert not (tmp_path / "s.sock").exists()


def test_the_kernel_names_the_account(tmp_path):
    one, other = socket.socketpair(socket.AF_UNIX)
    with one, other:
        assert peer_of(one) == os.geteuid()


def test_a_service_that_is_away_ends_the_connection_and_not_the_gate(gate, tmp_path):
    made = Gate(tmp_path / "s.sock", tmp_path / "nobody.sock", frozenset((os.geteuid(),)), os.getegid())
    try:
        for _ in range(40):
            assert not healthy(tmp_path / "s.sock", 1.0)
    finally:
        made.stop()


@pytest.mark.parametrize("name", ["data", "state", "secrets"])
def test_nothing_starts_while_a_folder_is_open_to_others(tmp_path, name):
    _needs_root()
    site = _with_courier(hospital(tmp_path))
    check_closed(site, courier_of(site))
    (site.folder / name).chmod(0o750)
    with pytest.raises(SettingsError) as caught:
        check_closed(site, courier_of(site))
    assert caught.value.code == "courier-open"
    assert name in str(caught.value)
    assert "chmod 700" in caught.value.remedy


def test_a_new_site_is_closed_from_the_start(tmp_path):
    site = hospital(tmp_path)
    assert [oct(p.stat().st_mode & 0o777) for p in (site.data, site.state, site.secrets)] == ["0o700"] * 3


@pytest.mark.parametrize("user", ["no-such-account", "root"])
def test_an_account_that_will_not_do_is_refused_by_name(tmp_path, user):
    _needs_root()
    with pytest.raises(SettingsError) as caught:
        courier_of(_with_courier(hospital(tmp_path), user))
    assert caught.value.code == "courier-user"


def test_without_an_account_there_is_no_courier_apart(tmp_path):
    assert hospital(tmp_path).courier == CourierSettings()
    assert courier_of(load_site(tmp_path / "alpha")) is None


def test_a_number_is_an_account_too(tmp_path):
    """In a container the courier's account is a number without a name."""
    _needs_root()
    courier = courier_of(_with_courier(hospital(tmp_path), "10042"))
    assert (courier.user, courier.group) == (10042, 10042)
