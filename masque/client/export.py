"""Models to files: npz, safetensors, ONNX, JSON. Everything needed to predict is inside.

What was learned goes in by the names of `Predictor.arrays`, all else as JSON text.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from masque.client.predictor import Predictor
from masque.errors import InputError
from masque.jobs.complaints import suggestion
from masque.version import __version__

MOST_LINES = 10_000
"""Numbers of a JSON file with more than these stand on one line."""

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
    model: Predictor,
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


def facts(model: Predictor, about: Mapping[str, Any]) -> dict[str, Any]:
    """What is public about a model, ready for JSON; its numbers aside."""
    return {
        "format": "masque model 1",
        "masque": __version__,
        "kind": model.kind,
        "features": list(model.features),
        "label": model.label,
        "classes": list(model.classes),
        "warnings": list(model.warnings),
        **model.description(),
        **about,
    }


def as_json(model: Predictor, about: Mapping[str, Any]) -> dict[str, Any]:
    """Everything of a model, ready for JSON."""
    return facts(model, about) | {name: array.tolist() for name, array in model.arrays().items()}


def _json(model: Predictor, about: dict[str, Any]) -> bytes:
    return (json.dumps(as_json(model, about), indent=_indent(model)) + "\n").encode()


def _indent(model: Predictor) -> int | None:
    """Numbers stand on lines of their own while a person could read them."""
    return 2 if sum(array.size for array in model.arrays().values()) <= MOST_LINES else None


def _npz(model: Predictor, about: dict[str, Any]) -> bytes:
    import io

    content = io.BytesIO()
    entries: dict[str, Any] = {
        "features": np.array(model.features, dtype=np.str_),
        "classes": np.array(model.classes, dtype=np.str_),
        "label": np.array(model.label),
        "kind": np.array(model.kind),
        "about": np.array(json.dumps(facts(model, about))),
        **model.arrays(),
    }
    np.savez(content, **entries)
    return content.getvalue()


def _safetensors(model: Predictor, about: dict[str, Any]) -> bytes:
    try:
        from safetensors.numpy import save
    except ImportError:
        raise not_installed("safetensors") from None
    tensors = {name: np.ascontiguousarray(array) for name, array in model.arrays().items()}
    return bytes(save(tensors, metadata={"masque": json.dumps(facts(model, about))}))


def _onnx(model: Predictor, about: dict[str, Any]) -> bytes:
    try:
        from masque.client.onnx_graph import model_bytes
    except ImportError:
        raise not_installed("onnx") from None
    return model_bytes(model, facts(model, about))


def not_installed(package: str) -> InputError:
    """The error for a format whose package is an extra."""
    return InputError(
        f"{package} is not installed.", hint="Install it: pip install 'masque[export]'."
    )


_WRITERS: Mapping[str, Callable[[Predictor, dict[str, Any]], bytes]] = {
    "npz": _npz,
    "safetensors": _safetensors,
    "onnx": _onnx,
    "json": _json,
}
