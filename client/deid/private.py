"""Private elements that may stay: the few that the profile offers and the hospital asked for.

A creator reserves a block in its group and may do so anywhere in it; the element is found by the creator's name
and written into a block of our own, whose creator is the profile's text and not the file's.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydicom.dataset import Dataset

from client.deid.actions import kept
from client.deid.profile import Rule
from client.deid.wanted import Wanted


def keep_private(rules: Sequence[Rule], source: Dataset, target: Dataset) -> None:
    """Copy into `target` what these rules keep of the private elements of `source`.

    Args:
        rules: `Profile.private`; numbers within bounds only.
        source: as it came; it is only read.
        target: the new data set.
    """
    for rule in rules:
        group, element = rule.tag >> 16, rule.tag & 0xFF
        try:
            found = source.private_block(group, rule.creator)[element]
        except KeyError:
            continue
        value = kept(rule, found, Wanted())
        if value is not None:
            target.private_block(group, rule.creator, create=True).add_new(element, found.VR, value)
