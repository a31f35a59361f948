"""What gRPC's texts about broken connections mean, and what to do about them.

gRPC reports all of them as UNAVAILABLE with a text of the TLS library's or the kernel's. The texts
are matched one after the other; one that nobody knows stays an honest "does not answer".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import grpc

from masque.errors import (
    Conflict,
    IdentityError,
    InputError,
    JobFailed,
    MasqueError,
    NotFound,
    ProtocolError,
    RangeError,
    Refused,
    Unavailable,
)


@dataclass(frozen=True)
class Symptom:
    """A pattern in gRPC's text, and the error it stands for (`{at}`: called service, address)."""

    pattern: re.Pattern[str]
    error: type[MasqueError]
    message: str
    hint: str


def _symptom(pattern: str, error: type[MasqueError], message: str, hint: str) -> Symptom:
    return Symptom(re.compile(pattern, re.IGNORECASE), error, message, hint)


SYMPTOMS: tuple[Symptom, ...] = (
    _symptom(
        r"hostname verification check failed|peer name .* is not in peer certificate",
        IdentityError,
        "Another service answers where {at} was expected: its certificate has another name.",
        "Check the addresses in the profile, and which certificate that service was given.",
    ),
    _symptom(
        r"certificate has expired|CERTIFICATE_EXPIRED",
        IdentityError,
        "The certificate of {at} has expired.",
        "Renew it with `masque pki issue --replace`: the service takes up the new one.",
    ),
    _symptom(
        r"certificate is not yet valid",
        IdentityError,
        "The certificate of {at} is not valid yet.",
        "Check the clocks of both machines.",
    ),
    _symptom(
        r"unable to get local issuer|self.signed certificate|certificate signature failure"
        r"|UNKNOWN_CA|CERTIFICATE_VERIFY_FAILED",
        IdentityError,
        "The certificate of {at} was issued by another authority than ours.",
        "Both sides need certificates of one authority: compare authority.pem.",
    ),
    _symptom(
        r"CERTIFICATE_REQUIRED|BAD_CERTIFICATE|tlsv1 alert|sslv3 alert",
        IdentityError,
        "{at} does not accept our certificate.",
        "Check that it is valid and of the same authority.",
    ),
    _symptom(
        r"WRONG_VERSION_NUMBER|HTTP_REQUEST|trying to connect an http1",
        Unavailable,
        "What answers in the place of {at} does not speak TLS: it is no Masque service.",
        "Check host and port in the profile.",
    ),
    _symptom(
        r"connection refused",
        Unavailable,
        "{at} does not answer: nothing listens there.",
        "Start it, or check host and port in the profile.",
    ),
    _symptom(
        r"dns resolution failed|name resolution|could not resolve|no address",
        Unavailable,
        "{at} cannot be found: its host name has no address.",
        "Check the host name in the profile.",
    ),
    _symptom(
        r"no route|network is unreachable|host is unreachable",
        Unavailable,
        "{at} cannot be reached: there is no route to its host.",
        "Check the network between the two machines.",
    ),
    _symptom(
        r"keepalive|ping timeout|watchdog",
        Unavailable,
        "{at} stopped answering.",
        "Check that its machine and process are alive.",
    ),
    _symptom(
        r"failed to connect.*(socket closed|connection reset|broken pipe|end of file|eof)",
        Unavailable,
        "{at} closed the connection before it was established.",
        "It is stopping, does not speak TLS 1.3, or does not accept our certificate: see its log.",
    ),
    _symptom(
        r"socket closed|connection reset|broken pipe|goaway|end of file|transport closed",
        Unavailable,
        "{at} closed the connection in the middle of a call.",
        "Check that it is still running; its log says why it stopped.",
    ),
    _symptom(
        r"failed to connect.*(timed out|timeout)|handshake.*timed out",
        Unavailable,
        "{at} does not answer.",
        "Check host and port in the profile, and any firewall between.",
    ),
)

_LATE = "It may be overloaded or stopped, or wait for a third service: see its log."
_VERSIONS = "Do both run the same version of Masque?"

_BY_CODE: dict[grpc.StatusCode, tuple[type[MasqueError], str, str]] = {
    grpc.StatusCode.DEADLINE_EXCEEDED: (Unavailable, "{at} did not answer in time.", _LATE),
    grpc.StatusCode.UNAVAILABLE: (Unavailable, "{at} does not answer.", "Check that it runs."),
    grpc.StatusCode.CANCELLED: (Unavailable, "The call to {at} was cancelled.", ""),
    grpc.StatusCode.UNIMPLEMENTED: (
        ProtocolError,
        "{at} does not know this call: it runs another version of Masque.",
        "Run the same version on all services.",
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: (
        ProtocolError,
        "A message to or from {at} exceeds a limit.",
        _VERSIONS,
    ),
    grpc.StatusCode.UNAUTHENTICATED: (IdentityError, "{at} does not know who we are.", ""),
    grpc.StatusCode.PERMISSION_DENIED: (IdentityError, "{at} does not allow this.", ""),
    grpc.StatusCode.INVALID_ARGUMENT: (InputError, "{at} cannot use what it was given.", ""),
    grpc.StatusCode.OUT_OF_RANGE: (RangeError, "A value is out of range for {at}.", ""),
    grpc.StatusCode.FAILED_PRECONDITION: (Refused, "{at} refuses.", ""),
    grpc.StatusCode.ABORTED: (JobFailed, "{at} gave up the job.", ""),
    grpc.StatusCode.ALREADY_EXISTS: (Conflict, "{at} has this already.", ""),
    grpc.StatusCode.NOT_FOUND: (NotFound, "{at} has no such thing.", ""),
    grpc.StatusCode.DATA_LOSS: (ProtocolError, "{at} got a message it cannot accept.", ""),
}


def connection_error(
    code: grpc.StatusCode, details: str, *, called: str, address: str
) -> MasqueError:
    """The error for a call that failed without one of the service's own."""
    at = f"{called} at {address}" if address else called
    where: dict[str, object] = {"service": called, "address": address or None, "details": details}
    if code == grpc.StatusCode.UNAVAILABLE:
        for symptom in SYMPTOMS:
            if symptom.pattern.search(details):
                message = symptom.message.format(at=at)
                return symptom.error(_capital(message), hint=symptom.hint, **where)
    kind, text, hint = _BY_CODE.get(code, (MasqueError, f"{{at}} failed ({code.name}).", ""))
    return kind(_capital(text.format(at=at)), hint=hint, **where)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
