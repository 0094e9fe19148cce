"""Each thing that can stand in the way is put there on purpose, and the doctor's line names it and its remedy."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import ssl
import tempfile
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.doctor import machine, network, state
from client.doctor.check import Outcome, looked
from client.doctor.examine import Visit, examine, route_to, worst
from client.doctor.machine import GIB, Machine
from client.doctor.network import Route
from client.enrolment import kit_of
from client.pacs.settings import PacsSettings, Remote
from client.privacy.ledger import Ledger, Limits, Release
from client.site import load_site
from common.accounting import DpEventSpec
from common.audit import AuditLog
from common.certificates import make_key, request
from common.kit import write_kit
from common.pki import Authority
from tests.orthanc import free_port
from tests.world.consortium import hospital, make
from tests.world.processes import Processes
from tests.world.proxy import proxy

PASSPHRASE = b"a passphrase of some length"


def _one(lines):
    """The only line, as (outcome, what it says, remedy)."""
    (check,) = list(lines)
    return check.outcome.value, check.seen, check.remedy


def _files(root: Path, **texts) -> Machine:
    """A machine whose system files say this; a double underscore stands for a slash."""
    for name, text in texts.items():
        path = root / name.replace("__", "/").replace("cpu_max", "cpu.max").replace("memory_", "memory.")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Machine(root)


# Machine


@pytest.mark.parametrize(
    ("free", "limit", "used", "outcome"),
    [
        (16 * GIB, "max", 0, "pass"),
        (4 * GIB, "max", 0, "warn"),
        (1 * GIB, "max", 0, "fail"),
        (16 * GIB, str(3 * GIB), 2 * GIB, "fail"),
        (16 * GIB, str(6 * GIB), GIB, "warn"),
        (16 * GIB, str(32 * GIB), GIB, "pass"),
    ],
)
def test_memory_is_what_machine_and_container_leave(tmp_path, free, limit, used, outcome):
    where = _files(
        tmp_path,
        proc__meminfo=f"MemTotal: 99 kB\nMemAvailable: {free // 1024} kB\n",
        sys__fs__cgroup__memory_max=limit,
        sys__fs__cgroup__memory_current=str(used),
    )
    found, seen, remedy = _one(machine.memory(where))
    assert found == outcome
    assert "GiB free" in seen
    assert bool(remedy) == (outcome != "pass")
    if limit == str(3 * GIB):
        assert remedy == "Raise the container's memory limit"


def test_a_machine_without_proc_is_named(tmp_path):
    assert _one(machine.memory(Machine(tmp_path)))[0] == "fail"


@pytest.mark.parametrize(("quota", "outcome"), [("50000 100000", "fail"), ("150000 100000", "warn")])
def test_a_containers_share_of_the_processor_counts(tmp_path, quota, outcome):
    found, seen, _ = _one(machine.processors(_files(tmp_path, sys__fs__cgroup__cpu_max=quota)))
    assert found == outcome
    assert f"{int(quota.split()[0]) / 1e5:g} cores" in seen


def test_shared_memory_that_is_not_there_or_small(tmp_path):
    assert _one(machine.shared_memory(Machine(tmp_path)))[:2] == ("fail", "there is no /dev/shm")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev" / "shm").symlink_to("/proc")  # a file system without a free byte
    outcome, seen, remedy = _one(machine.shared_memory(Machine(tmp_path)))
    assert (outcome, seen) == ("warn", "0 MiB free")
    assert "shm_size" in remedy


DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 2024\n"


@pytest.mark.parametrize(
    ("version", "devices", "outcome", "says"),
    [
        ("", 0, "pass", "none; training runs on the processor"),
        ("", 2, "fail", "2 devices and no driver"),
        (DRIVER, 0, "fail", "driver 550.54.15 and no device"),
        (DRIVER, 1, "warn", "a PyTorch for processors only"),
    ],
)
def test_gpu_driver_and_device_are_held_against_each_other(tmp_path, version, devices, outcome, says):
    where = _files(tmp_path, **({"proc__driver__nvidia__version": version} if version else {}))
    (tmp_path / "dev").mkdir()
    for number in range(devices):
        (tmp_path / "dev" / f"nvidia{number}").touch()
    found, seen, _ = _one(machine.gpu(where))
    assert found == outcome
    assert says in seen


def test_a_driver_that_does_not_serve_this_pytorch(tmp_path):
    """CUDA is in PyTorch, driver and device are there, and still it cannot use them."""
    assert _one(machine._gpu("470.1", 1, ("12.6", ())))[0] == "fail"
    assert _one(machine._gpu("570.1", 1, ("12.6", ("NVIDIA H200",))))[0] == "pass"


def test_a_full_disk_and_one_that_cannot_be_written():
    assert _one(machine.disk("disk", Path("/proc")))[0] == "fail"
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o555)
        with _somebody_else():
            found, seen, _ = _one(machine.disk("disk", place / "data"))
    assert (found, seen) == ("fail", "this user cannot write there")


@contextlib.contextmanager
def _somebody_else():
    """Not root for a while, because root may write everywhere."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


# State


@pytest.fixture
def site(tmp_path):
    made = hospital(tmp_path / "st-anna", "st-anna")
    Ledger.create(made.ledger).close()
    return made


def test_a_new_site_is_well_and_says_what_is_not_there_yet(site):
    outcomes = {c.name: c.outcome.value for c in examine(Visit(site.folder))}
    assert outcomes["site"] == outcomes["keys"] == outcomes["ledger"] == "pass"
    assert outcomes["federation"] == outcomes["archives"] == outcomes["index"] == "skip"
    assert "fail" not in outcomes.values()


def test_before_there_is_a_site_the_machine_is_looked_at_all_the_same(tmp_path):
    outcomes = {c.name: c for c in examine(Visit(tmp_path))}
    assert outcomes["site"].outcome is Outcome.FAIL
    assert "consilium-site init" in outcomes["site"].remedy
    assert outcomes["memory"].outcome is not Outcome.SKIP
    assert "disk" in outcomes


def test_a_key_that_others_can_read(site):
    (site.secrets / "spend.key").chmod(0o640)
    found, seen, remedy = _one(state.keys(site))
    assert (found, seen) == ("fail", "others can read spend.key")
    assert remedy.startswith("chmod")


def test_a_missing_key_is_named_by_the_site_line(site):
    (site.secrets / "spend.key").unlink()
    outcomes = {c.name: c for c in examine(Visit(site.folder))}
    assert "spend.key" in outcomes["site"].seen
    assert outcomes["site"].outcome is Outcome.FAIL


def test_a_ledger_that_is_missing_corrupt_or_nearly_spent(site):
    limits = Limits.of_policy(site.policy)
    with Ledger(site.ledger) as ledger:
        for number in range(1, 40):
            if any(use.near for use in ledger.usage(limits)):
                break
            ledger.charge(
                Release("run-a", number, "sha256:p", f"sha256:{number}"),
                ["k1"],
                DpEventSpec(1.0, 3.0, 1),
                limits,
            )
    found, seen, _ = _one(state.ledger(site))
    assert found == "warn"
    assert "% of the limit" in seen
    site.ledger.write_bytes(b"no ledger")
    assert _one(looked("ledger", lambda: state.ledger(site)))[0] == "fail"
    site.ledger.unlink()
    found, seen, remedy = _one(looked("ledger", lambda: state.ledger(site)))
    assert found == "fail"
    assert "ledger-missing" in seen
    assert remedy


def test_an_edited_audit_log(site):
    log = AuditLog(site.audit)
    for number in range(3):
        log.append("instruction", round=number)
    assert _one(state.audit(site))[:2] == ("pass", "whole, 3 lines")
    site.audit.write_text(site.audit.read_text().replace('"round": 1', '"round": 7'))
    assert "audit-broken" in _one(looked("audit log", lambda: state.audit(site)))[1]


@pytest.mark.filterwarnings(
    r"ignore:unclosed <socket\.socket:ResourceWarning"
)  # pynetdicom's, when it is refused
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_archive_that_does_not_answer(site):
    remote = Remote(name="pacs", ae_title="PACS", host="127.0.0.1", port=free_port())
    found, seen, remedy = _one(state.archives(replace(site, pacs=PacsSettings(remotes=(remote,)))))
    assert found == "fail"
    assert "pacs-" in seen
    assert remedy


# Federation


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A real edge with its interface behind it; no SuperLink, which the doctor does not speak with."""
    folder = tmp_path_factory.mktemp("doctor")
    with Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.33")
        made.start_api()
        made.start_edge()
        yield made


@pytest.fixture(scope="module")
def member(world):
    """An enrolled hospital."""
    site = hospital(world.consortium.folder.parent / "st-georg", "st-georg")
    Ledger.create(site.ledger).close()
    world.enrol(site)
    return load_site(site.folder)


@pytest.fixture
def route(member):
    return route_to(member, kit_of(member))


def test_an_enrolled_hospital_before_a_real_edge_is_well(member):
    checks = {c.name: c for c in examine(Visit(member.folder))}
    for name in ("DNS", "connection", "TLS", "clock", "certificate", "bandwidth", "keys", "membership"):
        assert checks[name].outcome is Outcome.PASS, checks[name]
    assert not [
        check for check in checks.values() if check.outcome is Outcome.FAIL and check.name != "memory"
    ]
    assert "TLSv1.3" in checks["TLS"].seen
    assert "MB/s up" in checks["bandwidth"].seen


def test_with_a_kit_the_way_is_looked_at_before_enrolment(world, site, tmp_path):
    kit, _code = world.invite("st-anna")
    write_kit(kit, tmp_path / "kit.zip")
    checks = {c.name: c for c in examine(Visit(site.folder, tmp_path / "kit.zip"))}
    for name in ("DNS", "connection", "TLS", "clock", "bandwidth"):
        assert checks[name].outcome is Outcome.PASS, checks[name]
    assert "certificate" not in checks


def test_through_a_proxy_that_lets_us_and_two_that_do_not(route):
    with proxy(user="hospital", password="word") as asking:
        address = ("127.0.0.1", asking.port)
        through = replace(route, proxy=address, proxy_login=("hospital", "word"))
        assert _one(network.connection(through))[0] == "pass"
        assert _one(network.tls(through))[0] == "pass"
        found, seen, remedy = _one(network.connection(replace(route, proxy=address)))
        assert (found, "407" in seen, "proxy_user" in remedy) == ("fail", True, True)
    with proxy(allow=False) as closed:
        found, seen, remedy = _one(network.connection(replace(route, proxy=("127.0.0.1", closed.port))))
        assert (found, "403" in seen) == ("fail", True)
        assert f"{route.host}:{route.port}" in remedy
    assert "word" not in repr(through)


def test_a_name_without_an_address_and_a_port_that_nobody_opens(route):
    assert _one(network.dns(replace(route, host="no-such-host.invalid")))[0] == "fail"
    found, seen, remedy = _one(network.connection(replace(route, port=free_port())))
    assert (found, "refused" in seen, "firewall" in remedy) == ("fail", True, True)


class _Served:
    """A TLS server that answers every request, slowly or at another time if told to."""

    def __init__(self, folder: Path, authority: Authority, **more) -> None:
        self.key = folder / f"{time.monotonic_ns()}.key"
        key = make_key(self.key)
        wanted = {
            "addresses": ["127.0.0.1"],
            **{k: v for k, v in more.items() if k in ("addresses", "now", "days")},
        }
        given = authority.issue_server(request(key, "edge"), "lungs", **wanted)
        self.pair = folder / f"{time.monotonic_ns()}.crt"
        self.pair.write_text(given.pem)
        self.date, self.pause_s = more.get("date", ""), more.get("pause_s", 0.0)
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()

    def _accept(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair, self.key)
        with contextlib.suppress(OSError):
            while True:
                caller, _ = self.socket.accept()
                threading.Thread(target=self._serve, args=(context, caller), daemon=True).start()

    def _serve(self, context: ssl.SSLContext, caller: socket.socket) -> None:
        with contextlib.suppress(OSError), context.wrap_socket(caller, server_side=True) as secured:
            stream = secured.makefile("rb")
            while line := stream.readline():
                length = 0
                while (header := stream.readline().strip().lower()) and line:
                    if header.startswith(b"content-length:"):
                        length = int(header.split(b":")[1])
                stream.read(length)
                time.sleep(self.pause_s if length else 0)
                date = f"Date: {self.date}\r\n" if self.date else ""
                secured.sendall(f"HTTP/1.1 404 Not Found\r\n{date}Content-Length: 0\r\n\r\n".encode())


@pytest.fixture
def authority():
    return Authority.make("lungs", PASSPHRASE)


@pytest.fixture
def serve(tmp_path):
    """Starts servers, and closes them after the test."""
    with contextlib.ExitStack() as running:

        def start(authority: Authority, **more) -> _Served:
            made = _Served(tmp_path, authority, **more)
            running.callback(made.close)
            return made

        yield start


def _to(served: _Served, authority: Authority) -> Route:
    return Route("127.0.0.1", served.port, authority.pem)


def test_somebody_who_opens_tls_is_named(serve, authority):
    other = Authority.make("Corporate Security Gateway", PASSPHRASE)
    found, seen, remedy = _one(network.tls(_to(serve(other), authority)))
    assert found == "fail"
    assert "Corporate Security Gateway" in seen
    assert "inspection" in remedy


def test_a_certificate_for_another_host_and_one_that_has_ended(serve, authority):
    other = serve(authority, addresses=["10.9.9.9"])
    assert "not for 127.0.0.1" in _one(network.tls(_to(other, authority)))[1]
    old = Authority.make("lungs", PASSPHRASE, now=datetime.now(UTC) - timedelta(days=400))
    ended = serve(old, now=datetime.now(UTC) - timedelta(days=300), days=90)
    found, seen, remedy = _one(network.tls(_to(ended, old)))
    assert (found, "clock" in remedy) == ("fail", True), seen


def test_a_server_that_speaks_no_tls(authority):
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def answer() -> None:
            with contextlib.suppress(OSError):
                caller, _ = plain.accept()
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                caller.close()

        threading.Thread(target=answer, daemon=True).start()
        where = Route("127.0.0.1", plain.getsockname()[1], authority.pem)
        assert _one(network.tls(where))[:2] == ("fail", "the handshake is refused")


@pytest.mark.parametrize(
    ("apart_s", "outcome", "words"),
    [(0, "pass", ""), (60, "warn", "behind"), (-60, "warn", "ahead"), (3600, "fail", "behind")],
)
def test_a_clock_that_differs(serve, authority, apart_s, outcome, words):
    """What the federation's clock shows beyond ours."""
    told = datetime.now(UTC) + timedelta(seconds=apart_s)
    served = serve(authority, date=told.strftime("%a, %d %b %Y %H:%M:%S GMT"))
    found, seen, _ = _one(network.clock(_to(served, authority)))
    assert found == outcome
    assert words in seen


def test_a_server_that_does_not_tell_the_time(serve, authority):
    assert _one(network.clock(_to(serve(authority), authority)))[0] == "warn"


@pytest.mark.parametrize(("days", "outcome"), [(60, "pass"), (85, "warn"), (120, "fail")])
def test_a_certificate_that_ends(member, route, days, outcome):
    """Looked at so many days from now; it lasts ninety."""
    found, _, remedy = _one(network.certificate(route, datetime.now(UTC) + timedelta(days=days)))
    assert found == outcome
    assert bool(remedy) == (outcome != "pass")


def test_a_slow_line_is_measured_and_what_it_means_for_a_round_is_told(serve, authority):
    """20 kB in a quarter of a second: 80 kB/s, so 30 MiB there and back take thirteen minutes."""
    served = serve(authority, pause_s=0.25)
    found, seen, remedy = _one(network.bandwidth(_to(served, authority), post_bytes=20_000, longest_s=1.0))
    assert found == "warn"
    assert "there and back in" in seen
    assert "update_bits" in remedy


# Command


def test_exit_status_and_json_tell_the_same(site):
    """0 without a failed line, 1 with one; every line has a name, an outcome, what was seen."""
    runner = CliRunner()
    well = runner.invoke(app, ["doctor", "--site", str(site.folder), "--json"])
    told = json.loads(well.stdout)
    assert well.exit_code == 0
    assert {c["outcome"] for c in told["checks"]} <= {"pass", "warn", "skip"}
    (site.secrets / "pseudonym.key").chmod(0o644)
    ill = runner.invoke(app, ["doctor", "--site", str(site.folder), "--json"])
    told = json.loads(ill.stdout)
    assert ill.exit_code == 1
    assert told["outcome"] == "fail"
    assert [c["name"] for c in told["checks"] if c["outcome"] == "fail"] == ["keys"]
    drawn = runner.invoke(app, ["doctor", "--site", str(site.folder)])
    assert "fail keys" in drawn.stdout
    assert "chmod 600" in drawn.stdout


def test_the_worst_line_counts():
    from client.doctor.check import failed, passed, warned  # noqa: PLC0415

    assert worst([passed("a", "")]) is Outcome.PASS
    assert worst([passed("a", ""), warned("b", "", "do")]) is Outcome.WARN
    assert worst([failed("c", "", "do"), warned("b", "", "do")]) is Outcome.FAIL


def test_a_look_that_breaks_does_not_hide_the_others_nor_show_its_text():
    def broken():
        raise RuntimeError("Doe^Jane")

    found, seen, _ = _one(looked("memory", broken))
    assert found == "fail"
    assert "Doe" not in seen
