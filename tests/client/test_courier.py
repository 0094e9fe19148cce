"""A hostile bundle that was approved by mistake, run as the courier runs: what it gets, and what it can only spoil."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from client.courier import CourierSettings, check_closed, courier_of, furnish
from client.gate import Gate, peer_of
from client.site import load_site
from client.socket import call, healthy, serve
from common.errors import SettingsError
from tests.accounts import (
    NOBODY,
    OTHER,
    clean_environment,
    needs_root,
    open_place,
    python_for,
    run_as,
    start_service,
    with_courier,
)
from tests.enrolled import hospital
from tests.hostile import SECRET, asked_of, judge, only_what_left, prepared, question

HOSTILE = Path(__file__).with_name("hostile_courier.py")


@pytest.fixture
def place():
    with open_place() as folder:
        yield folder


@pytest.fixture
def world(place):
    """An enrolled hospital with patients, its service as `consilium-site serve` starts it, the courier's account named."""
    needs_root()
    server, site = prepared(place)
    process = start_service(site, {"CANARY": SECRET})
    courier = courier_of(site)
    yield server, site, process, courier
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def test_a_hostile_bundle_gets_no_file_key_memory_raw_update_or_patient(world, place):
    server, site, process, courier = world
    furnish(courier)
    asked = asked_of(site, process, courier) | {"question": question(server, site).hex()}
    program = [python_for(NOBODY), str(_copied(place))]
    done = run_as(NOBODY, program, json.dumps(asked), env=clean_environment())
    assert done.returncode == 0, done.stderr[-2000:]
    got = json.loads(done.stdout)
    judge(got, site)
    assert process.poll() is None
    only_what_left(site, bytes.fromhex(got["genuine question"]))


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
    program = [python_for(OTHER), str(_copied(place))]
    done = run_as(OTHER, program, asked, env=clean_environment())
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
        env=clean_environment(),
    )
    assert json.loads(done.stdout)["knock"].startswith("denied")
    assert healthy(courier.socket, 60.0)


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
        assert call(gate, b"%d" % number, 60) == b"%d" % number
    assert healthy(gate, 60.0)


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
    needs_root()
    site = with_courier(hospital(tmp_path))
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
    needs_root()
    with pytest.raises(SettingsError) as caught:
        courier_of(with_courier(hospital(tmp_path), user))
    assert caught.value.code == "courier-user"


def test_without_an_account_there_is_no_courier_apart(tmp_path):
    assert hospital(tmp_path).courier == CourierSettings()
    assert courier_of(load_site(tmp_path / "alpha")) is None


def test_a_number_is_an_account_too(tmp_path):
    """In a container the courier's account is a number without a name."""
    needs_root()
    courier = courier_of(with_courier(hospital(tmp_path), "10042"))
    assert (courier.user, courier.group) == (10042, 10042)
