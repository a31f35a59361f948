"""project.yaml: what it says, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest

from masque.client import project_rules
from masque.client.project import Project, load
from masque.errors import SpecError
from tests.client.projects import PROJECT


def loaded(tmp_path: Path, text: str) -> Project:
    path = tmp_path / "project.yaml"
    path.write_text(text)
    return load(path)


def test_a_project_is_read(tmp_path: Path) -> None:
    project = loaded(tmp_path, PROJECT)
    assert project.project == "cancer-study"
    assert [party.name for party in project.parties] == ["hospital-a", "hospital-b"]
    assert (project.dealer.host, project.dealer.port) == ("dealer.trustee.example", 7000)
    assert project.coordinator.name == "coordinator"
    assert project.analysts == ("analyst",)
    assert list(project_rules.warnings(project)) == []


@pytest.mark.parametrize(
    ("old", "new", "line", "says"),
    [
        ("organisations:", "organizations:", 2, "Did you mean 'organisations'?"),
        ("role: dealer", "role: deeler", 4, "Did you mean 'dealer'?"),
        ('address: "dealer', 'adress: "dealer', 4, "Did you mean 'address'?"),
        ("owners: [ward-3]", "owner: [ward-3]", 7, "Did you mean 'owners'?"),
        ("owners: [ward-3]", "owners: ward-3", 7, "Write [ward-3]."),
        ("owners: [ward-3]", "owners: [all]", 7, "it means everybody in a job file"),
        ("owners: [ward-3]", "owners: [analyst]", 13, "is 'analyst', as another one is"),
        ("owners: [ward-3]", "owners: [ward-3, ward-3]", 7, "is 'ward-3', as another one is"),
        ("name: trustee", "name: The Trustee", 3, "Use 1 to 63 of a-z, 0-9"),
        ("name: trustee", "name: university", 11, "is 'university', as another one is"),
        ("project: cancer-study", "project: Cancer", 1, "cannot be 'Cancer'"),
        ("name: dealer", "name: keys", 4, "a container is called so"),
        ("name: dealer", "name: hospital-a", 6, "is 'hospital-a', as another one is"),
        ("trustee.example:7000", "trustee.example", 4, "Write host:port."),
        ("trustee.example:7000", "trustee.example:443", 4, "choose a port of 1024 to 65535"),
        ("dealer.trustee.example", "localhost", 4, "is this machine itself"),
        ("dealer.trustee.example", "127.0.0.1", 4, "where nobody else reaches it"),
        ("dealer.trustee.example", "0.0.0.0", 4, "where nobody else reaches it"),
        ("dealer.trustee.example", "Dealer_1", 4, "In lower case."),
        ("masque.hospital-b", "masque.hospital-a", 9, "is that of 'hospital-a'"),
        ("masque.hospital-b.example:7000", "masque.hospital-a.example:7001", 9, "hospital-a runs"),
        ("dealer.trustee.example:7000", "masque.hospital-b.example:7001", 9, "a host of its own"),
        ("role: dealer", "role: party", 2, "have 0 dealers between them"),
        ("role: coordinator", "role: dealer", 2, "have 2 dealers between them"),
        ("analysts: [analyst]", "owners: [analyst]", 2, "have no analysts"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_its_cure(
    tmp_path: Path, old: str, new: str, line: int, says: str
) -> None:
    assert old in PROJECT
    with pytest.raises(SpecError) as refused:
        loaded(tmp_path, PROJECT.replace(old, new, 1))
    assert says in str(refused.value)
    complaints = refused.value.where["complaints"]
    assert isinstance(complaints, list) and line in {one["line"] for one in complaints}


def organisation(text: str) -> str:
    return f"{PROJECT}  - {text}\n"


def test_an_organisation_does_something(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="has neither services nor people"):
        loaded(tmp_path, organisation("name: idle"))


def test_one_party_is_not_enough(tmp_path: Path) -> None:
    text = PROJECT.replace("role: party, name: hospital-b", "role: coordinator, name: hospital-b")
    with pytest.raises(SpecError) as refused:
        loaded(tmp_path, text)
    assert "have 1 computing parties between them" in str(refused.value)
    assert "have 2 coordinators between them" in str(refused.value)


def test_the_dealer_and_a_party_are_never_together(tmp_path: Path) -> None:
    text = PROJECT.replace("name: trustee", "name: one").replace(
        'trustee.example:7000"}',
        'trustee.example:7000"}, {role: party, name: x, address: "x:7000"}',
    )
    with pytest.raises(SpecError) as refused:
        loaded(tmp_path, text)
    assert "(one) runs the dealer and a party: whoever runs both learns all data" in str(
        refused.value
    )
    assert "SECURITY.md" in str(refused.value)


def test_two_organisations_at_least_compute(tmp_path: Path) -> None:
    party = '{role: party, name: NAME, address: "NAME.example:7000"}'
    pair = ", ".join(party.replace("NAME", name) for name in ("p", "q"))
    dealer = '{role: dealer, name: dealer, address: "d.example:7000"}'
    coordinator = '{role: coordinator, name: coordinator, address: "c.example:7000"}'
    text = (
        "project: p\norganisations:\n"
        f"  - {{name: a, services: [{dealer}]}}\n  - {{name: b, services: [{pair}]}}\n"
        f"  - {{name: c, services: [{coordinator}], analysts: [x]}}\n"
    )
    with pytest.raises(SpecError, match="run all parties at b, which then has all shares"):
        loaded(tmp_path, text)


def test_what_weakens_is_said(tmp_path: Path) -> None:
    party = ', {role: party, name: x, address: "masque.hospital-a.example:7001"}]'
    text = PROJECT.replace('hospital-a.example:7000"}]', f'hospital-a.example:7000"}}{party}')
    text = text.replace("name: trustee", "name: trustee\n    owners: [clerk]")
    (people, parties) = project_rules.warnings(loaded(tmp_path, text))
    assert "hospital-a runs 2 parties: they count as one" in parties
    assert "the dealer should have no interest in the data" in people


def test_a_dealer_beside_the_coordinator_is_said(tmp_path: Path) -> None:
    coordinator = (
        '{role: coordinator, name: coordinator, address: "masque.university.example:7000"}'
    )
    text = PROJECT.replace(f"    services: [{coordinator}]\n", "")
    text = text.replace(
        'trustee.example:7000"}',
        'trustee.example:7000"}, ' + coordinator.replace("masque.university", "c.trustee"),
    )
    (warning,) = project_rules.warnings(loaded(tmp_path, text))
    assert "trustee runs the dealer and the coordinator" in warning
