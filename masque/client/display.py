"""The progress of a job as it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from masque.client import console

if TYPE_CHECKING:
    from masque.client.jobs import JobEvent

Show = Callable[["JobEvent"], None]
Count = Callable[[int, int, str], None]


@contextlib.contextmanager
def following(*, quiet: bool, stream: TextIO | None = None) -> Iterator[Show]:
    """What to call with every event; writes to `stream`, standard output by default."""
    target = stream or sys.stdout
    if quiet:
        yield lambda _: None
    elif target.isatty():
        with _bar(target) as show:
            yield show
    else:
        yield _lines(target)


def describe(event: JobEvent) -> str:
    """One line about an event."""
    progress = event.progress
    parts = [event.state]
    if progress.of and event.state == "training":
        parts.append(f"round {progress.round} of {progress.of} ({progress.round_name})")
    if progress.exchanges:
        parts.append(f"{progress.exchanges:,} rounds of messages")
        parts.append(console.size(progress.bytes_sent))
    if progress.stopped and event.ended:
        parts.append("stopped early")
    return ", ".join(parts)


def _lines(target: TextIO) -> Show:
    """A line for every state, and for about ten of the training rounds."""
    seen: set[tuple[str, int]] = set()

    def show(event: JobEvent) -> None:
        progress = event.progress
        every = max(1, progress.of // 10)
        training = event.state == "training"
        key = (event.state, progress.round if training else 0)
        if key in seen or (training and progress.round % every and progress.round != 1):
            return
        seen.add(key)
        print(f"  {describe(event)}", file=target, flush=True)

    return show


@contextlib.contextmanager
def _bar(target: TextIO) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(file=target)) as bar:
        task = bar.add_task("submitted", total=None, detail="")

        def show(event: JobEvent) -> None:
            progress = event.progress
            done = progress.of if event.state in ("finishing", "succeeded") else progress.round - 1
            bar.update(
                task,
                description=event.state,
                total=progress.of or None,
                completed=max(0, done),
                detail=f"{progress.round_name} {console.size(progress.bytes_sent)}",
            )

        yield show


@contextlib.contextmanager
def counting(*, quiet: bool, stream: TextIO | None = None) -> Iterator[Count]:
    """What to call with (done, of, what comes now); writes to `stream`, standard error by default:
    a bar on a terminal, lines elsewhere.
    """
    target = stream or sys.stderr
    if quiet:
        yield lambda *_: None
        return
    if not target.isatty():
        yield lambda done, of, what: print(f"  {done + 1} of {of}: {what}", file=target, flush=True)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (BarColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=Console(file=target), transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, of, what: bar.update(task, completed=done, total=of, description=what)
