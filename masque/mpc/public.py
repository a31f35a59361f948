"""Public fixed-point numbers inside a block: constants, and arguments of its calls."""

from __future__ import annotations

from math import frexp

import numpy as np

from masque.mpc.graph import Graph
from masque.mpc.types import Array


class Public:
    """A public fixed-point array inside a block: a constant, or an argument of each call."""

    def __init__(self, graph: Graph, node: int, scale: int, bound: float) -> None:
        self.graph, self.node, self.scale, self.bound = graph, node, scale, bound
        self.shape = graph.nodes[node].shape


def public_array(values: Array | float, scale: int) -> Array:
    """Encode public real numbers as ring elements with `scale` fraction bits."""
    scaled = np.rint(np.asarray(values, dtype=np.float64) * 2.0**scale)
    return np.asarray(scaled.astype(np.int64).view(np.uint64))


def constant(graph: Graph, values: Array | float, scale: int) -> Public:
    """A public constant of the block, rounded to `scale` fraction bits."""
    encoded = public_array(values, scale)
    bound = float(np.max(np.abs(encoded.view(np.int64)), initial=0)) / 2.0**scale
    return Public(graph, graph.constant(encoded), scale, bound)


def encode_factor(factor: float, bits: int) -> tuple[int, int]:
    """(integer, shift) with factor = integer / 2^shift to `bits` significant bits, integer odd."""
    mantissa, exponent = frexp(factor)
    integer, shift = round(mantissa * (1 << bits)), bits - exponent
    while integer and integer % 2 == 0:
        integer, shift = integer // 2, shift - 1
    return (integer, shift) if integer else (0, 0)
