"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
ProfilePath = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        envvar="MASQUE_PROFILE",
        metavar="FILE",
        help="Who you are and where the services are.",
    ),
]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="The id that `masque train` printed.")]
JobFile = Annotated[Path, typer.Argument(metavar="JOB.YAML", help="The job file; see docs/job.md.")]
