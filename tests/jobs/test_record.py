from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import ProtocolError
from masque.jobs.record import Progress, read_progress

TEXT = st.text().filter(str.isprintable)
PROGRESS = st.builds(
    Progress,
    job=TEXT,
    attempt=st.integers(1, 100),
    state=TEXT,
    round_name=TEXT,
    round=st.integers(0, 1000),
    of=st.integers(0, 1000),
    seconds=st.floats(0, 1e9),
    exchanges=st.integers(0),
    bytes_sent=st.integers(0, 2**60),
    stopped=st.booleans(),
    reason=TEXT,
    culprit=TEXT,
)


@given(PROGRESS)
def test_progress_is_read_back(progress: Progress) -> None:
    assert read_progress(progress.to_json(), "coordinator") == progress
    assert "\n" not in progress.to_json()


@pytest.mark.parametrize("field", ["state", "round_name", "reason", "culprit"])
def test_a_peers_text_steers_no_terminal(field: str) -> None:
    sent = asdict(Progress("job", 1, "training")) | {field: "\033[2J\r\nparty-\u202e1"}
    read = read_progress(json.dumps(sent), "coordinator")
    assert getattr(read, field) == "\ufffd[2J\ufffd\ufffdparty-\ufffd1"


@pytest.mark.parametrize(
    "change",
    [{"round": "1"}, {"round": True}, {"stopped": 1}, {"seconds": "x"}, {"more": 1}, {"job": None}],
)
def test_another_shape_is_refused_by_the_senders_name(change: Any) -> None:
    content = asdict(Progress("job", 1, "training")) | change
    with pytest.raises(ProtocolError, match="coordinator sent a progress record"):
        read_progress(json.dumps(content), "coordinator")


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", "[" * 100_000, '{"seconds": NaN}'])
def test_rubbish_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError):
        read_progress(text, "coordinator")


@pytest.mark.parametrize("seconds", ["NaN", "Infinity", "1e999", "1" + "0" * 400, "1"])
def test_time_is_finite(seconds: str) -> None:
    text = Progress("job", 1, "training").to_json().replace("0.0", seconds)
    with pytest.raises(ProtocolError):
        read_progress(text, "coordinator")


@given(st.binary())
def test_no_bytes_raise_anything_but_protocol_error(raw: bytes) -> None:
    with suppress(ProtocolError):
        read_progress(raw, "coordinator")
