"""Everything Masque raises on purpose, and the exit code each ends a command with.

    MasqueError                        1   anything not listed below
    ├── InputError                     3   what a user handed in: a file, a value, a schema
    │   ├── DataError                  3   names file, row, column
    │   └── RangeError                 3   a number that the ring cannot hold
    ├── SpecError                      4   a job that cannot be accepted; names the field
    ├── Refused                        4   a service, its policy or a digest said no
    ├── Unavailable                    5   a service that does not answer; names the service
    ├── IdentityError                  6   certificates, roles, keys
    ├── JobFailed                      7   a job ended without a result; names the culprit
    ├── Conflict                       8   the name, port or job exists already
    ├── NotFound                       9   no such data set, job, file of ours
    └── ProtocolError                  10  a peer broke the protocol; names the peer

Usage errors of the command line itself end with 2, an interrupt with 130.

Every message is written for the person who reads it: what is wrong, where, and what to do. No
message ever holds a share, a mask, a seed or a key.
"""

from __future__ import annotations


class MasqueError(Exception):
    """Base of all errors that Masque raises on purpose."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", **where: object) -> None:
        """`message` says what is wrong, `hint` what to do, `where` names the culprit by field."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = {key: value for key, value in where.items() if value is not None}

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip() if self.hint else self.message


def passing(error: Exception) -> bool:
    """Whether the same may go well later: nobody has said no, and nothing asked for was wrong.

    `where["again"]` says so of an error that was caused by another one.
    """
    if isinstance(error, Unavailable | NotFound) or type(error) is MasqueError:
        return True
    return not isinstance(error, MasqueError) or bool(error.where.get("again"))


class InputError(MasqueError):
    """What a user handed in cannot be used."""

    exit_code = 3


class DataError(InputError):
    """A data file or schema is wrong; `where` names file, row and column."""


class RangeError(InputError):
    """A number, or a bound on one, does not fit the ring."""


class SpecError(MasqueError):
    """A job specification cannot be accepted; `where` names the field."""

    exit_code = 4


class Refused(MasqueError):
    """A service, its policy, or a comparison of digests said no."""

    exit_code = 4


class Unavailable(MasqueError):
    """A service does not answer; `where` names the service."""

    exit_code = 5


class IdentityError(MasqueError):
    """A certificate, role or key is missing, wrong or not allowed to do this."""

    exit_code = 6


class JobFailed(MasqueError):
    """A job ended without a result; `where` names the service at fault."""

    exit_code = 7


class Conflict(MasqueError):
    """The name, port or job exists already."""

    exit_code = 8


class NotFound(MasqueError):
    """There is no such data set, job or file."""

    exit_code = 9


class ProtocolError(MasqueError):
    """A peer sent what the protocol does not allow; `where` names the peer."""

    exit_code = 10
