"""Models back from the files that `masque.client.export` wrote: npz, safetensors, JSON."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from masque.client.export import format_of, not_installed
from masque.client.model import Model
from masque.client.network_model import NetworkModel, Preprocessing
from masque.client.predictor import Floats, Predictor
from masque.errors import InputError
from masque.jobs.models import SequentialSpec
from masque.jobs.networks import complaints_about_network, network_of

FORMAT = "masque model 1"
PREPROCESSING = ("middle", "half", "mean", "inverse_deviation")
_DAMAGED = (
    *(ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError),
    *(EOFError, MemoryError, RuntimeError, zipfile.BadZipFile),  # RecursionError among the fourth
)
"""What reading damaged files raises."""

BOUNDS = ("weight_bound", "activation_bound", "gradient_bound")


def read(path: str | Path, chosen: str | None = None) -> Predictor:
    """The model in a file. Raises InputError if it is none, or is not whole.

    `chosen`: its format, if the name does not tell.
    """
    name = format_of(path, chosen)
    if name not in _READERS:
        raise InputError(
            f"{path} cannot be read back: Masque only writes ONNX.",
            hint="Write the model as .npz, .safetensors or .json as well.",
            file=str(path),
        )
    try:
        facts, arrays = _READERS[name](Path(path))
        if facts["format"] != FORMAT:
            raise ValueError(f"it has the format {facts['format']!r}")
        network = facts["kind"] == "sequential"
        return _network(facts, arrays) if network else _linear(facts, arrays)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror or 'it is not whole'}.",
            hint="Check the path.",
            file=str(path),
        ) from None
    except _DAMAGED:
        raise InputError(
            f"{path} is not a model that Masque wrote as {name}.",
            hint="Write one with `masque result JOB --out FILE`.",
            file=str(path),
        ) from None


def _linear(facts: Mapping[str, Any], arrays: Mapping[str, Floats]) -> Model:
    model = Model(
        facts["kind"],
        tuple(facts["features"]),
        facts["label"],
        tuple(facts["classes"]),
        _array(arrays, "coefficients", None),
        _array(arrays, "intercept", None),
        warnings=tuple(facts["warnings"]),
    )
    outputs = len(model.classes) if model.target == "classes" else 1
    if model.coefficients.shape != (len(model.features), outputs):
        raise ValueError("shapes do not fit")
    if model.intercept.shape != (outputs,):
        raise ValueError("shapes do not fit")
    return model


def _network(facts: Mapping[str, Any], arrays: Mapping[str, Floats]) -> NetworkModel:
    fields = {name: facts[name] for name in ("kind", "input_shape", "layers", *BOUNDS)}
    spec = _sequential(fields)
    features = tuple(facts["features"])
    network = network_of(spec, len(features))
    columns = (len(features),)
    before = [_array(arrays, name, columns) for name in PREPROCESSING]
    if not all(np.isfinite(array).all() for array in before):
        raise ValueError("columns are not finite numbers")
    return NetworkModel(
        "sequential",
        features,
        facts["label"],
        tuple(facts["classes"]),
        network,
        Preprocessing(*before),
        {name: _array(arrays, name, p.shape) for name, p in network.parameters().items()},
        float(facts["label_middle"]),
        float(facts["label_half"]),
        warnings=tuple(facts["warnings"]),
    )


def _sequential(fields: Mapping[str, Any]) -> SequentialSpec:
    try:
        spec = SequentialSpec.model_validate(fields)
    except ValidationError:
        raise ValueError("layers are not those of a job file") from None
    if list(complaints_about_network(spec)):
        raise ValueError("layers do not fit together")
    return spec


def _array(arrays: Mapping[str, Any], name: str, shape: tuple[int, ...] | None) -> Floats:
    found = np.array(arrays[name], dtype=np.float64)
    if shape is not None and found.shape != shape:
        raise ValueError(f"{name} has another shape")
    return found


def _json(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content, content


def _npz(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    with zipfile.ZipFile(path) as parts:
        stored = all(part.compress_type == zipfile.ZIP_STORED for part in parts.infolist())
    if not stored:  # what is not packed has no more bytes than the file
        raise ValueError("it was packed")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        found = {name: arrays[name] for name in arrays.files}
    return json.loads(str(found["about"])), found


def _safetensors(path: Path) -> tuple[dict[str, Any], Mapping[str, Any]]:
    try:
        from safetensors import SafetensorError, safe_open
    except ImportError:
        raise not_installed("safetensors") from None
    try:
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return json.loads((file.metadata() or {})["masque"]), tensors
    except SafetensorError:
        raise ValueError("it is not whole") from None


_READERS: Mapping[str, Callable[[Path], tuple[dict[str, Any], Mapping[str, Any]]]] = {
    "json": _json,
    "npz": _npz,
    "safetensors": _safetensors,
}
