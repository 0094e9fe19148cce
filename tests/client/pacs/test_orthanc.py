"""The archive of the tests is a real one, and empty when a test begins."""

from __future__ import annotations

import pytest

from tests.orthanc import PASSWORD, Answer, Orthanc
from tests.studies import ct_study, study


def test_it_holds_what_is_put_in(orthanc: Orthanc) -> None:
    """Two studies go in by REST and stand there as two, with their instances."""
    orthanc.upload(*study(0, 2), *ct_study(1, 3, size=64))
    assert len(orthanc.studies()) == 2
    assert len(orthanc.rest("GET", "/instances")) == 5


def test_it_is_empty_again(orthanc: Orthanc) -> None:
    """What another test put in is gone, and so are its changes."""
    assert orthanc.studies() == []
    assert orthanc.rest("GET", "/changes")["Changes"] == []


def test_it_wants_a_password(orthanc: Orthanc) -> None:
    """A wrong password is refused, so that tests of passwords mean something."""
    orthanc.password = "wrong"
    try:
        with pytest.raises(Answer) as refused:
            orthanc.studies()
    finally:
        orthanc.password = PASSWORD
    assert refused.value.status == 401
