"""`masque audit-model`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from masque.client import console
from masque.client.commands.options import Json

if TYPE_CHECKING:
    from masque.client.audit import Audit

FEW = 300
"""Non-members below which 1 % of them is a number of two or less."""


def audit_model(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model as .npz, .safetensors or .json.")
    ],
    members: Annotated[Path, typer.Option(metavar="FILE", help="Rows that were trained on.")],
    nonmembers: Annotated[Path, typer.Option(metavar="FILE", help="Rows like them that were not.")],
    schema: Annotated[Path, typer.Option(metavar="FILE", help="What describes both files.")],
    seed: Annotated[int, typer.Option(help="Of the resampling; the same gives the same.")] = 0,
    json: Json = False,
) -> None:
    """Try to tell rows that a model was trained on from others: what does the model give away?"""
    from masque.client.audit import audit
    from masque.client.reading import read

    found = audit(read(model), members, nonmembers, schema, seed)
    if json:
        console.emit(found.as_json())
    else:
        _show(found)
    if found.in_both:
        console.warn(f"{found.in_both} rows are in both files; they make every figure smaller.")
    if found.nonmembers < FEW:
        console.warn(
            f"1 % of {found.nonmembers} non-members is next to nobody: with {FEW} or more the last"
            " figure says something."
        )


def _show(found: Audit) -> None:
    console.line(
        f"{found.members:,} members with a mean loss of {found.member_loss:.4g},"
        f" {found.nonmembers:,} non-members with {found.nonmember_loss:.4g}\n"
    )
    rows = [(a.name, a.advantage, a.auc, a.tpr_at_1_percent_fpr) for a in found.attacks]
    console.table(["attack", "advantage", "AUC", "found at 1 % false alarms"], rows)
    best = found.strongest
    console.line(
        f"\nIn brackets: 95 % intervals. Advantage is the share of members that are recognised less"
        f" that of non-members who are taken for one; 0 is guessing, 1 is certainty. With so many"
        f" rows, chance alone reaches {found.chance:.3f}."
    )
    if found.leaks:
        console.line(
            f"The model tells members from others: advantage {best.advantage.value:.3f} by"
            f" {best.name}. Whoever has the model and somebody's row learns whether that person was"
            " in the data. More l2, fewer epochs, more rows or `privacy` in the job make it less."
        )
    else:
        console.line(
            "These attacks tell no more than chance. That is no proof: others may do better, and"
            " single rows may stand out. Only `privacy` in the job bounds every attack."
        )
