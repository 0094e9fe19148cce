"""An enrolled hospital with patients, what a hostile bundle would be told of it, and how its haul is judged."""

from __future__ import annotations

from client.approvals import Approvals
from client.egress import digest_of
from client.index import Index
from client.policy import Policy
from client.studies import receive
from common import envelope, wire
from common import plan as plans
from common.audit import read
from common.code import code_digest
from common.envelope import Envelope
from common.messages import Instruction, Kind
from common.models import build, get_arrays
from server.release import released
from tests.accounts import with_courier
from tests.client.made import fill, made_plan
from tests.enrolled import consortium, enrol, hospital

SECRET = "what-only-the-service-was-told"
PLAN = made_plan(
    federation={"rounds": 1, "least_sites": 1, "deadline_s": 200.0},
    privacy={"mode": "patient-dp", "epsilon": 3.0, "sampling_rate": 0.2, "steps_per_round": 1},
)


def prepared(place):
    """A hospital with forty patients that approved a private plan, and names an account for its courier."""
    server, site = consortium(place), hospital(place, policy=Policy(min_patients=5))
    enrol(server, site)
    site.dicom.mkdir()
    fill(site, 40, 1, 2)
    made = released(server, PLAN)
    Approvals(site).approve(receive(site, server.book.release(made.id).body))
    site = with_courier(site)
    return server, site


def question(server, site):
    """A genuine question of the approved study: train one round."""
    net = build(PLAN.model, PLAN.task.outputs, PLAN.input.shape)
    instruction = Instruction(
        Kind.TRAIN, "run-1", 1, plans.dump_plan(PLAN), PLAN.digest, code_digest(), get_arrays(net)
    )
    letter = Envelope("@lungs", f"{site.name}@lungs", "run-1", 1, envelope.nonce(), envelope.now_ms(), 300)
    return envelope.seal(wire.pack(instruction), server.identity, letter)


def secrets_of(site):
    """Everything that must not be found in what the courier got: keys, pseudonyms, pictures, the ledger's names."""
    keys = [(site.secrets / name).read_bytes() for name in ("pseudonym.key", "spend.key", "identity.key")]
    with Index(site.index) as index:
        rows = index.images()
    named = {word for row in rows for word in (row.patient, row.spend_key, row.sop_uid, row.study_uid)}
    pictures = [next(iter(site.dicom.rglob("*.dcm"))).read_bytes()[-64:]]
    return [*keys, *pictures, *(word.encode() for word in named), SECRET.encode()]


def asked_of(site, process, courier):
    """What the attacker knows beforehand: all names, all places, the service's number."""
    return {
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
    }


def judge(got, site):
    """Every try was in vain but the genuine question's, and in what came there is nothing of the site's own."""
    open_to_it = {"own environment", "genuine question"}
    words = {
        "bare question": "envelope",
        "question of its own": "envelope-signature",
        "question made worse": "envelope-signature",
        "once more": "envelope-replay",
        "kind of the answer": "Update",
    }
    for name, what in got.items():
        if name in words:
            assert what == words[name], name
        elif name not in open_to_it:
            assert what.startswith("denied"), (name, what[:80])
    taken = b"".join(bytes.fromhex(got[name]) for name in open_to_it)
    assert not [secret[:8] for secret in secrets_of(site) if secret in taken]


def only_what_left(site, sealed):
    """The one thing it carried is the protected update, byte for byte as paid for; it was paid for once."""
    body = envelope.split(sealed)[1]
    departures = [one["fields"] for one in read(site.audit) if one["event"] == "egress.release"]
    assert [one["digest"] for one in departures if one["kind"] == "update"] == [digest_of(body)]
    assert {one["kind"] for one in departures} == {"update", "refusal"}
