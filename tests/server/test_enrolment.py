"""Through a real edge: does a hospital become a member only as it should, and is every other way refused by name?"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tomllib
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
import tomli_w
from typer.testing import CliRunner

from client.cli import app
from client.connection_log import path_of
from client.departures import account
from client.enrolment import certificate, enrol, link_of, renew
from client.membership import identity_of, load_membership, offered, pin
from client.site import load_site
from client.witnessing import asked
from common.audit import AuditLog, verify
from common.certificates import load_key, make_key, request
from common.enrolment import PREFIX, SKEW_S, Ask, sign
from common.errors import ConsiliumError, InputError
from common.identity import Identity, fingerprint
from common.kit import Kit, read_kit, write_kit
from common.messages import LogHead
from common.witness import Said, genuine, witness
from server import enrolment
from server.sightings import Sightings
from server.site_rows import ReleaseRow
from tests.world.consortium import World, hospital, make
from tests.world.processes import Processes
from tests.world.proxy import proxy

DAY_S = 86400.0


def now() -> float:
    return datetime.now(UTC).timestamp()


def refused(code, action):
    with pytest.raises(ConsiliumError) as refusal:
        action()
    assert refusal.value.code == code, str(refusal.value)
    assert refusal.value.remedy
    return refusal.value


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    with Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.21", also="127.0.0.24")
        made.start_api()
        made.start_edge()
        yield made


@pytest.fixture
def other(tmp_path):
    """Another federation, of which nothing runs."""
    with Processes(tmp_path / "logs") as processes:
        yield make(tmp_path / "other", processes, "127.0.0.22")


def version(world: World) -> int:
    roster = world.consortium.book.roster()
    return roster.version if roster else 0


def test_a_hospital_joins_and_what_it_has_is_its_own(world, tmp_path):
    """The whole way: kit, code, request, admission; the keys never left, and the server is pinned."""
    site = hospital(tmp_path / "site", "st-anna")
    kit, code = world.invite("st-anna")
    write_kit(kit, tmp_path / "kit.zip")
    assert read_kit(tmp_path / "kit.zip", "st-anna") == kit
    first = enrol(site, kit, code)
    assert not first.admitted
    assert first.fingerprint == fingerprint(identity_of(site).public)
    assert not enrol(site, kit, "").admitted
    assert not enrol(site, kit, code).admitted  # typed again by the same people: the same answer
    before = version(world)
    enrolment.admit(world.consortium, "st-anna")
    assert version(world) == before + 1
    done = enrol(site, kit, "")
    assert done.admitted
    known = load_membership(site)
    assert known is not None
    assert known.server_key == world.consortium.identity.public
    assert known.roster.key_of("st-anna") == known.identity.public
    assert certificate(site).name == "st-anna"
    secrets = [path.read_bytes() for path in site.secrets.iterdir() if path.suffix == ".key"]
    sent = b"".join(path.read_bytes() for path in world.consortium.folder.rglob("*") if path.is_file())
    assert len(secrets) >= 5
    assert not [secret for secret in secrets if secret in sent]
    for name in ("identity.key", "tls.key", "node.key"):
        assert (site.secrets / name).stat().st_mode & 0o777 == 0o600


def test_who_did_what_is_in_the_audit_log(world, tmp_path):
    """Each step a line, with digests of keys and certificates and nothing that the log would refuse."""
    site = hospital(tmp_path / "site", "st-audit")
    world.enrol(site)
    enrolment.revoke(world.consortium, "st-audit")
    path = world.consortium.folder / enrolment.AUDIT
    assert verify(path).count > 0
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    ours = [line["event"] for line in lines if line["fields"].get("site") == "st-audit"]
    assert ours == ["enrol.invited", "enrol.asked", "enrol.admitted", "enrol.certified", "enrol.revoked"]
    assert "refused" not in path.read_text()


def test_what_asked_is_in_the_hospitals_own_log_before_it_is_sent_and_told_by_egress_show(world, tmp_path):
    """Also where nobody is reached, because that is known only afterwards; and where nothing can be written, nobody asks."""
    site = hospital(tmp_path / "site", "st-log")
    kit, code = world.invite("st-log")
    nowhere = dataclasses.replace(site.federation, address="127.0.0.21:1")
    refused("unreachable", lambda: enrol(dataclasses.replace(site, federation=nowhere), kit, code))
    (one,) = account(site).departures
    assert (one.kind, one.to, one.run) == ("ask", fingerprint(world.consortium.identity.public), "")
    assert one.bytes > 500
    enrol(site, kit, code)
    enrolment.admit(world.consortium, "st-log")
    assert enrol(site, kit, "").admitted
    renew(site, always=True)
    assert [one.kind for one in account(site).departures] == ["ask", "ask", "ask", "renew"]
    log = path_of(site)
    assert code not in log.read_text()
    log.unlink()
    log.mkdir()
    heard = (world.consortium.folder / enrolment.AUDIT).read_bytes()
    refused("storage", lambda: renew(site, always=True))
    assert (world.consortium.folder / enrolment.AUDIT).read_bytes() == heard


def test_the_kit_holds_no_secret_and_the_server_keeps_no_code(world, tmp_path):
    kit, code = world.invite("kit-holder")
    write_kit(kit, tmp_path / "kit.zip")
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        text = b"".join(archive.read(name) for name in archive.namelist())
    assert b"PRIVATE" not in text
    assert kit.fingerprint.encode() in text
    plain = code.replace("-", "")
    for path in world.consortium.folder.rglob("*"):
        if path.is_file():
            kept = path.read_bytes()
            assert code.encode() not in kept
            assert plain.encode() not in kept
    assert plain.encode() not in text


def test_what_is_no_kit_or_another_hospitals_kit_is_refused(world, tmp_path):
    kit, code = world.invite("st-anna")
    path = tmp_path / "kit.zip"
    write_kit(kit, path)
    assert "st-anna" in str(refused("kit-site", lambda: read_kit(path, "st-bruno")))
    refused("kit", lambda: read_kit(tmp_path / "missing.zip", "st-anna"))
    (tmp_path / "text.zip").write_text("hello")
    refused("kit", lambda: read_kit(tmp_path / "text.zip", "st-anna"))
    for change in (
        {"schema": "2"},
        {"addresses": []},
        {"authority": "x"},
        {"server": "00" * 32},
        {"site": 3},
    ):
        with zipfile.ZipFile(path) as good, zipfile.ZipFile(tmp_path / "bad.zip", "w") as bad:
            bad.writestr("kit.json", json.dumps(json.loads(good.read("kit.json")) | change))
        refused("kit", lambda: read_kit(tmp_path / "bad.zip", "st-anna"))
    damaged = bytearray(path.read_bytes())
    for at in (
        6,
        8,
        10,
        40,
        60,
        len(damaged) // 2,
        len(damaged) - 30,
    ):  # flags, packing, names, content, directory
        for bits in (0x01, 0xFF):
            torn = bytearray(damaged)
            torn[at] ^= bits
            (tmp_path / "torn.zip").write_bytes(torn)
            with contextlib.suppress(
                InputError
            ):  # a bit that nobody reads may pass; nothing foreign may come out
                assert read_kit(tmp_path / "torn.zip", "st-anna") == kit
    central = damaged.index(b"PK\x01\x02")
    damaged[6] |= 1
    damaged[central + 8] |= 1  # says that it is encrypted
    (tmp_path / "locked.zip").write_bytes(damaged)
    refused("kit", lambda: read_kit(tmp_path / "locked.zip", "st-anna"))
    # With the name changed so that the hospital's own check passes, the code gives it away,
    posing = dataclasses.replace(kit, site="st-bruno")
    site = hospital(tmp_path / "bruno", "st-bruno")
    refused("kit-code", lambda: enrol(site, posing, code))
    # and a client that checks nothing is refused by the server.
    ask = asking(site, kit, code)
    refused("kit-site", lambda: enrolment.ask(world.consortium, ask))


def asking(site, kit: Kit, code: str, **changes) -> Ask:
    """A signed request as a hospital's own program would make it, but for the changes."""
    identity = identity_of(site)
    path = site.secrets / "probe.key"
    key = load_key(path) if path.exists() else make_key(path)
    ask = Ask(
        federation=kit.federation,
        site=site.name,
        identity=identity.public,
        node="node",
        request=request(key, site.name),
        time=int(now()),
        code=code,
    )
    return sign(dataclasses.replace(ask, **changes), identity, kit.server)


def test_a_kit_that_was_changed_on_its_way_never_gets_the_code(world, other, tmp_path):
    """Whoever swaps authority, address and key would have had to know the code."""
    kit, code = world.invite("way-layer")
    site = hospital(tmp_path / "site", "way-layer")
    for change in (
        {"addresses": ("127.0.0.99:1",)},
        {"authority": other.consortium.authority_pem},
        {"server": other.consortium.identity.public},
    ):
        refused("kit-code", lambda change=change: enrol(site, dataclasses.replace(kit, **change), code))
    refused("kit-code", lambda: enrol(site, kit, "AAAAA-" + code[6:-1] + "A"))
    assert not enrol(site, kit, code.lower().replace("-", " ")).admitted


def test_a_code_is_used_once_by_one_key(world, tmp_path):
    kit, code = world.invite("st-once")
    first, second = hospital(tmp_path / "one", "st-once"), hospital(tmp_path / "two", "st-once")
    assert not enrol(first, kit, code).admitted
    refused("code-used", lambda: enrol(second, kit, code))
    enrolment.admit(world.consortium, "st-once")
    refused("code-used", lambda: enrol(second, kit, code))
    refused("not-invited", lambda: enrol(second, kit, ""))
    refused("key-missing", lambda: enrol(hospital(tmp_path / "three", "st-once"), kit, ""))
    assert enrol(first, kit, "").admitted
    assert enrol(first, kit, "").admitted
    known = world.consortium.book.site("st-once")
    assert known is not None
    assert known.state == "member"


def test_a_code_nobody_gave_an_old_one_and_a_replaced_one_are_refused(world, tmp_path):
    site = hospital(tmp_path / "site", "st-late")
    kit, first = world.invite("st-late")
    _, second = world.invite("st-late")
    refused("code-expired", lambda: enrol(site, kit, first))
    later = datetime.now(UTC) + timedelta(days=15)
    ask = asking(site, kit, second, time=int(later.timestamp()))
    refused("code-expired", lambda: enrolment.ask(world.consortium, ask, later))
    guessed = asking(site, kit, "AAAAA" + second[5:])
    refused("code", lambda: enrolment.ask(world.consortium, guessed))
    nobody = hospital(tmp_path / "x", "st-nobody")
    identity_of(nobody)
    refused("not-invited", lambda: enrol(nobody, world.consortium.kit("st-nobody"), ""))


def test_a_clock_that_is_off_by_a_day_is_named_and_the_code_is_not_spent(world, tmp_path):
    site = hospital(tmp_path / "site", "st-clock")
    kit, code = world.invite("st-clock")
    for off in (DAY_S, -DAY_S, SKEW_S + 30, -SKEW_S - 30):
        error = refused("clock", lambda off=off: enrol(site, kit, code, lambda: now() + off))
        assert "NTP" in error.remedy
    assert not enrol(site, kit, code, lambda: now() + SKEW_S - 20).admitted


def test_a_server_whose_certificate_begins_tomorrow_is_a_wrong_clock_too(tmp_path):
    """What a hospital sees whose clock is a day behind, before it could say the time to anybody."""
    with Processes(tmp_path / "logs") as processes:
        world = make(tmp_path / "consortium", processes, "127.0.0.23")
        (world.consortium.pki / "edge.names").unlink()
        world.consortium.freshen(datetime.now(UTC) + timedelta(days=1))
        world.start_edge()
        kit, code = world.invite("st-anna")
        refused("clock", lambda: enrol(hospital(tmp_path / "site", "st-anna"), kit, code))


def test_a_server_of_another_authority_is_not_spoken_to(world, other, tmp_path):
    """The kit of one federation, and another one answers there: nothing is sent."""
    kit, code = other.invite("st-anna")
    site = hospital(tmp_path / "site", "st-anna", address=world.consortium.settings.federation.addresses[0])
    refused("wrong-ca", lambda: enrol(site, kit, code))
    found = world.consortium.book.site("st-anna")
    assert found is None or not found.asked_identity or found.asked_identity != identity_of(site).public
    away = hospital(tmp_path / "away", "st-anna")
    refused("unreachable", lambda: enrol(away, kit, code))


def test_another_address_of_the_right_authority_is_refused(world, tmp_path):
    """The edge listens there too, but its certificate is for the addresses in the kit."""
    kit, code = world.invite("st-address")
    site = hospital(tmp_path / "site", "st-address", address=f"127.0.0.24:{world.address[1]}")
    refused("wrong-address", lambda: enrol(site, kit, code))


def test_a_request_is_for_one_federation_signed_by_its_own_key_and_a_p256_key(world, tmp_path):
    site = hospital(tmp_path / "site", "st-sign")
    kit, code = world.invite("st-sign")
    good = asking(site, kit, code)
    rogue = Identity.make(tmp_path / "rogue.key")
    cases = [
        ("signature", dataclasses.replace(good, identity=rogue.public)),
        ("signature", dataclasses.replace(good, node="another node")),
        ("signature", dataclasses.replace(good, signature="")),
        ("signature", sign(good, identity_of(site), rogue.public)),
        ("wrong-federation", asking(site, kit, code, federation="livers")),
        ("request", asking(site, kit, code, request="none")),
    ]
    for expected, ask in cases:
        refused(expected, lambda ask=ask: enrolment.ask(world.consortium, ask))
    assert not enrolment.ask(world.consortium, good).admitted


def test_a_copied_folder_is_not_a_second_hospital(world, tmp_path):
    site = hospital(tmp_path / "site", "st-copied")
    world.enrol(site)
    shutil.copytree(site.folder, tmp_path / "copy")
    path = tmp_path / "copy" / "site.toml"
    values = tomllib.loads(path.read_text())
    values["site"]["name"] = "st-second"
    path.write_text(tomli_w.dumps(values))
    shutil.rmtree(tmp_path / "copy" / "state" / "federation")
    kit, code = world.invite("st-second")
    refused("identity-taken", lambda: enrol(load_site(tmp_path / "copy"), kit, code))


def test_a_renewal_needs_no_new_roster_and_an_added_hospital_does(world, tmp_path):
    site = hospital(tmp_path / "site", "st-renew")
    world.enrol(site)
    old, key = certificate(site), (site.secrets / "tls.key").read_bytes()
    before = version(world)
    assert renew(site) is None
    new = renew(site, now, always=True)
    assert new is not None
    assert new.fingerprint != old.fingerprint
    assert (site.secrets / "tls.key").read_bytes() != key
    assert certificate(site) == new
    assert version(world) == before
    assert offered(site) is None
    added = hospital(tmp_path / "added", "st-added")
    world.enrol(added)
    assert version(world) == before + 1
    renew(site)
    waiting = offered(site)
    known = load_membership(site)
    assert waiting is not None
    assert known is not None
    assert known.roster.key_of("st-added") is None
    pin(site, waiting, known.server_key)
    known = load_membership(site)
    assert known is not None
    assert known.roster.key_of("st-added") == identity_of(added).public


def test_a_certificate_near_its_end_is_renewed_by_itself(world, tmp_path):
    site = hospital(tmp_path / "site", "st-near")
    kit, code = world.invite("st-near")
    enrol(site, kit, code)
    enrolment.admit(world.consortium, "st-near", datetime.now(UTC) - timedelta(days=59))
    assert enrol(site, kit, "").admitted
    assert renew(site) is None
    again = hospital(tmp_path / "again", "st-nearer")
    kit, code = world.invite("st-nearer")
    enrol(again, kit, code)
    enrolment.admit(world.consortium, "st-nearer", datetime.now(UTC) - timedelta(days=61))
    assert enrol(again, kit, "").admitted
    given = renew(again)
    assert given is not None
    assert given.left(datetime.now(UTC)) > timedelta(days=89)


def test_a_renewal_that_was_cut_short_is_finished_or_repeated(world, tmp_path):
    """Killed before the answer, after it, or between the two moves: there is always a pair that opens a connection."""
    site = hospital(tmp_path / "site", "st-cut")
    world.enrol(site)
    make_key(site.secrets / "tls-next.key")  # killed before the answer
    assert link_of(site).ask("GET", f"{PREFIX}/roster")
    new = renew(site, always=True)
    assert new is not None
    for moved in (False, True):
        make_key(site.secrets / "tls-next.key")
        key = load_key(site.secrets / "tls-next.key")
        row = world.consortium.book.site("st-cut")
        assert row is not None
        given = world.consortium.authority().issue(request(key, "st-cut"), "st-cut", "lungs")
        world.consortium.book.renewed(row.name, given)
        (site.secrets / "tls-next.crt").write_text(given.pem)  # killed after the answer was kept
        if moved:
            (site.secrets / "tls-next.key").replace(site.secrets / "tls.key")
        assert certificate(site).fingerprint == given.fingerprint
        assert link_of(site).ask("GET", f"{PREFIX}/roster")


def test_a_renewal_is_signed_by_the_key_in_the_roster(world, tmp_path):
    """Whoever stole the connection's key and certificate gets no other one for it."""
    site = hospital(tmp_path / "site", "st-stolen")
    world.enrol(site)
    (site.secrets / "identity.key").unlink()
    Identity.make(site.secrets / "identity.key")
    refused("signature", lambda: renew(site, always=True))
    refused("clock", lambda: renew(site, lambda: now() - DAY_S, always=True))


def test_a_revoked_hospital_is_out_at_once_and_comes_back_only_by_a_new_invitation(world, tmp_path):
    site = hospital(tmp_path / "site", "st-gone")
    world.enrol(site)
    link = link_of(site)
    assert link.ask("GET", f"{PREFIX}/roster")
    before = version(world)
    roster = enrolment.revoke(world.consortium, "st-gone")
    assert roster is not None
    assert roster.version == before + 1
    assert roster.key_of("st-gone") is None
    refused("certificate-unknown", lambda: link.ask("GET", f"{PREFIX}/roster"))
    refused("certificate-unknown", lambda: renew(site))
    refused("certificate-unknown", lambda: enrol(site, world.consortium.kit("st-gone"), ""))
    world.enrol(site)
    assert version(world) == before + 2
    assert link_of(site).ask("GET", f"{PREFIX}/roster")


def test_a_hospital_that_lost_its_certificate_comes_again_under_its_key_and_the_roster_stays(world, tmp_path):
    site = hospital(tmp_path / "site", "st-again")
    world.enrol(site)
    before = version(world)
    (site.secrets / "tls.key").unlink()
    (site.secrets / "tls.crt").unlink()
    world.enrol(site)
    assert version(world) == before
    assert link_of(site).ask("GET", f"{PREFIX}/roster")


def test_a_member_of_one_federation_does_not_slip_into_another(world, other, tmp_path):
    site = hospital(tmp_path / "site", "st-true")
    world.enrol(site)
    kit, code = other.invite("st-true")
    refused("server-key", lambda: enrol(site, kit, code))


def test_members_fetch_releases_and_the_head_that_was_seen_of_them(world, tmp_path):
    site = hospital(tmp_path / "site", "st-fetch")
    world.enrol(site)
    link = link_of(site)
    world.consortium.book.add_release(ReleaseRow("sha256:ab", now(), "a study", b"\x00bundle"))
    listed = json.loads(link.ask("GET", f"{PREFIX}/plans"))["plans"]
    assert [(one["id"], one["title"]) for one in listed] == [("sha256:ab", "a study")]
    assert link.ask("GET", f"{PREFIX}/plans?id=sha256:ab") == b"\x00bundle"
    refused("not-there", lambda: link.ask("GET", f"{PREFIX}/plans?id=sha256:cd"))
    told = json.loads(link.ask("GET", f"{PREFIX}/heads"))
    assert (told["site"], told["ledger"]) == ("st-fetch", None)


def test_members_ask_for_the_server_s_word_on_the_audit_logs_and_check_their_own_with_it(world, tmp_path):
    """Outside of rounds too; asking writes no line, and whoever cut the log's end at home is found by it."""
    site = hospital(tmp_path / "st-sworn", "st-sworn")
    world.enrol(site)
    consortium = world.consortium
    before = AuditLog(consortium.folder / "audit.jsonl").head()
    given = asked(site)
    assert (given.by, given.site, given.there) == ("server", "st-sworn", None)
    assert genuine(given, consortium.identity.public)
    assert (given.here.count, given.here.digest) == (before.count, before.digest)
    assert AuditLog(consortium.folder / "audit.jsonl").head() == before
    # What it last swore comes back, so that whoever rewrote the log at home is found by asking.
    shown = AuditLog(site.audit).append("audit.given")
    identity = load_membership(site).identity
    word = witness(identity, Said("site", site.name, LogHead(shown.digest), None, "run-1", 1))
    roster = consortium.book.roster()
    Sightings(consortium.folder, consortium.identity, roster).heard(
        site.name, {"audit": dataclasses.asdict(word)}, now(), 0.0
    )
    words = ["audit", "verify", "--site", str(site.folder)]
    assert CliRunner().invoke(app, [*words, "--ask"]).exit_code == 0
    lines = site.audit.read_bytes().splitlines(keepends=True)
    site.audit.write_bytes(b"".join(lines[:-1]))
    assert CliRunner().invoke(app, words).exit_code == 0
    found = CliRunner().invoke(app, [*words, "--ask"])
    assert found.exit_code != 0
    assert "seen before" in " ".join(found.output.split())


def test_enrolment_goes_through_the_hospitals_proxy_and_a_proxy_that_says_no_is_named(world, tmp_path):
    kit, code = world.invite("st-proxy")
    with proxy(user="house", password="wo:rd/é") as way:
        site = hospital(
            tmp_path / "site", "st-proxy", proxy=way.address, proxy_user="house", proxy_password_file="word"
        )
        (site.folder / "word").write_text("guessed")
        refused("proxy", lambda: enrol(site, kit, code))
        (site.folder / "word").write_text("wo:rd/é\n")
        assert not enrol(site, kit, code).admitted
        assert way.asked == [world.consortium.settings.federation.addresses[0]]
    with proxy(allow=False) as wall:
        site = hospital(tmp_path / "walled", "st-walled", proxy=wall.address)
        refused("proxy", lambda: enrol(site, *world.invite("st-walled")))


def test_a_hospital_takes_no_certificate_but_its_own(world, other, tmp_path):
    """A server gone wrong gives another name's, another authority's, another key's: none is put in place."""
    site = hospital(tmp_path / "site", "st-own")
    kit, code = world.invite("st-own")
    enrol(site, kit, code)
    enrolment.admit(world.consortium, "st-own")
    ours, theirs = world.consortium.authority(), other.consortium.authority()
    asked = request(load_key(site.secrets / "tls-next.key"), "st-own")
    foreign = request(make_key(tmp_path / "foreign.key"), "st-own")
    row = world.consortium.book.site("st-own")
    assert row is not None
    for given in (
        ours.issue(asked, "st-other", "lungs"),
        theirs.issue(asked, "st-own", "lungs"),
        ours.issue(foreign, "st-own", "lungs"),
    ):
        world.consortium.book.renewed(row.name, given)
        refused("certificate", lambda: enrol(site, kit, ""))
        assert not (site.secrets / "tls.crt").exists()
    world.consortium.book.renewed(row.name, ours.issue(asked, "st-own", "lungs"))
    assert enrol(site, kit, "").admitted


def test_a_hospital_with_a_new_key_is_in_a_new_roster_and_its_old_certificate_ends(world, tmp_path):
    """Its secrets were lost or stolen: who has the old ones is out from the moment it is admitted again."""
    site = hospital(tmp_path / "site", "st-new-key")
    world.enrol(site)
    old = link_of(site)
    stolen = tmp_path / "stolen"
    shutil.copytree(site.secrets, stolen)
    thief = dataclasses.replace(old, certificate=(stolen / "tls.crt", stolen / "tls.key"))
    assert thief.ask("GET", f"{PREFIX}/roster")
    before = version(world)
    for name in ("identity.key", "tls.key", "tls.crt", "node.key"):
        (site.secrets / name).unlink()
    world.enrol(site)
    assert version(world) == before + 1
    refused("certificate-unknown", lambda: thief.ask("GET", f"{PREFIX}/roster"))
    assert link_of(site).ask("GET", f"{PREFIX}/roster")
