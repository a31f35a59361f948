"""`masque plan`, `train`, `jobs`, `watch`, `cancel`, `result`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import JobFile, JobId, Json, ProfilePath


def plan(
    job: JobFile,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no service; describe data by --table.")
    ] = False,
    table: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SCHEMA:ROWS", help="A data set, whether or not it exists."),
    ] = None,
    parties: Annotated[int | None, typer.Option(help="Instead of the profile's.")] = None,
    latency: Annotated[
        float | None, typer.Option(help="Milliseconds of a round trip between parties.")
    ] = None,
    bandwidth: Annotated[
        float | None, typer.Option(help="Megabytes a second of a link between parties.")
    ] = None,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Tell what a job will cost before anything runs: rounds, bytes, material, time."""
    from masque.client import planning
    from masque.jobs import spec

    parsed = spec.load(job)
    machine = _machine(planning.Machine(), latency, bandwidth)
    tables = planning.tables_of(table or [])
    count = parties or 2
    if not offline:
        held, known = _held(profile)
        tables = [*[t for t in held if t.name not in {x.name for x in tables}], *tables]
        count = parties or known
    found = planning.plan(parsed, tables, count, machine)
    if json:
        console.emit(found.as_json())
        return
    _show_plan(found)


def train(
    job: JobFile,
    watch: Annotated[bool, typer.Option("--watch", help="Wait for the end.")] = False,
    job_id: Annotated[
        str | None, typer.Option("--id", metavar="ID", help="Instead of one drawn at random.")
    ] = None,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Submit a job; prints its id. The same file under the same --id is one job."""
    from masque.client import jobs
    from masque.client.profile import load
    from masque.client.services import Services

    text, parsed = jobs.read_job(job)
    with Services(load(profile)) as services:
        submitted = jobs.submit(services, text, parsed, job_id)
        if not watch:
            console.emit({"job": submitted}) if json else console.line(submitted)
            return
        last = _follow(services, submitted, quiet=json, head=submitted)
    if json:
        console.emit({"job": submitted, **_event(last)})


def jobs(
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1, max=1000)] = 20,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """List the jobs at the coordinator."""
    from masque.client import jobs as at_coordinator
    from masque.client.profile import load
    from masque.client.services import Services

    with Services(load(profile)) as services:
        views = at_coordinator.listed(services, limit)
    if json:
        console.emit({"jobs": [_job(view) for view in views]})
        return
    rows = [
        (
            view.job_id,
            view.state,
            f"{view.progress.round}/{view.progress.of}" if view.progress.of else "-",
            view.submitted[:19].replace("T", " "),
            view.client,
            view.error.message if view.error else "",
        )
        for view in views
    ]
    console.table(["job", "state", "round", "submitted", "by", ""], rows)


def watch(job: JobId, profile: ProfilePath = None, json: Json = False) -> None:
    """Follow a job until it has ended. With --json, one object a line, an event each."""
    import json as text

    from masque.client import jobs as at_coordinator
    from masque.client.profile import load
    from masque.client.services import Services

    with Services(load(profile)) as services:
        if not json:
            _follow(services, job, quiet=False)
            return
        last = None
        for last in at_coordinator.watch(services, job):
            print(text.dumps(_event(last)), flush=True)
        if last is not None and last.state != "succeeded":
            raise typer.Exit(7)


def cancel(job: JobId, profile: ProfilePath = None, json: Json = False) -> None:
    """End a job of yours at every service."""
    from masque.client import jobs as at_coordinator
    from masque.client.profile import load
    from masque.client.services import Services

    with Services(load(profile)) as services:
        state = at_coordinator.cancel(services, job)
    console.emit({"job": job, "state": state}) if json else console.line(f"{job}: {state}")


def result(
    job: JobId,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="Where the model goes.")
    ] = None,
    form: Annotated[
        str | None,
        typer.Option("--format", help="npz, safetensors, onnx or json; else by the file name."),
    ] = None,
    recipient: Annotated[
        str | None, typer.Option("--as", metavar="NAME", help="Open it as this recipient.")
    ] = None,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Open the result of a job with your private key: metrics, and the model to a file."""
    from masque.client import export, opening
    from masque.client.profile import load
    from masque.client.services import Services

    if out is not None:
        export.format_of(out, form)
    with Services(load(profile)) as services:
        found = opening.fetch(services, job, recipient)
    about = {"job": job, "metrics": found.metrics}
    model = found.model if out is not None or found.has_model else None
    written = export.write(model, out, form, about) if out is not None and model else None
    if json:
        content: dict[str, Any] = {**about, "recipient": found.recipient}
        if model is not None:
            content["model"] = export.as_json(model, {})
        console.emit(content | {"file": str(out) if written else None, "format": written})
    else:
        for name, value in found.metrics.items():
            console.line(f"{name}: {value:.6f}" if isinstance(value, float) else f"{name}: {value}")
        if written:
            console.line(f"model: {out} ({written})")
        elif model is not None:
            console.line("model: give --out FILE.onnx, .npz, .safetensors or .json to write it")
    for warning in model.warnings if model else ():
        console.warn(warning)


def _machine(machine: Any, latency: float | None, bandwidth: float | None) -> Any:
    from dataclasses import replace

    from masque.errors import InputError

    for name, value in (("latency", latency), ("bandwidth", bandwidth)):
        if value is not None and not 0 < value < 1e9:
            raise InputError(f"--{name} cannot be {value:g}.", hint="Give a positive number.")
    if latency is not None:
        machine = replace(machine, latency=latency / 1e3)
    return machine if bandwidth is None else replace(machine, bandwidth=bandwidth * 1e6)


def _held(profile: Path | None) -> tuple[list[Any], int]:
    """The data sets that all parties hold alike, and how many parties there are."""
    from masque.client import datasets
    from masque.client.profile import load
    from masque.client.services import Services
    from masque.jobs.held import agreed_tables

    with Services(load(profile)) as services:
        found = datasets.everywhere(services.parties)
    agreed, _ = agreed_tables({p: [h.table for h in held] for p, held in found.items()})
    return agreed, len(found)


def _show_plan(found: Any) -> None:
    total = found.total
    console.line(
        f"{found.job}: {found.rows:,} rows, {found.features} features, {found.parties} parties\n"
    )
    rows = [
        (
            part.name,
            part.rounds,
            console.size(part.sent_by_a_party),
            console.size(sum(part.corrections)),
            f"{part.multiplications / 1e6:.2f} M",
            console.duration(part.seconds),
        )
        for part in (*_shortened(found.parts), total)
    ]
    console.table(
        ["training round", "rounds", "a party sends", "dealer sends", "products", "time"], rows
    )
    console.line("\nRounds and bytes are exact; the time is an estimate for services on one host.")
    for name, bits, to in _grouped(found.openings):
        console.line(f"Opened to {', '.join(to)}: {name}, {bits} bits")


def _shortened(parts: Any) -> list[Any]:
    """Epochs summed up in one line, so that a plan fits a screen and its lines add up."""
    from itertools import groupby

    from masque.client.planning import summed

    shown: list[Any] = []
    for stem, members in groupby(parts, key=lambda part: part.name.split()[0]):
        same = list(members)
        if stem == "epoch" and len(same) > 2:
            name = f"{same[0].name} to {same[-1].name.removeprefix('epoch ')}"
            same = [summed(name, same)]
        shown += same
    return shown


def _grouped(openings: Any) -> list[tuple[str, int, tuple[str, ...]]]:
    """Openings of the same kind together."""
    if len(openings) <= 8:
        return list(openings)
    first, last = openings[0], openings[-1]
    bits = sum(bits for _, bits, _ in openings)
    return [(f"{first[0]} ... {last[0]} ({len(openings)} openings)", bits, first[2])]


def _follow(services: Any, job_id: str, *, quiet: bool, head: str | None = None) -> Any:
    from masque.client import jobs as at_coordinator
    from masque.client.display import following

    if head and not quiet:
        console.line(head)
    last = None
    try:
        with following(quiet=quiet) as show:
            for last in at_coordinator.watch(services, job_id):
                show(last)
    except KeyboardInterrupt:
        console.note(f"The job goes on. To end it: masque cancel {job_id}")
        raise
    assert last is not None, "watch yields or raises"
    return at_coordinator.check(last, job_id)


def _event(event: Any) -> dict[str, Any]:
    return {
        "state": event.state,
        "ended": event.ended,
        "progress": vars(event.progress),
        "error": str(event.error) if event.error else None,
    }


def _job(view: Any) -> dict[str, Any]:
    return {
        **vars(view),
        "progress": vars(view.progress),
        "error": str(view.error) if view.error else None,
    }
