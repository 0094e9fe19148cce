"""The process that touches untrusted files: little memory and processor time, no core dump, nothing on its screen.

It reads one line of JSON per file and answers with the file's number and one line of JSON. Keys come over the same pipe, never by
argument or environment. Whatever a codec prints goes nowhere, because it may be patient text.
"""

from __future__ import annotations

import gc
import json
import sys

from client.intake.bench import Bench
from client.intake.limits import die_with_parent, limit_cpu, limit_memory, private_pipe
from client.intake.outcome import Outcome, task_from, to_json
from common.errors import StorageError


def main() -> None:
    """Serve the parent until its pipe closes."""
    answers = private_pipe()
    hello = json.loads(sys.stdin.readline())
    bench = Bench.of(hello)
    die_with_parent(int(hello["parent"]))
    limit_memory(int(hello["memory"]))
    gc.freeze()  # what was imported stays; to look through it again and again costs a fiftieth of the time
    answers.write("ready\n")
    for line in sys.stdin:
        task = task_from(line)
        limit_cpu(hello["cpu"])
        try:
            outcome = bench.process(task)
        except StorageError as error:
            outcome = Outcome(error.code, error.rule, error.remedy)
        answers.write(f"{task.number} {to_json(outcome)}\n")


if __name__ == "__main__":
    main()
