"""The part of kustomize that `deploy/kubernetes` uses, so that its tests need no kustomize.

Resources and directories of them, components, strategic merges, generated ConfigMaps, images, a
namespace; whatever else a kustomization names is an error. Where kubectl is, a test holds this
against it.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Resource = dict[str, Any]

FEATURES = {
    *("apiVersion", "kind", "namespace", "resources"),
    *("components", "configMapGenerator", "images", "patches"),
}
KEYS = {
    "containers": ("name",),
    "env": ("name",),
    "ports": ("port", "containerPort"),
    "volumeMounts": ("mountPath",),
    "volumes": ("name",),
}
"""Lists that a strategic merge joins by a key of their items; it replaces other lists."""


def render(folder: Path) -> list[Resource]:
    """What `kubectl kustomize` prints for this directory, in no particular order."""
    return _build(folder, [], "Kustomization")


def _build(folder: Path, found: list[Resource], kind: str) -> list[Resource]:
    (wanted,) = documents(folder / "kustomization.yaml")
    assert wanted["kind"] == kind
    assert set(wanted) <= FEATURES, f"{folder}: the tests know no {set(wanted) - FEATURES}"
    for name in wanted.get("resources", []):
        path = folder / name
        found += render(path) if path.is_dir() else documents(path)
    for name in wanted.get("components", []):
        found = _build(folder / name, found, "Component")
    for entry in wanted.get("configMapGenerator", []):
        _generate(folder, entry, found)
    for entry in wanted.get("patches", []):
        text = entry.get("patch") or (folder / entry["path"]).read_text("utf-8")
        (patch,) = yaml.safe_load_all(text)
        _patch(found, patch)
    for entry in wanted.get("images", []):
        _retag(found, entry)
    if "namespace" in wanted:
        _place(found, wanted["namespace"])
    return found


def documents(path: Path) -> list[Resource]:
    """The documents of a YAML file."""
    return [item for item in yaml.safe_load_all(path.read_text("utf-8")) if item]


def pods(resources: list[Resource]) -> Iterator[Resource]:
    """The templates of pods among them."""
    for resource in resources:
        template = resource.get("spec", {}).get("template")
        if template:
            yield template


def _generate(folder: Path, entry: Resource, found: list[Resource]) -> None:
    """A ConfigMap whose name tells its content, and references to it follow."""
    assert set(entry) == {"name", "files"}
    data = {Path(name).name: (folder / name).read_text("utf-8") for name in entry["files"]}
    content = {"data": data, "kind": "ConfigMap", "name": ""}
    name = f"{entry['name']}-{_suffix(content)}"
    for template in pods(found):
        for volume in template["spec"].get("volumes", []):
            source = volume.get("configMap", {})
            if source.get("name") == entry["name"]:
                source["name"] = name
    found.append(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    )


def _suffix(content: Resource) -> str:
    text = json.dumps(content, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    return digest.translate(str.maketrans("013ae", "ghkmt"))


def _patch(found: list[Resource], patch: Resource) -> None:
    def about(item: Resource) -> tuple[str, str]:
        return item["kind"], item["metadata"]["name"]

    (target,) = (index for index, item in enumerate(found) if about(item) == about(patch))
    found[target] = merged(found[target], patch)


def merged(base: Any, patch: Any, key: str = "") -> Any:
    """A strategic merge; new items of a list come first, as with kustomize."""
    if isinstance(base, dict) and isinstance(patch, dict):
        result = {name: copy.deepcopy(value) for name, value in base.items() if name not in patch}
        for name, value in patch.items():
            result[name] = merged(base[name], value, name) if name in base else value
        return result
    if isinstance(base, list) and isinstance(patch, list) and key in KEYS:
        by = next(name for name in KEYS[key] if name in patch[0])
        changes = {item[by]: item for item in patch}
        old = {item[by] for item in base}
        fresh = [item for item in patch if item[by] not in old]
        return fresh + [merged(item, changes.get(item[by], {})) for item in base]
    return copy.deepcopy(patch)


def _retag(found: list[Resource], entry: Resource) -> None:
    assert set(entry) == {"name", "newTag"}
    for template in pods(found):
        for container in template["spec"]["containers"]:
            if container["image"].partition(":")[0] == entry["name"]:
                container["image"] = f"{entry['name']}:{entry['newTag']}"


def _place(found: list[Resource], namespace: str) -> None:
    for item in found:
        field = "name" if item["kind"] == "Namespace" else "namespace"
        item["metadata"][field] = namespace
