"""Studies and their approval: what a person is told before yes, and what yes and no do."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from flwr.cli.build import build_fab_from_files
from typer.testing import CliRunner

from client.approvals import Approvals, check_code
from client.cli import app
from client.index import Index
from client.policy import Policy
from client.privacy.ledger import Ledger, Limits, Release
from client.privacy.plan import DpPlan
from client.service import SiteService
from client.studies import changes, code_difference, find, receive, received
from client.study_cost import cost_of
from client.study_words import words
from common import envelope, wire
from common import plan as plans
from common.accounting import DpEventSpec
from common.audit import read, verify
from common.code import code_digest, sources
from common.envelope import Envelope
from common.errors import FederationError, InputError, PolicyRefused, StorageError
from common.messages import Instruction, Kind, Refusal
from common.release import app_files, pack_parcel, release_of
from server.release import make_bundle, released
from tests.client.made import fill, made_plan
from tests.enrolled import consortium, enrol, hospital
from tests.toy import ToyDuties, toy_plan

PRIVATE = made_plan(
    federation={"rounds": 4, "least_sites": 1},
    privacy={"mode": "patient-dp", "epsilon": 3.0, "sampling_rate": 0.2},
)


@pytest.fixture
def federation(tmp_path):
    server, site = consortium(tmp_path), hospital(tmp_path)
    enrol(server, site)
    return server, site


def _offer(server, site, plan):
    made = released(server, plan)
    return receive(site, server.book.release(made.id).body)


def _other_code(server, site, **changed):
    """A release of other code than the installed one, honestly signed, as after an upgrade elsewhere."""
    plan = toy_plan()
    code = {**sources(), **changed}
    bundle, _ = build_fab_from_files(app_files(plan, code))
    made = release_of(plan, bundle, "2026-11-21T12:00:00+00:00", server.identity)
    return receive(site, pack_parcel(made, plan, bundle))


def _run(site, *words_):
    return CliRunner().invoke(app, [*words_, "--site", str(site.folder)])


def _ask(server, service, plan, kind=Kind.TRAIN, round_=1):
    instruction = Instruction(kind, "run-1", round_, plans.dump_plan(plan), plan.digest, code_digest(), {})
    letter = Envelope("@lungs", "alpha@lungs", "run-1", round_, envelope.nonce(), envelope.now_ms(), 30)
    answer = service.answer(envelope.seal(wire.pack(instruction), server.identity, letter))
    reply = wire.unpack(envelope.split(answer)[1])
    return reply.code if isinstance(reply, Refusal) else type(reply).__name__


def test_only_an_approved_plan_trains_and_a_withdrawn_one_no_more(federation):
    """Law 4, through the service and its envelopes; each kind of question is refused by the same word."""
    server, site = federation
    duties = ToyDuties(site.name)
    service = SiteService(site, duties)
    parcel = _offer(server, site, toy_plan())
    for kind in (Kind.SURVEY, Kind.TRAIN, Kind.THRESHOLD, Kind.EVALUATE):
        assert _ask(server, service, toy_plan(), kind) == "not-approved"
    assert not duties.seen
    Approvals(site).approve(parcel)
    assert _ask(server, service, toy_plan()) == "Update"
    assert _ask(server, service, toy_plan(rounds=3), round_=2) == "not-approved"
    Approvals(site).withdraw(parcel.release.id)
    assert _ask(server, service, toy_plan(), round_=2) == "not-approved"
    Approvals(site).approve(parcel)
    assert _ask(server, service, toy_plan(), round_=3) == "Update"


def test_an_approval_is_durable_told_in_the_log_and_never_forgotten(federation):
    server, site = federation
    parcel = _offer(server, site, toy_plan())
    first = Approvals(site).approve(parcel, by="a.smith")
    assert Approvals(site).approve(parcel) == first, "twice is once"
    Approvals(site).withdraw(parcel.release.id)
    [kept] = Approvals(site).all()
    assert kept.withdrawn
    told = [(one["event"], one["fields"]) for one in read(site.audit)]
    assert [event for event, _ in told] == ["study.approved", "study.withdrawn"]
    assert told[0][1] == {
        "study": "toy",
        "plan": toy_plan().digest,
        "digest": parcel.release.bundle_digest,
        "user": "a.smith",
    }
    verify(site.audit)
    with pytest.raises(InputError):
        Approvals(site).withdraw(parcel.release.id)


def test_a_plan_against_the_policy_cannot_be_approved(tmp_path):
    server, site = consortium(tmp_path), hospital(tmp_path, policy=Policy())
    enrol(server, site)
    parcel = _offer(server, site, toy_plan())
    with pytest.raises(PolicyRefused) as caught:
        Approvals(site).approve(parcel)
    assert caught.value.code == "policy-non-private"
    assert Approvals(site).all() == ()
    done = _run(site, "approve", parcel.release.id, "--yes")
    assert done.exit_code == PolicyRefused.exit_status


def test_code_that_is_not_installed_cannot_be_approved_and_the_files_are_named(federation):
    server, site = federation
    changed = {"client/egress.py": b"# nothing is checked any more\n", "client/extra.py": b"import os\n"}
    parcel = _other_code(server, site, **changed)
    with pytest.raises(FederationError) as caught:
        check_code(parcel)
    assert caught.value.code == "code-mismatch"
    assert "client/egress.py" in str(caught.value)
    assert "client/extra.py" in str(caught.value)
    done = _run(site, "approve", parcel.release.id, "--yes")
    assert done.exit_code == FederationError.exit_status
    assert Approvals(site).all() == ()
    shown = _run(site, "studies", parcel.release.id, "--offline")
    assert "NOT the code installed here" in shown.stdout


def test_an_approval_ends_with_the_code_it_was_given_for(federation):
    """After an upgrade nothing runs by an old yes."""
    server, site = federation
    parcel = _offer(server, site, toy_plan())
    given = Approvals(site).approve(parcel)
    older = replace(given, code_digest="sha256:" + "0" * 64)
    path = site.state / "federation" / "approvals.json"
    path.write_text(path.read_text().replace(given.code_digest, older.code_digest))
    assert not Approvals(site).has_bundle(given.bundle_digest)
    with pytest.raises(PolicyRefused):
        Approvals(site).check_plan(given.plan_digest)


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"schema": "x", "approvals": []}', '{"approvals": [{"id": 1}]}']
)
def test_a_damaged_file_of_approvals_approves_nothing(federation, text):
    server, site = federation
    Approvals(site).approve(_offer(server, site, toy_plan()))
    (site.state / "federation" / "approvals.json").write_text(text)
    with pytest.raises(StorageError) as caught:
        Approvals(site).check_plan(toy_plan().digest)
    assert caught.value.code == "approvals"
    assert _ask(server, SiteService(site, ToyDuties(site.name)), toy_plan()) == "approvals"


def test_another_consortium_s_release_is_not_taken_in(federation, tmp_path):
    _, site = federation
    other = consortium(tmp_path / "elsewhere")
    made = released(other, toy_plan())
    with pytest.raises(FederationError, match="not signed"):
        receive(site, other.book.release(made.id).body)
    assert received(site) == []


def test_a_release_that_was_changed_on_the_site_s_disk_is_not_believed(federation):
    server, site = federation
    parcel = _offer(server, site, toy_plan())
    [path] = (site.state / "federation" / "releases").glob("*.zip")
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.write_bytes(bytes(blob))
    with pytest.raises(FederationError) as caught:
        find(site, parcel.release.id)
    assert caught.value.code == "release"


def test_changes_since_the_last_approved_release_are_told_key_by_key(federation):
    server, site = federation
    first = _offer(server, site, toy_plan())
    assert changes(site, first).since == ""
    Approvals(site).approve(first)
    second = _offer(server, site, toy_plan(rounds=9, deadline_s=45.0))
    found = changes(site, second)
    assert found.since == first.release.id
    assert {(one.key, one.before, one.now) for one in found.plan} == {
        ("federation.rounds", "2", "9"),
        ("federation.deadline_s", "30.0", "45.0"),
    }
    assert found.code == ()
    third = _offer(server, site, toy_plan(sites=["alpha", "beta"]))
    added = {one.key: (one.before, one.now) for one in changes(site, third).plan}
    assert added["federation.sites"][1] == "alpha, beta"


def test_changes_of_the_code_are_told_file_by_file_and_line_by_line(federation):
    server, site = federation
    Approvals(site).approve(_offer(server, site, toy_plan()))
    old = sources()["client/egress.py"]
    parcel = _other_code(
        server, site, **{"client/egress.py": old + b"LEAK = True\n", "client/new.py": b"a\nb\n"}
    )
    found = {one.path: (one.added, one.removed) for one in changes(site, parcel).code}
    assert found == {"client/egress.py": (1, 0), "client/new.py": (2, 0)}
    lines = code_difference(site, parcel)
    assert "+LEAK = True" in lines
    assert "+++ asked/client/new.py" in lines


def test_the_cost_is_the_ledger_s_own_and_grows_with_what_was_spent(tmp_path):
    """The run alone, then what the worst patient will have spent; a run there is no room for is said to be refused."""
    server = consortium(tmp_path)
    site = hospital(
        tmp_path, policy=Policy(min_patients=5, max_epsilon_lifetime=4.0, max_epsilon_per_year=3.5)
    )
    enrol(server, site)
    site.dicom.mkdir()
    fill(site, 40, 1, 2)
    first = cost_of(site, PRIVATE)
    assert first.patients == 40
    assert first.training == 24
    assert 2.5 < first.epsilon <= 3.0
    assert {one.span: one.before for one in first.spent} == {"year": 0.0, "lifetime": 0.0}
    assert all(one.after == pytest.approx(first.epsilon) for one in first.spent)
    assert first.refused == ""
    _spend(site, PRIVATE)
    second = cost_of(site, PRIVATE)
    life = next(one for one in second.spent if one.span == "lifetime")
    assert life.before == pytest.approx(first.epsilon)
    assert life.after > 4.0
    assert second.refused == "ledger-spent"
    assert cost_of(site, made_plan()).epsilon is None


def _spend(site, plan):
    with Index(site.index) as index:
        keys = sorted({row.spend_key for row in index.images()})
    dp = DpPlan.from_plan(plan, 100)
    event = DpEventSpec(dp.sampling_rate, dp.noise_multiplier, dp.steps_per_round * plan.federation.rounds)
    with Ledger(site.ledger) as ledger:
        ledger.charge(Release("run-0", 1, plan.digest, "m"), keys, event, Limits.of(site.policy, plan))


def test_a_site_without_data_reads_a_study_too(federation):
    _, site = federation
    cost = cost_of(site, toy_plan())
    assert (cost.patients, cost.images, cost.refused) == (0, 0, "")


def test_every_word_of_what_is_asked_comes_from_the_plan():
    told = dict(words(toy_plan(), Policy()))
    assert told["privacy"].startswith("NONE")
    assert "Does the machinery work?" in told["question"]
    assert "2 rounds" in told["rounds"]
    assert "fewer than 11" in told["what leaves"], "the larger of plan and policy"
    assert "ε at most 3" in dict(words(PRIVATE, Policy()))["privacy"]
    assert "by itself, and may judge" in told["server sees"]
    masked = toy_plan(aggregation="secure", least_sites=3)
    assert "only the sum" in dict(words(masked, Policy()))["server sees"]


def test_the_commands_take_a_person_from_the_list_to_yes_and_back(federation, tmp_path):
    server, site = federation
    made = released(server, toy_plan())
    (tmp_path / "parcel.zip").write_bytes(server.book.release(made.id).body)
    listed = _run(site, "studies", "--take", str(tmp_path / "parcel.zip"))
    assert made.id in listed.stdout
    assert "needs approval" in listed.stdout
    told = _run(site, "studies", made.id, "--offline")
    assert told.exit_code == 0, told.output
    for said in (
        "What is asked",
        "nothing was approved here before",
        "without bound",
        "allows it",
        made.plan_digest,
    ):
        assert said in told.stdout
    done = CliRunner().invoke(app, ["approve", made.id, "--site", str(site.folder)], input="n\n")
    assert done.exit_code == 1
    assert Approvals(site).all() == ()
    done = CliRunner().invoke(app, ["approve", made.id, "--site", str(site.folder)], input="y\n")
    assert done.exit_code == 0, done.output
    states = json.loads(_run(site, "studies", "--offline", "--json").stdout)
    assert [one["state"] for one in states] == ["approved"]
    assert _run(site, "withdraw-approval", made.id).exit_code == 0
    states = json.loads(_run(site, "studies", "--offline", "--json").stdout)
    assert [one["state"] for one in states] == ["withdrawn"]
    assert _run(site, "approve", "toy-9-ffffffff", "--yes").exit_code == 2


def test_a_hospital_that_is_not_enrolled_has_no_studies(tmp_path):
    site = hospital(tmp_path)
    done = _run(site, "studies")
    assert done.exit_code == FederationError.exit_status
    assert "enrol" in done.output


def test_an_unreachable_federation_is_said_and_what_is_here_is_shown(federation):
    server, site = federation
    parcel = _offer(server, site, toy_plan())
    done = _run(site, "studies")
    assert done.exit_code == 0
    assert parcel.release.id in done.stdout
    assert "not asked" in done.stderr


def test_the_bundle_of_an_approved_release_is_the_one_a_node_may_run(federation):
    server, site = federation
    parcel = _offer(server, site, toy_plan())
    digest = parcel.release.bundle_digest
    assert not Approvals(site).has_bundle(digest)
    Approvals(site).approve(parcel)
    assert Approvals(site).has_bundle(digest)
    assert make_bundle(toy_plan()) == parcel.bundle
