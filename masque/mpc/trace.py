"""Tracing: writing a block on `Secret` values, from shapes alone."""

from __future__ import annotations

from math import inf
from typing import Literal

from masque.errors import RangeError
from masque.mpc.gaussian import LARGEST
from masque.mpc.graph import Block, Graph, Kind
from masque.mpc.public import Public
from masque.mpc.secret import Secret
from masque.mpc.types import Shape

NOISE_REACH = 64.0  # sigmas
Effect = Literal["", "stop", "require"]


class Trace:
    """A block being written. Its inputs are secrets; `freeze` schedules it."""

    def __init__(self, name: str, parties: int) -> None:
        assert parties >= 2
        self.graph = Graph(name, parties)

    def input(
        self, name: str, shape: Shape, scale: int, bound: float, *, masked: bool = False
    ) -> Secret:
        """(Rows of) a register or data set; `masked` if the register is."""
        kind = Kind.MASKED if masked else Kind.SHARE
        node = self.graph.add("input", (), kind, shape, (name,))
        self.graph.inputs[name] = node
        if masked:
            return Secret(self.graph, shape, scale, bound, masked=node)
        return Secret(self.graph, shape, scale, bound, share=node)

    def words(self, name: str, shape: Shape) -> Secret:
        """Whole ring elements, such as words of a digest: to be added and compared only."""
        return self.input(name, shape, 0, inf)

    def argument(self, name: str, shape: Shape, scale: int, bound: float) -> Public:
        """A public array of each call, at most `bound` in magnitude, encoded at `scale`."""
        limit = round(bound * 2.0**scale)
        node = self.graph.add("argument", (), Kind.PUBLIC, shape, (name, limit))
        return Public(self.graph, node, scale, bound)

    def noise(self, name: str, shape: Shape, scale: int, sigma: int) -> Secret:
        """Noise that nobody knows: each party adds a discrete Gaussian of `sigma` ulp to its share.

        Any n - 1 parties together still do not know that of the last one. It is drawn where the
        program runs, never dealt. Openings: none. The bound holds but for a chance below 2^-2900.
        """
        assert sigma >= 1
        if sigma > LARGEST:
            raise RangeError(
                f"noise of {sigma * 2.0**-scale:.3g} leaves the ring.",
                hint="Ask for less privacy, or raise model.l2.",
                field="privacy.epsilon",
            )
        node = self.graph.add("noise", (), Kind.SHARE, shape, (name, sigma))
        bound = NOISE_REACH * sigma * self.graph.parties * 2.0**-scale
        return Secret(self.graph, shape, scale, bound, share=node)

    def output(self, name: str, value: Secret, scale: int, *, masked: bool = False) -> None:
        """Hand a value to a register, at `scale` fraction bits."""
        value = value.at(scale)
        self.graph.outputs[name] = value.masked() if masked else value.share()

    def reveal(
        self, name: str, value: Secret, *, effect: Effect = "", refusal: tuple[str, str] = ("", "")
    ) -> None:
        """A declared opening, to all parties.

        `effect`: "stop" if a one ends training early, "require" if a zero refuses the job, with
        `refusal`: what is wrong, and what to do.
        """
        params = (name, effect, *refusal)
        self.graph.add("reveal", (value.share(),), Kind.SHARE, value.shape, params)

    def freeze(self) -> Block:
        """The finished block."""
        return self.graph.freeze()
