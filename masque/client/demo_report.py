"""What the demo prints at its end."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from masque.client import console
from masque.client.demo import Report


def as_json(report: Report) -> dict[str, Any]:
    """All of it, ready for JSON."""
    return {
        "data": report.data,
        "parties": report.parties,
        "job": report.job_id,
        "rows": report.rows,
        "held_out": {
            "masque": report.masque.named(),
            "scikit_learn": report.clear.named(),
        },
        "revealed": report.revealed,
        "scikit_learn_on_the_same_rows": report.clear_on_revealed_rows.named(),
        "training_rounds": report.training_rounds,
        "rounds": report.exchanges,
        "bytes_sent": report.seen.sent,
        "seconds": {name: round(value, 3) for name, value in report.seconds.items()},
        "total_seconds": round(sum(report.seconds.values()), 3),
        "seen": asdict(report.seen),
        "warnings": list(report.warnings),
    }


def show(report: Report) -> None:
    """All of it, for a person."""
    _quality(report)
    _work(report)
    _saw(report)
    for warning in report.warnings:
        console.warn(warning)


def _quality(report: Report) -> None:
    rows = report.rows
    console.line(
        f"\n{report.data}: trained on {rows['trained on']} rows of hospitals that never showed"
        " them to anybody\n"
    )
    clear = report.clear.named()
    table: list[tuple[str, str, str]] = [
        (
            f"{_name(name)} on {rows['held out by the demo']} held-out rows",
            f"{value:.4f}",
            f"{clear[name]:.4f}",
        )
        for name, value in report.masque.named().items()
    ]
    beside = report.clear_on_revealed_rows.named()
    for name, value in report.revealed.items():
        if isinstance(value, float):
            other = f"{beside[name]:.4f}" if name in beside else "-"
            what = f"{_name(name)} on {rows['held out in the job']} rows, computed on shares"
            table.append((what, f"{value:.4f}", other))
    console.table(["", "Masque", "scikit-learn, in the clear"], table)


def _work(report: Report) -> None:
    console.line(
        f"\n{report.training_rounds} training rounds, {report.exchanges:,} rounds of messages"
    )
    sent = ", ".join(f"{name} {console.size(n)}" for name, n in report.seen.sent.items())
    console.line(f"bytes sent: {sent}")
    where = ", ".join(f"{name} {value:.1f} s" for name, value in report.seconds.items())
    console.line(f"time: {where}; {sum(report.seconds.values()):.1f} s in all")


def _saw(report: Report) -> None:
    seen = report.seen
    shapes = " and ".join(f"{r} x {c}" for r, c in seen.dealer["shapes"]["tables"])
    console.line("\nWhat each service saw:")
    console.line(
        f"  dealer: that there are tables of {shapes}, and its own random numbers; it received"
        " no share and no opened value"
    )
    for name, party in seen.parties.items():
        console.line(
            f"  {name}: {party['share_bytes']:,} bytes of random-looking shares,"
            f" {party['received']:,} masked bytes from its peers,"
            f" {party['declared_openings']} declared openings"
        )
    console.line(
        f"  coordinator: the job, its progress, and {seen.coordinator['sealed_bytes']:,} sealed"
        " bytes that only the analyst can open"
    )


def _name(metric: str) -> str:
    return {"auc": "AUC", "r2": "R2", "log_loss": "log-loss"}.get(metric, metric)
