"""`masque doctor`."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer

from masque.client import console
from masque.client.commands.options import Json, ProfilePath

COLOURS = {"ok": "32", "warn": "33", "fail": "31"}


def doctor(
    config: Annotated[
        Path | None,
        typer.Option("--config", metavar="FILE", help="A service's file, on the service's host."),
    ] = None,
    job: Annotated[
        Path | None, typer.Option("--job", metavar="JOB.YAML", help="A job to predict.")
    ] = None,
    table: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=SCHEMA:ROWS", help="A data set that the job names."),
    ] = None,
    profile: ProfilePath = None,
    json: Json = False,
) -> None:
    """Look whether this host is ready for a job, and say of each thing that is not what to do.

    With --config as that service, otherwise as the client of the profile. Takes 15 seconds at
    most. The exit code is that of the first line that failed.
    """
    from masque.client import machine, planning
    from masque.client.doctor import subject
    from masque.client.doctor.report import examine
    from masque.jobs import spec

    found = subject.of_service(config) if config else subject.of_client(profile)
    report = examine(
        found,
        machine.read(found.file.resolve().parent / machine.FILE),
        job=spec.load(job) if job else None,
        tables=planning.tables_of(table or []),
    )
    if json:
        console.emit(report.as_json())
    else:
        _show(report)
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _show(report: Any) -> None:
    from masque.client.doctor.findings import Level
    from masque.version import __version__
    from masque.wire.protocol import protocol_digest

    console.line(
        f"{report.subject.identity} ({report.subject.file}), Masque {__version__}, "
        f"protocol {protocol_digest().hex()[:12]}"
    )
    for about, findings in groupby(report.findings, key=lambda finding: finding.about):
        console.line(f"\n{about}")
        for finding in findings:
            level = console.coloured(f"{finding.level.value:<4}", COLOURS[finding.level.value])
            console.line(f"  {level}  {finding.check:<11}  {finding.says}")
            if finding.cure:
                console.line(f"        -> {finding.cure}")
    if report.forecast is not None:
        _show_forecast(report.forecast)
    wrong, doubtful = report.count(Level.FAIL), report.count(Level.WARN)
    console.line(
        f"\n{wrong} failed, {doubtful} doubtful." if wrong or doubtful else "\nAll is well."
    )


def _show_forecast(forecast: Any) -> None:
    link = forecast.link
    whose = "" if forecast.between else ", if the parties are as far apart as they are from here"
    console.line(
        f"\nwith {1e3 * link.round_trip:.1f} ms and {console.size(link.bandwidth)}/s between "
        f"parties{whose}"
    )
    rows = [
        (f"  {p.what}", p.rounds, console.size(p.sent_by_a_party), _time(p.seconds))
        for p in forecast.predictions
    ]
    console.table(["  predicted", "rounds", "a party sends", "time"], rows)


def _time(seconds: float) -> str:
    return f"{1e3 * seconds:.1f} ms" if seconds < 1 else console.duration(seconds)
