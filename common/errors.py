"""The one error tree of Consilium.

    ConsiliumError                 anything we raise on purpose
    ├── InputError                 something a person handed us is wrong            exit 2
    │   ├── SettingsError          a site.toml, server.toml or override
    │   ├── PlanError              a study plan; carries every mistake at once
    │   ├── LabelError             a label table
    │   ├── IntakeError            a folder or archive that cannot be read at all
    │   ├── FileRefused            one file that stays in quarantine; carries its reason code
    │   └── DataError              too few patients, one class only, patient in two splits
    ├── StorageError               disk full, store or index unreadable            exit 2
    ├── PolicyRefused              the hospital's policy forbids what was asked     exit 4
    ├── PrivacyRefused             the budget, the ledger or the mechanism says no  exit 5
    │   └── LedgerError            the ledger is missing, corrupt, locked or spent
    ├── AdmissionRefused           the server turns an update away                  exit 6
    ├── FederationError            a round, a run or the wire failed                exit 7
    │   └── SubsetError            fewer sites took part than the plan requires
    ├── PacsError                  an archive does not answer, or not as asked      exit 8
    └── WrongOrder                 a programmer called a door in the wrong order    exit 70

Every error names the input (`subject`), the rule it broke and the remedy, and never a patient:
`subject` is a file we own, a setting, a quarantine identifier or a site, not the path of a DICOM
file (its name may be the patient's). `code` is the fixed word that may cross the wire; the text
never does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


class ConsiliumError(Exception):
    """Anything Consilium raises on purpose: what was wrong, by which rule, and what to do.

    Args:
        subject: the input at fault, without any patient attribute.
        rule: the rule it broke, as a full clause.
        remedy: what the reader should do now, as an instruction.
        code: the fixed word for this case; the class's own when not given.
    """

    default_code: ClassVar[str] = "error"
    exit_status: ClassVar[int] = 1

    def __init__(self, subject: str, rule: str, remedy: str, *, code: str | None = None) -> None:
        super().__init__(subject, rule, remedy)
        self.subject = subject
        self.rule = rule
        self.remedy = remedy
        self.code = code or self.default_code

    def __str__(self) -> str:
        return f"{self.subject}: {self.rule}. {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        """Keep the code when the error crosses a process border."""
        return (_rebuild, (type(self), self.__dict__))


def _rebuild(kind: type[ConsiliumError], state: dict[str, object]) -> ConsiliumError:
    error = kind.__new__(kind)
    error.args = (state.get("subject"), state.get("rule"), state.get("remedy"))
    error.__dict__.update(state)
    return error


class InputError(ConsiliumError):
    """Something a person handed us is wrong."""

    default_code = "input"
    exit_status = 2


class SettingsError(InputError):
    """A settings file or an override of it."""

    default_code = "settings"


@dataclass(frozen=True)
class Problem:
    """One mistake in a document: where it stands, the rule, and the remedy."""

    where: str
    rule: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.where}: {self.rule}. {self.remedy}"


class PlanError(InputError):
    """A study plan with one or more mistakes, all of them listed in `problems`; or what holds one (`of`), as a scenario does."""

    default_code = "plan"

    def __init__(self, subject: str, problems: Sequence[Problem], of: str = "plan") -> None:
        count = len(problems)
        noun = "mistake" if count == 1 else "mistakes"
        super().__init__(subject, f"{count} {noun} in the {of}", "Correct each line named below")
        self.problems = tuple(problems)

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"  - {problem}" for problem in self.problems)])


class LabelError(InputError):
    """A label table that cannot be joined to the images."""

    default_code = "labels"


class IntakeError(InputError):
    """A folder, archive or table that cannot be taken in at all."""

    default_code = "intake"


class FileRefused(InputError):
    """One file that stays in quarantine; `code` is the reason hospital IT reads."""

    default_code = "file"


class DataError(InputError):
    """The patients at hand do not allow what was asked."""

    default_code = "data"


class StorageError(ConsiliumError):
    """The disk is full, or a store or index is not what it was."""

    default_code = "storage"
    exit_status = 2


class PolicyRefused(ConsiliumError):
    """The hospital's own policy forbids what was asked."""

    default_code = "policy"
    exit_status = 4


class PrivacyRefused(ConsiliumError):
    """The privacy budget or mechanism does not allow it."""

    default_code = "privacy"
    exit_status = 5


class LedgerError(PrivacyRefused):
    """The privacy ledger is missing, corrupt, locked, rolled back or spent."""

    default_code = "ledger"


class AdmissionRefused(ConsiliumError):
    """The server turns an update away before it touches the model."""

    default_code = "admission"
    exit_status = 6


class FederationError(ConsiliumError):
    """A round, a run or a message between the parties failed."""

    default_code = "federation"
    exit_status = 7


class SubsetError(FederationError):
    """Fewer sites took part than the plan requires."""

    default_code = "subset"


class PacsError(ConsiliumError):
    """The hospital's archive cannot be reached, refuses, or answers otherwise than DICOM says."""

    default_code = "pacs"
    exit_status = 8


class WrongOrder(ConsiliumError):
    """A door was used out of its order: a programmer's mistake, not a peer's."""

    default_code = "order"
    exit_status = 70
