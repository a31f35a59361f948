"""The pages keep their word: every command and snippet runs, every name and path exists.

Blocks marked `sh` and `python` of a page run in order, in one shell, in a directory that stands
for a clone. One that cannot run there is preceded by a comment naming what runs it:

    <!-- run by: .ci/run -->                          each of its lines is a line of that file
    <!-- run by: tests/test_project.py::test_x -->    that test runs it

Commands inside sentences (`masque train job.yaml`, `make bench`) are held against the command
line's own list of commands and options, the Makefile and the source tree.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(
    r"^(?:<!-- run by: (?P<by>\S+) -->\n)?```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S
)
RUN = {"sh", "python"}
SHOWN = {"", "text", "yaml", "yaml policy", "yaml conditions", "yaml service", "json"}
"""What a page may show without anybody running it; yaml is read by what it is meant for."""

TREE = (*"masque services docs tests protos benchmarks requirements deploy".split(), ".ci")
PATIENCE = 300


@dataclass(frozen=True)
class Snippet:
    """A fenced block: its language, its text, its line in the page, and who else runs it."""

    kind: str
    text: str
    line: int
    by: str | None


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def snippets(page: Path) -> list[Snippet]:
    text = page.read_text("utf-8")
    return [
        Snippet(m["kind"], m["text"], text.count("\n", 0, m.start("text")) + 1, m["by"])
        for m in FENCE.finditer(text)
    ]


def runnable(page: Path) -> list[Snippet]:
    return [part for part in snippets(page) if part.kind in RUN and part.by is None]


def inline(page: Path) -> Iterator[str]:
    """Everything between single backticks, fenced blocks aside."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.M | re.S)
    for text in re.findall(r"`([^`]+)`", prose):
        yield " ".join(text.split())


# -- what runs ---------------------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A directory that stands for a fresh clone after `make setup`; its services are stopped."""
    place = tmp_path / "masque"
    place.mkdir()
    (place / ".venv").symlink_to(sys.prefix, target_is_directory=True)
    yield place
    for network in place.rglob("network.json"):
        masque = Path(sys.prefix) / "bin" / "masque"
        subprocess.run([masque, "local", "down", "--dir", network.parent], check=True)


def script(parts: list[Snippet], page: str) -> str:
    """One bash script of all blocks, which says of each where it stands before it runs."""
    lines = ["set -euo pipefail"]
    for part in parts:
        lines.append(f"echo '## {page}, line {part.line}'")
        if part.kind == "python":
            lines += ["python - <<'END OF SNIPPET'", part.text + "END OF SNIPPET"]
        else:
            lines.append(part.text)
    return "\n".join(lines) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if runnable(p)], ids=name_of)
def test_every_block_runs_in_order(page: Path, clone: Path) -> None:
    environment = {
        "HOME": str(clone.parent),
        "PATH": os.pathsep.join([str(Path(sys.prefix) / "bin"), "/usr/bin", "/bin"]),
        "LANG": "C.UTF-8",
        "PYTHONWARNINGS": "error",
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        ["bash", "-s"],
        input=script(runnable(page), name_of(page)),
        cwd=clone,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_is_run_or_shown(page: Path) -> None:
    text = page.read_text("utf-8")
    parts = snippets(page)
    assert len(re.findall(r"^```", text, re.M)) == 2 * len(parts), "a fence is not closed"
    for part in parts:
        assert part.kind in RUN | SHOWN, f"{name_of(page)}, line {part.line}: {part.kind}"
        if part.kind not in RUN:
            assert part.by is None
            assert not re.search(r"^\$? ?(masque|make|python|pip) ", part.text, re.M), (
                f"{name_of(page)}, line {part.line}: commands belong into a block marked sh"
            )
    shown = re.findall(r"^ {4}(?:\$ )?((?:masque|make|python|pip) .*)$", FENCE.sub("", text), re.M)
    assert shown == [], "commands belong into a block marked sh"


@pytest.mark.parametrize(
    ("page", "part"),
    [(page, part) for page in PAGES for part in snippets(page) if part.by is not None],
    ids=lambda value: name_of(value) if isinstance(value, Path) else f"line {value.line}",
)
def test_what_runs_elsewhere_runs_there(page: Path, part: Snippet) -> None:
    assert part.by is not None
    file, _, test = part.by.partition("::")
    text = (ROOT / file).read_text("utf-8")
    if test:
        assert re.search(rf"^def {re.escape(test)}\(", text, re.M)
        return
    for line in part.text.splitlines():
        command = line.partition(" #")[0].strip()
        assert re.search(rf"^\s*{re.escape(command)}(\s|$)", text, re.M), f"{file}: {command}"


# -- files that pages show ---------------------------------------------------------------------


def shown(page: str) -> list[str]:
    return [part.text for part in snippets(ROOT / "docs" / page) if part.kind == "yaml"]


def test_the_schema_in_the_page_is_one(tmp_path: Path) -> None:
    from masque.data.schema import load

    whole, labels = shown("data.md")
    path = tmp_path / "schema.yaml"
    path.write_text(whole)
    assert load(path).columns
    for line in labels.splitlines():
        path.write_text("columns: {age: {type: integer, range: [0, 120]}}\n" + line + "\n")
        assert load(path).label is not None


def test_the_profile_in_the_page_is_one(tmp_path: Path) -> None:
    from masque.client.profile import load

    (text,) = shown("cli.md")
    (tmp_path / "profile.yaml").write_text(text)
    assert load(tmp_path / "profile.yaml").name == "analyst"


@pytest.mark.parametrize("role", ["dealer", "party", "coordinator"])
def test_the_files_of_services_in_the_page_are_whole(role: str, tmp_path: Path) -> None:
    """They are read as the services read them, and show every key but those on the page's table."""
    from importlib import import_module

    from masque.wire.settings import ServiceSettings, load_settings

    kind = getattr(import_module(f"services.{role}.settings"), f"{role.title()}Settings")
    assert issubclass(kind, ServiceSettings)
    text = (ROOT / "docs" / "services.md").read_text("utf-8")
    block = (
        text.partition(f"\n## {role.title()}\n")[2].partition("```yaml\n")[2].partition("```")[0]
    )
    (tmp_path / "service.yaml").write_text(block)
    settings = load_settings(kind, tmp_path / "service.yaml")
    for key in kind.model_fields:
        assert key in settings.model_fields_set or f"`{key}`" in text, key


def test_parts_of_services_files_in_pages_are_keys_of_every_service(tmp_path: Path) -> None:
    from masque.wire.settings import load_settings
    from services.dealer.settings import DealerSettings

    parts = [p.text for page in PAGES for p in snippets(page) if p.kind == "yaml service"]
    assert parts
    for part in parts:
        path = tmp_path / "service.yaml"
        path.write_text("name: a\nproject: demo\ntls: {directory: certificates}\n" + part)
        assert len(load_settings(DealerSettings, path).model_fields_set) > 3


# -- what is only named ------------------------------------------------------------------------


def mentioned() -> list[tuple[Path, str]]:
    """Commands in sentences and in blocks that others run."""
    return [(page, text) for page in PAGES for text in inline(page)]


def masque_commands() -> list[tuple[str, str]]:
    """Every `masque ...` in a page or in the text of an error, with the file where it stands."""
    found = [(name_of(page), text) for page, text in mentioned()]
    for folder in ("masque", "services"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            texts = re.findall(r"`([^`\n]+)`", path.read_text("utf-8"))
            found += [(name_of(path), text) for text in texts]
    return sorted({pair for pair in found if re.fullmatch(r"masque [a-z].*", pair[1])})


def test_commands_in_sentences_exist() -> None:
    import typer.main

    from masque.client.app import app

    for place, text in masque_commands():
        command = typer.main.get_command(app)
        words = shlex.split(text)[1:]
        while words and hasattr(command, "commands") and not words[0].startswith("-"):
            word = words.pop(0)
            assert word in command.commands, f"{place}: masque has no command {word!r}"
            command = command.commands[word]
        options = {name for option in command.params for name in option.opts}
        used = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert used <= {*options, "--help"}, f"{place}: {text}"


def test_targets_of_make_exist() -> None:
    rules = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page, text in mentioned():
        if text.startswith("make "):
            targets = [word for word in shlex.split(text)[1:] if re.fullmatch("[a-z-]+", word)]
            assert set(targets) <= rules, f"{page.name}: {text}"


def test_paths_in_sentences_exist() -> None:
    wrong = []
    for page, text in mentioned():
        path = text.split("::")[0]
        if not re.fullmatch(r"[\w.*-]+(/[\w.*-]*)+", path) or path.split("/")[0] not in TREE:
            continue
        if not any(ROOT.glob(path)) and not (ROOT / f"{path}.py").exists():
            wrong.append((page.name, text))
    assert wrong == []


def test_modules_in_sentences_exist() -> None:
    import importlib.util

    for page, text in mentioned():
        found = re.match(r"python -m ([\w.]+)", text)
        if found:
            assert importlib.util.find_spec(found[1]), f"{page.name}: {text}"
        elif re.fullmatch(r"(masque|services)(\.\w+)+", text):
            parts = text.split(".")
            places = [ROOT.joinpath(*parts[:n]) for n in (len(parts), len(parts) - 1)]
            assert any(p.is_dir() or p.with_suffix(".py").exists() for p in places), text


def test_every_page_is_reached_from_the_readme() -> None:
    """Internal links resolve (see test_project), and no page is an orphan."""
    seen: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or not page.exists():
            continue
        seen.add(page)
        for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", page.read_text("utf-8")):
            if "://" not in target and (page.parent / target).suffix == ".md":
                waiting.append((page.parent / target).resolve())
    assert [name_of(page) for page in PAGES if page not in seen] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_anchors_of_links_exist(page: Path) -> None:
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.S)
    for target, anchor in re.findall(r"\]\(([^)\s#]*)#([^)\s]+)\)", text):
        if "://" in target:
            continue
        other = (page.parent / target).resolve() if target else page
        headings = re.findall(r"^#+ (.*)$", other.read_text("utf-8"), re.M)
        assert anchor in {anchor_of(heading) for heading in headings}, f"{target}#{anchor}"


def anchor_of(heading: str) -> str:
    """The anchor that a forge makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def test_floors_in_the_readme_are_those_of_the_contract() -> None:
    import tomllib

    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = next(c["layers"] for c in contracts["contracts"] if c["type"] == "layers")
    wanted = [layer.split("|")[0].split(".")[0:2] for layer in layers]
    names = ["services/*" if top == "services" else f"{top}/{rest}" for top, rest in wanted]
    names = [name.strip() for name in names if name.strip() != "masque/v1"]
    for page in ("README.md", "docs/architecture.md"):
        listed = re.findall(r"^\| `([\w/*]+)` \|", (ROOT / page).read_text(), re.M)
        assert [name for name in listed if name in names] == names, page
