"""Making a release: the app bundle of the installed code with one plan in it, signed and kept.

<consortium>/releases/<id>/bundle.fab, plan.toml, release.json   for whoever submits a run
the book's `releases`                                            the parcel, for hospitals to fetch

The bundle is made by Flower's own builder from exactly the files that this process would load, so that it runs what
is installed and hospitals can compare it file by file. The same code and plan give the same bytes.
"""

from __future__ import annotations

import io
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from common.checkpoints import write_whole
from common.code import sources
from common.errors import FederationError, InputError
from common.plan import Plan
from common.release import (
    BUNDLE,
    DESCRIPTION,
    PLAN,
    Parcel,
    Release,
    app_files,
    open_parcel,
    pack_parcel,
    release_of,
)
from server.federation_folder import Consortium
from server.site_rows import ReleaseRow

FOLDER: Final = "releases"


def make_bundle(plan: Plan) -> bytes:
    """A Flower app bundle of the installed code and this plan.

    Raises:
        FederationError: code `release` when Flower leaves a file out or refuses the whole.
    """
    from flwr.cli.build import build_fab_from_files  # noqa: PLC0415 - Flower's command line, here only

    files = app_files(plan, sources())
    try:
        bundle, _ = build_fab_from_files(files)
    except ValueError as error:
        raise FederationError(
            "the bundle", f"Flower refuses it: {error}", "Compare the releases", code="release"
        ) from None
    return bundle


def released(consortium: Consortium, plan: Plan, now: datetime | None = None) -> Release:
    """Make, sign and keep a release of this plan; one that is there already is given again.

    Raises:
        FederationError: code `release`.
        StorageError: folder or book cannot be written.
    """
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")
    bundle = make_bundle(plan)
    made = release_of(plan, bundle, at, consortium.identity)
    known = consortium.book.release(made.id)
    if known is not None:
        return open_parcel(known.body, consortium.identity.public).release
    parcel = pack_parcel(made, plan, bundle)
    open_parcel(parcel, consortium.identity.public)  # what hospitals will do with it
    _unpack(parcel, consortium.folder / FOLDER / made.id)
    row = ReleaseRow(made.id, datetime.fromisoformat(at).timestamp(), plan.study.question, parcel)
    consortium.book.add_release(row)
    return made


def require_released(consortium: Consortium, plan: Plan) -> str:
    """The release of this very plan with the code that is installed here, by its id; hospitals can approve nothing else.

    Raises:
        FederationError: code `not-released`.
    """
    id_ = release_of(plan, make_bundle(plan), "", consortium.identity).id
    known = [row.id for row in consortium.book.releases()]
    if id_ in known:
        return id_
    alike = [one for one in known if one.startswith(id_.rpartition("-")[0] + "-")]
    others = f"; what was released is {', '.join(alike)}" if alike else ""
    raise FederationError(
        f"study {plan.study.name}",
        f"this plan was not released with the code that is installed here{others}",
        "Release it with `consilium-server release`, let the hospitals approve it, and submit it then",
        code="not-released",
    )


def parcel_of(consortium: Consortium, id_: str) -> Parcel:
    """A release that was made, checked anew.

    Raises:
        InputError: there is none of that identifier.
        FederationError: code `release` when it is not what was signed.
    """
    row = consortium.book.release(id_)
    if row is None:
        known = ", ".join(one.id for one in consortium.book.releases()) or "there is none yet"
        raise InputError(f"release {id_}", "it was never made", f"Choose one that was: {known}")
    return open_parcel(row.body, consortium.identity.public)


def app_folder(bundle: bytes, folder: Path) -> Path:
    """The files of a bundle in a folder, from which Flower makes the same bundle again.

    Args:
        bundle: of a release that was opened.
        folder: new; Flower asks that its name be one of an app.
    """
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        names = [name for name in archive.namelist() if not name.startswith(".info/")]
        archive.extractall(folder, names)
    return folder


def _unpack(parcel: bytes, folder: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(parcel)) as archive:
        for name in (BUNDLE, PLAN, DESCRIPTION):
            write_whole(folder / name, archive.read(name))
