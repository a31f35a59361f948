from __future__ import annotations

import json

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque import errors
from masque.errors import IdentityError, MasqueError, ProtocolError, Refused, Unavailable
from masque.wire.failures import STATUS, clean, pack, status_of, translate, unpack
from masque.wire.symptoms import connection_error

CLASSES = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, MasqueError)
]


@pytest.mark.parametrize("kind", CLASSES)
def test_every_class_crosses_the_wire(kind: type[MasqueError]) -> None:
    error = kind("What.", hint="Do this.", row=3, column="age", ratio=0.5, last=True)
    assert kind in STATUS
    found = unpack(pack(error))
    assert type(found) is kind
    assert (found.message, found.hint, found.where) == (error.message, error.hint, error.where)
    assert found.exit_code == kind.exit_code


def test_a_class_of_a_service_arrives_as_its_public_ancestor() -> None:
    class OverBudget(Refused):
        pass

    assert type(unpack(pack(OverBudget("No.")))) is Refused
    assert status_of(OverBudget("No.")) is grpc.StatusCode.FAILED_PRECONDITION


@given(st.text(), st.text(), st.dictionaries(st.text(), st.text() | st.integers()))
def test_any_text_crosses_and_stays_small(message: str, hint: str, where: dict[str, int]) -> None:
    error = MasqueError(message, hint=hint)
    error.where = dict(where)
    packed = pack(error)
    assert len(packed) < 64 * 1024
    found = unpack(packed)
    assert found is not None and found.message == clean(message, 1500)


def test_long_and_many_are_cut() -> None:
    error = MasqueError("m" * 10**5, hint="h" * 10**5, **{f"f{i}": "x" * 999 for i in range(99)})
    assert len(pack(error)) < 8_000


def test_only_text_and_numbers_cross() -> None:
    error = MasqueError("No.", raw=b"secret", listed=[1, 2], count=2, other=object())
    assert json.loads(pack(error))["where"] == {"count": 2}


@given(st.binary(max_size=100))
def test_noise_is_no_error(noise: bytes) -> None:
    assert unpack(noise) is None


def test_endless_nesting_is_no_error_either() -> None:
    assert unpack(b"[" * 60_000) is None  # as much as the metadata of a call may hold


@pytest.mark.parametrize(
    "record",
    [
        {"class": "Path", "message": "", "hint": "", "where": {}},
        {"class": "annotations", "message": "", "hint": "", "where": {}},
        {"class": "Refused", "message": "", "hint": "", "where": []},
        {"class": ["Refused"], "message": "", "hint": "", "where": {}},
        {"message": "", "hint": "", "where": {}},
        [],
        None,
    ],
)
def test_forged_records_are_no_errors(record: object) -> None:
    assert unpack(json.dumps(record).encode()) is None


def test_a_peer_cannot_steer_the_terminal_or_the_fields() -> None:
    record = {
        "class": "Refused",
        "message": "\x1b[2J\x1b]0;owned\x07No\u202e.",
        "hint": "\r",
        "where": {"message": 1, "hint": 2, "self": 3, "field": "\x1b[1m"},
    }
    found = unpack(json.dumps(record).encode())
    assert found is not None
    assert "\x1b" not in str(found) and "\x07" not in str(found) and "\u202e" not in str(found)
    assert list(found.where) == ["field"] and "\x1b" not in str(found.where)


@pytest.mark.parametrize(
    ("details", "kind", "text"),
    [
        ("Connection refused", Unavailable, "nothing listens"),
        ("Hostname Verification Check failed.", IdentityError, "Another service answers"),
        ("certificate has expired", IdentityError, "has expired"),
        ("CERTIFICATE_VERIFY_FAILED: unable to get local", IdentityError, "another authority"),
        ("WRONG_VERSION_NUMBER", Unavailable, "does not speak TLS"),
        ("failed to connect to all; Socket closed", Unavailable, "before it was established"),
        ("Socket closed", Unavailable, "in the middle of a call"),
        ("keepalive watchdog timeout", Unavailable, "stopped answering"),
        ("something new", Unavailable, "does not answer"),
    ],
)
def test_symptoms(details: str, kind: type[MasqueError], text: str) -> None:
    code = grpc.StatusCode.UNAVAILABLE
    error = connection_error(code, details, called="party 'a'", address="host:1")
    assert (
        type(error) is kind
        and text in str(error)
        and "party 'a' at host:1" in str(error).replace("P", "p")
    )
    assert error.where == {"service": "party 'a'", "address": "host:1", "details": details}


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_every_status_has_a_meaning(code: grpc.StatusCode) -> None:
    error = connection_error(code, "", called="dealer 'd'", address="")
    assert "ealer 'd'" in str(error)


def test_an_error_without_a_status() -> None:
    error = translate(grpc.RpcError(), service="dealer 'd'", address="host:1")
    assert type(error) is Unavailable and "broke off" in str(error)


def test_statuses_of_the_catalogue_lead_back() -> None:
    for kind, code in STATUS.items():
        error = connection_error(code, "", called="x", address="")
        assert (
            issubclass(kind, type(error)) or type(error) is MasqueError or kind is errors.SpecError
        )
    assert type(connection_error(grpc.StatusCode.DATA_LOSS, "", called="x", address="")) is (
        ProtocolError
    )
