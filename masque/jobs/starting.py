"""Models that training starts from: what is public about them, and do they fit the job?

Such a model is shared like a data set of one column: its parameters, in the order of
`Network.parameters`, each in C order, at `DATA_SCALE` fraction bits. What it computes must mean the
same in the new job: the same layers, columns, ranges and label. Dropout, and how fast running
moments move, are of training alone and may change.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from math import prod
from typing import Any

from masque.data.table import FeatureColumn, LabelInfo, ModelInfo, TableInfo, canonical_json
from masque.jobs.complaints import Complaint
from masque.jobs.networks import described
from masque.ml.network import Network

WHERE = ("model", "start_from")


def model_info(
    network: Network,
    columns: Iterable[tuple[str, float, float]],
    label: LabelInfo,
    *,
    standardized: bool,
) -> ModelInfo:
    """What is public about a network that reads `columns`: (name, middle, half) of each."""
    return ModelInfo(
        architecture=canonical_json(_architecture(network)).decode("ascii"),
        columns=_digest([list(column) for column in columns]),
        predicted=_digest([label.name, label.kind, label.classes, label.middle, label.half]),
        standardized=standardized,
    )


def columns_of(features: Iterable[FeatureColumn]) -> list[tuple[str, float, float]]:
    """Name, middle and half of columns."""
    return [(feature.name, feature.middle, feature.half) for feature in features]


def complaints_about_start(
    name: str, info: TableInfo, network: Network, due: ModelInfo
) -> Iterator[Complaint]:
    """What does not fit between a job and the model `name` that it is to start from.

    `due`: what the job's own model will be.
    """
    model = info.model
    if model is None:
        yield Complaint(
            WHERE,
            f"{name!r} is a data set, not a model",
            "Name one that was shared by `masque share-model`.",
        )
        return
    count = sum(prod(parameter.shape) for parameter in network.parameters().values())
    if model.architecture != due.architecture or info.rows != count:
        problem = _layers_differ(model.architecture, due.architecture)
        yield Complaint(
            WHERE,
            f"{name!r} is another network: {problem or f'it has {info.rows} parameters'}",
            "Write the same input_shape and layers as the job that it comes from.",
        )
    for part, what, cure in (
        ("columns", "other columns, or columns with other ranges", "Share with its schema."),
        ("predicted", "another label", "Share with its schema."),
        ("standardized", "columns that were" + " not" * due.standardized + " standardized", ""),
    ):
        if getattr(model, part) != getattr(due, part):
            default = f"Write standardize: {str(model.standardized).lower()}."
            yield Complaint(WHERE, f"{name!r} was trained on {what}", cure or default)


def _architecture(network: Network) -> dict[str, Any]:
    layers = [described(layer) for layer in network.layers if layer.kind != "dropout"]
    kept = [{k: v for k, v in layer.items() if k != "momentum"} for layer in layers]
    return {"input_shape": list(network.input_shape), "layers": kept}


def _layers_differ(mine: str, theirs: str) -> str:
    """The first difference of two architectures in words."""
    try:
        one, two = json.loads(mine), json.loads(theirs)
        if one["input_shape"] != two["input_shape"]:
            return f"it reads {one['input_shape']}, this job's {two['input_shape']}"
        for index, (a, b) in enumerate(zip(one["layers"], two["layers"], strict=False)):
            if a != b:
                return (
                    f"layer {index}, not counting dropout, is {_words(a)}, this job's {_words(b)}"
                )
        if len(one["layers"]) != len(two["layers"]):
            counts = len(one["layers"]), len(two["layers"])
            return f"it has {counts[0]} layers besides dropout, this job's has {counts[1]}"
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return "its description cannot be read"
    return ""


def _words(layer: dict[str, Any]) -> str:
    return "{" + ", ".join(f"{key}: {value}" for key, value in sorted(layer.items())) + "}"


def _digest(content: Any) -> str:
    return hashlib.sha256(canonical_json(content)).hexdigest()
