"""Envelopes between the real ServerApp, the real courier and real site services: what a courier in between can do."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from flwr.app import ArrayRecord, Message

from client import direct
from client.membership import FOLDER, pin
from client.post import SEEN, Post
from client.service import SiteService
from client.site import init_site, load_site
from common import envelope, wire
from common import plan as plans
from common.checkpoints import load
from common.code import code_digest
from common.errors import FederationError, SubsetError
from common.identity import Identity
from common.messages import Instruction, Kind, Refusal
from common.parts import RECORD
from common.roster import Member, sign_roster
from server.federation_folder import Consortium
from server.rounds import run_federation
from server.seals import load_seals, sealed
from server.start import Options
from simulations.grid import InProcessGrid, run_on
from tests.toy import ToyDuties, toy_plan, toy_service

NAMES = ("alpha", "beta", "gamma")
PLAN = toy_plan(rounds=2, least_sites=2)


def _enrol(folder, services, federation="lungs", version=1):
    """What enrolment leaves behind: the server's key and roster, and each site's pin."""
    consortium = Consortium.init(folder / "consortium", federation, ["localhost:9443"])
    server = consortium.identity
    keys = {}
    for service in services:
        own = service.site.secrets / "identity.key"
        keys[service.name] = Identity.load(own) if own.exists() else Identity.make(own)
    members = [Member(name, key.public) for name, key in keys.items()]
    roster = sign_roster(server, federation, version, members)
    for service in services:
        pin(service.site, roster, server.public)
    consortium.book.next_roster(lambda *_: roster, datetime.now(UTC))
    return server, roster


class Courier(InProcessGrid):
    """A grid on which somebody sits between: `tamper` sees every delivery and gives what arrives instead."""

    tamper = None

    def deliver(self, message):
        if self.tamper is None:
            return super().deliver(message)
        return self.tamper(message, super().deliver)


@pytest.fixture
def federation(tmp_path):
    services = [toy_service(tmp_path, name) for name in NAMES]
    server, roster = _enrol(tmp_path, services)
    for service in services:
        direct.host(service)
    return services, server, roster, tmp_path


def _run(folder, services, tamper=None, out="out", plan=PLAN):
    grid = Courier([service.site.folder for service in services])
    grid.tamper = tamper
    return run_on(grid, plan, folder / out)


def test_an_enrolled_federation_comes_to_the_very_model_of_a_plain_one(federation, tmp_path):
    services, _, _, folder = federation
    record = _run(folder, services)
    plain = [toy_service(tmp_path / "plain", name) for name in NAMES]
    for service in plain:
        direct.host(service)
    other = _run(tmp_path / "plain", plain)
    assert record.trained == other.trained == NAMES
    one, two = (load(path / "out" / "model.safetensors").arrays for path in (folder, tmp_path / "plain"))
    assert all(one[name].tobytes() == two[name].tobytes() for name in one)


def test_everything_on_the_way_is_in_envelopes_addressed_to_one_site(federation):
    services, _, _, folder = federation
    seen = []

    def look(message, deliver):
        head, body = wire.parts_of(message.content)
        replies = deliver(message)
        back, _ = wire.parts_of(replies[0].content)
        seen.append((wire.head(body)["run"], envelope.peek(head), envelope.peek(back)))
        return replies

    _run(folder, services, look)
    assert len({asked.nonce for _, asked, _ in seen}) == len(seen), "a nonce was used twice"
    for run, asked, answered in seen:
        assert asked.sender == answered.to == "@lungs"
        assert asked.to == (answered.sender if asked.round else "*@lungs")
        assert (asked.nonce, asked.run) == (answered.nonce, answered.run) == (answered.nonce, run)


def _train(message):
    return message.metadata.message_type == "train"


def _swap_body(reply, change):
    head, body = wire.parts_of(reply.content)
    reply.content = wire.to_records(wire.pack(change(wire.unpack(body))), envelope=head)
    return reply


def _poison(update):
    return replace(update, arrays={name: array + 1 for name, array in update.arrays.items()})


def _strip(reply):
    reply.content = wire.to_records(wire.parts_of(reply.content)[1])
    return reply


def _claim(reply):
    """The courier makes up a refusal that only its site could mean."""
    refusal = Refusal("alpha", "run-x", 1, "ledger-spent", code_digest())
    reply.content = wire.to_records(wire.pack(refusal))
    return reply


@pytest.mark.parametrize(
    ("tampered", "code"),
    [
        (lambda reply: _swap_body(reply, _poison), "envelope-signature"),
        (_strip, "envelope"),
        (_claim, "courier"),
    ],
    ids=["poisoned", "stripped", "made-up"],
)
def test_what_a_courier_changes_never_enters_the_model(federation, tampered, code):
    services, _, _, folder = federation

    def tamper(message, deliver):
        replies = deliver(message)
        if _train(message) and message.metadata.dst_node_id == 1:
            return [tampered(reply) for reply in replies]
        return replies

    record = _run(folder, services, tamper)
    assert record.trained == ("beta", "gamma")
    assert record.subset
    assert [round_.refused.get("alpha") for round_ in record.rounds] == [code, code]


def test_an_old_round_s_reply_and_another_site_s_reply_do_not_fit(federation):
    services, _, _, folder = federation
    kept = {}

    def tamper(message, deliver):
        node, round_ = message.metadata.dst_node_id, message.metadata.group_id
        replies = deliver(message)
        if not _train(message):
            return replies
        kept[node, round_] = replies[0].content
        if node == 2 and round_ == "1":
            replies[0].content = kept[1, "1"]
        if node == 3 and round_ == "2":
            replies[0].content = kept[3, "1"]
        return replies

    record = _run(folder, services, tamper)
    assert record.rounds[0].refused == {"beta": "envelope-sender"}
    assert record.rounds[1].refused == {"gamma": "envelope-run"}


def test_the_answer_to_another_question_of_the_same_round_does_not_fit(federation):
    """Threshold and evaluation share run, round and kind of answer; only the number used once tells them apart."""
    services, _, _, folder = federation
    kept, said = {}, []

    def tamper(message, deliver):
        replies = deliver(message)
        if message.metadata.message_type == "evaluate" and message.metadata.dst_node_id == 1:
            content = replies[0].content
            replies[0].content = kept.get("first", content)
            said.append(message.metadata.group_id)
            kept.setdefault("first", content)
        return replies

    record = _run(folder, services, tamper)
    assert said == ["3", "4"]
    assert sorted(record.sites) == ["beta", "gamma"]


def test_a_question_that_a_courier_changes_or_repeats_is_not_followed(federation):
    services, _, _, folder = federation
    duties = services[0]._duties

    def tamper(message, deliver):
        if message.metadata.dst_node_id != 1 or not _train(message):
            return deliver(message)
        if message.metadata.group_id == "1":
            head, body = wire.parts_of(message.content)
            other = replace(wire.unpack(body), round=7)
            message.content = wire.to_records(wire.pack(other), envelope=head)
            return deliver(message)
        deliver(message)
        return deliver(message)

    record = _run(folder, services, tamper)
    assert [round_.refused.get("alpha") for round_ in record.rounds] == [
        "envelope-signature",
        "envelope-replay",
    ]
    assert [asked.round for asked in duties.seen if asked.kind is Kind.TRAIN] == [2]


def test_a_question_for_one_site_is_not_answered_by_another(federation):
    services, _, _, folder = federation
    brought = []

    def tamper(message, deliver):
        if _train(message):
            brought.append(wire.from_records(message.content))
        return deliver(message)

    _run(folder, services, tamper)
    reply = wire.unpack(services[1].answer(brought[0]))
    assert isinstance(reply, Refusal)
    assert reply.code == "envelope-recipient"


def _asked(kind=Kind.TRAIN, round_=1):
    arrays = {} if kind is Kind.SURVEY else {"w": np.zeros(3, np.float32)}
    return Instruction(kind, "run-1", round_, plans.dump_plan(PLAN), PLAN.digest, code_digest(), arrays)


def _letter(to="alpha", run="run-1", round_=1, time_ms=None):
    when = envelope.now_ms() if time_ms is None else time_ms
    return envelope.Envelope("@lungs", f"{to}@lungs", run, round_, envelope.nonce(), when, 30)


def _word(service, blob):
    answer = service.answer(blob)
    assert not envelope.is_sealed(answer) or service.site.state.joinpath(FOLDER, SEEN).exists()
    body = envelope.split(answer)[1] if envelope.is_sealed(answer) else answer
    reply = wire.unpack(body)
    return reply.code if isinstance(reply, Refusal) else type(reply).__name__


def test_what_the_site_opens_and_what_it_does_not(federation):
    """The service alone, with the server's own key: each wrong letter has its word."""
    (service, *_), server, _, folder = federation
    blob, other = wire.pack(_asked()), Identity.make(folder / "other.key")
    day = 24 * 3600 * 1000
    assert _word(service, blob) == "envelope"
    assert _word(service, envelope.seal(blob, server, _letter())) == "Update"
    assert _word(service, envelope.seal(blob, other, _letter())) == "envelope-signature"
    assert _word(service, envelope.seal(blob, server, _letter("beta"))) == "envelope-recipient"
    assert _word(service, envelope.seal(blob, server, _letter("*"))) == "envelope-recipient"
    assert _word(service, envelope.seal(blob, server, _letter(run="run-2"))) == "envelope-run"
    assert _word(service, envelope.seal(blob, server, _letter(round_=2))) == "envelope-run"
    late = _letter(time_ms=envelope.now_ms() - day)
    assert _word(service, envelope.seal(blob, server, late)) == "envelope-clock"
    assert _word(service, envelope.seal(b"junk", server, _letter())) == "wire"
    survey = wire.pack(_asked(Kind.SURVEY, 0))
    assert _word(service, envelope.seal(survey, server, _letter("*", round_=0))) == "SiteMetrics"


def test_a_replay_is_remembered_over_a_restart_of_the_service(federation):
    (service, *_), server, _, _ = federation
    sealed_ = envelope.seal(wire.pack(_asked()), server, _letter())
    assert _word(service, sealed_) == "Update"
    again = SiteService(load_site(service.site.folder), ToyDuties("alpha"))
    assert _word(again, sealed_) == "envelope-replay"


def test_a_hospital_that_is_not_enrolled_answers_nobody(tmp_path):
    site = init_site(tmp_path / "alpha", "alpha")
    service = SiteService(site, ToyDuties("alpha"))
    assert _word(service, wire.pack(_asked())) == "not-enrolled"
    assert not service._duties.seen
    with pytest.raises(FederationError):
        Post(site).open(wire.pack(_asked()))


def test_a_revoked_site_s_word_counts_for_nothing(federation):
    services, _, _, folder = federation
    _enrol_without(folder, services[1:])
    record = _run(folder, services)
    assert record.trained == ("beta", "gamma")


def _enrol_without(folder, services):
    consortium = Consortium.open(folder / "consortium")
    members = [Member(s.name, Identity.load(s.site.secrets / "identity.key").public) for s in services]
    roster = sign_roster(consortium.identity, "lungs", 2, members)
    consortium.book.next_roster(lambda *_: roster, datetime.now(UTC))


def test_the_courier_s_own_word_is_heard_and_stands_for_no_site(federation):
    """A node without a service says so; the round counts it as missing and says why."""
    services, _, _, folder = federation

    def tamper(message, deliver):
        if message.metadata.dst_node_id == 3 and _train(message):
            blob = wire.pack(Refusal("", "", 0, "no-service", code_digest()))
            return [Message(wire.to_records(blob), reply_to=message)]
        return deliver(message)

    record = _run(folder, services, tamper)
    assert [round_.refused for round_ in record.rounds] == [{"gamma": "no-service"}] * 2


def test_rubbish_instead_of_records_ends_no_run(federation):
    services, _, _, folder = federation

    def tamper(message, deliver):
        replies = deliver(message)
        if message.metadata.dst_node_id == 1 and _train(message):
            replies[0].content[RECORD] = ArrayRecord()
        return replies

    assert _run(folder, services, tamper).trained == ("beta", "gamma")


def test_a_server_whose_roster_another_key_signed_does_not_start(federation):
    _, _, _, folder = federation
    other = Identity.make(folder / "other.key")
    forged = sign_roster(other, "lungs", 2, [])
    Consortium.open(folder / "consortium").book.next_roster(lambda *_: forged, datetime.now(UTC))
    with pytest.raises(FederationError) as caught:
        load_seals(folder / "consortium")
    assert caught.value.code == "roster"


def test_a_server_without_envelopes_gets_nothing_from_enrolled_sites(federation):
    services, _, _, folder = federation
    grid = InProcessGrid([service.site.folder for service in services])
    options = Options(turns=3, nodes=3, consortium=folder / "elsewhere")
    with pytest.raises(SubsetError, match="envelope"):
        run_federation(sealed(grid, folder / "elsewhere"), PLAN, folder / "out", options)
