"""An archive that answers, and every way in which one does not: by name, with a remedy, without a patient."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from client.pacs.remote import find_remote
from common.errors import SettingsError
from tests.client.pacs.archive import change_remote, no_identifier, remote_of, site_of, typed
from tests.orthanc import PASSWORD, Orthanc, free_port
from tests.studies import study


def echoed(site, **changes: object) -> dict[str, dict[str, object]]:
    """What `pacs echo --json` says of each address."""
    done = typed(change_remote(site, **changes) if changes else site, "echo", "--json")
    answers = {one["what"]: one for one in json.loads(done.stdout)}
    assert done.returncode == (0 if all(one["ok"] for one in answers.values()) else 8), done.stderr
    no_identifier(done.stdout, done.stderr)
    return answers


def test_every_address_of_a_good_remote_answers(orthanc: Orthanc, tmp_path: Path) -> None:
    orthanc.upload(*study(0))
    answers = echoed(site_of(tmp_path, orthanc))
    assert set(answers) == {"C-ECHO", "C-FIND", "QIDO-RS", "REST"}
    assert all(one["ok"] for one in answers.values())


def test_each_wrong_setting_is_named(orthanc: Orthanc, tmp_path: Path) -> None:
    """AE title, port and password: each fails at its own address, with its own code, and the others still answer."""
    site = site_of(tmp_path, orthanc)
    # A busy Orthanc may close the connection before its reason has arrived; then it is asked again.
    for _ in range(5):
        wrong_title = echoed(site, ae_title="NOBODY")
        if wrong_title["C-ECHO"]["code"] != "pacs-refused":
            break
    assert wrong_title["C-ECHO"]["code"] == "pacs-ae-title"
    assert wrong_title["QIDO-RS"]["ok"]
    closed = free_port()
    wrong_port = echoed(site, ae_title=orthanc.ae_title, port=closed, dicomweb=f"http://127.0.0.1:{closed}/x")
    assert {wrong_port[what]["code"] for what in ("C-ECHO", "QIDO-RS")} == {"pacs-unreachable"}
    wrong_root = echoed(site, port=orthanc.dicom_port, dicomweb=orthanc.url + "/nowhere")
    assert wrong_root["QIDO-RS"]["code"] == "pacs-missing"
    (site.folder / "archive.password").write_text("guessed")
    wrong_password = echoed(site, dicomweb=orthanc.dicomweb)
    assert {wrong_password[what]["code"] for what in ("QIDO-RS", "REST")} == {"pacs-auth"}
    assert all(one["remedy"] for one in wrong_password.values() if not one["ok"])


def test_a_port_that_is_not_dicom_is_not_taken_for_one(orthanc: Orthanc, tmp_path: Path) -> None:
    """An HTTP port answers the association with something else; the message speaks of no stack trace."""
    site = site_of(tmp_path, orthanc)
    answer = echoed(site, port=orthanc.http_port)["C-ECHO"]
    assert answer["code"] in ("pacs-refused", "pacs-unreachable", "pacs-lost")


def test_an_archive_that_says_nothing_is_a_timeout(orthanc: Orthanc, tmp_path: Path) -> None:
    """A host that accepts the connection and then is silent does not hold the command for ever."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        site = site_of(
            tmp_path, orthanc, remote_of(orthanc, port=silent.getsockname()[1], dicomweb="", orthanc="")
        )
        assert not echoed(site)["C-ECHO"]["ok"]


def test_a_password_that_others_can_read_is_refused(orthanc: Orthanc, tmp_path: Path) -> None:
    site = site_of(tmp_path, orthanc)
    (site.folder / "archive.password").chmod(0o644)
    with pytest.raises(SettingsError, match="read by other users"):
        find_remote(site, None)
    done = typed(site, "query")
    assert done.returncode == 2
    assert "chmod 600" in done.stderr


def test_no_password_shows_in_a_repr(orthanc: Orthanc, tmp_path: Path) -> None:
    assert PASSWORD not in repr(find_remote(site_of(tmp_path, orthanc), "archive"))


def test_a_remote_that_is_not_there_is_named(orthanc: Orthanc, tmp_path: Path) -> None:
    site = site_of(tmp_path, orthanc)
    done = typed(site, "query", "--remote", "other")
    assert done.returncode == 2
    assert "Choose one: archive" in done.stderr
