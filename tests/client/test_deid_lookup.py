"""From a pseudonym back to the patient: with the key alone, never without a line in the audit log."""

from __future__ import annotations

import json
import multiprocessing
import os
import sqlite3
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.deid.lookup import REASONS, Entry, LookupTable, forget_originals, look_up, seal
from client.deid.originals import Original
from client.deid.pseudonyms import Identity, Pseudonyms
from client.intake.ingest import ingest
from client.withdraw import withdraw_patient
from common.audit import read, verify
from common.errors import InputError, StorageError
from tests.client.intake_files import export, image, new_site, to_bytes

WHO = "HOSP-7700000"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A hospital that took two patients in, one of them with an issuer."""
    folder = tmp_path_factory.mktemp("lookup")
    made, files = new_site(folder / "site"), export(folder / "export", 1)
    (files / "other.dcm").write_bytes(to_bytes(image(5, "4711", IssuerOfPatientID="ADT2")))
    (files / "refused.dcm").write_bytes(to_bytes(image(6, Modality="XX")))
    ingest(made, files, None, workers=1)
    return made


@pytest.fixture
def table(tmp_path):
    return LookupTable(new_site(tmp_path))


def names(site) -> Pseudonyms:
    return Pseudonyms.of(site)


def asked(site) -> list[dict[str, str]]:
    return [entry["fields"] for entry in read(site.audit) if entry["event"] == "deid.lookup"]


def test_patient_accession_and_study_are_found_again(site):
    code = names(site)
    assert look_up(site, code.patient(Identity(WHO)), "care") == Original("patient", WHO)
    assert look_up(site, code.patient(Identity("4711", "ADT2")), "care") == Original(
        "patient", "4711", "ADT2"
    )
    assert look_up(site, code.accession("ACC000000"), "labels") == Original("accession", "ACC000000")
    assert look_up(site, code.uid("1.2.276.0.7230010.3.1"), "care") == Original(
        "study", "1.2.276.0.7230010.3.1"
    )


def test_the_patient_of_a_refused_file_is_found_too(site):
    """Their pseudonym stands in the quarantine, where somebody asks whose file it is."""
    assert look_up(site, names(site).patient(Identity("HOSP-7700006")), "quality").value == "HOSP-7700006"


def test_every_look_up_is_in_the_audit_log_also_one_that_fails(site):
    before = len(asked(site))
    who = names(site).patient(Identity(WHO))
    look_up(site, who, "consent")
    for wrong in ("P" + "0" * 32, "Abendroth^Wilhelmina", "P" + "0" * 31, ""):
        with pytest.raises(InputError):
            look_up(site, wrong, "consent")
    told = [(line["digest"], line["status"]) for line in asked(site)[before:]]
    unknown = ("p" + "0" * 32, "unknown")
    assert told == [(who.lower(), "found"), unknown, *[("malformed", "malformed")] * 3]
    assert {line["user"] for line in asked(site)[before:]} == {f"uid-{os.getuid()}"}
    assert "Abendroth" not in site.audit.read_text()
    verify(site.audit)


def test_without_the_audit_log_there_is_no_answer(site, tmp_path):
    """The line comes first: where it cannot be written, nothing is told."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "audit.jsonl").mkdir()
    blocked = replace(site, state=tmp_path / "state")
    LookupTable(blocked).add([Entry("s", seal(names(site), image(0)))])
    with pytest.raises(StorageError, match="audit"):
        look_up(blocked, names(site).patient(Identity(WHO)), "care")


def test_a_reason_is_a_word_of_a_list(site):
    with pytest.raises(InputError, match="unspecified, care"):
        look_up(site, names(site).patient(Identity(WHO)), "Mrs Abendroth asked")
    assert all(word.isalpha() for word in REASONS)


def test_nothing_of_a_patient_stands_in_the_file_and_nothing_of_it_in_the_data(site):
    held = [path for path in site.state.iterdir() if "lookup" in path.name]
    assert held
    for path in (*held, *(p for p in site.data.rglob("*") if p.is_file())):
        content = path.read_bytes()
        assert not [w for w in (WHO, "ACC000000", "7230010.3.1", "Abendroth") if w.encode() in content], (
            path.name
        )
    assert {path.stat().st_mode & 0o777 for path in held} == {0o600}
    assert not list(site.data.rglob("*lookup*"))


def test_another_key_reads_nothing_and_that_is_audited(site):
    """The spend key is no help either; and a failed look-up is written as one."""
    for key in (b"K" * 32, site.spend_key):
        wrong = replace(site, pseudonym_key=key)
        with pytest.raises(StorageError) as refused:
            look_up(wrong, names(site).patient(Identity(WHO)), "care")
        assert refused.value.code == "lookup-unreadable"
        assert asked(site)[-1]["status"] == "lookup-unreadable"


def test_an_entry_in_anothers_place_is_not_believed(table):
    code = Pseudonyms(table._key, b"s" * 32)
    first, second = seal(code, image(0)), seal(code, image(1))
    one, other = code.patient(Identity(WHO)), code.patient(Identity("HOSP-7700001"))
    table.add([Entry("s", {one: second[other]})])
    with pytest.raises(StorageError, match="not sealed"):
        table.find(one)
    assert first[one] != second[other]


@pytest.mark.parametrize("text", ["", "AAAA", "not base64 at all", "e30="])
def test_a_damaged_entry_is_named(table, text):
    table.add([Entry("s", {"P" + "1" * 32: text})])
    with pytest.raises(StorageError):
        table.find("P" + "1" * 32)


def test_a_damaged_file_is_named(table):
    table.path.write_bytes(b"this is no database" * 100)
    with pytest.raises(StorageError):
        table.find("P" + "1" * 32)


def test_the_same_twice_changes_nothing_and_nonces_differ(table):
    code = Pseudonyms(table._key, b"s" * 32)
    first, again = seal(code, image(0)), seal(code, image(0))
    assert first.keys() == again.keys()
    assert not set(first.values()) & set(again.values())
    table.add([Entry("s", first)])
    table.add([Entry("s", again)])
    assert table.count == 3


def test_two_patients_under_one_accession_number_keep_it_until_both_left(table):
    code = Pseudonyms(table._key, b"s" * 32)
    for spend, number in (("s0", 0), ("s1", 1)):
        table.add([Entry(spend, seal(code, image(number, AccessionNumber="SHARED")))])
    shared = code.accession("SHARED")
    table.erase(code.patient(Identity(WHO)))
    assert table.find(shared) is None or table.erase(shared)
    assert table.find(code.patient(Identity(WHO))) is None


def test_a_file_without_a_patient_leaves_no_entry():
    source = image(0)
    del source.PatientID
    assert seal(Pseudonyms(b"k" * 32, b"s" * 32), source) == {}


def test_a_withdrawn_patient_is_erased_and_their_bytes_with_them(tmp_path):
    site = new_site(tmp_path / "site")
    files = export(tmp_path / "export", 2)
    ingest(site, files, None, workers=1)
    table, who = LookupTable(site), names(site).patient(Identity(WHO))
    with sqlite3.connect(table.path) as database:
        sealed = [
            row[0] for row in database.execute("SELECT sealed FROM originals WHERE pseudonym = ?", (who,))
        ]
    withdraw_patient(site, WHO)
    assert table.count == 3
    assert table.find(who) is None
    assert table.find(names(site).accession("ACC000000")) is None
    for path in site.state.glob("lookup*"):
        assert sealed[0].encode() not in path.read_bytes()
    ingest(site, files, None, workers=1)
    assert table.find(who) is None
    assert forget_originals(site, who) == 0


def add_many(site, start: int) -> None:
    code = names(site)
    for number in range(start, start + 20):
        LookupTable(site).add([Entry(f"s{number}", seal(code, image(number)))])


def test_two_processes_may_write_at_once(tmp_path):
    site = new_site(tmp_path)
    context = multiprocessing.get_context("spawn")
    hands = [context.Process(target=add_many, args=(site, start)) for start in (0, 20)]
    for hand in hands:
        hand.start()
    for hand in hands:
        hand.join()
    assert [hand.exitcode for hand in hands] == [0, 0]
    assert LookupTable(site).count == 120


def test_a_process_killed_while_it_adds_loses_nothing_that_was_added(tmp_path):
    site = new_site(tmp_path)
    add_many(site, 0)
    hand = multiprocessing.get_context("spawn").Process(target=add_many, args=(site, 100))
    hand.start()
    while LookupTable(site).count < 63 and hand.is_alive():
        pass
    hand.kill()
    hand.join()
    table = LookupTable(site)
    assert table.count % 3 == 0
    assert table.find(names(site).patient(Identity(WHO))).value == WHO


def test_the_command_shows_the_answer_and_takes_a_reason(site):
    who = names(site).patient(Identity("4711", "ADT2"))
    runner = CliRunner()
    shown = runner.invoke(app, ["deid", "lookup", who, "--reason", "legal", "--site", str(site.folder)])
    assert shown.stdout.strip() == "patient 4711 (issuer ADT2)"
    assert asked(site)[-1]["code"] == "legal"
    told = runner.invoke(app, ["deid", "lookup", who, "--json", "--site", str(site.folder)])
    assert json.loads(told.stdout) == {"issuer": "ADT2", "kind": "patient", "value": "4711"}
    unknown = runner.invoke(app, ["deid", "lookup", "P" + "f" * 32, "--site", str(site.folder)])
    assert unknown.exit_code == 2
    assert unknown.stdout == ""
