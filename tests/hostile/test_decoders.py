"""Whatever a decoder is given, it answers or raises one of our errors, soon, in little memory.

`FUZZ` is how many inputs all decoders get together: 100,000 in `make test`, more in `make fuzz`,
others each time. A failure prints the seed that repeats it and the input itself.
"""

from __future__ import annotations

import base64
import os
import resource
import time
import tracemalloc
from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.protobuf.message import DecodeError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from masque.data.store import Store
from masque.errors import MasqueError
from masque.v1 import party_pb2
from masque.wire.authority import create_authority
from tests.hostile.decoder import Decoder
from tests.hostile.decoders import decoders
from tests.hostile.mutation import claims
from tests.hostile.planted import SECRET, shows
from tests.hostile.sites import NAMES
from tests.jobs import examples
from tests.wire.conftest import PROJECT, Project

pytestmark = pytest.mark.filterwarnings(
    "ignore::cryptography.utils.CryptographyDeprecationWarning"  # of certificates that are refused
)

TOTAL = int(os.environ.get("FUZZ", "100000"))
BATCH = 250
SLOW = 5.0
"""Seconds of the processor that no input may take."""

ROOM = 16 << 20
"""Bytes that no input of a few KiB may make a decoder allocate."""


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Decoder]]:
    root = tmp_path_factory.mktemp("decoders")
    trusted = Project(root, create_authority(root / "authority", PROJECT))
    with Store(root / "store") as store:
        yield {decoder.name: decoder for decoder in decoders(trusted, root, store)}


def test_the_list_is_whole(known: dict[str, Decoder]) -> None:
    """`sites` says what of the product each of them is for, and is held against the product."""
    assert sorted(known) == sorted(NAMES)
    assert sum(decoder.share for decoder in known.values()) >= 100_000


@pytest.mark.parametrize("name", NAMES)
def test_valid_samples_are_read(known: dict[str, Decoder], name: str) -> None:
    decoder = known[name]
    for sample in decoder.samples:
        decoder.decode(sample)


@pytest.mark.parametrize("name", NAMES)
def test_any_input_is_read_or_refused(known: dict[str, Decoder], name: str) -> None:
    decoder = known[name]
    whole = sum(each.share for each in known.values())
    inputs = max(BATCH, -(-TOTAL * decoder.share // whole))

    @settings(
        max_examples=-(-inputs // BATCH),
        deadline=None,
        database=None,
        derandomize="FUZZ" not in os.environ,  # `make test` has the same inputs every time
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, 2**63 - 1))
    def batch(seed: int) -> None:
        attack_all(decoder, decoder.inputs(np.random.default_rng(seed), BATCH))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch()
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 256 << 10, f"{grown} KiB more memory than before"


@pytest.mark.parametrize("name", NAMES)
def test_no_claim_of_a_size_is_believed(known: dict[str, Decoder], name: str) -> None:
    decoder = known[name]
    random = np.random.default_rng(7)
    found = [raw for sample in decoder.samples for raw in claims(sample, 200)]
    chosen = [found[i] for i in random.permutation(len(found))[:60]]
    for raw in [*chosen, *decoder.inputs(random, 40)]:
        tracemalloc.start()
        try:
            attack(decoder, raw)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < ROOM + 8 * len(raw), f"{peak} bytes for {raw[:2000]!r}"


def attack_all(decoder: Decoder, inputs: Iterable[bytes]) -> None:
    """`attack` with one after the other."""
    for raw in inputs:
        attack(decoder, raw)


def attack(decoder: Decoder, raw: bytes) -> None:
    """Nothing but an answer or our own error, soon, and nothing secret in it."""
    start = time.process_time()
    try:
        decoder.decode(raw)
    except MasqueError as error:
        text = f"{error.message}\n{error.hint}\n{error.where}"
        assert not shows(text), f"{decoder.name} tells a secret: {text!r} of {raw!r}"
    except DecodeError:
        pass  # gRPC refuses such a message before a service sees it
    except Exception as error:
        error.add_note(f"decoder {decoder.name!r}, input {raw[:5000]!r}")
        raise
    took = time.process_time() - start
    assert took < SLOW, f"{decoder.name} took {took:.1f} s for {raw[:5000]!r}"


def test_a_secret_would_be_seen() -> None:
    assert shows(f"wrong bytes {SECRET!r}")
    assert shows(str(np.frombuffer(SECRET, "<u8")[1]))
    assert shows(SECRET.hex())
    assert not shows("wrong bytes")


def test_a_fuzzer_that_finds_nothing_would_be_noticed(known: dict[str, Decoder]) -> None:
    """A decoder that trusts what it reads fails in the first few hundred inputs."""

    def trusting(raw: bytes) -> object:
        return np.frombuffer(raw, "<u8").reshape(4, 4)

    planted = Decoder("planted", trusting, [bytes(128)])
    inputs = planted.inputs(np.random.default_rng(1), BATCH)
    with pytest.raises(ValueError, match="buffer size"):
        attack_all(planted, inputs)

    def greedy(raw: bytes) -> object:
        return bytearray(int.from_bytes(raw[:4], "little") % (1 << 28))

    tracemalloc.start()
    for raw in claims(bytes(8)):
        greedy(raw)
    assert tracemalloc.get_traced_memory()[1] > ROOM
    tracemalloc.stop()


# -- what was found -------------------------------------------------------------------------------


def _of_no_algorithm() -> bytes:
    """A key, made just now, whose algorithm's number is nobody's."""
    key = X25519PrivateKey.generate().private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    text = base64.b64encode(key.replace(b"\x2b\x65\x6e", b"\x3b\x65\x6e", 1))
    return b"\n".join([b"-----BEGIN %b-----" % LABEL, text, b"-----END %b-----" % LABEL, b""])


LABEL = b"PRIVATE KEY"
NAMELESS = party_pb2.ListDatasetsReply(
    datasets=[
        party_pb2.Dataset(name="no name", table_json=examples.HOSPITALS[0].info.model_dump_json())
    ]
).SerializeToString()
FOUND = {
    "a number of parties without end": ("local network", b'{"parties": Infinity}'),
    "a key of an algorithm that nobody knows": ("recipient's key", _of_no_algorithm()),
    "a data set without a name, to a client": ("data sets", NAMELESS),
    "a data set without a name, to the coordinator": ("peer tables", NAMELESS),
    "a million lists within one another": ("document", b"a: " + b"[" * 1_000_000),
}
"""Inputs that once did what none may do, by what they are."""


@pytest.mark.parametrize("what", FOUND)
def test_what_was_found_stays_mended(known: dict[str, Decoder], what: str) -> None:
    name, raw = FOUND[what]
    with pytest.raises(MasqueError):
        known[name].decode(raw)
    attack(known[name], raw)


def test_text_around_an_authoritys_lists_is_passed_over(known: dict[str, Decoder]) -> None:
    """What believes the file does so; what adds to it raised a bare ValueError."""
    decoder = known["authority's lists"]
    assert decoder.decode(decoder.samples[0] + b"09 CRL-----\n")
