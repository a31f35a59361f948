"""The command line `masque`.

Exit codes: 0 done; 1 anything not listed; 2 wrong usage; 3 bad input (file, row, column named);
4 the job cannot be accepted or was refused; 5 a service does not answer; 6 certificates and keys;
7 a job ended without a result; 8 the name, port or job exists already; 9 no such thing;
10 a service broke the protocol; 130 interrupted.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Annotated, NoReturn

import typer

from masque.client import console
from masque.client.commands import (
    approve,
    audit,
    config,
    data,
    demo,
    doctor,
    jobs,
    local,
    pki,
    plan,
)
from masque.client.commands.evidence import ledger_app, receipt_app
from masque.client.commands.options import Json
from masque.client.commands.provision import provision

app = typer.Typer(
    name="masque",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Train machine-learning models on data that nobody is allowed to see.",
    epilog="Exit codes: 0 done, 1 failed, 2 usage, 3 bad input, 4 job refused, 5 service does not "
    "answer, 6 certificates, 7 job failed, 8 exists already, 9 not found, 10 protocol broken, "
    "130 interrupted. MASQUE_DEBUG=1 shows tracebacks. Try: masque demo",
)

app.command(epilog="Example: masque demo --parties 3 --data iris")(demo.demo)
app.add_typer(local.app, name="local")
app.command(epilog="Example: masque share patients.csv --schema s.yaml --name hospital-a")(
    data.share
)
app.command("share-model", epilog="Example: masque share-model model.npz --as first-model")(
    data.share_model
)
app.command(epilog="Example: masque datasets --json")(data.datasets)
app.command(epilog="Example: masque delete hospital-a")(data.delete)
app.command(epilog="Example: masque plan job.yaml --offline --table a=schema.yaml:1000")(plan.plan)
app.command(epilog="Example: masque calibrate --quick")(plan.calibrate)
app.command(epilog="Example: masque doctor --config party.yaml")(doctor.doctor)
app.command(epilog="Example: masque train job.yaml --watch")(jobs.train)
app.command("jobs", epilog="Example: masque jobs --limit 5")(jobs.jobs)
app.command(epilog="Example: masque watch breast-cancer-1f2e3d4c5b6a")(jobs.watch)
app.command(epilog="Example: masque cancel breast-cancer-1f2e3d4c5b6a")(jobs.cancel)
app.command(epilog="Example: masque approve breast-cancer-1f2e3d4c5b6a")(approve.approve)
app.command(epilog="Example: masque result breast-cancer-1f2e3d4c5b6a --out model.onnx")(
    jobs.result
)
app.command(
    "audit-model",
    epilog="Example: masque audit-model m.npz --members a.csv --nonmembers b.csv --schema s.yaml",
)(audit.audit_model)
app.add_typer(data.schema_app, name="schema")
app.add_typer(pki.app, name="pki")
app.add_typer(ledger_app, name="ledger")
app.add_typer(receipt_app, name="receipt")
for role, group in config.groups.items():
    app.add_typer(group, name=role)
app.command(epilog="Example: masque provision project.yaml --authority authority --out kits")(
    provision
)


@app.command(epilog="Example: masque version --json")
def version(json: Json = False) -> None:
    """Print the version."""
    from masque.version import __version__

    console.emit({"version": __version__}) if json else console.line(__version__)


def _show_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def _top(
    show_version: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    del show_version


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        app(given, prog_name="masque")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except KeyboardInterrupt:
        console.note("interrupted")
        return console.INTERRUPTED
    except Exception as error:
        return console.fail(error, as_json="--json" in given)
    return 0


def program() -> NoReturn:
    """`main`, then out at once: threads of gRPC may outlast an interpreter that takes its time."""
    code = main()
    with contextlib.suppress(OSError):  # whoever read what we wrote may have left
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    program()
