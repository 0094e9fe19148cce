"""A real nginx before a real SuperLink: members' nodes get through, and nobody and nothing else does."""

from __future__ import annotations

import base64
import contextlib
import datetime as dt
import http.client
import json
import socket
import ssl
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from flwr.supernode.node_auth_http_interceptor import sign_message

from client import tunnel
from common.certificates import make_key, public_pem, request
from common.enrolment import PREFIX, Renew, sign
from common.errors import SettingsError
from common.identity import Identity
from common.pki import self_signed
from server import edge, enrolment
from server.federation_folder import Consortium
from tests.world.consortium import BIN, FLOWER, World, hospital, make
from tests.world.processes import Processes, free_ports, listening, until
from tests.world.proxy import proxy

Pair = tuple[Path, Path]
FLEET = "/v1/fleet/pull-messages"


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Everything that runs at a consortium, with two enrolled hospitals."""
    folder = tmp_path_factory.mktemp("edge")
    with Processes(folder / "logs") as processes:
        made = make(folder / "consortium", processes, "127.0.0.31", body_mib=6)
        made.start_api()
        made.start_edge()
        made.start_superlink()
        for name in ("alpha", "beta"):
            made.enrol(hospital(folder / name, name))
        made.await_nodes("alpha", "beta")
        yield made


@pytest.fixture(scope="module")
def alpha(world):
    return load(world, "alpha")


@pytest.fixture(scope="module")
def beta(world):
    return load(world, "beta")


def load(world: World, name: str):
    from client.site import load_site  # noqa: PLC0415

    return load_site(world.consortium.folder.parent / name)


def pair(site) -> Pair:
    return site.secrets / "tls.crt", site.secrets / "tls.key"


def as_node(site) -> dict[str, str]:
    """The headers by which Flower knows a node."""
    stamp = datetime.now(dt.UTC).isoformat()
    key = load_ssh_private_key((site.secrets / "node.key").read_bytes(), None)
    return {
        "flwr-public-key": base64.b64encode(public_pem(key).encode()).decode(),
        "flwr-timestamp": stamp,
        "flwr-signature": base64.b64encode(sign_message(key, stamp.encode())).decode(),
        "content-type": "application/protobuf",
        "accept": "application/protobuf",
    }


def call(  # noqa: PLR0917 - as HTTP orders them
    world: World,
    method: str,
    path: str,
    shown: Pair | None,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> tuple[int, bytes]:
    """One request at the edge; the path goes out exactly as it stands here."""
    context = ssl.create_default_context(cadata=world.consortium.authority_pem)
    if shown:
        context.load_cert_chain(*shown)
    host, port = world.address
    line = http.client.HTTPSConnection(host, port, timeout=60, context=context)
    try:
        line.request(method, path, body, headers or {})
        answer = line.getresponse()
        return answer.status, answer.read()
    finally:
        line.close()


def direct(world: World, method: str, path: str) -> int:
    """The same at the SuperLink itself, which only processes of this machine reach."""
    at = world.consortium.settings.superlink
    context = ssl.create_default_context(cadata=world.consortium.authority_pem)
    line = http.client.HTTPSConnection(at.host, at.port, timeout=60, context=context)
    try:
        line.request(method, path)
        return line.getresponse().status
    finally:
        line.close()


def reached(world: World, path: str) -> bool:
    """Whether the SuperLink ever saw a request for this path."""
    return path in world.processes.log("superlink")


def certificate(folder: Path, made, names: str) -> Pair:
    """A pair on disk for a key of the test's own; `made` gives the certificate for its request."""
    key = make_key(folder / f"{names}.key")
    given = made(request(key, names)) if callable(made) else made
    (folder / f"{names}.crt").write_text(given.pem)
    return folder / f"{names}.crt", folder / f"{names}.key"


def test_a_members_node_gets_through_and_only_as_itself(world, alpha, beta):
    """The positive case that makes every refusal below mean something; Flower answers, here about an empty body."""
    status, _ = call(world, "POST", FLEET, pair(alpha), b"", as_node(alpha))
    assert status not in {403, 404}
    assert reached(world, FLEET)
    for headers in (as_node(beta), {}, {"flwr-public-key": "x"}):
        status, said = call(world, "POST", FLEET, pair(alpha), b"", headers)
        assert status == 403, said


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/control/start-run"),
        ("POST", "/v1/control/list-nodes"),
        ("POST", "/v1/control/register-node"),
        ("POST", "/v1/runtime/claim-task"),
        ("POST", "/v1/runtime/pull-app-inputs"),
        ("GET", "/docs"),
        ("GET", "/redoc"),
        ("GET", "/openapi.json"),
        ("GET", "/health"),
        ("GET", "/"),
        ("GET", "/internal/authorise"),
        ("GET", "/authorise"),
        ("GET", "/consilium/v1/"),
        ("GET", "/consilium/v1/status"),
        ("POST", "/v1/fleet/"),
        ("POST", "/v1/fleet/../control/start-run"),
        ("POST", "/v1/fleet/%2e%2e/control/start-run"),
        ("POST", "/v1/fleet/..%2fcontrol/start-run"),
        ("POST", "//v1//control/start-run"),
        ("POST", "/V1/FLEET/pull-messages"),
        ("POST", "/v1/fleet/pull-messages/../../control/list-nodes"),
    ],
)
def test_a_member_reaches_no_other_path(world, alpha, method, path):
    status, _ = call(world, method, path, pair(alpha), b"", as_node(alpha))
    assert status == 404
    for inner in ("control", "runtime"):
        assert f'"POST /v1/{inner}/start-run' not in world.processes.log("superlink")


def test_what_is_hidden_is_really_there(world):
    """Were the SuperLink itself to answer 404, the test above would prove nothing."""
    for method, path in (("POST", "/v1/control/list-nodes"), ("GET", "/health")):
        assert direct(world, method, path) != 404


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH", "HEAD"])
def test_a_node_only_posts(world, alpha, method):
    assert call(world, method, FLEET, pair(alpha), b"", as_node(alpha))[0] in {403, 405}
    assert call(world, method, f"{PREFIX}/enrol", None)[0] in {403, 405}


def test_without_a_certificate_there_is_enrolment_and_nothing_else(world, alpha):
    for method, path in (
        ("POST", FLEET),
        ("POST", f"{PREFIX}/renew"),
        ("GET", f"{PREFIX}/roster"),
        ("GET", f"{PREFIX}/plans"),
        ("GET", f"{PREFIX}/heads"),
    ):
        assert call(world, method, path, None, b"", as_node(alpha))[0] == 403
    assert call(world, "GET", f"{PREFIX}/roster", pair(alpha))[0] == 200
    status, said = call(world, "POST", f"{PREFIX}/enrol", None, b"{}")
    assert (status, json.loads(said)["code"]) == (403, "message")


def test_who_says_whose_certificate_it_is_is_not_believed(world, alpha):
    """Headers that the edge gives to the api cannot be brought along, nor the api be asked without the edge."""
    told = {
        "x-consilium-certificate": pair(alpha)[0].read_text().replace("\n", "%0A"),
        "x-consilium-edge": "x",
    }
    assert call(world, "GET", f"{PREFIX}/roster", None, b"", told)[0] == 403
    at = world.consortium.settings.api
    for path in (f"{PREFIX}/roster", "/internal/authorise", f"{PREFIX}/enrol", "/docs", "/openapi.json"):
        line = http.client.HTTPConnection(at.host, at.port, timeout=60)
        line.request("GET" if "enrol" not in path else "POST", path, headers=told)
        assert line.getresponse().status == 404
        line.close()


def test_a_member_is_nobody_else_whatever_its_headers_say(world, alpha, beta):
    """With its own certificate and another's in a header: the api hears of its own alone, at every path."""
    told = {"x-consilium-certificate": quote(pair(beta)[0].read_text()), "x-consilium-node": "x"}
    status, said = call(world, "GET", f"{PREFIX}/heads", pair(alpha), b"", told)
    assert (status, json.loads(said)["site"]) == (200, "alpha")
    of_beta = Identity.load(beta.secrets / "identity.key")
    key = make_key(world.consortium.folder.parent / "beta-again.key")
    asked = sign(Renew(request(key, "beta"), int(time.time())), of_beta, world.consortium.identity.public)
    body = json.dumps(asdict(asked)).encode()
    status, said = call(world, "POST", f"{PREFIX}/renew", pair(alpha), body, told)
    assert (status, json.loads(said)["code"]) == (403, "signature"), (
        "it was judged as alpha's, which did not sign"
    )
    assert call(world, "POST", f"{PREFIX}/renew", pair(beta), body)[0] == 200
    status, _ = call(world, "POST", FLEET, pair(alpha), b"", {**as_node(beta), **told})
    assert status == 403


def test_no_session_is_resumed_so_every_connection_meets_the_revocation_list(world, alpha):
    context = ssl.create_default_context(cadata=world.consortium.authority_pem)
    context.load_cert_chain(*pair(alpha))
    session = None
    for _ in range(3):
        with (
            socket.create_connection(world.address, timeout=60) as raw,
            context.wrap_socket(raw, server_hostname=world.host, session=session) as line,
        ):
            line.sendall(f"GET {PREFIX}/roster HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            assert b" 200 " in line.recv(64)
            while line.recv(65536):
                pass
            assert not line.session_reused
            session = line.session


def test_an_expired_foreign_self_made_or_unknown_certificate_is_refused(world, alpha, tmp_path):
    """Each holds a key of its own and is otherwise as a member's: only what is named here is wrong with it."""
    consortium = world.consortium
    authority = consortium.authority()
    past = datetime.now(UTC) - dt.timedelta(days=91)

    def expired(asked):
        given = authority.issue(asked, "alpha", "lungs", now=past)
        consortium.book.renewed(alpha.name, given)
        return given

    other = Consortium.init(tmp_path / "other", "lungs", ["127.0.0.1:1"])
    shown = {
        "expired": certificate(tmp_path, expired, "expired"),
        "of another federation": certificate(
            tmp_path, lambda asked: other.authority().issue(asked, "alpha", "lungs"), "foreign"
        ),
        "never given": certificate(
            tmp_path, lambda asked: authority.issue(asked, "alpha", "lungs"), "unknown"
        ),
        "a server's": certificate(
            tmp_path, lambda asked: authority.issue_server(asked, "lungs", ["alpha"]), "server"
        ),
    }
    key = make_key(tmp_path / "self.key")
    (tmp_path / "self.crt").write_text(self_signed(key, "alpha").pem)
    shown["made by itself"] = (tmp_path / "self.crt", tmp_path / "self.key")
    for what, held in shown.items():
        assert call(world, "POST", FLEET, held, b"", as_node(alpha))[0] == 403, what
        assert call(world, "GET", f"{PREFIX}/roster", held)[0] == 403, what
    _, said = call(world, "GET", f"{PREFIX}/roster", shown["expired"])
    assert json.loads(said)["code"] == "certificate"
    assert "expired" in json.loads(said)["rule"]


def test_a_revoked_certificate_is_refused_by_the_book_at_once_and_by_the_list_after(world, tmp_path):
    gone = hospital(tmp_path / "gone", "gone")
    world.enrol(gone)
    assert call(world, "GET", f"{PREFIX}/roster", pair(gone))[0] == 200
    world.await_nodes("gone")
    enrolment.revoke(world.consortium, "gone")
    status, said = call(world, "GET", f"{PREFIX}/roster", pair(gone))
    assert (status, json.loads(said)["code"]) == (403, "certificate-unknown")
    assert edge.reload(world.consortium)

    def listed() -> bool:
        status, said = call(world, "POST", FLEET, pair(gone), b"", as_node(gone))
        assert status == 403
        return b"revoked" in said

    until("the edge reads the revocation list", listed)
    alpha = load(world, "alpha")
    assert call(world, "GET", f"{PREFIX}/roster", pair(alpha))[0] == 200
    until("the SuperLink lets its node go", lambda: "unregister-node" in world.processes.log("superlink"))


def test_plain_http_and_old_tls_are_refused(world):
    host, port = world.address
    with socket.create_connection((host, port), timeout=60) as line:
        line.sendall(f"POST {FLEET} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode())
        assert line.recv(64).startswith(b"HTTP/1.1 400")
    context = ssl.create_default_context(cadata=world.consortium.authority_pem)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with socket.create_connection((host, port), timeout=60) as line, pytest.raises(ssl.SSLError):
        context.wrap_socket(line, server_hostname=host)


def test_a_request_that_is_too_large_is_refused_before_anybody_reads_it(world, alpha):
    large = {"Content-Length": str(7 << 20)}
    assert call(world, "POST", FLEET, pair(alpha), b"", as_node(alpha) | large)[0] == 413
    assert call(world, "POST", f"{PREFIX}/enrol", None, b"x" * (33 << 10))[0] == 413
    assert call(world, "POST", f"{PREFIX}/renew", pair(alpha), b"x" * (33 << 10))[0] == 413


def test_a_models_piece_passes_whole(world, alpha):
    """Flower sends a model in pieces of 5 MiB; the SuperLink judges this one, as no message it knows."""
    status, _ = call(world, "POST", "/v1/fleet/push-object", pair(alpha), b"x" * (5 << 20), as_node(alpha))
    assert status not in {403, 404, 413, 500, 502}
    assert reached(world, "/v1/fleet/push-object")


def test_nothing_but_the_edge_listens_beyond_this_machine(world):
    """SuperLink and api are reached at 127.0.0.1 and at no other address of it."""
    host, _ = world.address
    for at in (world.consortium.settings.superlink, world.consortium.settings.api):
        assert listening(at.host, at.port)
        assert not listening(host, at.port)


def test_a_rogue_executor_gets_no_work_through_the_edge_nor_beside_it(world, alpha, tmp_path):
    """Through a member's own tunnel it meets 404; at the SuperLink, on the same machine, 401 without the secret."""
    (tmp_path / "guess").write_text("0" * 64)
    asked = '"POST /v1/runtime/'
    at = world.consortium.settings.superlink
    world.processes.start("tunnel-alpha", tunnel.command(alpha))
    until("the tunnel listens", lambda: listening(tunnel.HOST, alpha.federation.tunnel_port))
    cases = {
        "beside": (f"{at.host}:{at.port}", world.consortium.pki / "ca.crt", "401"),
        "through": (tunnel.address(alpha), tunnel.root_certificate(alpha), "404"),
    }
    for name, (address, trusted, status) in cases.items():
        command = [str(BIN / "flower-superexec"), "--runtime-api-address", address]
        command += [
            "--root-certificates",
            str(trusted),
            "--superexec-auth-secret-file",
            str(tmp_path / "guess"),
        ]
        child = world.processes.start(f"rogue-{name}", command, **FLOWER)
        if name == "beside":
            until("the SuperLink refuses it", lambda: asked in world.processes.log("superlink"))
            lines = [line for line in world.processes.log("superlink").splitlines() if asked in line]
            assert all(line.rstrip().endswith(status) for line in lines)
        else:
            log = world.consortium.run / "edge-access.log"
            until("the edge refuses it", lambda log=log: asked in log.read_text())
            lines = [line for line in log.read_text().splitlines() if asked in line]
            assert lines
            assert all('" 404 ' in line for line in lines)
        world.processes.kill(child)


def node(world: World, site, name: str) -> None:
    """Flower's own SuperNode of this hospital, at its tunnel."""
    command = [str(BIN / "flower-supernode"), "--superlink", tunnel.address(site)]
    command += ["--root-certificates", str(tunnel.root_certificate(site)), "--isolation", "process"]
    command += [
        "--auth-supernode-private-key",
        str(site.secrets / "node.key"),
        "--port",
        str(free_ports(1)[0]),
    ]
    home = str(world.processes.folder / name)
    world.processes.start(name, command, **FLOWER, FLWR_HOME=home)


def test_flowers_own_node_works_through_tunnel_proxy_and_edge(world, tmp_path):
    """What a hospital runs: SuperNode, stunnel, a proxy that wants a password, nginx, SuperLink."""
    with proxy(user="house", password="word") as way:
        site = hospital(
            tmp_path / "gamma", "gamma", proxy=way.address, proxy_user="house", proxy_password_file="word"
        )
        (site.folder / "word").write_text("word")
        world.enrol(site)
        world.await_nodes("gamma")
        world.processes.start("tunnel-gamma", tunnel.command(site))
        until("the tunnel listens", lambda: listening(tunnel.HOST, site.federation.tunnel_port))
        before = len(way.asked)
        log = world.consortium.run / "edge-fleet.log"
        earlier = len(log.read_text().splitlines()) if log.exists() else 0
        node(world, site, "gamma")
        asked = f'"CN=gamma,O=lungs" "POST {FLEET} HTTP/1.1" 200'
        until("the node asks for messages", lambda: asked in log.read_text())
        assert asked not in "\n".join(log.read_text().splitlines()[:earlier])
        assert asked not in (world.consortium.run / "edge-access.log").read_text(), "told apart from all else"
        assert len(way.asked) > before
        assert set(way.asked) == {world.consortium.settings.federation.addresses[0]}
    assert ((site.state / "federation" / tunnel.CONF).stat().st_mode & 0o777) == 0o600


def test_a_tunnel_listens_on_loopback_alone(alpha):
    """No inbound port: every address that stunnel is told to accept at is 127.0.0.1."""
    text = tunnel.write(alpha).read_text()
    accepted = [line.split("=")[1].strip() for line in text.splitlines() if line.startswith("accept")]
    assert len(accepted) == 2
    assert all(at.startswith("127.0.0.1:") for at in accepted)


def test_a_tunnel_speaks_to_no_server_of_another_authority(world, alpha, tmp_path):
    """Whoever stands at the edge's address with a certificate of his own hears nothing of the node."""
    with Processes(tmp_path / "logs") as processes:
        rogue = make(tmp_path / "rogue", processes, "127.0.0.32")
        rogue.start_edge()
        site = hospital(tmp_path / "delta", "delta")
        world.enrol(site)
        text = tunnel.write(site).read_text()
        held = text.replace(
            world.consortium.settings.federation.addresses[0], ":".join(map(str, rogue.address))
        )
        held = held.replace("checkIP = 127.0.0.31", "checkIP = 127.0.0.32")
        (tmp_path / "held.conf").write_text(held)
        processes.start("tunnel", [tunnel.command(site)[0], str(tmp_path / "held.conf")])
        until("the tunnel listens", lambda: listening(tunnel.HOST, site.federation.tunnel_port))
        context = ssl.create_default_context(cafile=str(tunnel.root_certificate(site)))
        line = http.client.HTTPSConnection(
            tunnel.HOST, site.federation.tunnel_port, timeout=60, context=context
        )
        line.request("POST", FLEET, b"", as_node(site))
        with pytest.raises((OSError, http.client.HTTPException)):
            line.getresponse()
        line.close()
        assert not any(FLEET in log.read_text() for log in rogue.consortium.run.glob("edge-*.log"))
        assert "CERT: Pre-verification error" in (site.state / "federation" / "tunnel.log").read_text()


def test_a_tunnel_speaks_to_no_other_server_of_the_right_authority(world, tmp_path):
    """A certificate for another name, e.g. the SuperLink's own, is not the edge's, whoever signed it."""
    site = hospital(tmp_path / "site", "epsilon")
    world.enrol(site)
    at = world.consortium.settings.superlink
    with Processes(tmp_path / "logs") as processes:
        text = tunnel.write(site).read_text()
        inner = text.replace(world.consortium.settings.federation.addresses[0], f"{at.host}:{at.port}")
        for name, held in (
            ("strict", inner),
            ("told", inner.replace("checkIP = 127.0.0.31", "checkIP = 127.0.0.1")),
        ):
            (tmp_path / f"{name}.conf").write_text(held)
            child = processes.start("tunnel", [tunnel.command(site)[0], str(tmp_path / f"{name}.conf")])
            until("the tunnel listens", lambda: listening(tunnel.HOST, site.federation.tunnel_port))
            context = ssl.create_default_context(cafile=str(tunnel.root_certificate(site)))
            line = http.client.HTTPSConnection(
                tunnel.HOST, site.federation.tunnel_port, timeout=60, context=context
            )
            line.request("GET", "/health")
            if name == "told":
                assert line.getresponse().status == 200, "there was a server to speak to"
            else:
                with pytest.raises((OSError, http.client.HTTPException)):
                    line.getresponse()
            line.close()
            processes.kill(child)


def test_who_tries_codes_is_slowed_down(tmp_path):
    with Processes(tmp_path / "logs") as processes:
        world = make(tmp_path / "consortium", processes, "127.0.0.33", enrol_per_minute=6)
        world.start_api()
        world.start_edge()
        answers = [call(world, "POST", f"{PREFIX}/enrol", None, b"{}")[0] for _ in range(12)]
        assert answers[:6] == [403] * 6
        assert set(answers[7:]) == {429}


def test_while_the_api_is_started_anew_a_node_is_told_to_come_again(tmp_path):
    """Nobody can say then whose certificate it is. Flower's node takes nginx's 500 for the end, and a 503 for a pause."""
    with Processes(tmp_path / "logs") as processes:
        world = make(tmp_path / "consortium", processes, "127.0.0.35")
        served = world.start_api()
        world.start_edge()
        site = hospital(tmp_path / "alpha", "alpha")
        world.enrol(site)

        def ask() -> int:
            return call(world, "POST", FLEET, pair(site), b"", as_node(site))[0]

        assert ask() == 502, "it was let through, to a SuperLink that is not there"
        processes.kill(served)
        assert ask() == 503
        world.start_api()
        assert ask() == 502


def test_a_hospital_that_floods_slows_itself_and_nobody_else(tmp_path):
    """A node is counted by its certificate; connections by their address. Both hospitals sit behind one address here."""
    with Processes(tmp_path / "logs") as processes:
        world = make(tmp_path / "consortium", processes, "127.0.0.34", fleet_per_s=1, connections=3)
        world.start_api()
        world.start_edge()
        sites = [hospital(tmp_path / name, name) for name in ("alpha", "beta")]
        for site in sites:
            world.enrol(site)

        def ask(site) -> int:
            return call(world, "POST", FLEET, pair(site), b"", as_node(site))[0]

        first = [ask(sites[0]) for _ in range(12)]
        # Without a SuperLink behind it the edge says 502 of what it lets through.
        assert first[0] == 502
        assert first.count(429) >= 6
        assert ask(sites[1]) == 502
        with contextlib.ExitStack() as lines:
            answers = [lines.enter_context(half_a_request(world, sites[1])) for _ in range(5)]
            turned_away = [line for line in answers if b" 429 " in line.recv(64)]
            assert len(turned_away) == 2
        until("there is room again", lambda: ask(sites[1]) == 502)


@contextlib.contextmanager
def half_a_request(world: World, site):
    """A connection on which a request was begun and its body does not come; it waits a second for an answer."""
    context = ssl.create_default_context(cadata=world.consortium.authority_pem)
    context.load_cert_chain(*pair(site))
    with (
        socket.create_connection(world.address, timeout=60) as plain,
        context.wrap_socket(plain, server_hostname=world.address[0]) as line,
    ):
        line.sendall(f"POST {PREFIX}/renew HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
        yield Waiting(line)


class Waiting:
    """The end of a connection that may have been answered."""

    def __init__(self, line: ssl.SSLSocket) -> None:
        self._line = line

    def recv(self, count: int) -> bytes:
        self._line.settimeout(1)
        try:
            return self._line.recv(count)
        except TimeoutError:
            return b""


def test_a_folder_that_nginx_would_misread_and_a_missing_certificate_are_named(tmp_path):
    consortium = Consortium.init(tmp_path / "a;b", "lungs", ["127.0.0.1:1"])
    with pytest.raises(SettingsError) as refusal:
        edge.write(consortium)
    assert refusal.value.code == "edge-path"
    assert not edge.reload(consortium)
