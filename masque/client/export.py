"""Models to files: npz, safetensors, ONNX, JSON. Everything needed to predict is inside.

ONNX: input `X` float32 [rows, features] in the owners' units; outputs `prediction` float32 [rows]
for numbers, or `label` [rows] and `probabilities` float32 [rows, classes]. Inside it computes in
double precision.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from masque.client.model import Model
from masque.errors import InputError
from masque.jobs.complaints import suggestion
from masque.version import __version__

OPSET = 17
IR_VERSION = 8
SUFFIXES: Mapping[str, str] = {
    ".npz": "npz",
    ".safetensors": "safetensors",
    ".onnx": "onnx",
    ".json": "json",
}
"""Which format a file name asks for."""


def format_of(path: str | Path, chosen: str | None = None) -> str:
    """The format `chosen`, or that of the file name. Raises InputError, naming those there are."""
    known = tuple(SUFFIXES.values())
    if chosen is not None:
        if chosen not in known:
            raise InputError(
                f"There is no format {chosen!r}.", hint=suggestion(chosen, known), field="format"
            )
        return chosen
    found = SUFFIXES.get(Path(path).suffix.lower())
    if found is None:
        raise InputError(
            f"The name {Path(path).name!r} does not say which format to write.",
            hint=f"End it with {', '.join(SUFFIXES)}, or give --format.",
            file=str(path),
        )
    return found


def write(
    model: Model,
    path: str | Path,
    chosen: str | None = None,
    about: Mapping[str, Any] | None = None,
) -> str:
    """Write the model to `path`, whole or not at all; returns the format.

    `about` is public text that goes into the file, such as job and metrics.
    """
    name = format_of(path, chosen)
    content = _WRITERS[name](model, dict(about or {}))
    target = Path(path)
    beside = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        beside.write_bytes(content)
        beside.replace(target)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise InputError(
            f"{target} cannot be written: {error.strerror}.",
            hint="Choose another place, or mend its permissions.",
            file=str(target),
        ) from None
    return name


def facts(model: Model, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is public about a model, ready for JSON; its numbers aside."""
    return {
        "format": "masque model 1",
        "masque": __version__,
        "kind": model.kind,
        "features": list(model.features),
        "label": model.label,
        "classes": list(model.classes),
        "warnings": list(model.warnings),
        **about,
    }


def as_json(model: Model, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a model, ready for JSON."""
    return facts(model, about) | {
        "coefficients": model.coefficients.tolist(),
        "intercept": model.intercept.tolist(),
    }


def read_json(path: str | Path) -> Model:
    """The model in a JSON file that `write` wrote. Raises InputError if it is not one."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        return Model(
            content["kind"],
            tuple(content["features"]),
            content["label"],
            tuple(content["classes"]),
            np.array(content["coefficients"], dtype=np.float64),
            np.array(content["intercept"], dtype=np.float64),
            tuple(content["warnings"]),
        )
    except (OSError, ValueError, KeyError, TypeError):
        raise InputError(
            f"{path} is not a model that Masque wrote as JSON.",
            hint="Write one with `masque result JOB --out model.json`.",
            file=str(path),
        ) from None


def _json(model: Model, about: dict[str, Any]) -> bytes:
    return (json.dumps(as_json(model, about), indent=2) + "\n").encode()


def _npz(model: Model, about: dict[str, Any]) -> bytes:
    import io

    content = io.BytesIO()
    np.savez(
        content,
        coefficients=model.coefficients,
        intercept=model.intercept,
        features=np.array(model.features, dtype=np.str_),
        classes=np.array(model.classes, dtype=np.str_),
        label=np.array(model.label),
        kind=np.array(model.kind),
        about=np.array(json.dumps(facts(model, about))),
    )
    return content.getvalue()


def _safetensors(model: Model, about: dict[str, Any]) -> bytes:
    try:
        from safetensors.numpy import save
    except ImportError:
        raise _not_installed("safetensors") from None
    tensors = {
        "coefficients": np.ascontiguousarray(model.coefficients),
        "intercept": np.ascontiguousarray(model.intercept),
    }
    return bytes(save(tensors, metadata={"masque": json.dumps(facts(model, about))}))


def _onnx(model: Model, about: dict[str, Any]) -> bytes:
    try:
        import onnx
        from onnx import TensorProto, helper
    except ImportError:
        raise _not_installed("onnx") from None
    nodes, outputs, constants = _graph(model, helper, TensorProto)
    graph = helper.make_graph(
        nodes,
        "masque",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["rows", len(model.features)])],
        outputs,
        constants,
    )
    made = helper.make_model(
        graph,
        producer_name="masque",
        producer_version=__version__,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    helper.set_model_props(made, {"masque": json.dumps(facts(model, about))})
    onnx.checker.check_model(made)
    return bytes(made.SerializeToString())


def _graph(model: Model, helper: Any, types: Any) -> tuple[list[Any], list[Any], list[Any]]:
    """Nodes, outputs and constants of a model's graph."""
    constants = [
        _tensor(helper, "coefficients", types.DOUBLE, model.coefficients),
        _tensor(helper, "intercept", types.DOUBLE, model.intercept),
    ]
    node = helper.make_node
    nodes = [
        node("Cast", ["X"], ["wide"], to=types.DOUBLE),
        node("MatMul", ["wide", "coefficients"], ["products"]),
        node("Add", ["products", "intercept"], ["scores"]),
    ]
    if model.kind == "linear_regression":
        constants.append(_tensor(helper, "last", types.INT64, np.array([1])))
        nodes += [
            node("Squeeze", ["scores", "last"], ["flat"]),
            node("Cast", ["flat"], ["prediction"], to=types.FLOAT),
        ]
        outputs = [helper.make_tensor_value_info("prediction", types.FLOAT, ["rows"])]
        return nodes, outputs, constants
    if model.kind == "logistic_regression":
        constants.append(_tensor(helper, "one", types.DOUBLE, np.array([1.0])))
        nodes += [
            node("Sigmoid", ["scores"], ["positive"]),
            node("Sub", ["one", "positive"], ["negative"]),
            node("Concat", ["negative", "positive"], ["exact"], axis=1),
        ]
    else:
        nodes.append(node("Softmax", ["scores"], ["exact"], axis=1))
    values = model.class_values
    kind = types.INT64 if values.dtype.kind == "i" else types.STRING
    constants.append(_tensor(helper, "classes", kind, values))
    nodes += [
        node("ArgMax", ["exact"], ["place"], axis=1, keepdims=0),
        node("Gather", ["classes", "place"], ["label"], axis=0),
        node("Cast", ["exact"], ["probabilities"], to=types.FLOAT),
    ]
    width = len(model.classes)
    outputs = [
        helper.make_tensor_value_info("label", kind, ["rows"]),
        helper.make_tensor_value_info("probabilities", types.FLOAT, ["rows", width]),
    ]
    return nodes, outputs, constants


def _tensor(helper: Any, name: str, kind: int, values: Any) -> Any:
    array = np.asarray(values)
    flat = [str(value).encode() for value in array] if array.dtype.kind == "U" else array.ravel()
    return helper.make_tensor(name, kind, list(array.shape), flat)


def _not_installed(package: str) -> InputError:
    return InputError(
        f"{package} is not installed.", hint="Install it: pip install 'masque[export]'."
    )


_WRITERS: Mapping[str, Callable[[Model, dict[str, Any]], bytes]] = {
    "npz": _npz,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "json": _json,
}
