"""`masque plan`, `calibrate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import JobFile, Json, ProfilePath


def plan(
    job: JobFile,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no service; describe data by --table.")
    ] = False,
    table: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SCHEMA:ROWS",
            help="A data set, whether or not it exists; a model: NAME=FILE.",
        ),
    ] = None,
    parties: Annotated[int | None, typer.Option(help="Instead of the profile's.")] = None,
    latency: Annotated[
        float | None,
        typer.Option(help="Milliseconds of a round trip between parties, to be added."),
    ] = None,
    bandwidth: Annotated[
        float | None,
        typer.Option(help="Megabytes a second of a link that everything sent goes through."),
    ] = None,
    bounds: Annotated[
        bool, typer.Option("--bounds", help="Show what bounds every value of a step.")
    ] = False,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Tell what a job will cost before anything runs, and what bounds its values."""
    from masque.client import planning
    from masque.jobs import spec

    parsed = spec.load(job)
    machine = _machine(profile, latency, bandwidth)
    tables = planning.tables_of(table or [])
    count = parties or 2
    if not offline:
        held, known = _held(profile)
        tables = [*[t for t in held if t.name not in {x.name for x in tables}], *tables]
        count = parties or known
    found = planning.plan(parsed, tables, count, machine)
    if json:
        console.emit(found.as_json())
    else:
        _show(found)
        _show_values(found, every=bounds)
    for concern in found.ranges.concerns if found.ranges else ():
        console.warn(concern.message)


def calibrate(
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer passes: less exact, in a third of the time.")
    ] = False,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Measure the services by a few short jobs on made-up data, for the times that plan tells."""
    from masque.client import calibration, machine
    from masque.client.display import counting
    from masque.client.profile import find, load
    from masque.client.services import Services

    with Services(load(profile)) as services, counting(quiet=json) as show:
        found = calibration.calibrate(services, show, quick=quick)
    path = find(profile).resolve().parent / machine.FILE
    machine.write(path, found)
    if json:
        console.emit(found.model_dump(mode="json") | _summary(found) | {"file": str(path)})
    else:
        _show_calibration(found)
        console.line(f"\nWritten to {path}; `masque plan` goes by it.")
    if found.worst_error > calibration.POOR:
        console.warn(
            f"The times of these jobs are explained only within {found.worst_error:.0%}. Calibrate"
            " again when the machine has nothing else to do."
        )


def _summary(found: Any) -> dict[str, Any]:
    return {
        "worst_error": round(found.worst_error, 3),
        "samples": [{**s.model_dump(), "error": round(s.error, 3)} for s in found.samples],
    }


def _show_calibration(found: Any) -> None:
    rows = [
        (s.job, f"{1e3 * s.measured:.1f} ms", f"{1e3 * s.fitted:.1f} ms", f"{100 * s.error:+.0f} %")
        for s in found.samples
    ]
    console.table(["one pass over the rows", "measured", "fitted", "off by"], rows)


def _machine(profile: Path | None, latency: float | None, bandwidth: float | None) -> Any:
    """The profile's machine, or the built-in one; with the network that was named."""
    from dataclasses import replace

    from masque.client import machine
    from masque.errors import InputError

    for name, value in (("latency", latency), ("bandwidth", bandwidth)):
        if value is not None and not 0 < value < 1e9:
            raise InputError(f"--{name} cannot be {value:g}.", hint="Give a positive number.")
    found = machine.read(profile.resolve().parent / machine.FILE) if profile else machine.Machine()
    if latency is not None:
        found = replace(found, latency=latency / 1e3)
    return found if bandwidth is None else replace(found, bandwidth=bandwidth * 1e6)


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


def _show(found: Any) -> None:
    from masque.client import planning

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
    console.line(f"\nRounds and bytes are exact; {_whose(found)}")
    console.line(
        f"Memory: a party needs {console.size(found.memory)} at most (beside its"
        " limits.prefetch_bytes), and keeps that free of other jobs."
    )
    for name, bits, to in _grouped(found.openings):
        console.line(f"Opened to {', '.join(to)}: {name}, {bits} bits")
    for text in planning.privacy_lines(found.privacy):
        console.line(text)


def _show_values(found: Any, *, every: bool) -> None:
    """What bounds a step: a line a layer, or a line a value."""
    from masque.client import values

    console.line()
    if every or not found.ranges.layers:
        console.table(values.VALUES, values.one_by_one(found.ranges))
    else:
        console.table(values.LAYERS, values.by_layer(found.ranges))
    console.line(
        f"\nWhatever the data are, no number takes more than {found.total.bits:.1f} of the ring's"
        " 62 bits: that follows from the ranges of columns and the bounds in the job."
    )


def _whose(found: Any) -> str:
    """Whose figures the time is by."""
    calibration = found.machine.calibration
    if calibration is None:
        return (
            "the time is an estimate by built-in figures, for all services on two cores:"
            " `masque calibrate` measures yours."
        )
    others = "" if calibration.parties == found.parties else f" with {calibration.parties} parties"
    return (
        f"the time is an estimate, calibrated{others} on {calibration.date[:10]}"
        f" ({calibration.processor}, {calibration.cores} cores)."
    )


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
