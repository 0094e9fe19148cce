"""A server whose clock was a day off and was mended, or that was put back to an older state: who is refused, and for how long."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from client import tunnel
from client.enrolment import link_of, renew
from client.membership import load_membership, offered, pin
from common.certificates import load_key, read_certificate, request
from common.checkpoints import write_whole
from common.enrolment import PREFIX
from common.errors import FederationError
from common.pki import Authority, Revoked, same_list, self_signed
from server import edge, enrolment
from server.cli import app
from server.federation_folder import Consortium
from server.upkeep import Upkeep
from tests.world.consortium import hospital, make
from tests.world.processes import Processes, until

DAY = timedelta(days=1)


@pytest.fixture
def world(tmp_path):
    with Processes(tmp_path / "logs") as processes:
        made = make(tmp_path / "consortium", processes, "127.0.0.35")
        made.start_api()
        made.start_edge()
        yield made


def refusal(call) -> str:
    with pytest.raises(FederationError) as told:
        call()
    return told.value.code


def answers(site) -> bool:
    try:
        link_of(site).ask("GET", f"{PREFIX}/roster")
    except FederationError:
        return False
    return True


def test_what_a_clock_that_was_ahead_made_is_made_anew_once_it_is_mended(world, tmp_path):
    """Edge's certificate and revocation list begin tomorrow: everybody is refused until the upkeep sees the jump."""
    site = hospital(tmp_path / "site", "st-anna")
    world.enrol(site)
    consortium, tomorrow = world.consortium, datetime.now(UTC) + DAY
    drift = [0.0]
    upkeep = Upkeep(consortium, lambda: time.monotonic() + drift[0])
    upkeep.tick()
    asked = request(load_key(consortium.pki / "edge.key"), "edge")
    given = consortium.authority().issue_server(asked, "lungs", [world.host], now=tomorrow)
    write_whole(consortium.pki / "edge.crt", given.pem.encode())
    late = consortium.authority().revocations([Revoked(7, tomorrow)], now=tomorrow)
    write_whole(consortium.pki / "crl.pem", late.encode())
    assert edge.reload(consortium)
    until("the edge shows tomorrow's certificate", lambda: not answers(site))
    assert refusal(lambda: link_of(site).ask("GET", f"{PREFIX}/roster")) == "clock"
    upkeep.tick()
    assert read_certificate((consortium.pki / "edge.crt").read_text()).begins > datetime.now(UTC), (
        "not due yet"
    )
    drift[0] = -DAY.total_seconds()  # no time has gone by, and the wall clock is elsewhere
    upkeep.tick()
    until("everybody is let in again", lambda: answers(site))


def test_a_revocation_list_dates_from_its_newest_line(tmp_path):
    """A list that is signed while the clock is ahead must not refuse everybody when it is mended."""
    authority = Authority.make("lungs", b"a passphrase of some length")
    now = datetime.now(UTC)
    one = authority.revocations([Revoked(5, now - DAY)], now=now)
    assert same_list(one, authority.revocations([Revoked(5, now - DAY)], now=now + 2 * DAY))
    assert not same_list(one, authority.revocations([Revoked(6, now - DAY)], now=now))
    assert not same_list(one, "nothing")


def test_a_tunnels_certificate_that_begins_tomorrow_is_made_anew(tmp_path):
    site = hospital(tmp_path, "st-anna")
    path = tunnel.root_certificate(site)
    key = load_key(site.secrets / "local.key")
    path.write_text(self_signed(key, "127.0.0.1", datetime.now(UTC) + DAY).pem)
    assert tunnel.ends_soon(site)
    assert read_certificate(tunnel.root_certificate(site).read_text()).begins < datetime.now(UTC)
    assert not tunnel.ends_soon(site)


def test_a_server_whose_clock_was_reset_does_not_start(tmp_path):
    made = Consortium.init(tmp_path / "consortium", "lungs", ["localhost:9443"])
    made.check_clock()
    assert refusal(lambda: made.check_clock(datetime(2000, 1, 1, tzinfo=UTC))) == "clock"


def test_a_server_put_back_to_an_older_state_goes_above_every_roster_that_was_seen(world, tmp_path):
    """It forgot a hospital and signs another list under a version that is taken: the first is refused until it goes above."""
    first, second = (hospital(tmp_path / name, name) for name in ("st-anna", "st-berta"))
    world.enrol(first)
    kept, book = tmp_path / "kept.sqlite", world.consortium.folder / "consortium.sqlite"
    with world.consortium.book._open() as db:
        db.execute("VACUUM INTO ?", (str(kept),))
    world.enrol(second)
    renew(first)
    pin(first, offered(first), world.consortium.identity.public)
    assert load_membership(first).roster.version == 2
    for name in ("consortium.sqlite-wal", "consortium.sqlite-shm"):
        (world.consortium.folder / name).unlink(missing_ok=True)
    shutil.copy(kept, book)
    assert refusal(lambda: renew(first)) == "roster-old"
    third = hospital(tmp_path / "st-clara", "st-clara")
    world.enrol(third)
    assert refusal(lambda: renew(first)) == "roster-fork"
    folder = ["--folder", str(world.consortium.folder)]
    done = CliRunner().invoke(app, ["renew", "--roster-above", "2", *folder])
    assert done.exit_code == 0, done.output
    assert "The roster has version 3" in done.output
    renew(first)
    assert [member.name for member in offered(first).members] == ["st-anna", "st-clara"]
    again = CliRunner().invoke(app, ["renew", "--roster-above", "2", *folder])
    assert "The roster has version 3" in again.output, "it is above already"
    assert refusal(lambda: renew(second)) == "certificate-unknown"
    kit, code = world.invite("st-berta")
    assert not enrolment_of(second, kit, code)
    enrolment.admit(world.consortium, "st-berta")
    assert enrolment_of(second, kit, "")


def enrolment_of(site, kit, code) -> bool:
    from client.enrolment import enrol  # noqa: PLC0415 - named beside its use

    return enrol(site, kit, code).admitted
