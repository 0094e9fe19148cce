"""Encrypted remotes: DICOMweb behind a real nginx, DICOM in Orthanc's own TLS, and what goes wrong with certificates."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from client.pacs.echo import Echo, echoes
from client.site import Site
from tests.client.pacs.archive import change_remote, no_identifier, remote_of, site_of, typed
from tests.client.pacs.nginx import nginx
from tests.client.pacs.test_listen_tls import authority
from tests.orthanc import Orthanc, running
from tests.studies import ct_study, study


def answers(site: Site) -> dict[str, Echo]:
    """What each address says."""
    return {one.what: one for one in echoes(site)}


def test_dicomweb_over_tls_asks_for_the_authority(orthanc: Orthanc, tmp_path: Path) -> None:
    """The hospital's CA passes, another and none are refused by name; a wrong password is still a wrong password."""
    ours, other = authority(tmp_path / "ours"), authority(tmp_path / "other")
    orthanc.upload(*ct_study(0, 3, size=64))
    inside = f"proxy_pass {orthanc.url};"
    with nginx(tmp_path / "nginx", ours.sign("archive"), inside) as port:
        root = f"https://localhost:{port}"
        remote = remote_of(orthanc, dicomweb=f"{root}/dicom-web", orthanc=root, authorities=str(ours.path))
        site = site_of(tmp_path / "site", orthanc, remote)
        assert all(one.ok for one in answers(site).values())
        done = typed(site, "pull", "--via", "web", "--no-take", "--json")
        assert json.loads(done.stdout)["pulled"]["instances"] == 3
        for authorities in (str(other.path), ""):
            refused = answers(change_remote(site, authorities=authorities))
            assert {refused[what].code for what in ("QIDO-RS", "REST")} == {"pacs-tls"}
            assert "authorities" in refused["REST"].remedy
        site = change_remote(site, authorities=str(ours.path))
        (site.folder / "archive.password").write_text("guessed")
        assert answers(site)["QIDO-RS"].code == "pacs-auth"


def test_a_certificate_for_another_host_or_expired_is_refused(orthanc: Orthanc, tmp_path: Path) -> None:
    ours = authority(tmp_path / "ours")
    with nginx(tmp_path / "nginx", ours.sign("old", days=-1), f"proxy_pass {orthanc.url};") as port:
        remote = remote_of(
            orthanc, orthanc="", dicomweb=f"https://localhost:{port}", authorities=str(ours.path)
        )
        assert answers(site_of(tmp_path / "site", orthanc, remote))["QIDO-RS"].code == "pacs-tls"


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "pacs-forbidden"),
        (404, "pacs-missing"),
        (407, "pacs-proxy"),
        (502, "pacs-server"),
        (302, "pacs-answer"),
    ],
)
def test_each_http_status_has_its_name(orthanc: Orthanc, tmp_path: Path, status: int, code: str) -> None:
    ours = authority(tmp_path / "ours")
    with nginx(tmp_path / "nginx", ours.sign("archive"), f"return {status} 'Abendroth^Wilhelmina';") as port:
        remote = remote_of(
            orthanc, orthanc="", dicomweb=f"https://localhost:{port}", authorities=str(ours.path)
        )
        site = site_of(tmp_path / "site", orthanc, remote)
        done = typed(site, "query", "--via", "web")
        assert answers(site)["QIDO-RS"].code == code
    assert done.returncode == 8
    assert done.stderr.startswith("error: remote archive")
    no_identifier(done.stdout, done.stderr)


def test_html_is_not_taken_for_an_answer(orthanc: Orthanc, tmp_path: Path) -> None:
    """A login page with status 200, as portals send it."""
    ours = authority(tmp_path / "ours")
    page = "default_type text/html; return 200 '<html>Abendroth</html>';"
    with nginx(tmp_path / "nginx", ours.sign("archive"), page) as port:
        remote = remote_of(
            orthanc, orthanc="", dicomweb=f"https://localhost:{port}", authorities=str(ours.path)
        )
        done = typed(site_of(tmp_path / "site", orthanc, remote), "query", "--via", "web")
    assert done.returncode == 8
    assert "is not JSON" in done.stderr
    no_identifier(done.stdout, done.stderr)


def test_dicom_over_tls(tmp_path: Path) -> None:
    """Both sides show certificates; without ours, or with an unknown authority, it is named as TLS."""
    ours, other = authority(tmp_path / "ours"), authority(tmp_path / "other")
    theirs, mine = ours.sign("archive"), ours.sign("site")
    options = {
        "DicomTlsEnabled": True,
        "DicomTlsCertificate": str(theirs[0]),
        "DicomTlsPrivateKey": str(theirs[1]),
        "DicomTlsTrustedCertificates": str(ours.path),
    }
    tls = {"certificate": str(mine[0]), "key": str(mine[1]), "authorities": str(ours.path)}
    with running(tmp_path / "server", options) as server:
        server.upload(*study(0, 2))
        remote = remote_of(server, host="localhost", dicomweb="", orthanc="", tls=tls)
        site = site_of(tmp_path / "site", server, remote)
        assert answers(site)["C-ECHO"].ok
        done = typed(site, "pull", "--no-take", "--json")
        assert json.loads(done.stdout)["pulled"]["instances"] == 2, done.stderr
        unknown = change_remote(site, tls={**tls, "authorities": str(other.path)})
        assert answers(unknown)["C-ECHO"].code == "pacs-tls"
        plain = change_remote(site, tls={})
        assert not answers(plain)["C-ECHO"].ok


def test_a_certificate_file_that_is_missing_is_a_settings_error(orthanc: Orthanc, tmp_path: Path) -> None:
    site = site_of(
        tmp_path, orthanc, remote_of(orthanc, authorities="nowhere.pem", dicomweb="https://localhost")
    )
    done = typed(site, "query", "--via", "web")
    assert done.returncode == 2
    assert "certificate, key or authorities" in done.stderr
