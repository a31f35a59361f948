"""What operators see of real services after real jobs: metrics, logs, spans."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from masque.client import jobs, sharing
from masque.client.profile import load
from masque.client.services import Services
from masque.data import bundled
from masque.errors import MasqueError, SpecError
from masque.jobs import spec
from masque.v1 import dealer_pb2, party_pb2
from tests.client.networks import job_text
from tests.client.observed import Observed, Series, observed
from tests.client.shell import Shell
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operations.md"
ROLES = {"dealer": "dealer", "party-1": "party", "party-2": "party", "coordinator": "coordinator"}
PROCESS = "process_"
OURS_NOT = {"up"}
"""What Prometheus itself adds."""

SECRET_JOB, FAILED_JOB = "the-job-nobody-names", "the-job-that-fails"

UNMATCHED = """\
name: unmatched
data: {columns: [here, there], label: malignant, holdout: 0.2}
model: {kind: logistic_regression}
training: {epochs: 1, batch_size: 32, optimizer: {kind: sgd, learning_rate: 0.1}}
model_output: {sealed_to: [analyst]}
"""


@dataclass(frozen=True)
class Story:
    """A job that succeeded, one that failed, and what the services tell afterwards."""

    network: Observed
    trace: str
    failure: MasqueError
    told: dict[str, Series]


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with observed(tmp_path_factory.mktemp("observed")) as network:
        trace = network.services.trace.trace_id
        assert last(network, network.submit(job_id=SECRET_JOB)) is None
        share_what_does_not_match(network, tmp_path_factory.mktemp("columns"))
        with network.services, Services(load(network.network.profile)) as network.services:
            jobs.submit(network.services, UNMATCHED, spec.parse(UNMATCHED), FAILED_JOB)
            failure = last(network, FAILED_JOB)
            assert failure is not None
            running = "masque_jobs_running"
            until(lambda: all(network.scrape(n).total(running) == 0 for n in ROLES), "it runs on")
            told = {name: network.scrape(name) for name in ROLES}
            yield Story(network, trace, failure, told)


def share_what_does_not_match(network: Observed, folder: Path) -> None:
    """Columns of two owners, who have other rows: that is known only once they are compared."""
    files = bundled.write("breast-cancer", folder, by="columns")
    lines = files.hospitals[1].read_text().splitlines()
    lines[1], lines[2] = lines[2], lines[1]
    files.hospitals[1].write_text("\n".join(lines) + "\n")
    for path, schema, name in zip(files.hospitals, files.schemas, ("here", "there"), strict=True):
        sharing.share(network.services.parties, path, schema, name)


def last(network: Observed, job_id: str) -> MasqueError | None:
    *_, event = jobs.watch(network.services, job_id)
    return event.error


# -- metrics -------------------------------------------------------------------------------------


def documented() -> dict[str, tuple[str, frozenset[str], frozenset[str], str]]:
    """The page's table: kind, labels, roles and meaning of every metric."""
    rows = re.findall(r"^\| `(masque_\w+)` \|(.*)\|$", PAGE.read_text(), re.M)
    table = {}
    for name, cells in rows:
        kind, labels, roles, meaning = (cell.strip() for cell in cells.split("|"))
        table[name] = (kind, words(labels), words(roles), meaning)
    return table


def words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text))


def exposed(series: Series) -> set[str]:
    return {name for name in series.kinds if not name.startswith(PROCESS)}


def labels_of(series: Series, name: str) -> set[frozenset[str]]:
    return {
        frozenset(key for key, _ in labels) for found, labels in series.samples if found == name
    }


def test_the_page_lists_what_every_service_tells(story: Story) -> None:
    table = documented()
    for service, role in ROLES.items():
        series = story.told[service]
        told = {name: (series.kinds[name], series.helps[name]) for name in exposed(series)}
        assert told == {
            name: (kind, meaning)
            for name, (kind, _, roles, meaning) in table.items()
            if role in roles
        }
        for name in told:
            assert labels_of(series, name) <= {table[name][1]}, name
    assert {
        name for name in table if not any(labels_of(s, name) for s in story.told.values())
    } == set()


def test_names_follow_the_conventions_of_prometheus(story: Story) -> None:
    for series in story.told.values():
        for name, kind in series.kinds.items():
            assert re.fullmatch(r"(masque|process)(_[a-z]+)+", name), name
            assert name.endswith("_total") == (kind == "counter"), name
            assert not re.search(
                r"_(ms|milli\w*|micro\w*|minutes|hours|days|kb|mb|kib|mib)(_|$)", name
            )
            assert series.helps[name].endswith("."), name
        assert "process_resident_memory_bytes" in series.kinds


def test_labels_name_services_methods_and_states_only(story: Story) -> None:
    for series in story.told.values():
        for private in (SECRET_JOB, FAILED_JOB, "small", "left", "right", "analyst"):
            assert private not in series.text
        for name, labels in series.samples:
            for key, value in labels:
                if key == "peer":
                    assert value in ROLES, name
                assert len(value) < 60 and key in {
                    *("role", "name", "project", "version"),
                    *("peer", "state", "outcome", "method", "code"),
                }


def test_the_numbers_of_all_services_agree(story: Story) -> None:
    dealer, one, two, coordinator = (story.told[name] for name in ROLES)
    sent, received = "masque_peer_sent_bytes_total", "masque_peer_received_bytes_total"
    assert one[sent, {"peer": "party-2"}] == one[received, {"peer": "party-2"}] > 0
    material = "masque_material_bytes_total"
    assert one[material, {"peer": "dealer"}] == dealer[material, {"peer": "party-1"}] > 0
    assert one["masque_protocol_rounds_total"] > 10
    assert one["masque_sealed_outputs_total"] > 0
    rounds = coordinator["masque_training_rounds_total"]
    assert one["masque_training_rounds_total"] == rounds >= 3
    ended = "masque_jobs_ended_total"
    assert coordinator[ended, {"outcome": "succeeded"}] == 1
    assert coordinator[ended, {"outcome": "failed"}] == 1
    assert one[ended, {"outcome": "computed"}] == 1
    assert two["masque_datasets"] == 4 and two["masque_share_bytes"] > 0
    for series in (dealer, one, two, coordinator):
        assert series.total("masque_jobs_running") == 0
        assert (
            series.total("masque_material_waiting_bytes") == 0
            if series is not coordinator
            else True
        )


def test_they_are_the_numbers_that_the_services_describe(story: Story) -> None:
    services = story.network.services
    assert services.dealer is not None
    with services.dealer.calling() as stub:
        described = stub.Describe(dealer_pb2.DescribeDealerRequest(), timeout=30)
    told = story.told["dealer"]
    assert told.total("masque_material_bytes_total") == described.bytes_sent
    assert told["masque_material_streams_total"] == described.streams
    with services.parties[0].calling() as stub:
        party = stub.Describe(party_pb2.DescribePartyRequest(), timeout=30)
    told = story.told["party-1"]
    assert told.total("masque_peer_sent_bytes_total") == party.bytes_sent
    assert told["masque_protocol_rounds_total"] == party.traffic.exchanges
    assert told["masque_share_bytes"] == party.share_bytes


def asked_for(expression: str) -> set[str]:
    """Names of metrics in an expression: what stands before a selector, and bare names of ours."""
    selected = re.findall(r"([a-z_]+)\{", expression)
    return {*selected, *re.findall(r"\b(?:masque|process)_\w+", expression)}


def used_labels(expression: str) -> set[str]:
    inside = "".join(re.findall(r"\{([^}]*)\}", expression))
    grouped = ",".join(re.findall(r"\b(?:by|on|without|ignoring) \(([^)]*)\)", expression))
    return set(re.findall(r"(\w+)(?:=|!=|=~|!~)\"", inside)) | words(grouped)


def panels() -> list[dict[str, Any]]:
    board = json.loads((ROOT / "deploy" / "grafana" / "masque.json").read_text())
    return [panel for panel in board["panels"] if panel["type"] != "row"]


def alerts() -> list[dict[str, Any]]:
    text = (ROOT / "deploy" / "prometheus" / "alerts.yaml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def test_dashboard_and_alerts_ask_for_what_is_told(story: Story) -> None:
    names = {name for series in story.told.values() for name in series.kinds} | OURS_NOT
    table = documented()
    expressions = [t["expr"] for panel in panels() for t in panel["targets"]]
    expressions += [rule["expr"] for rule in alerts()]
    for expression in expressions:
        asked = asked_for(expression)
        assert asked and asked <= names, expression
        known = {label for name in asked & set(table) for label in table[name][1]}
        assert used_labels(expression) <= known | {"instance", "job"}, expression
    shown = {name for expression in expressions for name in asked_for(expression)}
    assert set(table) <= shown, "every metric is on the dashboard"


def test_the_dashboard_can_be_imported_anywhere() -> None:
    board = json.loads((ROOT / "deploy" / "grafana" / "masque.json").read_text())
    variables = {variable["name"]: variable["type"] for variable in board["templating"]["list"]}
    assert variables == {"datasource": "datasource", "instance": "query"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    places = [tuple(panel["gridPos"].values()) for panel in board["panels"]]
    assert len(set(places)) == len(places)
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"] and panel["description"].endswith(".")
        assert {t["datasource"]["uid"] for t in panel["targets"]} == {"${datasource}"}


def test_the_example_of_prometheus_is_whole() -> None:
    folder = ROOT / "deploy" / "prometheus"
    example = yaml.safe_load((folder / "prometheus.yaml").read_text())
    assert [(folder / name).exists() for name in example["rule_files"]] == [True]
    (scraped,) = example["scrape_configs"]
    assert scraped["job_name"] == "masque"
    for rule in alerts():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


# -- logs and request ids ------------------------------------------------------------------------


def test_every_line_of_a_job_names_job_request_and_peer(story: Story) -> None:
    for service in ROLES:
        lines = [line for line in story.network.log(service) if line.get("job") == SECRET_JOB]
        assert lines, service
        for line in lines:
            assert {"timestamp", "level", "event", "service"} <= line.keys()
            assert line["trace"] == story.trace, line
            assert service == "coordinator" or "peer" in line, line
    (done,) = [x for x in story.network.log("party-1") if x["event"] == "job computed"]
    assert done["round"] == 3 and done["peer"] == "coordinator 'coordinator'"


def test_a_failed_job_tells_the_request_that_finds_it_in_the_logs(story: Story) -> None:
    trace = story.failure.where["request"]
    assert trace == story.network.services.trace.trace_id != story.trace
    found = [x for x in story.network.log("party-2") if x.get("trace") == trace and "reason" in x]
    assert [x["event"] for x in found if x["job"] == FAILED_JOB] == ["job failed"]


def test_a_refused_call_tells_it_as_well(story: Story, masque: Shell, tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text(job_text().replace("left", "nowhere"))
    ran = masque("train", str(job), "--profile", story.network.profile, "--json")
    error = json.loads(ran.out)["error"]
    (line,) = [
        x
        for x in story.network.log("coordinator")
        if x.get("trace") == error["where"]["request"] and x["event"] == "call refused"
    ]
    assert line["method"] == "/masque.v1.Coordinator/Submit" and line["peer"] == "client 'analyst'"
    code = {"method": "masque.v1.Coordinator/Submit", "code": "INVALID_ARGUMENT"}
    assert story.network.scrape("coordinator")["masque_rpcs_total", code] >= 1


# -- spans ---------------------------------------------------------------------------------------


def test_spans_of_a_job_are_one_trace_at_all_services(story: Story) -> None:
    collector = story.network.collector
    until(
        lambda: {span.service for span in collector.of(story.trace)} == set(ROLES),
        "a service has no span",
    )
    until(lambda: "job" in {span.name for span in collector.of(story.trace)}, "no job")
    spans = collector.of(story.trace)
    by_id = {span.span: span for span in spans}
    (job,) = [span for span in spans if span.name == "job"]
    assert job.service == "coordinator" and not job.server and not job.failed
    assert job.attributes == {"masque.job": SECRET_JOB, "masque.attempt": 1}
    assert by_id[job.parent].name == "masque.v1.Coordinator/Submit"
    prepared = [span for span in spans if span.name.endswith("/Prepare")]
    assert {span.service for span in prepared} == {"dealer", "party-1", "party-2"}
    assert {span.parent for span in prepared} == {job.span}
    rounds = [s for s in spans if s.name == "training round" and s.service == "party-2"]
    assert [s.attributes["masque.round"] for s in rounds] == [0, 1, 2, 3]
    assert {by_id[s.parent].name for s in rounds} == {"masque.v1.Party/RunRound"}
    (dealt,) = [span for span in spans if span.name == "deal"]
    assert by_id[dealt.parent].name == "masque.v1.Dealer/Prepare"
    streams = [span for span in spans if span.name == "masque.v1.Dealer/Correlations"]
    assert {by_id[span.parent].name for span in streams} == {"masque.v1.Party/Prepare"}


def test_a_spec_that_is_refused_is_a_failed_span(story: Story) -> None:
    with Services(load(story.network.network.profile)) as services:
        text = job_text().replace("left", "nowhere")
        with pytest.raises(SpecError):
            jobs.submit(services, text, spec.parse(text))
        trace = services.trace.trace_id
    collector = story.network.collector
    until(
        lambda: any(span.server for span in collector.of(trace) if span.service == "coordinator"),
        "the coordinator has no span",
    )
    (span,) = [s for s in collector.of(trace) if s.service == "coordinator"]
    assert span.failed and span.name == "masque.v1.Coordinator/Submit"
