"""Errors across the wire: the same `MasqueError` on both sides, and nothing secret between.

A service raises; `report` turns that into a gRPC status whose details are the public text, with
the class, hint and culprit as JSON in the trailing metadata. `translate` turns it back. What a
service did not raise on purpose becomes an incident number: its log has the traceback under that
number, the caller gets the number only.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import grpc
import structlog

from masque import errors
from masque.errors import (
    Conflict,
    DataError,
    IdentityError,
    InputError,
    JobFailed,
    MasqueError,
    NotFound,
    ProtocolError,
    RangeError,
    Refused,
    SpecError,
    Unavailable,
)
from masque.wire import tracing
from masque.wire.identity import Identity
from masque.wire.symptoms import connection_error

ERROR_KEY = "masque-error-bin"
"""The trailing metadata that holds an error as JSON."""

STATUS: Mapping[type[MasqueError], grpc.StatusCode] = {
    InputError: grpc.StatusCode.INVALID_ARGUMENT,
    DataError: grpc.StatusCode.INVALID_ARGUMENT,
    RangeError: grpc.StatusCode.OUT_OF_RANGE,
    SpecError: grpc.StatusCode.INVALID_ARGUMENT,
    Refused: grpc.StatusCode.FAILED_PRECONDITION,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    IdentityError: grpc.StatusCode.PERMISSION_DENIED,
    JobFailed: grpc.StatusCode.ABORTED,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    NotFound: grpc.StatusCode.NOT_FOUND,
    ProtocolError: grpc.StatusCode.DATA_LOSS,
    MasqueError: grpc.StatusCode.UNKNOWN,
}
"""The catalogue: what each error is called on the wire."""

_TEXT_LIMIT, _FIELD_LIMIT, _FIELDS = 1_500, 200, 16
_log = structlog.get_logger("masque.wire")


def status_of(error: MasqueError) -> grpc.StatusCode:
    """The status of the nearest class in the catalogue."""
    if isinstance(error, IdentityError) and error.where.get("unauthenticated"):
        return grpc.StatusCode.UNAUTHENTICATED
    for kind in type(error).__mro__:
        if kind in STATUS:
            return STATUS[kind]
    raise AssertionError("MasqueError itself is in the catalogue")


def pack(error: MasqueError, request: str | None = None) -> bytes:
    """The error as JSON, bounded in length; values other than text and numbers are dropped.

    `request` is the trace under which it happened, if it does not name one itself.
    """
    where = {"request": request, **error.where}
    record = {
        "class": _public_class(error),
        "message": clean(error.message, _TEXT_LIMIT),
        "hint": clean(error.hint, _TEXT_LIMIT),
        "where": {
            clean(key, _FIELD_LIMIT): clean(value, _FIELD_LIMIT)
            if isinstance(value, str)
            else value
            for key, value in list(where.items())[:_FIELDS]
            if isinstance(value, str | int | float | bool)
        },
    }
    return json.dumps(record).encode()


def unpack(packed: bytes) -> MasqueError | None:
    """The error that `pack` wrote; None if this is nothing of the kind."""
    try:
        record = json.loads(packed)
        kind = getattr(errors, record["class"])
        where = {str(key): value for key, value in record["where"].items()}
        message, hint = record["message"], record["hint"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not (isinstance(kind, type) and issubclass(kind, MasqueError)):
        return None
    fields = {
        key: clean(value, _FIELD_LIMIT) if isinstance(value, str) else value
        for key, value in where.items()
        if key not in ("message", "hint", "self")
    }
    return kind(clean(str(message), _TEXT_LIMIT), hint=clean(str(hint), _TEXT_LIMIT), **fields)


def clean(text: str, limit: int) -> str:
    """`text` without control characters (a peer's text must not steer our terminal), cut."""
    visible = "".join(
        c if c.isprintable() or c == "\n" else "\N{REPLACEMENT CHARACTER}" for c in text
    )
    return visible if len(visible) <= limit else f"{visible[: limit - 1]}…"


def report(error: Exception, method: str, context: grpc.ServicerContext) -> None:
    """End the call with what `error` says, or with an incident number if it was an accident.

    Never returns normally for a call that somebody still waits for: `context.abort` raises.
    """
    if _aborted(error, context):
        return
    if not context.is_active():
        _log.debug("caller left", method=method)
        context.abort(grpc.StatusCode.CANCELLED, "The caller left.")
    if not isinstance(error, MasqueError):
        error = _incident(error, method)
        code = grpc.StatusCode.INTERNAL
    else:
        code = status_of(error)
        _log.info("call refused", method=method, error=type(error).__name__, text=str(error))
    context.set_trailing_metadata(((ERROR_KEY, pack(error, tracing.request())),))
    context.abort(code, clean(str(error), _TEXT_LIMIT))


def _incident(error: Exception, method: str) -> MasqueError:
    number = secrets.token_hex(4)
    _log.error("incident", incident=number, method=method, exc_info=error)
    return MasqueError(
        f"The service failed on its own account (incident {number}).",
        hint="Its log has the reason under that number.",
        incident=number,
    )


def translate(error: grpc.RpcError, *, service: Identity | str, address: str = "") -> MasqueError:
    """What a failed call to `service` at `address` (`host:port`) means.

    An error that the service raised comes back as its own class; a broken connection becomes
    `Unavailable` or, if certificates are to blame, `IdentityError`; both name the service.
    """
    call: Any = error
    if not callable(getattr(call, "code", None)):
        return Unavailable(
            f"The call to {service} broke off.", service=_called(service), address=address or None
        )
    metadata = (
        call.trailing_metadata() if callable(getattr(call, "trailing_metadata", None)) else ()
    )
    for key, value in metadata or ():
        if key == ERROR_KEY and (raised := unpack(value)) is not None:
            raised.where.setdefault("service", _called(service))
            return raised
    code, details = call.code(), clean(str(call.details() or ""), _TEXT_LIMIT)
    return connection_error(code, details, called=_called(service), address=address)


@contextmanager
def translating(service: Identity | str, address: str = "") -> Iterator[None]:
    """Let `grpc.RpcError` leave this block as the `MasqueError` it means."""
    try:
        yield
    except grpc.RpcError as error:
        raise translate(error, service=service, address=address) from error


def translated(
    responses: Iterable[Any], service: Identity | str, address: str = ""
) -> Iterator[Any]:
    """The responses of a streaming call, with its errors translated."""
    with translating(service, address):
        yield from responses


def _aborted(error: Exception, context: grpc.ServicerContext) -> bool:
    """Whether the handler ended the call itself: `context.abort` raises a bare `Exception`."""
    known: Any = context
    return type(error) is Exception and not error.args and known.code() is not None


def _public_class(error: MasqueError) -> str:
    for kind in type(error).__mro__:
        if kind.__module__ == errors.__name__:
            return kind.__name__
    return MasqueError.__name__


def _called(service: Identity | str) -> str:
    return str(service)
