"""`/consilium/v1`: what hospitals ask of their federation outside of rounds. On loopback, behind the edge.

POST enrol    a request with a one-time code, or the same again; the only one without a certificate
POST renew    the next certificate
GET  roster   the newest roster
GET  plans    releases; with ?id= one bundle
GET  heads    the newest ledger head seen of who asks, countersigned, and the server's word on both audit logs
GET  /internal/authorise   asked by the edge for each request of a node: is this certificate a member's, and
              is this its node? The edge lets nobody else through to it.

The edge says who asks, by certificate, and proves itself with a secret; a request without it gets 404.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import JSONResponse

from common.enrolment import PREFIX, Ask, Renew, parse, refusal
from common.errors import ConsiliumError, FederationError
from common.roster import dump_roster
from common.types import Digest, RunId
from server import enrolment
from server.federation_folder import Consortium
from server.heads import HeadBook
from server.sightings import Sightings
from server.site_rows import SiteRow
from server.upkeep import Upkeep

FOLDER: Final = "CONSILIUM_FEDERATION"
"""Environment variable with the consortium's folder."""
EDGE: Final = "x-consilium-edge"
CERTIFICATE: Final = "x-consilium-certificate"
NODE: Final = "x-consilium-node"


def command(consortium: Consortium) -> list[str]:
    """The process that serves the api; `environment` goes with it."""
    at = consortium.settings.api
    program = [sys.executable, "-m", "uvicorn", "--factory", "server.api:app"]
    return [*program, "--host", at.host, "--port", str(at.port), "--no-access-log", "--log-level", "warning"]


def environment(consortium: Consortium) -> dict[str, str]:
    """What the process of `command` finds in its environment beside the usual."""
    return {FOLDER: str(consortium.folder)}


def app() -> FastAPI:
    """The api of the consortium whose folder the environment names, for uvicorn's `--factory`."""
    consortium = Consortium.open(Path(os.environ.get(FOLDER, ".")))
    return make_app(consortium, Upkeep(consortium))


def make_app(consortium: Consortium, upkeep: Upkeep | None = None) -> FastAPI:
    """The api of this consortium; `upkeep` goes on beside it while it serves."""

    @asynccontextmanager
    async def beside(_app: FastAPI) -> AsyncIterator[None]:
        with upkeep or nullcontext():
            yield

    made = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(_from_edge)],
        lifespan=beside,
    )
    made.state.consortium, made.state.edge_secret = consortium, consortium.edge_secret
    made.add_exception_handler(ConsiliumError, _say)
    made.include_router(_router)
    return made


def _consortium(request: Request) -> Consortium:
    found: Consortium = request.app.state.consortium
    return found


def _from_edge(request: Request, edge: Annotated[str, Header(alias=EDGE)] = "") -> None:
    if not secrets.compare_digest(edge.encode(), request.app.state.edge_secret.encode()):
        raise HTTPException(404)


def _member(request: Request, certificate: Annotated[str, Header(alias=CERTIFICATE)] = "") -> SiteRow:
    return enrolment.holder(_consortium(request).book, _fingerprint(certificate))


async def _body(request: Request) -> bytes:
    return await request.body()


Body = Annotated[bytes, Depends(_body)]
Here = Annotated[Consortium, Depends(_consortium)]
Member = Annotated[SiteRow, Depends(_member)]
_router = APIRouter()


@_router.post(f"{PREFIX}/enrol")
def _enrol(body: Body, consortium: Here) -> dict[str, Any]:
    return asdict(enrolment.ask(consortium, parse(Ask, body)))


@_router.post(f"{PREFIX}/renew")
def _renew(body: Body, consortium: Here, site: Member) -> dict[str, Any]:
    return asdict(enrolment.renew(consortium, site, parse(Renew, body)))


@_router.get("/internal/authorise")
def _authorise(site: Member, node: Annotated[str, Header(alias=NODE)] = "") -> Response:
    if not site.node or _decoded(node) != site.node.encode():
        raise FederationError("node", "it is not this hospital's", "Enrol again", code="node")
    return Response(status_code=204)


@_router.get(f"{PREFIX}/roster")
def _roster(consortium: Here, _site: Member) -> Response:
    newest = consortium.book.roster()
    if newest is None:
        raise HTTPException(404)
    return Response(dump_roster(newest), media_type="application/json")


@_router.get(f"{PREFIX}/plans")
def _plans(consortium: Here, _site: Member, id: str = "") -> Response:  # noqa: A002 - the query's own name
    if not id:
        rows = [{"id": row.id, "at": row.at, "title": row.title} for row in consortium.book.releases()]
        return Response(json.dumps({"plans": rows}), media_type="application/json")
    found = consortium.book.release(id)
    if found is None:
        raise HTTPException(404)
    return Response(found.body, media_type="application/octet-stream")


@_router.get(f"{PREFIX}/heads")
def _heads(consortium: Here, site: Member) -> dict[str, Any]:
    word = HeadBook(consortium.folder).countersign(site.name, RunId("asked"), 0)
    roster = consortium.book.roster()
    audit = None
    if roster is not None:
        audit = asdict(Sightings(consortium.folder, consortium.identity, roster).standing(site.name))
    return {"site": site.name, "ledger": None if word is None else asdict(word), "audit": audit}


def _say(_request: Request, error: Exception) -> JSONResponse:
    """A refusal in its own words; any other error without any."""
    if isinstance(error, FederationError):
        return JSONResponse(refusal(error), status_code=403)
    code = error.code if isinstance(error, ConsiliumError) else "internal"
    said = FederationError("the federation's server", "it cannot answer now", "Try again later", code=code)
    return JSONResponse(refusal(said), status_code=503)


def _fingerprint(escaped: str) -> Digest:
    """Of the certificate that the edge passed on, PEM with percent signs."""
    body = "".join(unquote(escaped).splitlines()[1:-1])
    return Digest("sha256:" + hashlib.sha256(_decoded(body)).hexdigest())


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return b""
