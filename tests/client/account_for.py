"""Write docs/intake-multivendor.md: what becomes of every file of a folder. Run from the checkout:

python -m tests.client.account_for FOLDER > docs/intake-multivendor.md
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from client.intake.ingest import ingest
from client.intake.summary import as_markdown, cli_rows, table
from client.site import init_site

HEAD = """# What intake does with 119 real files

119 DICOM files of 27 modality, manufacturer and model kinds (28 compressed), and the three other files that lie in
their folder. Made by

    python -m tests.client.account_for ../shared/data/dicom_multivendor > docs/intake-multivendor.md

and held to the code by `tests/client/test_intake_multivendor.py`.

"""
NOTES = """
By default only images that say ORIGINAL and PRIMARY pass by themselves, and no CT of a head. `head-ct`: ten images name the
head, eight the brain, one the neck. `review-derived`: all seven CR images (computed radiography is processed as a rule), and
CT and MR that were compressed, reformatted or exported by a workstation: a person lets them in, or the hospital's settings
do (`derived_primary`, `[[deid.regions]]`). `patient-unknown`: eight images have an empty PatientID. Privacy is promised per
patient, and nobody can tell how many patients these are, so they stay out. `review-text`: the mosaic of an echo-planar
series and one large slice hold structures that look like lines of letters.

A hospital that accepts head CT and derived images takes in all that can be read and names its patient, save one of each
group of equal pixels: the set holds one image in several compressions. Seven images in 12-bit, progressive or spectral JPEG,
which pydicom's own decoders decline, are read through GDCM.

| reason | rule | what to do |
| --- | --- | --- |
"""


def main() -> None:
    """Take the folder into a throw-away hospital and print the page."""
    with tempfile.TemporaryDirectory() as folder:
        site = init_site(Path(folder) / "site", "accounting")
        report = ingest(site, Path(sys.argv[1]), None)
        rows = [f"| {row.code} | {row.rule} | {row.remedy} |" for row in cli_rows(site)]
    sys.stdout.write(HEAD + as_markdown(table(report)) + NOTES + "\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
