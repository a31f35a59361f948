"""The bill of materials lists what the lock has, and says what of it the image has."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from deploy import requirements, sbom

ROOT = Path(__file__).resolve().parents[2]


def test_it_is_valid_and_lists_the_lock_with_its_hashes(tmp_path: Path) -> None:
    path = tmp_path / "build" / "sbom.json"
    subprocess.run([sys.executable, "-m", "deploy.sbom", path], check=True, cwd=ROOT)
    text = path.read_text()
    assert sbom.problem(text) is None
    bill = json.loads(text)
    assert bill["bomFormat"] == "CycloneDX"
    root = bill["metadata"]["component"]
    assert (root["name"], root["licenses"][0]["license"]["id"]) == ("masque", "Apache-2.0")
    listed = {f"{part['name']}=={part['version']}": part for part in bill["components"]}
    for locked, lines in requirements.blocks():
        part = listed[f"{locked.name}{locked.specifier}"]
        hashes = [h["content"] for ref in part["externalReferences"] for h in ref["hashes"]]
        assert sorted(hashes) == sorted(re.findall("sha256:([0-9a-f]{64})", lines)) != []
    assert len(listed) == len(requirements.blocks())
    image = re.findall(r"^([a-z0-9-]+)==", requirements.RUNTIME.read_text("utf-8"), re.M)
    required = [part for part in listed.values() if part["scope"] == "required"]
    assert {part["name"] for part in required} == set(image) and len(required) == len(set(image))
    root_depends = bill["dependencies"]
    direct = next(p["dependsOn"] for p in root_depends if p["ref"] == root["bom-ref"])
    assert {part["bom-ref"] for part in required if part["name"] == "cryptography"} < set(direct)


def test_what_is_no_bill_of_materials_is_told() -> None:
    bill = sbom.bill()
    del bill["components"][0]["name"]
    assert "name" in (sbom.problem(json.dumps(bill)) or "")


def test_make_sbom_writes_it() -> None:
    text = (ROOT / "Makefile").read_text()
    assert re.search(r"^sbom: setup ## .*\n\t@\$\(BIN\)/python -m deploy\.sbom ", text, re.M)
