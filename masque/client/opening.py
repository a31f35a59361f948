"""The result of a job: fetched sealed, verified, unsealed with the recipient's key, joined.

Nothing that the coordinator says is believed: every share is signed by its party for this very
job, attempt and output, and encrypted to the recipient.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from masque.client.model import in_owners_units
from masque.client.network_model import network_model
from masque.client.planning import privacy_of
from masque.client.predictor import Predictor
from masque.client.services import BRIEF, Services
from masque.data.encode import from_fixed
from masque.errors import IdentityError, InputError, NotFound, ProtocolError
from masque.jobs.bound import BoundJob, read_bound
from masque.jobs.compile import compile_job
from masque.jobs.models import SequentialSpec
from masque.jobs.networks import network_of
from masque.mpc import sharing
from masque.v1 import coordinator_pb2, party_pb2
from masque.wire.identity import Identity, Role
from masque.wire.outputs import LARGEST_RESULT, MOST_DIMENSIONS, decode_output
from masque.wire.receipts import OUTPUT, Receipt, join
from masque.wire.recipients import load_recipient_key
from masque.wire.sealing import sealing_context, unseal

Floats = NDArray[np.float64]
Sealed = dict[str, dict[str, bytes]]
"""What parties sealed: output to party to bytes."""

FETCH = 600.0
METRIC = "metric:"


@dataclass(frozen=True)
class Result:
    """What `recipient` learns of a job: `metrics` by name (a number, or confusion counts
    [label][prediction]), and the model, if either was promised to it.
    """

    bound: BoundJob
    recipient: str
    values: Mapping[str, Floats] = field(repr=False)
    sealed_bytes: int = 0
    receipt: Receipt | None = field(default=None, repr=False)

    @property
    def metrics(self) -> dict[str, Any]:
        """The job's metrics on the rows it held out."""
        return {
            name.removeprefix(METRIC): _metric(name.removeprefix(METRIC), value)
            for name, value in self.values.items()
            if name.startswith(METRIC)
        }

    @property
    def privacy(self) -> dict[str, float]:
        """What is promised about the model, and its noise: `masque.client.planning.privacy_of`."""
        return privacy_of(self.bound, compile_job(self.bound)) if self.bound.spec.privacy else {}

    @property
    def has_model(self) -> bool:
        """Was the model promised to this recipient?"""
        return _model_outputs(self.bound) <= self.values.keys()

    @property
    def model(self) -> Predictor:
        """The model in the owners' units: `masque.client.model.Model` or
        `masque.client.network_model.NetworkModel`. Raises NotFound if it was not promised to us.
        """
        if not self.has_model:
            raise NotFound(
                f"Job {self.bound.job_id} promised {self.recipient!r} no model.",
                hint=_whose_model(self.bound),
                job=self.bound.job_id,
            )
        spec, features, label = self.bound.spec.model, self.bound.features, self.bound.label
        if isinstance(spec, SequentialSpec):
            network = network_of(spec, len(features))
            return network_model(network, features, label, self.values)
        bound = inf if self.bound.spec.privacy else spec.weight_bound  # noise knows no bound
        return in_owners_units(spec.kind, features, label, self.values, bound)


def fetch(services: Services, job_id: str, recipient: str | None = None) -> Result:
    """Open the result of a finished job as `recipient`, by default as the profile's own client.

    Raises Conflict for a job that still runs, JobFailed for one that failed, NotFound when nothing
    was promised to the recipient or its private key is not here.
    """
    bound, signed = _ask(services, job_id, "")
    _check_services(services, bound)
    receipt = _receipt(services, bound, signed.get(OUTPUT, {}))
    chosen = recipient or _recipient(services, bound)
    sealed: Sealed = {}
    if chosen in bound.keys or recipient is not None:
        again, sealed = _ask(services, job_id, chosen)
        if again.digest() != bound.digest():
            raise ProtocolError("The coordinator tells of two different jobs.", job=job_id)
    due = sealed or chosen in bound.keys
    values = _open(services, bound, chosen, sealed) if due else {}
    if opens_to_all(bound):
        values |= opened(services, bound)
    size = sum(len(item) for parts in sealed.values() for item in parts.values())
    return Result(bound, chosen, values, size, receipt)


def _receipt(services: Services, bound: BoundJob, signed: Mapping[str, bytes]) -> Receipt | None:
    """The job's receipt; None if there is none, as of jobs that ran before there were any.

    Raises IdentityError or InputError if it is forged, or if the parties do not agree.
    """
    if not signed:
        return None
    statements = [signed[party] for party in bound.parties if party in signed]
    return join(bound, statements, services.credentials.renewed().trust)


def opens_to_all(bound: BoundJob) -> bool:
    """Does the job open anything to everybody?"""
    return bound.spec.model_output.kind == "open" or "all" in bound.spec.reveal.to


def opened(services: Services, bound: BoundJob) -> dict[str, Floats]:
    """What a job opened to everybody; all parties must say the same."""
    replies = []
    for party in services.parties:
        with party.calling() as stub:
            reply = stub.FetchOpened(
                party_pb2.FetchOpenedRequest(job_id=bound.job_id), timeout=BRIEF
            )
        told = {v.output: read_opened(v, str(party.identity)) for v in reply.values}
        replies.append((reply.bound_job, told))
        if (reply.bound_job, told) != (bound.canonical(), replies[0][1]):
            raise ProtocolError(
                f"{party.identity} tells of another opened result than the others.",
                hint="Do not use this result.",
                job=bound.job_id,
                peer=party.name,
            )
    return {
        name: from_fixed(np.frombuffer(raw, "<u8").astype(np.uint64), scale).reshape(shape)
        for name, (shape, scale, raw) in replies[0][1].items()
    }


def read_opened(value: party_pb2.OpenedValue, sender: str) -> tuple[tuple[int, ...], int, bytes]:
    """(shape, scale, words) of what `sender` says was opened. ProtocolError if they do not fit."""
    shape = tuple(value.shape)
    fits = len(shape) <= MOST_DIMENSIONS and 8 * prod(shape) == len(value.values)
    if not fits or value.scale >= 64:
        raise ProtocolError(
            f"{sender} tells of an opened value that is none.",
            hint="Do not use this result.",
            peer=sender,
        )
    return shape, value.scale, value.values


def _recipient(services: Services, bound: BoundJob) -> str:
    """Who we are among the recipients: the client itself, or else the only one with a key here."""
    own, directory = services.profile.name, services.profile.recipients
    if own in bound.keys or not bound.keys:
        return own
    here = [name for name in bound.keys if (directory / f"{name}.recipient.key").exists()]
    if len(here) == 1:
        return here[0]
    if opens_to_all(bound):
        return own
    raise NotFound(
        f"The private key of no recipient of job {bound.job_id} is in {directory}."
        if not here
        else f"Several recipients of job {bound.job_id} have keys in {directory}.",
        hint=f"Its recipients are {', '.join(bound.keys)}; choose one with --as NAME.",
        job=bound.job_id,
    )


def _whose_model(bound: BoundJob) -> str:
    output = bound.spec.model_output
    if output.keep_shares is not None:
        return f"It stays at the parties as shares, under the name {output.keep_shares!r}."
    return f"It is sealed to {', '.join(output.sealed_to or ())}."


def _check_services(services: Services, bound: BoundJob) -> None:
    """The parties of the job must be those of the profile: only they hold what we trusted them."""
    known = {party.name for party in services.profile.parties}
    foreign = [name for name in bound.parties if name not in known]
    if foreign:
        raise IdentityError(
            f"Job {bound.job_id} was run by {foreign[0]!r}, which is no party of this profile.",
            hint="Use the profile that the job was submitted with.",
            party=foreign[0],
        )


def _ask(services: Services, job_id: str, recipient: str) -> tuple[BoundJob, Sealed]:
    """The bound job, and the sealed items of a recipient, as the coordinator tells them."""
    request = coordinator_pb2.ResultRequest(job_id=job_id, recipient=recipient)
    with services.coordinator.calling() as stub:
        chunks = iter(stub.Result(request, timeout=FETCH))
        first = next(chunks, None)
        if first is None:
            raise ProtocolError("The coordinator sent an empty result.", job=job_id)
        bound = read_bound(first.bound_job, str(services.coordinator.identity))
        sealed = sealed_items(chunks, LARGEST_RESULT * len(services.parties))
    if bound.job_id != job_id:
        raise ProtocolError(f"The coordinator told of job {bound.job_id} instead of {job_id}.")
    return bound, sealed


def sealed_items(chunks: Iterable[Any], most: int) -> Sealed:
    """Whole items from chunks. ProtocolError if they break off, or go on beyond `most` bytes."""
    found: Sealed = {}
    parts: list[bytes] = []
    size = 0
    for chunk in chunks:
        parts.append(chunk.sealed)
        size += len(chunk.sealed) + 1  # empty pieces without end are a flood as well
        if size > most:
            raise ProtocolError(f"The coordinator sent more than {most} bytes of result.")
        if not chunk.more:
            found.setdefault(chunk.output, {})[chunk.party] = b"".join(parts)
            parts = []
    if parts:
        raise ProtocolError("The coordinator sent a result that breaks off.")
    return found


def _open(services: Services, bound: BoundJob, recipient: str, sealed: Sealed) -> dict[str, Floats]:
    """Every output, from the shares of all parties. Raises ProtocolError if one is missing."""
    trust = services.credentials.renewed().trust
    key = load_recipient_key(services.profile.recipients, recipient, trust)
    found: dict[str, Floats] = {}
    check_complete(bound, recipient, sealed)
    for output, parts in sealed.items():
        if parts.keys() != set(bound.parties):
            missing = sorted(set(bound.parties) - parts.keys())
            raise ProtocolError(
                f"The share of {output} of {', '.join(missing) or 'a stranger'} is not as it"
                " should be.",
                hint="Fetch the result again; without all shares there is no result.",
                job=bound.job_id,
            )
        shares, scales = [], set()
        for party in bound.parties:
            context = sealing_context(bound.job_id, bound.attempt, party, output, bound.digest())
            sender = Identity(services.profile.project, Role.PARTY, party)
            plain = unseal(parts[party], key, context=context, sender=sender, trust=trust)
            share, scale = decode_output(plain, str(sender))
            shares.append(share)
            scales.add((scale, share.shape))
        if len(scales) != 1:
            raise ProtocolError(f"The shares of {output} have different shapes or scales.")
        ((scale, _),) = scales
        found[output] = from_fixed(sharing.join(shares), scale)
    return found


def promised(bound: BoundJob, recipient: str) -> set[str]:
    """Names of the outputs that a job seals to `recipient`."""
    spec, names = bound.spec, set[str]()
    if recipient in (spec.model_output.sealed_to or ()):
        names |= _model_outputs(bound)
        if spec.data.standardize:
            names |= {"mean", "inverse_deviation"}
    if recipient in spec.reveal.to:
        names |= {f"{METRIC}{metric}" for metric in spec.reveal.metrics}
    return names


def _model_outputs(bound: BoundJob) -> set[str]:
    """Names of the arrays that a model consists of, standardisation aside."""
    model = bound.spec.model
    if isinstance(model, SequentialSpec):
        return set(network_of(model, len(bound.features)).parameters())
    return {"weights", "intercept"} if model.fit_intercept else {"weights"}


def check_complete(bound: BoundJob, recipient: str, outputs: Iterable[str]) -> None:
    """ProtocolError if what came is not all that was promised: a model without its mean is wrong.

    Every output is signed by itself, so whoever relays them could leave one out.
    """
    found, due = set(outputs), promised(bound, recipient)
    if found != due:
        what = ", ".join(sorted(due - found)) or "nothing"
        more = ", ".join(sorted(found - due))
        raise ProtocolError(
            f"The result of job {bound.job_id} lacks {what}"
            + (f" and holds {more}, which was not promised." if more else "."),
            hint="Fetch the result again; do not use what came.",
            job=bound.job_id,
        )


def _metric(name: str, value: Floats) -> Any:
    if name == "confusion":
        return [[round(count) for count in row] for row in value.tolist()]
    return float(value.reshape(-1)[0])


def write_receipt(result: Result, path: Path) -> None:
    """Write the receipt of a result as JSON, if it has one. Raises InputError if it cannot be."""
    if result.receipt is None:
        return
    try:
        path.write_text(json.dumps(result.receipt.content, indent=1) + "\n", encoding="ascii")
    except OSError as error:
        raise InputError(
            f"The receipt {path} cannot be written: {error.strerror}.",
            hint="Choose another place with --receipt.",
            file=str(path),
        ) from None
