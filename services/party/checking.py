"""What `check-config` looks at for a party alone: its data, policy and recipients."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

from masque.data.keys import load_key
from masque.errors import MasqueError
from masque.jobs import policy
from masque.jobs.complaints import Complaint
from masque.wire.checking import meaning, writable
from masque.wire.identity import Role
from masque.wire.recipients import load_recipient
from masque.wire.settings import own_credentials
from services.party.settings import PartySettings

_END = ".recipient.pub"


def examine(settings: PartySettings) -> Iterator[Complaint]:
    """Mistakes in what the file names."""
    yield from writable(("data",), settings.data)
    yield from _key(settings)
    if settings.policy is not None:
        try:
            policy.load(settings.policy)
        except MasqueError as error:
            yield meaning(("policy",), error)
    yield from _recipients(settings)


def _key(settings: PartySettings) -> Iterator[Complaint]:
    for where in ("key_command", "next_key_command"):
        command = getattr(settings, where)
        if command and shutil.which(command[0]) is None:
            cure = "Name it with its whole path, and see that this user may run it."
            yield Complaint((where,), f"names {command[0]}, and there is no such program", cure)
    if settings.key_command:
        return
    path = settings.key_file or settings.data / "key"
    if not path.exists():
        if settings.key_file is not None:
            yield from writable(("key_file",), path.parent)
        return
    try:
        load_key(path, create_if_missing=False)
    except MasqueError as error:
        yield meaning(("key_file",) if settings.key_file else ("data",), error)


def _recipients(settings: PartySettings) -> Iterator[Complaint]:
    directory, where = settings.recipients, ("recipients",)
    if not directory.is_dir():
        cure = "Make it, and put in <name>.recipient.pub of all whom results may be sealed to."
        yield Complaint(where, f"cannot be used: {directory} is not a directory", cure)
        return
    try:
        trust = own_credentials(settings, Role.PARTY).trust
    except MasqueError:
        return  # told already, and whom to believe is not known
    for file in sorted(directory.glob(f"*{_END}")):
        try:
            load_recipient(directory, file.name.removesuffix(_END), trust)
        except MasqueError as error:
            yield Complaint(where, f"holds {file.name}: {error.message.rstrip('.')}", error.hint)
