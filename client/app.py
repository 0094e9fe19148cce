"""The courier: Flower's ClientApp. It has the network and no data, and imports no torch.

It hands the bytes of an instruction to the site service and its reply back, unread. Which service
is for the hospital's own node configuration to say, never for the server:

`service-socket`   a deployment: path of the site service's Unix socket
`site-folder`      the in-process federation: the folder of a virtual hospital
`partition-id`     set by Flower's simulation runtime only: the nth virtual hospital of the virtual
                   federation the server names
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from common import wire
from common.code import code_digest
from common.codes import refusal_code
from common.errors import ConsiliumError, FederationError
from common.messages import Refusal
from common.types import RunId, SiteName

app = ClientApp()  # a plain assignment: Flower reads the source for it
NOBODY: Final = SiteName("")
"""The sender of a Refusal that comes from the courier: it does not know its site."""


@app.query()
@app.train()
@app.evaluate()
def carry(message: Message, context: Context) -> Message:
    """Take one instruction to the site service and bring its reply back; never raises."""
    try:
        reply = _ask(message, context)
    except ConsiliumError as error:
        reply = _refusal(message, refusal_code(error.code))
    except Exception:  # noqa: BLE001 - the border: Flower would send the exception's text to the server
        reply = _refusal(message, "courier")
    return Message(wire.to_records(reply), reply_to=message)


def _ask(message: Message, context: Context) -> bytes:
    blob = wire.from_records(message.content)
    config = context.node_config
    if "service-socket" in config:
        from client.socket import call  # noqa: PLC0415 - grpc, in a deployment only

        return call(Path(str(config["service-socket"])), blob, message.metadata.ttl)
    from client import direct  # noqa: PLC0415 - the service itself, in a simulation only

    if "site-folder" in config:
        return direct.find(Path(str(config["site-folder"]))).answer(blob)
    virtual = message.content.config_records.get(wire.VIRTUAL)
    if "partition-id" in config and virtual is not None:
        folder = direct.site_folder(Path(str(virtual["federation"])), int(config["partition-id"]))
        return direct.find(folder).answer(blob)
    raise FederationError(
        "node", "its configuration names no site service", "Set service-socket", code="no-service"
    )


def _refusal(message: Message, code: str) -> bytes:
    asked: dict[str, object] = {}
    if message.has_content():
        try:
            asked = wire.head(wire.from_records(message.content))
        except ConsiliumError:
            asked = {}
    run, round_ = asked.get("run"), asked.get("round")
    return wire.pack(
        Refusal(
            NOBODY,
            RunId(run) if isinstance(run, str) else RunId(""),
            round_ if isinstance(round_, int) else 0,
            code,
            code_digest(),
        )
    )
