"""No decoder is forgotten: the text of the product is held against the list of those fuzzed."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from masque.data.store import Store
from masque.wire.authority import create_authority
from tests.hostile.decoder import Decoder
from tests.hostile.decoders import decoders
from tests.hostile.enumeration import of_product, sites
from tests.hostile.sites import EXEMPT, FUZZED, NAMES
from tests.wire.conftest import PROJECT, Project

MODULE = """
import json
from pydantic import TypeAdapter

class Reader:
    def read(self, raw):
        def inner(text):
            return json.loads(text)
        return inner(raw)

def checked(raw):
    return map(TypeAdapter(int).validate_json, [raw])

def key(raw):
    return serialization.load_pem_private_key(raw, None)

def words(raw):
    return np.frombuffer(raw), _HEADER.unpack(raw)

def harmless(raw):
    return reader.load(raw), model_dump(raw), failures.unpack(raw)
"""


def unlisted(found: set[str]) -> set[str]:
    return found - set(FUZZED) - set(EXEMPT)


def test_every_place_that_takes_bytes_apart_is_fuzzed_or_exempt() -> None:
    found = of_product()
    assert not unlisted(found), (
        "list them in tests/hostile/sites.py, with a decoder in tests/hostile or a reason"
    )
    assert not (set(FUZZED) | set(EXEMPT)) - found, "listed, and not there any more"
    assert not set(FUZZED) & set(EXEMPT)
    assert all(len(reason) > 15 for reason in EXEMPT.values())


def test_a_new_decoder_would_be_noticed(tmp_path: Path) -> None:
    package = tmp_path / "masque" / "new"
    package.mkdir(parents=True)
    (package / "made_up.py").write_text(MODULE)
    found = of_product(tmp_path)
    names = {"Reader.read.inner", "checked", "key", "words"}
    assert found == {f"masque.new.made_up.{name}" for name in names}
    assert unlisted(found) == found


@pytest.mark.parametrize("line", ["from json import loads", "from yaml import load as read"])
def test_no_name_hides_one(tmp_path: Path, line: str) -> None:
    path = tmp_path / "it.py"
    path.write_text(line)
    with pytest.raises(AssertionError, match="name the module"):
        list(sites(path, tmp_path))


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Decoder]]:
    root = tmp_path_factory.mktemp("sites")
    trusted = Project(root, create_authority(root / "authority", PROJECT))
    with Store(root / "store") as store:
        yield {decoder.name: decoder for decoder in decoders(trusted, root, store)}


@contextmanager
def called(found: set[str]) -> Iterator[None]:
    """Enter the functions of the product that are called into `found`, in whatever thread."""

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call":
            module = frame.f_globals.get("__name__", "")
            name = frame.f_code.co_qualname.replace(".<locals>", "")
            if module.startswith(("masque.", "services.")):
                found.add(f"{module}.{name}")

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def reached(decode: Callable[[bytes], object], samples: Any) -> set[str]:
    found: set[str] = set()
    with called(found):
        for sample in samples:
            with suppress(Exception):  # what it may raise is looked at elsewhere
                decode(sample)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_each_goes_through_what_it_is_listed_for(known: dict[str, Decoder], name: str) -> None:
    decoder = known[name]
    meant = {place for place, names in FUZZED.items() if name in names}
    damaged = [sample[: len(sample) // 2] for sample in decoder.samples]
    assert not meant - reached(decoder.decode, [*decoder.samples, *damaged])
