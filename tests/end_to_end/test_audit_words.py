"""Two sides that swear to each other's logs in a real run: what either of them can do afterwards, and who finds it."""

from __future__ import annotations

import json
import subprocess
import zipfile
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from client import direct
from client.cli import app as site_app
from client.connection_log import check as check_connection
from client.connection_log import path_of
from client.membership import load_membership
from client.witnessing import Witnessing
from common.audit import AuditLog, read, verify
from common.errors import ConsiliumError, InputError
from common.identity import Identity
from common.messages import LogHead
from common.witness import dump_witness, genuine, heads_of, keep, load_witness, signed_bytes
from common.witness import kept as kept_words
from server.audit_book import check_all
from server.cli import app as server_app
from server.sightings import read_sighting
from simulations.grid import InProcessGrid, run_on
from tests.common.test_audit_files import forged
from tests.enrolled import consortium as made_consortium
from tests.enrolled import enrol
from tests.server.test_heads import PaidDuties
from tests.toy import toy_plan, toy_service

PLAN = toy_plan(rounds=2, least_sites=2)


@pytest.fixture
def world(tmp_path):
    """A consortium and two virtual hospitals after a run of two rounds over sealed messages."""
    server = made_consortium(tmp_path)
    services = [toy_service(tmp_path, name, duties=PaidDuties(name)) for name in ("alpha", "beta")]
    sites = [service.site for service in services]
    enrol(server, *sites)
    for site in sites:
        server.book.invite(site.name, f"code of {site.name}", datetime.now(UTC), datetime.now(UTC))
    for service in services:
        service._duties.at(service.site)
        direct.host(service)
    for site in sites:
        AuditLog(path_of(site)).append("enrolment.sent", kind="ask", bytes=9)
    grid = InProcessGrid([site.folder for site in sites])
    assert run_on(grid, PLAN, server.folder / "runs" / "toy").status == "completed"
    return server, sites


def _code(call, *arguments):
    with pytest.raises(ConsiliumError) as caught:
        call(*arguments)
    return caught.value.code


def _cli(app, *words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def _refused(app, *words):
    """What a command says that ends in a refusal."""
    result = _cli(app, *words)
    assert result.exit_code != 0, result.output
    return " ".join(result.output.split())


def _rewrite(path, change):
    """Change the log's text and make its chain whole again, as somebody does who knows how."""
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(forged(change(lines))))


def _hide_a_departure(lines):
    return [line for line in lines if b'"update"' not in line or b"egress.release" not in line]


def test_after_a_round_each_side_holds_the_other_s_signed_word(world):
    server, sites = world
    members = {site.name: Identity.load(site.secrets / "identity.key").public for site in sites}
    hashes = {entry["hash"] for entry in read(server.folder / "audit.jsonl")}
    for site in sites:
        theirs = Witnessing(site).words.theirs
        assert genuine(theirs, server.identity.public)
        assert theirs.here.digest in hashes
        ours = read_sighting(server.folder, site.name)
        assert genuine(ours.audit, members[site.name])
        assert ours.audit.here.digest in {entry["hash"] for entry in read(site.audit)}
        assert ours.audit.there.digest in hashes, "the site repeats what the server swore"
        assert theirs.there.digest in {entry["hash"] for entry in read(site.audit)}, (
            "and the server what the site swore"
        )
        assert abs(ours.skew_s) < 60
        assert ours.health.disk_free_gb > 0


def test_a_hospital_s_word_does_not_say_how_long_its_log_is(world):
    server, sites = world
    word = read_sighting(server.folder, sites[0].name).audit
    assert word.here.count is None
    entry = next(one for one in read(sites[0].audit) if one["hash"] == word.here.digest)
    assert entry["event"] == "audit.given"
    assert len(entry["fields"]["digest"]) == 71, "with a random number in the line, its hash tells nothing"


def test_whole_logs_verify_on_both_command_lines_against_the_words_of_the_other_side(world, tmp_path):
    server, sites = world
    for site in sites:
        _cli(
            server_app,
            "audit",
            "head",
            site.name,
            tmp_path / f"of-{site.name}.json",
            "--folder",
            server.folder,
        )
        _cli(site_app, "audit", "head", tmp_path / f"server-at-{site.name}.json", "--site", site.folder)
    told = _cli(
        site_app,
        "audit",
        "verify",
        "--site",
        sites[0].folder,
        "--against",
        tmp_path / "of-alpha.json",
        "--json",
    )
    held = json.loads((tmp_path / "of-alpha.json").read_bytes())
    of_server = json.loads((tmp_path / "server-at-alpha.json").read_bytes())
    assert len(held["earlier"]) > 1, "one for each question, not the newest alone"
    words = len(held["earlier"]) + len(of_server["earlier"]) + 2
    assert json.loads(told.output)["words"] == words
    against = [word for site in sites for word in ("--against", tmp_path / f"server-at-{site.name}.json")]
    told = _cli(server_app, "audit", "verify", "--folder", server.folder, *against, "--json")
    found = json.loads(told.output)
    assert found["consortium"]["words"] == 2 * words
    assert list(found["runs"].values()) == [verify(server.folder / "runs" / "toy" / "audit.jsonl").count]


def test_a_hospital_that_rewrites_its_log_and_forgets_its_words_is_found_with_the_server_s(world, tmp_path):
    server, sites = world
    site, word = sites[0], tmp_path / "of-alpha.json"
    _cli(server_app, "audit", "head", site.name, word, "--folder", server.folder)
    _rewrite(site.audit, _hide_a_departure)
    for kept in (site.state / "federation").glob("witness.*"):
        kept.unlink()
    assert verify(site.audit).count > 0
    assert "is whole" in _cli(site_app, "audit", "verify", "--site", site.folder).output
    said = _refused(site_app, "audit", "verify", "--site", site.folder, "--against", word)
    assert "no line of it has a hash that was seen before" in said


def test_a_hospital_that_rewrites_its_log_contradicts_the_words_that_lie_here(world):
    _, sites = world
    _rewrite(sites[0].audit, _hide_a_departure)
    assert "hash that was seen" in _refused(site_app, "audit", "verify", "--site", sites[0].folder)


def test_every_round_is_sworn_by_both_sides(world):
    """The survey is not: it goes to whoever is there. Every training round and the questions after it are."""
    server, sites = world
    given = [line["fields"] for line in read(server.folder / "audit.jsonl") if line["event"] == "audit.given"]
    for site in sites:
        assert {one["round"] for one in given if one["site"] == site.name} == {1, 2}
        told = [(line["event"], line["fields"].get("round")) for line in read(site.audit)]
        assert {("audit.seen", 1), ("audit.seen", 2), ("audit.given", 1), ("audit.given", 2)} <= set(told)


def test_what_was_asked_outside_of_rounds_is_bound_by_the_next_one(world):
    """Once, before the site swears; whoever cuts or rewrites that log afterwards is found, and nothing is told from it."""
    _, sites = world
    site = sites[0]
    events = [line["event"] for line in read(site.audit)]
    assert events.count("connection.head") == 1
    assert events.index("connection.head") < events.index("audit.given")
    assert check_connection(site) == 1
    assert "enrolled" in _cli(site_app, "egress", "show", "--site", site.folder).output
    log = path_of(site)
    whole = log.read_bytes()
    for wrong in (b"", b"".join(forged([whole.replace(b'"ask"', b'"renew"')]))):
        log.write_bytes(wrong)
        assert _code(check_connection, site) in {"audit-truncated", "audit-rewritten"}
        _refused(site_app, "audit", "verify", "--site", site.folder)
        _refused(site_app, "egress", "show", "--site", site.folder)
    log.write_bytes(whole)
    AuditLog(log).append("enrolment.sent", kind="renew", bytes=9)
    assert check_connection(site) == 2, "what came after is protected by its chain until the next round"


def test_a_log_cut_at_its_end_is_found(world):
    server, sites = world
    for path in (sites[0].audit, server.folder / "audit.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:3]))
    assert "seen before" in _refused(site_app, "audit", "verify", "--site", sites[0].folder)
    assert _code(check_all, server) in {"audit-truncated", "audit-rewritten"}


def test_a_consortium_that_rewrites_its_log_and_forgets_its_words_is_found_with_a_hospital_s(world, tmp_path):
    server, sites = world
    word = tmp_path / "server.json"
    _cli(site_app, "audit", "head", word, "--site", sites[1].folder)
    _rewrite(server.folder / "audit.jsonl", lambda lines: [*lines[:-2], lines[-1]])
    for path in (server.folder / "seen").iterdir():
        path.unlink()
    _rewrite(server.folder / "audit.jsonl", lambda lines: lines[1:])
    assert _code(check_all, server, [load_witness(word)]) in {"audit-rewritten", "audit-truncated"}


def test_a_log_that_was_rewritten_between_two_rounds_contradicts_the_words_from_before(world):
    """Every later word agrees with it, on both sides: the newest alone would show nothing."""
    server, sites = world
    _rewrite(sites[0].audit, _hide_a_departure)
    _rewrite(
        server.folder / "audit.jsonl", lambda lines: [line for line in lines if b"audit.seen" not in line]
    )
    grid = InProcessGrid([site.folder for site in sites])
    assert run_on(grid, PLAN, server.folder / "runs" / "again").status == "completed"
    for by_site in (
        (site_app, "audit", "verify", "--site", sites[0].folder),
        (
            server_app,
            "audit",
            "verify",
            "--folder",
            server.folder,
        ),
    ):
        assert "seen before" in _refused(*by_site)
    newest = [Witnessing(sites[0]).words.theirs, read_sighting(server.folder, sites[0].name).audit]
    for kept in (
        *(sites[0].state / "federation").glob("*.words.jsonl"),
        *(server.folder / "seen").glob("*.words.*"),
    ):
        kept.unlink()
    verify(sites[0].audit, *heads_of(newest[0], "site"))
    verify(server.folder / "audit.jsonl", *heads_of(newest[1], "server"))


def test_a_word_that_a_crash_cut_off_takes_no_other_with_it(world, tmp_path):
    server, sites = world
    words = Witnessing(sites[0]).heard(server.identity.public)
    book = tmp_path / "words.jsonl"
    keep(book, words[0], 10.0)
    book.write_bytes(book.read_bytes()[:-40])
    keep(book, words[1], 20.0)
    keep(book, words[1], 25.0)
    keep(book, words[2], 30.0)
    assert kept_words(book, server.identity.public, 0.0) == words[1:3]
    assert kept_words(book, server.identity.public, 15.0) == words[1:3]
    assert kept_words(book, server.identity.public, 21.0) == [words[2]], (
        "what may be about forgotten lines is left out"
    )
    assert kept_words(book, "another key", 0.0) == []
    assert kept_words(tmp_path / "none", server.identity.public, 0.0) == []


def test_the_log_of_a_run_that_was_rewritten_or_is_gone_is_found(world):
    server, _ = world
    path = server.folder / "runs" / "toy" / "audit.jsonl"
    before = path.read_bytes()
    _rewrite(path, lambda lines: [line.replace(b'"alpha"', b'"gamma"') for line in lines])
    assert verify(path).count > 0
    assert _code(check_all, server) == "audit-rewritten"
    path.write_bytes(b"".join(before.splitlines(keepends=True)[:-1]))
    assert _code(check_all, server) == "audit-truncated"
    path.unlink()
    assert _code(check_all, server) == "audit-truncated"


def test_a_word_of_a_stranger_or_a_changed_one_is_refused(world, tmp_path):
    server, sites = world
    word = read_sighting(server.folder, sites[0].name).audit
    changed = replace(word, here=LogHead(word.there.digest))
    other = Identity.make(tmp_path / "x.key")
    stranger = replace(word, key=other.public)
    stranger = replace(stranger, signature=other.sign(signed_bytes(stranger)))
    for given in (changed, stranger, replace(word, site="nobody")):
        assert _code(check_all, server, [given]) == "witness"


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": "consilium/witness/1"}', "[" * 100000])
def test_a_file_that_is_no_word_is_refused_by_name(tmp_path, text):
    (tmp_path / "word.json").write_text(text)
    with pytest.raises(InputError):
        load_witness(tmp_path / "word.json")


def test_a_server_that_lies_about_its_log_is_noted_and_the_word_we_had_stays(world):
    server, sites = world
    site = sites[0]
    words = Witnessing(site).words
    before = list(read(site.audit))[-1]["n"]
    forks = replace(words.theirs, here=LogHead(words.ours.here.digest, words.theirs.here.count))
    back = replace(words.theirs, here=LogHead(words.ours.here.digest, 1))
    membership = load_membership(site)
    for lie, event in (
        (_signed(server, forks), "audit.fork"),
        (_signed(server, back), "audit.behind"),
        (forks, "audit.unsigned"),
    ):
        assert Witnessing(site)._heard(membership, words, lie) == words
        assert list(read(site.audit))[-1]["event"] == event
    assert list(read(site.audit))[-1]["n"] == before + 3


def _signed(server, word):
    return replace(word, signature=server.identity.sign(signed_bytes(word)))


def test_a_regulator_checks_the_archive_with_sha256_and_openssl_alone(world, tmp_path):
    server, sites = world
    given = tmp_path / "of-alpha.json"
    given.write_bytes(dump_witness(read_sighting(server.folder, "alpha").audit))
    _cli(site_app, "audit", "export", tmp_path / "a.zip", "--site", sites[0].folder, "--against", given)
    _cli(server_app, "audit", "export", tmp_path / "b.zip", "--folder", server.folder)
    for name in ("a", "b"):
        folder = tmp_path / name
        with zipfile.ZipFile(tmp_path / f"{name}.zip") as archive:
            archive.extractall(folder)
        said = _commands(folder)
        assert ("whole" in said, "chained" in said, "Failure" in said) == (True, True, False)
        assert (
            said.count("Signature Verified Successfully") == len(list((folder / "words").glob("*.sig"))) >= 2
        )
        edited = (folder / "lines.txt").read_text().replace("audit.given", "audit.taken", 1)
        (folder / "lines.txt").write_text(edited)
        assert "whole" not in _commands(folder)
        word = next((folder / "words").glob("*.signed"))
        word.write_text(word.read_text().replace("toy", "tox").replace("run", "rum"))
        assert "Failure" in _commands(folder)


def _commands(folder):
    """The very commands of the archive's README, in a shell."""
    text = (folder / "README.txt").read_text()
    lines = [line.strip() for line in text.splitlines() if line.startswith("   ")]
    script = "\n".join(line for line in lines if line.split()[0] in {"while", "grep", "head", "for"})
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr
