"""Write docs/deid-acceptance.md, the table of kinds. Run from the checkout:

python -m tests.client.acceptance.table > docs/deid-acceptance.md
"""

from __future__ import annotations

import sys
from typing import Final

from tests.client.acceptance.case import BLANKED, CLEAN, REVIEW
from tests.client.acceptance.corpus import CASES

HEAD: Final = """# The hospital's worst files, and what becomes of them

{count} kinds of files, each made by a program with canaries: invented names, numbers, dates and UIDs that stand in one place of
one file. Every file also has an honest patient of its own, whose name, number, birth date, order and UIDs are canaries too.
All of them are taken in by the command a hospital uses, with a table of labels that itself has a column of names.
Then every byte that intake has left is searched for every canary: images, index with its journal, audit log,
quarantine, volumes, what the command printed, the log at its most talkative, the report, and what lay in staging on the way.
Searched for are the texts in UTF-8, UTF-16 and twelve national codings, in small and large letters, backwards, in hexadecimal and in base64;
dates in nine styles. Names drawn into pixels are searched for with the mask of the letters that were drawn.

What is kept must also be right: age, sex, maker, model, spacing, projection and exposure equal the source, save where
the trap sits in just that attribute. The same files sent again change nothing.

Made by

    python -m tests.client.acceptance.table > docs/deid-acceptance.md

and held to the code by `tests/client/acceptance/test_acceptance.py`: no row without a file, no file without a row,
and each file with the outcome of its row.

- *{clean}*: the image is in the store, without the canary.
- *{review}*: a person must look at it before it can be taken in; the original lies sealed in quarantine.
- *{blanked}*: text was found in the pixels; it was covered where the finding was certain.
- *refused*, with the code: the original lies sealed in quarantine, with its reason and what to do.

| kind | where the canary sits | outcome |
| --- | --- | --- |
"""
FOOT: Final = """
## What this corpus cannot show

- A stranger who bears a listed maker's name (Siemens, Picker), alone in Manufacturer: the word stays, as the maker's. Short codes with a
  digit after a listed model's name stay too, at most four digits together.
- A number of few digits in a number's place (a house number as an exposure) is a plausible value and stays.
- Grey values that spell something in a code of their own. Only the patient's names, numbers and UIDs are looked for in pixels, as
  letters of one and of two bytes.
- Text in pixels is found by a reader that misses some: see [burned-in text](burned-in-text.md) for how much.
"""


def rows() -> list[str]:
    """The table's lines, one for each kind."""
    return [f"| {case.kind} | {case.place} | {_outcome(case.outcome)} |" for case in CASES]


def _outcome(outcome: str) -> str:
    return outcome if outcome in (CLEAN, REVIEW, BLANKED) else f"refused: `{outcome}`"


def page() -> str:
    """The whole page."""
    head = HEAD.format(count=len(CASES), clean=CLEAN, review=REVIEW, blanked=BLANKED)
    return head + "\n".join(rows()) + "\n" + FOOT


if __name__ == "__main__":
    sys.stdout.write(page())
