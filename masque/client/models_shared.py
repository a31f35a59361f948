"""A model's file to shares at all parties, so that training can start from it.

Nobody but the owner of the file sees its parameters; what is public is the network's layers, and
digests of the columns and the label that it was trained on (`masque.jobs.starting`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from masque.client.network_model import NetworkModel
from masque.client.predictor import Floats, Predictor
from masque.client.reading import read
from masque.client.services import Peer
from masque.client.sharing import Attach, Shared, send
from masque.data.encode import to_fixed
from masque.data.shares import CHUNK_BYTES, Chunk
from masque.data.table import PARAMETER_BOUND, LabelInfo, TableInfo, describe_model
from masque.errors import InputError
from masque.jobs.starting import model_info
from masque.mpc import prg, sharing

ROWS = CHUNK_BYTES // 8


@dataclass(frozen=True)
class ModelStream:
    """A checked model, ready to be sent: as `masque.data.shares.ShareStream`."""

    info: TableInfo
    parties: int
    randomness: sharing.Randomness = field(repr=False)
    words: NDArray[np.uint64] = field(repr=False)
    identifiers: None = None

    def chunks(self) -> Iterator[Chunk]:
        """All parameters in order; each run is a fresh, whole sharing."""
        for first in range(0, len(self.words), ROWS):
            part = self.words[first : first + ROWS].reshape(-1, 1)
            yield Chunk(first, len(part), tuple(sharing.split(part, self.parties, self.randomness)))


def share_model(
    parties: Sequence[Peer],
    path: str | Path,
    name: str,
    *,
    replace: bool = False,
    conditions: Attach | None = None,
) -> Shared:
    """Read the model, check it, split it, upload it; `conditions` as for `sharing.share`.

    Raises InputError for a file that is no network or holds parameters that cannot be shared,
    Conflict for a name that exists, Unavailable.
    """
    model = network_in(path)
    words = to_fixed(flattened(model, path))
    randomness = prg.reader(secrets.token_bytes(prg.SEED_SIZE))
    info = described(model, path)
    stream = ModelStream(info, len(parties), randomness, words)
    return send(parties, stream, name, replace=replace, conditions=conditions)


def network_in(path: str | Path) -> NetworkModel:
    """The network in a file that `masque result` wrote. Raises InputError if it is none."""
    model: Predictor = read(path)
    if not isinstance(model, NetworkModel):
        raise InputError(
            f"{path} holds a {model.kind}, and training can start from networks only.",
            hint="Linear models are trained from the beginning.",
            file=str(path),
        )
    return model


def flattened(model: NetworkModel, path: str | Path) -> Floats:
    """All parameters in their order. Raises InputError naming one that cannot be shared."""
    for name, values in model.parameters.items():
        if not bool(np.all(np.abs(values) <= PARAMETER_BOUND)):
            what = "beyond" if bool(np.all(np.isfinite(values))) else "not a number, or beyond"
            raise InputError(
                f"{path}: a value of the parameter {name} is {what} ±{PARAMETER_BOUND:g}.",
                hint="Training cannot start from it: has it diverged?",
                file=str(path),
                parameter=name,
            )
    return np.concatenate([values.ravel() for values in model.parameters.values()])


def described(model: NetworkModel, path: str | Path) -> TableInfo:
    """What everybody may know of a shared model. Raises InputError if its label cannot be."""
    before = model.preprocessing
    try:
        label = LabelInfo(
            name=model.label,
            kind=model.target,
            classes=model.classes,
            middle=model.label_middle,
            half=model.label_half,
        )
    except ValueError:
        raise InputError(
            f"{path}: its label cannot be that of a data set.",
            hint="Write the model again: `masque result JOB --out FILE`.",
            file=str(path),
        ) from None
    columns = zip(model.features, before.middle.tolist(), before.half.tolist(), strict=True)
    standardized = bool(before.mean.any() or (before.inverse_deviation != 1).any())
    info = model_info(model.network, columns, label, standardized=standardized)
    return describe_model(sum(values.size for values in model.parameters.values()), info)
