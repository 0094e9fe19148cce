"""What the fixed words mean: refusal and quarantine codes, in a sentence and with what to do.

Hospitals send codes, never text, because text leaks; the words are put back here.
"""

from __future__ import annotations

from typing import Final

from common.pages.page import NOTHING

_FILES: Final[dict[str, tuple[str, str]]] = {
    "not-dicom": ("it is not a DICOM file", "Leave it out, or export it as DICOM"),
    "parser-error": ("the file is damaged", "Send it again from its source"),
    "duplicate-element": ("an element stands in it twice", "Export it again with one value for each element"),
    "internal": ("the program itself failed on it", "The hospital reports it; the file is in its quarantine"),
    "file-changed": ("it changed while it was taken in", "The hospital repeats the command"),
    "parser-limit": ("reading it takes more memory or time than allowed", "Check it at its source"),
    "deflate-bomb": ("it inflates beyond the limit", "Send it uncompressed, or check it at its source"),
    "timeout": ("reading it takes too long", "Check it at its source"),
    "file-unreadable": ("it cannot be read", "Check its rights and the disk it lies on"),
    "file-size": ("it is larger than a file may be", "Split it, or leave it out"),
    "burned-in": ("text is burned into its pixels", "Export it without annotations, or leave it out"),
    "screen-save": ("it is a picture of a screen", "Export the image itself"),
    "head-ct": ("it may be a CT of a head, from which a face can be rebuilt", "Leave it out"),
    "review-ultrasound": ("ultrasound waits for a person", "The hospital reviews it"),
    "review-secondary-capture": ("a secondary capture waits for a person", "The hospital reviews it"),
    "review-screen-save": ("a picture of a screen waits for a person", "The hospital reviews it"),
    "review-burned-in": ("it says that text is burned in, and waits for a person", "The hospital reviews it"),
    "review-derived": ("it is not an original, and waits for a person", "The hospital reviews it"),
    "review-text": ("something in it looks like text, and waits for a person", "The hospital reviews it"),
    "review-reader": ("the reader of text could not be loaded", "The hospital mends its installation"),
    "review-deface": ("its face could not be removed", "The hospital reviews it or sends the whole series"),
    "patient-unknown": (
        "it names no patient, so privacy per patient cannot be kept",
        "Export it with PatientID",
    ),
    "deid-verify": ("the second scan still found identifying data", "Report it; nothing was stored"),
    "deid-value": ("an attribute has a form the profile does not permit", "Correct it at its source"),
    "deid-uid": ("a UID is missing", "Export it again with its UIDs"),
    "transfer-syntax": ("its compression cannot be read", "Export it uncompressed"),
    "sop-class": ("it is not a kind of image that is taken in", "Leave it out"),
    "not-an-image": ("it cannot be read as PNG or JPEG", "Send it again"),
    "quality-blank": ("nearly all pixels are equal", "Check the exposure"),
    "quality-clipped": ("most pixels lie at the ends of their range", "Export it before windowing"),
    "quality-small": ("it is smaller than 32 pixels", "Send the full image"),
    "quality-contrast": ("its contrast is out of range", "Check the detector"),
    "quality-sharpness": ("its sharpness is out of range", "Check for motion"),
    "quality-noise": ("it is mostly noise", "Check the decoder and the exposure"),
    "quality-exposure": ("its exposure is out of range", "Check the exposure and the export"),
    "quality-duplicate": ("the same pixels are here already", "Nothing; one copy is kept"),
    "quality-orientation": ("its orientation contradicts its tags", "Correct it at its source"),
    "quality-laterality": ("its side contradicts its tags", "Correct it at its source"),
    "quality": ("it did not pass the quality gate", "The hospital's own report shows its figures"),
    "pixel": ("its pixels are missing, in colour, or cannot be decoded", "Export it again, in grey"),
    "pixels": ("its pixels are in colour or cannot be decoded", "Export it again, in grey"),
    "rescale": ("its rescale values are empty or zero", "Ask the sender to fill them"),
    "lut": ("its lookup table is broken", "Export it again"),
    "window": ("its display window is not valid", "Export it again"),
    "frames": ("its frames contradict its header", "Ask the sender for a consistent file"),
    "withdrawn": ("its patient has withdrawn", "Nothing; it is rightly refused"),
}

_SAME: Final = "Install the same release on both"
_ASK: Final = "Ask the hospital what its node runs; its key may be in other hands"
_REPLIES: Final[dict[str, tuple[str, str]]] = {
    "no-reply": ("no answer before the deadline", "Ask the hospital whether its site service runs"),
    "policy-non-private": ("the hospital trains under differential privacy only", "Release a private plan"),
    "policy-epsilon": ("the plan spends more than the hospital allows", "Lower privacy.epsilon"),
    "policy-delta": ("the plan's delta is above the hospital's ceiling", "Lower privacy.delta"),
    "policy-clip": ("the plan's clip is above the hospital's ceiling", "Lower privacy.clip"),
    "policy-network": ("the network is not on the hospital's list", "Choose a listed network"),
    "policy": ("the hospital's policy forbids it", "Read the hospital's policy"),
    "privacy": (
        "the privacy budget or mechanism does not allow it",
        "Ask the hospital for its ledger's state",
    ),
    "ledger": (
        "the hospital's privacy ledger is spent, missing or damaged",
        "The hospital inspects its ledger",
    ),
    "ledger-rollback": (
        "the hospital's ledger is older than the one that was countersigned",
        "The hospital puts its newest ledger back",
    ),
    "ledger-fork": (
        "the hospital's ledger is another history than the one that was countersigned",
        "The hospital looks for a second copy in use",
    ),
    "ledger-countersign": (
        "the hospital does not know the server's key, or its word was for something else",
        "Compare the key's fingerprint with the hospital by telephone",
    ),
    "ledger-clock": ("the hospital's clock is behind its last charge", "The hospital sets its clock right"),
    "ledger-spent": ("a patient's limit would be exceeded", "Release a plan with less epsilon, or wait"),
    "admission": ("the update broke a rule of admission", "Look for the site in the server's log"),
    "update": ("the update broke a rule of admission", "Look for the site in the server's log"),
    "code-mismatch": ("the hospital runs other code than the server", "Install the same release on both"),
    "plan-mismatch": ("the hospital was shown another plan", "Release the plan again"),
    "data": ("too few patients, or one class only", "The hospital checks its labels and its intake"),
    "storage": ("the hospital's disk is full or its store unreadable", "The hospital frees space"),
    "subset": ("fewer hospitals than the plan requires", "Wait for the others, or lower least_sites"),
    "training-diverged": ("training left the range of numbers", "Lower training.learning_rate"),
    "device-memory": ("the hospital's device has too little memory", "Choose a smaller network or input"),
    "egress": ("the hospital's door refused to let it out", "The hospital reads its audit log"),
    "wire": ("the message could not be read", "Install the same release on both"),
    "busy": ("the hospital was busy with another instruction", "Try again"),
    "timeout": (
        "the hospital's work did not end within the deadline",
        "Raise federation.deadline_s, or look at the hospital's load",
    ),
    "internal": ("the hospital's program failed", "The hospital looks at its log and reports it"),
    "client-crashed": ("the hospital's courier ended under the question", "The hospital looks at its log"),
    "client-error": ("the hospital's node answered with an error", "The hospital looks at its log"),
    "no-service": ("the hospital's site service did not answer its courier", "The hospital looks at its log"),
    "not-approved": ("nobody at the hospital approved this study", "Ask the hospital to approve it"),
    "not-finite": ("it held a value that is no finite number", "The hospital looks at its training"),
    "too-large": ("it held a value too large to be summed", "The hospital looks at its training"),
    "norm": ("the update was longer than the plan allows", "Look at federation.max_update_norm"),
    "names": ("it lacked a tensor of the model, or had one more", _SAME),
    "shape": ("a tensor had another shape than the model's", _SAME),
    "dtype": ("a tensor was of another type of number than float32", _SAME),
    "bits": ("it was not in the bits that the plan asks for", _SAME),
    "weight": ("its weight was not the number of patients the hospital declared", _ASK),
    "duplicate": ("the hospital had answered this round already; the first answer counts", "Nothing"),
    "round": ("the answer was of another round", _ASK),
    "run": ("the answer was of another run", _ASK),
    "site": ("the answer named another hospital than the one that was asked", _ASK),
    "site-twice": ("two nodes claimed to be this hospital", _ASK),
    "kind": ("it was no answer to what was asked", _SAME),
    "too-long": ("it was longer than any answer may be, and was not read", _ASK),
    "envelope": ("its envelope did not hold: signature, addressee, run or clock", _ASK),
    "secagg": ("it broke the protocol of masked rounds", _SAME),
}

_OF_FILES: Final = {**_REPLIES, **_FILES}
_OF_REPLIES: Final = {**_FILES, **_REPLIES}


def meaning(code: str, *, reply: bool = False) -> tuple[str, str]:
    """The reason and the remedy behind a code; for a code not known here, where to look it up.

    Args:
        code: of a file, or of a hospital's answer.
        reply: of an answer: `timeout`, for one, is another thing there.
    """
    meanings, words = _OF_REPLIES if reply else _OF_FILES, code.split("-")
    for length in range(len(words), 0, -1):
        found = meanings.get("-".join(words[:length]))
        if found:
            return found
    return NOTHING, "The hospital's own report explains this code"
