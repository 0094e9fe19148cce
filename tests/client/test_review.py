"""The review page lets in whoever holds the printed address, once, and nobody else; and stops by itself."""

from __future__ import annotations

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from client.intake.folder import Incoming
from client.intake.ingest import ingest
from client.intake.pool import Limits
from client.intake.quarantine import Quarantine
from client.review.painter import Ask, Painter, as_png
from client.site import Site
from common.errors import FileRefused
from tests.client.intake_files import chest, export, image, new_site, set_pixels, to_bytes

BIN = Path(sys.executable).parent


@contextmanager
def served(site: Site, *words: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command, running, and the address it prints."""
    with subprocess.Popen(
        [BIN / "consilium-site", "review", "--no-browser", "--json", "--site", site.folder, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        try:
            assert process.stdout is not None
            told = "".join(iter(process.stdout.readline, "}\n")) + "}"
            yield json.loads(told)["address"], process
        finally:
            process.send_signal(signal.SIGTERM)


@dataclass
class Answer:
    """What the server said."""

    status: int
    headers: dict[str, str]
    body: bytes


@dataclass
class Caller:
    """Somebody who sends what they like to the server."""

    address: str
    cookie: str = ""
    more: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return urlsplit(self.address).path.removesuffix("/enter")

    def __call__(self, path: str, method: str = "GET", body: object = None, **headers: str) -> Answer:
        """Ask; `path` is below the secret place unless it begins with http."""
        parts = urlsplit(self.address)
        wire = http.client.HTTPConnection("127.0.0.1", parts.port, timeout=60)
        sent = {"Host": parts.netloc} | ({"Cookie": self.cookie} if self.cookie else {})
        if body is not None:
            sent |= {"Content-Type": "application/json", "Origin": f"http://{parts.netloc}"}
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        target = path if path.startswith("//") else self.place + path
        raw = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        wire.request(
            method, target.replace("//", "/", 1), body=raw, headers={k: v for k, v in sent.items() if v}
        )
        answer = wire.getresponse()
        found = Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        wire.close()
        return found

    def enter(self) -> Answer:
        """Bring the token and keep the cookie."""
        parts = urlsplit(self.address)
        answer = self(f"/enter?{parts.query}")
        if "set-cookie" in answer.headers:
            self.cookie = answer.headers["set-cookie"].split(";")[0]
        return answer


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Site:
    """A hospital in which two images wait, one with frames, and a file that is no image was refused."""
    folder = export(tmp_path_factory.mktemp("archive") / "in", 1)
    (folder / "burned.dcm").write_bytes(to_bytes(image(7, BurnedInAnnotation="YES")))
    (folder / "page.dcm").write_bytes(b"<html>")
    several = image(9, SOPClassUID="1.2.840.10008.5.1.4.1.1.3.1", Modality="US")
    frames = np.stack([chest(n, 64) for n in range(3)])
    set_pixels(several, frames[0])
    several.NumberOfFrames, several.PixelData = 3, frames.tobytes()
    (folder / "frames.dcm").write_bytes(to_bytes(several))
    made = new_site(tmp_path_factory.mktemp("site") / "site")
    ingest(made, folder, None, workers=1)
    return made


@pytest.fixture(scope="module")
def inside(site: Site) -> Iterator[Caller]:
    """Somebody who entered."""
    with served(site) as (address, _):
        caller = Caller(address)
        first = caller.enter()
        assert first.status == 200
        yield caller


def ids(site: Site, code: str) -> str:
    return next(one.id for one in Quarantine.of(site).refusals() if one.code.startswith(code))


# the door


def test_the_address_opens_once(inside: Caller) -> None:
    second = Caller(inside.address)
    assert second.enter().status == 403
    assert second.cookie == ""
    assert inside("/").status == 200


@pytest.mark.parametrize("query", ["", "token=", "token=x", "token=%00", "nothing=1"])
def test_no_token_or_another_is_refused_and_does_not_spend_the_true_one(site: Site, query: str) -> None:
    with served(site) as (address, _):
        caller = Caller(address)
        assert caller(f"/enter?{query}").status == 403
        assert caller.enter().status == 200


@pytest.mark.parametrize("path", ["/", "/waiting", "/picture/0123456789abcdef", "/decide", "//", "//waiting"])
@pytest.mark.parametrize("cookie", ["", "consilium_review=x", "consilium_review=", "other=1"])
def test_without_the_cookie_nothing_is_answered(inside: Caller, path: str, cookie: str) -> None:
    stranger = Caller(inside.address, cookie)
    answer = stranger(path)
    assert answer.status == (404 if path.startswith("//") else 403)
    assert len(answer.body) < 100
    assert stranger(path, "POST", {"id": ""}).status in (403, 404)


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "localhost:1", "127.0.0.1.evil.example", "[::1]"]
)
def test_another_name_for_this_machine_is_refused(inside: Caller, host: str) -> None:
    """A page elsewhere may let its own name point to 127.0.0.1; the browser then sends that name."""
    assert inside("/", Host=host).status == 421
    assert inside("/waiting", Host=host).status == 421


def test_the_cookie_is_kept_from_scripts_other_sites_and_other_paths(site: Site) -> None:
    with served(site) as (address, _):
        caller = Caller(address)
        said = caller.enter().headers["set-cookie"].lower()
    assert "httponly" in said
    assert "samesite=strict" in said
    assert f"path={caller.place.lower()}" in said
    assert "domain" not in said


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": ""},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ],
)
def test_a_decision_from_another_page_is_refused(inside: Caller, site: Site, headers: dict[str, str]) -> None:
    body = {"id": ids(site, "review-burned"), "action": "refuse", "boxes": [], "reason": "other", "note": ""}
    assert inside("/decide", "POST", body, **headers).status == 403
    assert ids(site, "review-burned")


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""]
)
def test_a_decision_is_json(inside: Caller, kind: str) -> None:
    assert inside("/decide", "POST", {"id": "x"}, Content_Type=kind).status == 415


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        {"id": "x"},
        {"id": "x", "action": "erase", "boxes": [], "reason": "", "note": ""},
        {"id": "x", "action": "blank", "boxes": [[0, 1, 2]], "reason": "", "note": ""},
        {"id": "x", "action": "blank", "boxes": [[0, 1, 2, 3, 4.5]], "reason": "", "note": ""},
        {"id": "x", "action": "blank", "boxes": 7, "reason": "", "note": ""},
        {"id": 7, "action": "accept", "boxes": [], "reason": "", "note": ""},
        b"[" * 100_000,
    ],
)
def test_what_is_no_decision_is_turned_away(inside: Caller, body: object) -> None:
    assert inside("/decide", "POST", body).status == 400
    assert inside("/decide", "POST", b"x" * (2**20 + 1)).status == 413


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"id": "../../etc/passwd"}, "quarantine-unknown"),
        ({"id": "0" * 16}, "quarantine-unknown"),
        ({"reason": "because"}, "release-reason"),
        ({"note": "Maria Schmidt"}, "release-note"),
        ({"action": "blank"}, "review-boxes"),
        ({"action": "blank", "boxes": [[0, 5, 5, 5, 9]]}, "release-box"),
    ],
)
def test_a_wrong_decision_is_named_and_changes_nothing(
    inside: Caller, site: Site, change: dict[str, object], code: str
) -> None:
    name = ids(site, "review-burned")
    body = {"id": name, "action": "accept", "boxes": [], "reason": "harmless", "note": "", **change}
    answer = inside("/decide", "POST", body)
    assert (answer.status, json.loads(answer.body)["code"]) == (409, code)
    assert ids(site, "review-burned") == name


def test_every_answer_forbids_others_to_frame_store_or_read_it(inside: Caller) -> None:
    for answer in (inside("/"), inside("/waiting"), inside("/none"), Caller(inside.address)("/")):
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        rules = answer.headers["content-security-policy"]
        assert "default-src 'none'" in rules
        assert "frame-ancestors 'none'" in rules
        assert "unsafe" not in rules
        assert "server" not in answer.headers


def test_the_page_loads_nothing_from_elsewhere_and_names_nobody(inside: Caller) -> None:
    page = inside("/").body.decode()
    elsewhere = set(re.findall(r"https?://[^\s\"'<>]+", page)) - {"http://www.w3.org/2000/svg"}
    assert not elsewhere
    said = page + inside("/waiting").body.decode()
    assert not re.search("Abendroth|HOSP-77|ACC0|19550417", said)


def test_only_what_waits_is_listed_and_shown(inside: Caller, site: Site) -> None:
    waiting = json.loads(inside("/waiting").body)
    assert {one["code"] for one in waiting} == {"review-burned-in", "review-ultrasound"}
    refused = inside(f"/picture/{ids(site, 'not-dicom')}")
    assert (refused.status, json.loads(refused.body)["code"]) == (409, "review-none"), (
        "before anything is opened"
    )
    assert inside("/picture/..%2f..%2fsite.toml").status in (404, 409)


def test_frames_and_windows_give_other_pictures(inside: Caller, site: Site) -> None:
    name = ids(site, "review-ultrasound")
    pictures = {
        (frame, view): inside(f"/picture/{name}?frame={frame}&view={view}&side=64")
        for frame in (0, 2)
        for view in ("whole", "dark", "bright")
    }
    assert {answer.status for answer in pictures.values()} == {200}
    assert len({answer.body for answer in pictures.values()}) == 6
    first = pictures[0, "whole"].headers
    assert (first["x-rows"], first["x-columns"], first["x-frames"]) == ("64", "64", "3")
    for odd in ("frame=99", "frame=-1", "frame=x", "view=evil", "side=99999999", "side=0", ""):
        assert inside(f"/picture/{name}?{odd}").status == 200


def test_it_is_reached_from_this_machine_only(inside: Caller) -> None:
    port = urlsplit(inside.address).port
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    places = [fields[1] for fields in listening if fields[3] == "0A" and fields[1].endswith(f":{port:04X}")]
    assert places == [f"0100007F:{port:04X}"]


# its end


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_as_it_is_told_and_leaves_no_process(site: Site, end: signal.Signals) -> None:
    with served(site) as (address, process):
        caller = Caller(address)
        caller.enter()
        caller(f"/picture/{ids(site, 'review-burned')}")
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        drawing = children.read_text().split() if children.exists() else []
        process.send_signal(end)
        assert process.stderr is not None
        assert process.stderr.read().splitlines()[-1] == "stopped"
        assert process.wait() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in drawing)


def test_it_stops_when_nobody_comes_any_more(site: Site) -> None:
    with served(site, "--idle-minutes", "0.02") as (_, process):
        assert process.wait(timeout=30) == 0


def test_a_port_that_is_taken_is_named(site: Site, inside: Caller) -> None:
    port = str(urlsplit(inside.address).port)
    result = subprocess.run(
        [BIN / "consilium-site", "review", "--no-browser", "--port", port, "--site", site.folder],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 2
    assert f"port {port}" in result.stderr


# the painter


def drawn(tmp_path: Path, content: bytes, painter: Painter, ask: Ask | None = None):
    path = tmp_path / "x"
    path.write_bytes(content)
    return painter.picture(str(hash(content)), Incoming(path, "x", None), ask or Ask())


def test_a_file_that_harms_the_drawing_process_costs_that_file_only(tmp_path: Path) -> None:
    deep = to_bytes(image(1))[:400]
    with Painter(Limits(2**28, 20.0)) as painter:
        for content in (b"", b"x" * 1000, deep, to_bytes(image(1))[:-5000]):
            with pytest.raises(FileRefused):
                drawn(tmp_path, content, painter)
        assert drawn(tmp_path, to_bytes(image(1)), painter).png.startswith(b"\x89PNG")


def test_a_process_that_died_is_started_again(tmp_path: Path) -> None:
    with Painter() as painter:
        drawn(tmp_path, to_bytes(image(1)), painter)
        assert painter._process is not None
        painter._process.kill()
        time.sleep(0.2)
        assert drawn(tmp_path, to_bytes(image(2)), painter).rows == 96


def test_a_drawing_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    with Painter(Limits(time_s=30.0)) as painter:
        drawn(tmp_path, to_bytes(image(1)), painter)
        assert painter._process is not None
        painter._limits = Limits(time_s=0.3)
        os.kill(painter._process.pid, signal.SIGSTOP)
        with pytest.raises(FileRefused, match="longer"):
            drawn(tmp_path, to_bytes(image(2)), painter)
        painter._limits = Limits(time_s=30.0)
        assert drawn(tmp_path, to_bytes(image(2)), painter).cols == 96


def test_a_png_of_ours_is_what_others_read() -> None:
    grey = np.random.default_rng(1).integers(0, 256, (5, 7), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(as_png(grey.tobytes(), 7, 5)))), grey)
