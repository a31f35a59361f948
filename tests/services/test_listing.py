"""What one owner does at a party leaves room for others: long lists, uploads that never end."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import numpy as np
import pytest

from masque.data.store import Store
from masque.data.table import FeatureColumn, TableInfo, describe
from masque.errors import Refused
from masque.v1 import party_pb2
from masque.wire.authority import create_authority
from masque.wire.tls import MAX_MESSAGE
from services.party import uploads
from tests.services.village import CALL, PROJECT, Village, upload_messages


def wide(columns: int) -> TableInfo:
    """One row of columns with long names."""
    names = (f"{'a column with a long name ' * 3}{number}" for number in range(columns))
    return describe(1, tuple(FeatureColumn(name=n, source=n, kind="number") for n in names), None)


def test_a_list_larger_than_an_upload_can_be_read(village: Village) -> None:
    info = wide(12_000)
    share = np.zeros((1, info.columns), dtype=np.uint64)
    names = ["wide-1", "wide-2"]
    with village.party("party-a", "client", "owner") as stub:
        for name in names:
            stub.Upload(iter(upload_messages(name, "u", info, share)), timeout=CALL)
        try:
            reply = stub.ListDatasets(party_pb2.ListDatasetsRequest(), timeout=CALL)
            assert reply.ByteSize() > MAX_MESSAGE
        finally:
            for name in names:
                stub.DeleteDataset(party_pb2.DeleteDatasetRequest(name=name), timeout=CALL)


def test_what_would_make_the_list_too_long_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = wide(10)
    share = np.zeros((1, info.columns), dtype=np.uint64)
    size = len(info.model_dump_json())
    monkeypatch.setattr(uploads, "MOST_DESCRIBED", 2 * size)
    trust = create_authority(tmp_path / "authority", PROJECT).trust
    with Store(tmp_path / "data") as store:

        def take_in(name: str) -> None:
            messages = upload_messages(name, "u", info, share)
            uploads.take_in(iter(messages), store, "owner", "party-a", trust)

        for name in ("one", "two", "two"):
            take_in(name)
        with pytest.raises(Refused, match="descriptions of"):
            take_in("three")
        assert [entry.name for entry in store.list()] == ["one", "two"]


def test_uploads_that_never_end_leave_threads_to_others(village: Village) -> None:
    """Seventy of them would hold all 64 threads, were they let in."""
    info = wide(2)
    share = np.zeros((1, info.columns), dtype=np.uint64)
    header = upload_messages("endless", "u", info, share)[0]
    over = Event()

    def endless() -> Iterator[Any]:
        yield header
        over.wait()

    with village.party("party-a", "client", "idler") as stub:
        calls = [stub.Upload.future(endless(), timeout=60) for _ in range(70)]
        try:
            refused = list(islice(as_refused(calls), 70 - uploads.MOST_OF_ONE))
            assert len(refused) == 70 - uploads.MOST_OF_ONE
            with village.party("party-a", "client", "owner") as other:
                assert other.ListDatasets(party_pb2.ListDatasetsRequest(), timeout=5) is not None
                messages = upload_messages("mine", "u", info, share)
                assert other.Upload(iter(messages), timeout=5).rows == 1
                other.DeleteDataset(party_pb2.DeleteDatasetRequest(name="mine"), timeout=5)
        finally:
            over.set()
            for call in calls:
                call.cancel()


def as_refused(calls: list[Any]) -> Iterator[Any]:
    """Calls that have been refused, as they are."""
    until, left = time.monotonic() + 20, list(calls)
    while left and time.monotonic() < until:
        for call in [call for call in left if call.done()]:
            left.remove(call)
            assert call.code() is grpc.StatusCode.FAILED_PRECONDITION
            yield call
        time.sleep(0.05)
