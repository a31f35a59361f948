"""`masque share`, `datasets`, `delete`, `schema draft`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import Json, ProfilePath

schema_app = typer.Typer(no_args_is_help=True, help="Schemas: what the columns of a file are.")


Conditions = Annotated[
    Path | None,
    typer.Option(
        "--conditions",
        metavar="C",
        help="What may be done with it, to be signed with your key: docs/policy.md.",
    ),
]


def share(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or Parquet.")],
    schema: Annotated[Path, typer.Option("--schema", metavar="S", help="Its schema file.")],
    name: Annotated[str, typer.Option("--name", metavar="N", help="What jobs will call it.")],
    replace: Annotated[bool, typer.Option("--replace", help="Replace a data set of ours.")] = False,
    conditions: Conditions = None,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Split a file into random shares, one for each party; nobody gets the file."""
    from masque.client import sharing
    from masque.client.profile import load
    from masque.client.services import Services

    allowed = _loaded(conditions)
    with Services(load(profile)) as services, _bar(quiet=json) as progress:
        attach = sharing.signing(allowed, services.credentials.renewed()) if allowed else None
        shared = sharing.share(
            services.parties,
            file,
            schema,
            name,
            replace=replace,
            conditions=attach,
            progress=progress,
        )
    if json:
        _emit_shared(shared)
        return
    console.line(
        f"{shared.name}: {shared.info.rows:,} rows, {shared.info.columns} columns;"
        f" {console.size(shared.info.share_bytes)} of random numbers to each of"
        f" {', '.join(shared.parties)}"
    )


def share_model(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A network: .npz, .safetensors or .json.")
    ],
    name: Annotated[
        str, typer.Option("--as", "--name", metavar="N", help="What model.start_from will call it.")
    ],
    replace: Annotated[bool, typer.Option("--replace", help="Replace a model of ours.")] = False,
    conditions: Conditions = None,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Split the parameters of a network into random shares, for training to start from it."""
    from masque.client import models_shared, sharing
    from masque.client.profile import load
    from masque.client.services import Services

    allowed = _loaded(conditions)
    with Services(load(profile)) as services:
        attach = sharing.signing(allowed, services.credentials.renewed()) if allowed else None
        shared = models_shared.share_model(
            services.parties, file, name, replace=replace, conditions=attach
        )
    if json:
        _emit_shared(shared)
        return
    console.line(
        f"{shared.name}: a model of {shared.info.rows:,} parameters;"
        f" {console.size(shared.info.share_bytes)} of random numbers to each of"
        f" {', '.join(shared.parties)}"
    )


def datasets(profile: ProfilePath = None, json: Json = False) -> None:
    """List the data sets that the parties hold shares of."""
    from masque.client import datasets as held
    from masque.client.profile import load
    from masque.client.services import Services

    with Services(load(profile)) as services:
        views = held.datasets(services.parties)
    if json:
        console.emit({"datasets": [_view(view) for view in views]})
        return
    rows = [
        (
            view.name,
            view.info.rows,
            len(view.info.features),
            "(a model)" if view.info.model else view.info.label.name if view.info.label else "-",
            view.owner,
            view.created[:19].replace("T", " "),
            view.problem,
        )
        for view in views
    ]
    console.table(["name", "rows", "features", "label", "owner", "shared", ""], rows)
    for view in views:
        if view.conditions is not None:
            console.line(
                f"conditions of {view.owner} for {view.name}: {view.conditions.in_words()}"
            )


def delete(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `masque datasets` lists it.")],
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Remove a data set of yours from every party."""
    from masque.client import datasets as held
    from masque.client.profile import load
    from masque.client.services import Services

    with Services(load(profile)) as services:
        parties = held.delete(services.parties, name)
    if json:
        console.emit({"name": name, "parties": parties})
        return
    console.line(f"{name}: removed from {', '.join(parties)}")


@schema_app.command(epilog="Example: masque schema draft patients.csv --label sick --out s.yaml")
def draft(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="CSV or Parquet.")],
    label: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where it goes, else printed.")
    ] = None,
    json: Json = False,
) -> None:
    """Write a first schema for a file, to be reviewed: what stands in it becomes public."""
    from masque.client.files import write_new
    from masque.data.draft import draft as drafted

    text = drafted(file, label)
    if out is not None:
        write_new(out, text)
    if json:
        console.emit({"schema": text, "file": str(out) if out else None})
    elif out is not None:
        console.line(f"{out}: review every line before you share anything with it")
    else:
        print(text, end="")


@contextlib.contextmanager
def _bar(quiet: bool) -> Iterator[Callable[..., None] | None]:
    """A progress bar on a terminal; nothing elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("checking", total=None)

        def show(phase: str, done: int, total: int | None) -> None:
            words = "checking" if phase == "check" else "sharing"
            bar.update(task, description=words, completed=done, total=total)

        yield show


def _loaded(path: Path | None) -> Any:
    """Conditions from their file, before anything is sent."""
    from masque.jobs import conditions

    return conditions.load(path) if path is not None else None


def _emit_shared(shared: Any) -> None:
    console.emit(
        {
            "name": shared.name,
            "upload": shared.upload_id,
            "rows": shared.info.rows,
            "columns": shared.info.columns,
            "bytes_sent": shared.bytes_sent,
            "parties": shared.parties,
        }
    )


def _view(view: Any) -> dict[str, Any]:
    return {
        "name": view.name,
        "owner": view.owner,
        "created": view.created,
        "parties": view.parties,
        "problem": view.problem,
        "conditions": view.conditions.given if view.conditions else None,
        "table": view.info.model_dump(mode="json"),
    }
