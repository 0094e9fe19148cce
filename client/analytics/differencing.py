"""Whether a sum, taken together with earlier ones, would be about fewer than three hospitals.

Every hospital's counts are the same in all sums of a year, so a server may add and subtract sums. A sum is the row of zeros
and ones that says who is in it; a combination of sums is about those whose column it does not cancel. Some combination is
about the sites T alone exactly where leaving T's columns out lowers the rank of the rows.

Sites that were always in the same sums cannot be told apart, and a combination is about all of them or none. So only unions
of such classes are tried, and only small ones, which makes it quick for any number of sites.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from itertools import combinations

import numpy as np

from common.analytics import LEAST


def singled_out(sums: Sequence[Collection[str]]) -> tuple[str, ...]:
    """The smallest set of fewer than three sites that some combination of these sums is about; empty when there is none.

    Args:
        sums: the sites of each, as signed.
    """
    rows = [frozenset(one) for one in dict.fromkeys(frozenset(one) for one in sums)]
    classes: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for site in sorted(frozenset().union(*rows)) if rows else ():
        classes[tuple(int(site in row) for row in rows)].append(site)
    patterns = list(classes)
    matrix = np.array(patterns, dtype=np.int64).T  # [sums, classes]
    whole = _rank(matrix)
    small = [number for number, pattern in enumerate(patterns) if len(classes[pattern]) < LEAST]
    for size in range(1, LEAST):
        for chosen in combinations(small, size):
            about = [site for number in chosen for site in classes[patterns[number]]]
            if len(about) < LEAST and _rank(np.delete(matrix, chosen, axis=1)) < whole:
                return tuple(sorted(about))
    return ()


def _rank(matrix: np.ndarray[tuple[int, ...], np.dtype[np.int64]]) -> int:
    """Exact for the few rows of zeros and ones that a year has."""
    return int(np.linalg.matrix_rank(matrix)) if matrix.size else 0
