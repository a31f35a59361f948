"""`masque train`, `jobs`, `watch`, `cancel`, `result`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import JobFile, JobId, Json, ProfilePath


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
    from masque.client import display
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
            view.error.message if view.error else display.waiting(view.progress),
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
    receipt: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where the receipt goes; by default beside the model."),
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
    """Open the result of a job with your private key: metrics, and the model to a file.

    The receipt, which all parties have signed, goes beside the model, as JOB.receipt.json.
    """
    from masque.client import export, opening, planning
    from masque.client.profile import load
    from masque.client.services import Services

    if out is not None:
        export.format_of(out, form)
    with Services(load(profile)) as services:
        found = opening.fetch(services, job, recipient)
    about: dict[str, Any] = {"job": job, "metrics": found.metrics}
    if found.privacy:
        about["privacy"] = found.privacy
    model = found.model if out is not None or found.has_model else None
    written = export.write(model, out, form, about) if out is not None and model else None
    if receipt is None and out is not None:
        receipt = out.with_name(f"{job}.receipt.json")
    if receipt is not None:
        opening.write_receipt(found, receipt)
    if json:
        content: dict[str, Any] = {**about, "recipient": found.recipient}
        content["receipt"] = str(receipt) if receipt and found.receipt else None
        if model is not None:
            content["model"] = export.as_json(model, {})
        console.emit(content | {"file": str(out) if written else None, "format": written})
    else:
        for name, value in found.metrics.items():
            console.line(f"{name}: {value:.6f}" if isinstance(value, float) else f"{name}: {value}")
        _show_network(model)
        for text in planning.privacy_lines(found.privacy):
            console.line(text)
        if written:
            console.line(f"model: {out} ({written})")
        elif model is not None:
            console.line("model: give --out FILE.onnx, .npz, .safetensors or .json to write it")
        if found.receipt and receipt:
            console.line(f"receipt: {receipt}")
    if found.receipt is None:
        console.warn("the job has no receipt: its parties, or the coordinator, gave none")
    for warning in model.warnings if model else ():
        console.warn(warning)


def _show_network(model: Any) -> None:
    """A line for every layer of a network; nothing for other models."""
    from masque.client.network_model import NetworkModel

    if not isinstance(model, NetworkModel):
        return
    rows: list[tuple[Any, ...]] = [*model.lines()]
    total = sum(count for *_, count in rows)
    console.table(["layer", "kind", "a row", "parameters"], [*rows, ("", "all", "", total)])


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
