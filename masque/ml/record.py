"""What tracing a step finds out about its values, written down on the way for people to read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, log2
from typing import Protocol

from masque.errors import RangeError
from masque.ml.guards import Guards
from masque.mpc.correlations import truncation
from masque.mpc.graph import Graph
from masque.mpc.secret import Secret

TRUNCATIONS = frozenset({"truncate", "flag_truncate"})


@dataclass(frozen=True)
class Found:
    """What is known of a value of a step.

    `layer`: its number, or None; `what`: such as "values" or "gradient"; no element is larger than
    `largest`, no row (or unit, or whole) longer than `norm`, if that is known; `scale`: its
    fraction bits; `bits`: that the widest number on the way to it takes, of the ring's 62 but
    for checks that can do with less;
    `checks`: (norm, limit) of what was checked there; `cuts`: (bits divided off, width) of
    truncations.
    """

    layer: int | None
    what: str
    largest: float
    norm: float | None
    scale: int
    bits: float
    checks: tuple[tuple[float, float], ...]
    cuts: tuple[tuple[int, int], ...]


class Add(Protocol):
    """Writes an entry down."""

    def __call__(self, value: Secret, norm: float | None = None) -> None:
        """The value, and its norm if that is known."""


class Record:
    """Of one block that is being traced: all that happened since an entry is put to the next."""

    def __init__(self, graph: Graph, guards: Guards | None = None) -> None:
        self.found: list[Found] = []
        self._graph, self._guards = graph, guards or Guards()
        self._seen = (0, 0, 0)

    @contextmanager
    def entry(self, layer: int | None, what: str) -> Iterator[Add]:
        """To be given the value that the block makes; a RangeError names what it is about."""
        try:
            yield lambda value, norm=None: self.add(layer, what, value, norm)
        except RangeError as error:
            error.where.setdefault("layer", layer)
            error.where.setdefault("value", what)
            raise

    def add(self, layer: int | None, what: str, value: Secret, norm: float | None = None) -> None:
        """What has come of everything since the last entry."""
        graph, checks, coarse = self._graph, self._guards.checks, self._guards.coarse
        nodes, widths, checked = self._seen
        self._seen = (len(graph.nodes), len(graph.magnitudes), len(checks))
        fresh = range(widths, len(graph.magnitudes))
        recent = [graph.magnitudes[index] for index in fresh if index not in coarse]
        cuts = [truncation(node) for node in graph.nodes[nodes:] if node.op in TRUNCATIONS]
        self.found.append(
            Found(
                layer,
                what,
                min(value.bound, inf if norm is None else norm),
                norm,
                value.scale,
                log2(max([1.0, value.bound * 2.0**value.scale, *recent])),
                tuple(checks[checked:]),
                tuple(cuts),
            )
        )
