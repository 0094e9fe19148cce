"""Canaries in everything a hospital has; none is in anything that can be heard outside.

The whole chain runs: init, ingest and serve as processes of their own, a courier over the Unix socket, a server with a
private and a non-private run, and questions that fail.
"""

from __future__ import annotations

import shutil

import pytest
from flwr.app import Message

from client.departures import account
from client.membership import load_membership
from client.site import load_site
from client.studies import receive
from common import plan as plans
from common import wire
from common.audit import read
from common.code import code_digest
from common.envelope import Envelope, is_sealed, nonce, now_ms, seal
from common.identity import fingerprint
from common.messages import Instruction, Kind, Refusal, Update
from server.release import released
from server.start import start_of
from tests.client.acceptance.search import Finder
from tests.client.leaving import CANARIES, PATIENTS, HeardGrid, Hospital, federate, message_of, plant
from tests.client.made import made_plan
from tests.enrolled import consortium, enrol

GROUPS = ["manufacturer", "projection", "sex", "age"]
OPEN = made_plan(
    input={"modalities": ["CR"], "shape": [16, 16]},
    data={"validation_fraction": 0.25},
    federation={"rounds": 1, "least_sites": 1, "deadline_s": 60.0},
    evaluation={"groups": GROUPS, "min_cell": 3, "bootstrap": 100},
    personalisation={"method": "finetune", "epochs": 1},
)
PRIVATE = plans.replace(OPEN, privacy={"mode": "patient-dp"}, federation={"rounds": 2})
FINDER = Finder(CANARIES.values())


@pytest.fixture(scope="module")
def heard(tmp_path_factory):
    """Everything that could be heard of the hospital, after everything was done."""
    folder = tmp_path_factory.mktemp("l")
    hospital = Hospital(folder)
    labels = plant(folder / "export")
    assert hospital.run("init", "oak", "--site", hospital.heard.site) == 0
    settings = hospital.heard.site / "site.toml"
    text = settings.read_text().replace("allow_non_private = false", "allow_non_private = true")
    text = text.replace("min_cell = 11", "min_cell = 3").replace("min_patients = 20", "min_patients = 10")
    settings.write_text(
        text.replace("[site]\n", f'[site]\ndata = "{CANARIES["data folder"]}"\n')
        + f'\n[pacs]\nae_title = "{CANARIES["setting"][:16]}"\n'
    )
    assert hospital.run("ingest", folder / "export", "--labels", labels, "--allow-unlabelled") == 0, (
        hospital.heard.printed
    )
    larger = plans.replace(OPEN, input={"shape": [24, 24]})
    server = _approved(hospital, folder, (PRIVATE, OPEN, larger))
    with hospital.serving() as door:
        assert federate(door, hospital.heard, PRIVATE, "private") == "completed"
        assert federate(door, hospital.heard, OPEN, "open") == "completed"
        _ask_what_fails(door, hospital, server, larger)
    hospital.run("status")
    hospital.run("egress", "show")
    return hospital.heard


def _approved(hospital, folder, of):
    """The hospital enrolled, and these plans received and approved by its people; gives the server."""
    server, site = consortium(folder), load_site(hospital.heard.site)
    enrol(server, site)
    for plan in of:
        release = released(server, plan)
        receive(site, server.book.release(release.id).body)
        assert hospital.run("approve", release.id, "--yes") == 0, hospital.heard.printed
    return server


def _ask_what_fails(door, hospital, server, larger):
    """Questions whose work ends in an exception that names a file or a folder."""
    grid = HeardGrid(door, hospital.heard)
    shutil.rmtree(hospital.heard.site / CANARIES["data folder"] / "dicom")
    junk = b"junk " + CANARIES["name"].encode()

    def sealed(body, run, number):
        letter = Envelope("@lungs", "oak@lungs", run, number, nonce(), now_ms(), 60)
        return seal(body, server.identity, letter)

    blobs = [junk, sealed(junk, "run-8", 0)]
    for plan, run in ((larger, "run-8"), (OPEN, f"run of {CANARIES['name']}")):
        arrays = start_of(plan).arrays
        made = (plans.dump_plan(plan), plan.digest, code_digest())
        for kind, number, sent in ((Kind.SURVEY, 0, {}), (Kind.TRAIN, 1, arrays)):
            question = wire.pack(Instruction(kind, run, number, *made, sent))
            blobs.append(sealed(question, run, number))
    for blob in blobs:
        replies = grid.deliver(Message(wire.to_records(blob), 1, "query", ttl=60.0))
        assert isinstance(wire.unpack(message_of(wire.from_records(replies[0].content))), Refusal)


def test_the_hospital_really_worked(heard):
    """Otherwise silence would prove nothing: it trained, measured, told of groups, and refused."""
    messages = [wire.unpack(message_of(blob)) for blob in heard.replies]
    assert sum(is_sealed(blob) for blob in heard.replies) >= 8
    updates = [one for one in messages if isinstance(one, Update)]
    assert len(updates) == 3
    assert any(getattr(one, "models", ()) and one.models[0].groups[0].auroc for one in messages)
    refusals = {one.code for one in messages if isinstance(one, Refusal)}
    assert {"envelope", "wire", "run"} < refusals, "what was no message, and work that failed on data"
    report = next(entry for entry in read(heard.site / "state" / "audit.jsonl") if "ingest" in entry["event"])
    assert report["fields"]
    assert sum(map(len, heard.socket)) > 100_000


def test_the_searcher_finds_a_canary_where_there_is_one(heard):
    index = b"".join(
        path.read_bytes() for path in (heard.site / CANARIES["data folder"]).glob("index.sqlite*")
    )
    assert CANARIES["source"] in FINDER.find(index), "labels are kept as they are, inside"
    assert FINDER.find(CANARIES["name"].encode("utf-16-le")) == [CANARIES["name"]]


def test_no_canary_is_in_any_byte_that_was_sent(heard):
    sent = [FINDER.find(blob) for blob in heard.replies]
    assert sent == [[] for _ in sent]


def test_no_canary_but_the_servers_own_is_on_the_socket(heard):
    """The server named a patient itself in two questions; the hospital repeats nothing of it."""
    found = [FINDER.find(stream) for stream in heard.socket]
    assert {word for words in found for word in words} <= {CANARIES["name"]}
    from_service = [stream for stream in heard.socket if not stream.startswith(b"PRI * HTTP/2.0")]
    assert from_service
    assert all(FINDER.find(stream) == [] for stream in from_service)


def test_no_canary_is_printed_or_logged(heard):
    found = {name: FINDER.find(text.encode()) for name, text in heard.printed.items()}
    assert found == {name: [] for name in heard.printed}


def test_no_canary_is_in_the_audit_log_or_in_the_memory_of_questions(heard):
    """But for who approved the plans, which the hospital's own log is there to say; that leaves no more than the rest."""
    for path in (heard.site / "state").iterdir():
        if path.is_file() and path.name != "lookup.sqlite":
            allowed = [CANARIES["user"]] if path.name == "audit.jsonl" else []
            assert FINDER.find(path.read_bytes()) == allowed, path.name


def test_no_canary_is_in_any_file_outside_of_the_site(heard):
    """HOME, TMPDIR, the working folder and the server's results; the home's own name is a canary, too."""
    files = [path for path in heard.outside.rglob("*") if path.is_file()]
    assert any(path.name == "federation.json" for path in files)
    for path in files:
        assert FINDER.find(path.read_bytes()) == [], path.name
        assert FINDER.find(path.name.encode()) == []


def test_every_message_was_in_the_audit_log_when_it_arrived(heard):
    assert heard.logged_before == [True] * len(heard.replies)


def test_the_account_tells_every_message_that_arrived(heard):
    told = account(load_site(heard.site)).departures
    assert [one.bytes for one in told] == [len(message_of(blob)) for blob in heard.replies]
    assert {one.to for one in told} == {fingerprint(load_membership(load_site(heard.site)).server_key)}


def test_no_number_of_patients_leaves_exact(heard):
    """47 patients were taken in, and four files that are broken in four ways."""
    for one in map(wire.unpack, map(message_of, heard.replies)):
        intake = getattr(one, "intake", None)
        if intake is not None:
            assert intake.received != PATIENTS + 4
            assert intake.accepted % 10 == 0
            assert intake.patients_bucket in (20, 30)
        for model in getattr(one, "models", ()):
            counts = [n for g in model.groups for n in (g.positives, g.negatives) if n is not None]
            assert all(n % 5 == 0 or n == 3 for n in counts)


def test_nothing_of_validation_patients_leaves_beside_a_private_update(heard):
    """Epsilon covers training patients only."""
    updates = [one for one in map(wire.unpack, map(message_of, heard.replies)) if isinstance(one, Update)]
    private = [one for one in updates if one.plan_digest == PRIVATE.digest]
    assert len(private) == 2
    assert {(one.progress.loss, one.progress.auroc) for one in private} == {(None, None)}
    assert [one.progress.loss is None for one in updates if one.plan_digest == OPEN.digest] == [False]
