"""`masque demo`."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from masque.client import console
from masque.client.commands.options import Json

TERMINATED = 143


def demo(
    parties: Annotated[int, typer.Option(help="Computing parties, 2 to 16.")] = 2,
    data: Annotated[
        str, typer.Option(help="breast-cancer, diabetes, digits, iris or wine.")
    ] = "breast-cancer",
    profile: Annotated[
        Path | None,
        typer.Option("--profile", metavar="FILE", help="Use these services, start none."),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="D", help="Keep files and logs in D.")
    ] = None,
    json: Json = False,
) -> None:
    """Two hospitals train one model without showing each other a patient."""
    from masque.client import demo as steps
    from masque.client import demo_report
    from masque.client.display import following

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise SystemExit(TERMINATED)  # so that services are stopped on the way out

    previous = signal.signal(signal.SIGTERM, end)
    say = console.note if json else console.line
    try:
        with following(quiet=False, stream=sys.stderr if json else None) as show:
            report = steps.run(data, parties, profile, show, say, keep)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if json:
        console.emit(demo_report.as_json(report))
    else:
        demo_report.show(report)
