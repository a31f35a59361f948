"""The progress of a job as it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

from masque.client import console

if TYPE_CHECKING:
    from masque.client.jobs import JobEvent
    from masque.jobs.record import Progress as Record

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
    why = waiting(progress)
    if why and not event.ended:
        return f"{event.state} {why}" if why.startswith("for ") else f"{event.state}: {why}"
    parts = [event.state]
    if event.state == "preparing" and progress.attempt > 1:
        parts.append(f"attempt {progress.attempt}")
    if progress.of and event.state == "training":
        parts.append(f"round {progress.round} of {progress.of} ({progress.round_name})")
    if progress.exchanges:
        parts.append(f"{progress.exchanges:,} rounds of messages")
        parts.append(console.size(progress.bytes_sent))
    if progress.stopped and event.ended:
        parts.append("stopped early")
    return ", ".join(parts)


def waiting(progress: Record) -> str:
    """Why a job waits, for whom, and where it goes on; or how it ended, if that was badly."""
    if not progress.reason or progress.state not in ("submitted", "waiting"):
        return progress.reason
    told = progress.culprit and progress.culprit not in progress.reason
    text = f"for {progress.culprit}: {progress.reason}" if told else progress.reason
    if progress.state == "submitted":
        return text
    of = f" of {progress.of}" if progress.of else ""
    where = f"goes on after round {progress.round}{of}" if progress.round else "begins anew"
    return f"{text}; then it {where}"


def _lines(target: TextIO) -> Show:
    """A line for every state of an attempt, and for about ten of the training rounds."""
    seen: set[tuple[int, str, int, str]] = set()
    begun: set[int] = set()

    def show(event: JobEvent) -> None:
        progress = event.progress
        every = max(1, progress.of // 10)
        training = event.state == "training"
        key = (progress.attempt, event.state, progress.round if training else 0, progress.reason)
        if key in seen or (training and progress.round % every and progress.attempt in begun):
            return
        seen.add(key)
        if training:
            begun.add(progress.attempt)
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
            done = progress.of if event.state in ("finishing", "succeeded") else progress.round
            if event.state == "training":
                done -= 1
            bar.update(
                task,
                description=event.state,
                total=progress.of or None,
                completed=max(0, done),
                detail=waiting(progress)
                or f"{progress.round_name} {console.size(progress.bytes_sent)}",
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
