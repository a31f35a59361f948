"""The key of a store from an agent: a command that prints it."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import pytest

from masque.data.keys import StoreKey, ask_agent, load_key, next_key
from masque.data.rotation import rotate
from masque.data.store import Store
from masque.errors import InputError, MasqueError
from tests.data.test_at_rest import assert_holds, dying, filled

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


def printing(text: str) -> tuple[str, ...]:
    """An agent that prints this."""
    return (sys.executable, "-c", "import sys; print(sys.argv[1])", text)


def running(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


@pytest.mark.parametrize("text", [OLD.hex(), OLD.hex().upper(), base64.b64encode(OLD).decode()])
def test_an_agent_prints_the_key(text: str) -> None:
    assert ask_agent(printing(text)).name == StoreKey(OLD).name


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (("/no/such/agent",), "/no/such/agent, cannot be run: No such file"),
        ((os.devnull,), "cannot be run: Permission denied"),
        (running("raise SystemExit(7)"), "has failed with exit code 7"),
        (running("import time; time.sleep(60)"), "has not answered within 0.5 s"),
        (printing(""), "printed no key"),
        (printing(OLD.hex()[:-2]), "printed no key"),
        (printing("x" * 64), "printed no key"),
        (printing(base64.b64encode(OLD[:-1]).decode()), "printed no key"),
        (running("import sys; sys.stdout.buffer.write(bytes(range(1, 33)))"), "printed no key"),
        (printing("correct horse battery staple"), "printed no key"),
    ],
)
def test_an_agent_that_has_no_key_is_told_without_what_it_said(
    command: tuple[str, ...], words: str
) -> None:
    with pytest.raises(MasqueError) as raised:
        ask_agent(command, seconds=0.5 if "sleep" in command[-1] else 30)
    assert words in raised.value.message and command[0] in raised.value.message
    told = str(raised.value) + raised.value.hint
    assert command[-1] == command[0] or command[-1] not in told or not command[-1]


def test_with_an_agent_no_key_is_on_the_disk(tmp_path: Path) -> None:
    with Store(tmp_path, key_command=printing(OLD.hex())) as store:
        assert store.key.name == StoreKey(OLD).name
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or OLD not in path.read_bytes()
    assert not (tmp_path / "key").exists()


def test_a_store_goes_from_a_file_to_an_agent_and_to_its_next_key(tmp_path: Path) -> None:
    words = filled(tmp_path)
    done = rotate(tmp_path, next_key_command=printing(OLD.hex()))
    assert done.new == StoreKey(OLD).name and not next_key(tmp_path / "key").exists()
    with pytest.raises(MasqueError, match="another key"):
        Store(tmp_path)
    assert_holds(tmp_path, words, printing(OLD.hex()))
    after = rotate(tmp_path, key_command=printing(OLD.hex()), next_key_command=printing(NEW.hex()))
    assert (after.old, after.new) == (done.new, StoreKey(NEW).name)
    assert after.datasets == ("a", "b", "c") and after.kept_shares == 1
    assert_holds(tmp_path, words, printing(NEW.hex()))


def test_a_rotation_between_agents_that_is_killed_is_completed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = filled(tmp_path)
    old = load_key(tmp_path / "key", create_if_missing=False)
    new = printing(NEW.hex())
    for after in (4, 9, 14):
        with monkeypatch.context() as patch, dying(patch, after), pytest.raises(BaseException):  # noqa: B017, PT011
            rotate(tmp_path, next_key_command=new)
    with pytest.raises(MasqueError, match="another key"):
        Store(tmp_path, key_command=new)
    done = rotate(tmp_path, next_key_command=new)
    assert (done.old, done.new) == (old.name, StoreKey(NEW).name)
    assert_holds(tmp_path, words, new)


def test_a_rotation_needs_another_key_and_one_only(tmp_path: Path) -> None:
    with Store(tmp_path, key_command=printing(OLD.hex())):
        pass
    with pytest.raises(InputError, match="new key of the store is not known"):
        rotate(tmp_path, key_command=printing(OLD.hex()))
    with pytest.raises(InputError, match="the key that the store has already"):
        rotate(tmp_path, key_command=printing(OLD.hex()), next_key_command=printing(OLD.hex()))
    filled(tmp_path / "other")
    load_key(next_key(tmp_path / "other" / "key"), create_if_missing=True)
    with pytest.raises(InputError, match="was broken off"):
        rotate(tmp_path / "other", next_key_command=printing(NEW.hex()))
