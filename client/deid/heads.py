"""Whether a CT shows a head: from it a face can be rebuilt, and nothing removes it reliably.

Any sign counts: the body part, or a word in the descriptions of study, series, protocol and procedure.
A head CT that says nothing of a head anywhere is not known by this; see docs/burned-in-text.md.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from pydicom.dataset import Dataset

PARTS: Final = frozenset(
    (
        "HEAD BRAIN SKULL FACE NECK HEADNECK ORBIT EYE EAR IAC JAW MANDIBLE MAXILLA NOSE SINUS TEETH TMJ ZYGOMA "
        "SELLA WHOLEBODY HEADANDNECK CALVARIUM MASTOID PAROTID"
    )
    .casefold()
    .split()
)
"""Of BodyPartExamined, without blanks. A CT of the neck or of the whole body shows at least the lower face."""
WORDS: Final = frozenset(
    # English
    "head brain skull cranium cranial cerebral cerebrum face facial orbit orbits orbita orbital sinuses sinus pns iac "
    "mastoid mandible maxilla maxillofacial neuro stroke headneck dental "
    # German, Dutch, Scandinavian, Finnish
    "kopf schadel schaedel cct hirn gehirn gesicht mittelgesicht nnh felsenbein kiefer hals hoofd schedel hersenen "
    "huvud skalle hjarna ansikte hode hjerne hoved kranie kallo aivot "
    # French, Spanish, Italian, Portuguese, Romanian
    "tete crane cerveau encephale visage craneo cabeza cerebro craneal cranio testa cervello encefalo volto cabeca "
    "creier "
    # Polish, Czech, Slovak, Croatian, Hungarian, Turkish, Russian, Greek
    "glowa glowy czaszka mozg mozgu hlava hlavy lebka mozek mozog glava glave mozak koponya agy kafa beyin "
    "голова головы головного череп черепа мозг мозга κεφαλι κεφαλη εγκεφαλου κρανιο".casefold().split()
)
"""Whole words, without accents."""
SIGNS: Final = ("頭", "头", "脑", "脳", "颅", "두부", "뇌", "머리")
"""Looked for anywhere, where words are not set apart by blanks."""
_OTHER_HEADS: Final = re.compile(
    r"head[\s_-]*first|(femoral|femur|humeral|radial|metatarsal|metacarpal|pancreatic)[\s_-]*heads?"
    r"|heads?[\s_-]*of[\s_-]*(the[\s_-]*)?(femur|humerus|radius|pancreas)|overhead"
)
_REMEMBERED: Final = 256
"""Texts whose answer is remembered; the slices of a series say the same."""
_TEXTS: Final = (
    "StudyDescription",
    "SeriesDescription",
    "ProtocolName",
    "RequestedProcedureDescription",
    "PerformedProcedureStepDescription",
)
_CODES: Final = ("AnatomicRegionSequence", "ProcedureCodeSequence")


def shows_head(ds: Dataset) -> bool:
    """Whether anything in the header says that the head or neck was imaged."""
    part = str(ds.get("BodyPartExamined") or "")
    bare = re.sub(r"[^a-z]", "", part.casefold())
    return bare in PARTS or any(_names_head(text) for text in (part, *_said(ds)))


def _said(ds: Dataset) -> Iterable[str]:
    for keyword in _TEXTS:
        yield str(ds.get(keyword) or "")
    for keyword in _CODES:
        for item in ds.get(keyword) or ():
            yield str(item.get("CodeMeaning") or "")


@lru_cache(maxsize=_REMEMBERED)
def _names_head(text: str) -> bool:
    words = set(re.findall(r"[^\W\d_]+", _OTHER_HEADS.sub(" ", _without_accents(text))))
    return not words.isdisjoint(_BARE) or any(sign in text for sign in SIGNS)


def _without_accents(text: str) -> str:
    apart = unicodedata.normalize("NFKD", text.casefold().translate(_STRUCK))
    return "".join(char for char in apart if not unicodedata.combining(char))


_STRUCK: Final = str.maketrans("łøđı", "lodi")
"""Letters that no normal form parts from their strokes."""
_BARE: Final = frozenset(map(_without_accents, WORDS))
