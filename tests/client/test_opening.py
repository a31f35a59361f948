"""A result is whole or not believed: parts are signed one by one, so a relay could drop some."""

from __future__ import annotations

from typing import Any

import pytest

from masque.client.opening import check_complete, promised
from masque.errors import ProtocolError
from masque.jobs.compile import compile_job
from tests.jobs.examples import bound, job

NETWORK = {
    "kind": "sequential",
    "layers": [{"kind": "dense", "units": 2}, "batch_norm", "relu", {"kind": "dense", "units": 1}],
}
JOBS: list[dict[str, Any]] = [
    {},
    {"model__fit_intercept": False},
    {"data__standardize": False},
    {"reveal": {}},
    {"reveal__metrics": ["auc", "log_loss", "confusion"], "reveal__to": ["auditor"]},
    {"reveal__to": "all"},
    {"model_output": {"open_to_all": True}},
    {"model_output": {"keep_shares": "model"}},
    {"model_output": {"sealed_to": ["auditor", "analyst"]}},
    {"model": NETWORK},
    {"model": NETWORK, "data__standardize": False},
    {"model": NETWORK, "reveal": {}, "model_output": {"keep_shares": "model"}},
]


@pytest.mark.parametrize("changes", JOBS)
def test_what_is_promised_is_what_the_program_puts_out(changes: dict[str, Any]) -> None:
    made = bound(job(**changes))
    outputs = compile_job(made).outputs
    for recipient in ("analyst", "auditor", "nobody"):
        due = {name for name, output in outputs.items() if recipient in output.to}
        assert promised(made, recipient) == due
        check_complete(made, recipient, due)


@pytest.mark.parametrize("left_out", ["mean", "intercept", "inverse_deviation", "metric:auc"])
def test_a_result_without_a_part_is_refused(left_out: str) -> None:
    made = bound()
    rest = promised(made, "analyst") - {left_out}
    with pytest.raises(ProtocolError, match=f"lacks {left_out}"):
        check_complete(made, "analyst", rest)
    with pytest.raises(ProtocolError, match="holds more, which was not promised"):
        check_complete(made, "analyst", {*rest, left_out, "more"})
