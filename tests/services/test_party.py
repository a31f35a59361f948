"""Parties and a dealer as real processes over real TLS, driven by a coordinator's calls."""

from __future__ import annotations

import numpy as np
import pytest

from masque.mpc.cost import cost
from masque.v1 import dealer_pb2
from tests.services.handmade import STEPS, compile_handmade, gram
from tests.services.village import CALL, Village, patients


@pytest.mark.parametrize("place", ["village", "trio"])
def test_a_whole_job_is_exact_and_its_traffic_as_planned(
    place: str, request: pytest.FixtureRequest
) -> None:
    village: Village = request.getfixturevalue(place)
    matrix, info = patients()
    job = village.bound([village.share(matrix, info, "patients")], training__epochs=5)
    with village.dealer() as stub:
        before = stub.Describe(dealer_pb2.DescribeDealerRequest(), timeout=CALL)
    replies = village.run(job)
    assert np.array_equal(village.result(job, "gram"), gram(matrix, 5 * STEPS))
    planned = cost(compile_handmade(job))
    for index, name in enumerate(job.parties):
        traffic = replies[name].traffic
        peers = len(job.parties) - 1
        assert traffic.exchanges == planned.rounds
        assert traffic.sent == traffic.received == planned.sent * peers
        assert traffic.corrections == planned.corrections[index]
    with village.dealer() as stub:
        after = stub.Describe(dealer_pb2.DescribeDealerRequest(), timeout=CALL)
    for index, name in enumerate(job.parties):
        sent = after.bytes_by_party[name] - before.bytes_by_party[name]
        assert sent == planned.corrections[index]
    assert after.jobs == 0
