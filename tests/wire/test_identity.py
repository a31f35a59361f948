from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from masque.errors import IdentityError
from masque.wire.identity import Identity, Role, parse_identity

names = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(names, st.sampled_from(Role), names)
def test_uri_round_trip(project: str, role: Role, name: str) -> None:
    identity = Identity(project, role, name)
    assert parse_identity(identity.uri) == identity
    assert len(identity.server_name.split(".")) == 4


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    try:
        identity = parse_identity(text)
    except IdentityError:
        return
    assert identity.uri == text


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "masque://demo/party",
        "masque://demo/party/a/b",
        "masque:/demo/party/a",
        "https://demo/party/a",
        "MASQUE://demo/party/a",
        "masque://demo/party/a ",
        "masque://demo/party/a\n",
        "masque://demo/Party/a",
        "masque://demo/owner/a",
        "masque://demo/party/-a",
        "masque://demo/party/a_b",
        "masque://demo/party/ä",
        "masque://demo/party/" + 64 * "a",
        "masque://user@demo/party/a",
        "masque://demo/party/a?x",
    ],
)
def test_refuses(uri: str) -> None:
    with pytest.raises(IdentityError) as caught:
        parse_identity(uri)
    assert caught.value.hint


def test_texts_for_people() -> None:
    identity = Identity("demo", Role.PARTY, "hospital-a")
    assert str(identity) == "party 'hospital-a'"
    assert identity.stem == "hospital-a.party"
    assert identity.server_name == "hospital-a.party.demo.masque"
    assert Identity("demo", Role("party"), "hospital-a") == identity
