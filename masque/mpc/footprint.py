"""How much memory a program needs at a party, from shapes: what a job declares.

Registers, and of the block that needs most: what is dealt for it and every value while it is used.
Large masked registers lie on disk (`masque.mpc.regenerated`) and count with 16 bytes a row. Kernels
need a little beside. The material that waits has a limit of its own.
"""

from __future__ import annotations

from math import prod

from masque.mpc.correlations import Layout
from masque.mpc.cost import FREE
from masque.mpc.graph import Block, Kind, Node
from masque.mpc.program import Program, Register
from masque.mpc.regenerated import LARGE

BESIDE = 32 << 20
"""Bytes that every job needs beside: the compiled program, buffers of streams, kernels."""

WIDTH = {Kind.SHARE: 8, Kind.PUBLIC: 8, Kind.MASKED: 16, Kind.FLAG: 9}
"""Bytes an element; of bits, pairs and words at most two."""


def footprint(program: Program) -> int:
    """Bytes that a party needs while it runs a program."""
    blocks: dict[bytes, Block] = {}
    for training_round in program.rounds:
        for call in training_round.calls():
            blocks.setdefault(call.block.digest, call.block)
    held = sum(_held(register) for register in program.registers.values())
    return BESIDE + held + max((_block(block) for block in blocks.values()), default=0)


def _held(register: Register) -> int:
    size = 8 * prod(register.shape)
    if register.kind is not Kind.MASKED:
        return size
    return 16 * register.shape[0] if size >= LARGE else 2 * size


def _block(block: Block) -> int:
    """Its material, and the most that its values take between two openings."""
    sizes = {node.id: _node(node) for node in block.nodes.values()}
    alive = sum(sizes[node_id] for node_id in block.inputs.values())
    most = alive
    for step in block.steps:
        made = [n for n in (*step.local, *step.opened) if n.op != "input"]
        alive += sum(sizes[node.id] for node in made)
        sent = sum(8 * node.size for node in step.opened)
        most = max(most, alive + block.parties * sent)
        alive -= sum(sizes[node_id] for node_id in step.drop)
    return most + 2 * Layout(block).drawn


def _node(node: Node) -> int:
    return 0 if node.op in FREE else node.size * WIDTH.get(node.kind, 2)
