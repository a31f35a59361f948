from __future__ import annotations

import base64
import io
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from masque.wire.identity import Identity, Role
from masque.wire.logs import REDACTED, configure, is_secret_name, redact

SEED = bytes(range(1, 33))
SHARE = 16045690984503098046


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()
    configure("party hospital-a", level="debug", stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def records(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def leaks(text: str) -> bool:
    """Whether the seed or the share shows, in any of the usual spellings."""
    forms = [
        SEED.hex(),
        SEED.hex().upper(),
        base64.b64encode(SEED).decode(),
        repr(SEED),
        str(list(SEED)),
        str(SHARE),
        SEED.decode("latin1"),
    ]
    return any(form in text for form in forms)


def test_json_lines_in_the_name_of_a_service(stream: io.StringIO) -> None:
    log = structlog.get_logger("masque").bind(job="job-1")
    log.info("round finished", round="epoch 3", seconds=0.25, sent=12345, peers=["b", "c"])
    (record,) = records(stream)
    assert record.pop("timestamp").endswith("Z")
    assert record == {
        "event": "round finished",
        "level": "info",
        "service": "party hospital-a",
        "job": "job-1",
        "round": "epoch 3",
        "seconds": 0.25,
        "sent": 12345,
        "peers": ["b", "c"],
    }


def test_nothing_secret_gets_through(stream: io.StringIO) -> None:
    log = structlog.get_logger("masque")
    array = np.frombuffer(SEED, dtype=np.uint64)
    log.info("by name", share=SHARE, seed=SEED.hex(), job_key="abc", maskBytes="abc", x_shares=[1])
    log.info("by type", a=SEED, b=bytearray(SEED), c=memoryview(SEED), d=array, e=array[0], f={1j})
    log.info("by look", a=SEED.hex(), b=base64.b64encode(SEED).decode(), c=SHARE, d=str(SHARE))
    log.info("nested", a={"seed": 1, "b": [SEED, {"c": array}]}, d=(array, [[SEED]]))
    log.info(f"in the event {SEED!r} {array!r} {list(SEED)} {SEED.hex()} {SHARE}")
    log.info("objects", a=object(), b=lambda: SEED, c=type("Seed", (), {"x": SEED})())
    log.info("error", error=ValueError(SEED), reason=KeyError(repr(array)))
    logging.getLogger("grpc").error("elsewhere %r %s", SEED, array)
    assert not leaks(stream.getvalue())
    assert "array(" not in stream.getvalue()
    by_name = records(stream)[0]
    names = ("share", "seed", "job_key", "maskBytes", "x_shares")
    assert {by_name[name] for name in names} == {REDACTED}


def test_tracebacks_without_locals(stream: io.StringIO) -> None:
    def fail(seed: bytes) -> None:
        hidden = np.frombuffer(seed, dtype=np.uint64)
        raise RuntimeError(f"bad share {hidden!r} {seed!r} {int(hidden[0])}")

    try:
        fail(SEED)
    except RuntimeError:
        structlog.get_logger("masque").exception("incident", incident="1a2b")
        logging.getLogger("grpc").exception("Exception calling application")
    assert not leaks(stream.getvalue())
    first, second = records(stream)
    assert first["incident"] == "1a2b" and "RuntimeError: bad share" in first["exception"]
    assert second["service"] == "party hospital-a" and "in fail" in second["exception"]
    assert str(int.from_bytes(SEED[:8], "little")) not in stream.getvalue()


def test_the_console_keeps_secrets_as_well() -> None:
    stream = io.StringIO()
    handlers = logging.getLogger().handlers[:]
    try:
        configure("dealer", stream=stream, json=False)
        structlog.get_logger("masque").info("dealt", seed=SEED, other=SEED, hidden=f"{SEED!r}")
        try:
            raise RuntimeError(SEED.hex())
        except RuntimeError:
            structlog.get_logger("masque").exception("incident")
    finally:
        logging.getLogger().handlers[:] = handlers
        structlog.reset_defaults()
    assert "dealt" in stream.getvalue() and "service=dealer" in stream.getvalue()
    assert not leaks(stream.getvalue())


def test_what_may_be_said() -> None:
    digest, identity = os.urandom(32).hex(), Identity("demo", Role.PARTY, "a")
    event = {
        "digest": digest,
        "program_fingerprint": digest,
        "peer": identity,
        "file": Path("/tmp/some/where/data.csv"),
        "count": 2**40,
        "ok": True,
        "nothing": None,
        "sizes": {"sent": 1, "received": 2},
    }
    assert redact(None, "info", dict(event)) == {
        **event,
        "peer": "party 'a'",
        "file": "/tmp/some/where/data.csv",
    }


@given(st.binary(min_size=24, max_size=64), st.sampled_from(["a", "detail", "reason", "peer"]))
def test_any_bytes_in_any_field(secret: bytes, name: str) -> None:
    event = {name: secret, "text": f"{secret.hex()} {secret!r}"}
    text = json.dumps(redact(None, "info", event))
    assert secret.hex() not in text and repr(secret)[2:-1] not in text


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("share", True),
        ("my_shares", True),
        ("dealerSeed", True),
        ("party.mask", True),
        ("correction-bytes", True),
        ("tls_key", True),
        ("event", False),
        ("keepalive", False),
        ("sharing", False),
        ("masque", False),
    ],
)
def test_names(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_the_name_of_a_party_is_no_repr_of_bytes() -> None:
    said = "Party 'party-b' gave up job 'trial' at swap 3, and sent b'secret'."
    event = redact(None, "info", {"event": said})
    assert event["event"] == f"Party 'party-b' gave up job 'trial' at swap 3, and sent {REDACTED}."


def test_levels() -> None:
    stream = io.StringIO()
    handlers = logging.getLogger().handlers[:]
    try:
        configure("dealer", stream=stream, level="warning")
        structlog.get_logger("masque").info("quiet")
        structlog.get_logger("masque").warning("loud")
    finally:
        logging.getLogger().handlers[:] = handlers
        structlog.reset_defaults()
    assert [record["event"] for record in records(stream)] == ["loud"]


def test_request_ids_pass_and_nothing_else_of_that_name_does(stream: io.StringIO) -> None:
    log = structlog.get_logger("masque")
    log.info("a", trace="1" * 32)
    log.info("b", trace=SEED.hex())
    log.info("c", other="1" * 32)
    assert [(r.get("trace"), r.get("other")) for r in records(stream)] == [
        ("1" * 32, None),
        (REDACTED, None),
        (None, REDACTED),
    ]
