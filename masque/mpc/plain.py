"""The `plain` interpreter: the program on clear fixed-point integers, its executable specification.

A share, a masked value and the value itself are one thing here. Comparison is written as such,
not as the circuit that the parties run; a truncation rounds to nearest; a smooth function is its
Fourier sum on the clear phase. Bounds that a program claims are checked where it relies on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from masque.mpc import comparison, conjunction, trig
from masque.mpc.bilinear import multiply
from masque.mpc.correlations import combination, cut, group_size, noise_of, truncation, wave, window
from masque.mpc.doors import Source
from masque.mpc.graph import Block, Node
from masque.mpc.machine import Machine, Values, linear
from masque.mpc.program import Program, Ref
from masque.mpc.scaling import scale_down
from masque.mpc.types import Array, Bytes, Ring, Shape

Noise = Callable[[int, Shape], Ring]


def silence(sigma: int, shape: Shape) -> Ring:
    """No noise."""
    return np.zeros(shape, dtype=np.uint64)


class Plain(Machine):
    """Runs a whole program in the clear; `source` gives clear fixed-point rows of the inputs.

    `noise(sigma, shape)`: what all parties' noise adds up to; none, if it is not given.
    """

    def __init__(self, program: Program, source: Source, noise: Noise = silence) -> None:
        super().__init__(program)
        self._noise = noise
        self.opened: dict[str, Ring] = {}
        self.stopped = False
        self._source = source
        for name, register in program.registers.items():
            self.registers[name] = np.zeros(register.shape, dtype=np.uint64)

    def run_program(self) -> None:
        """Every training round in order, those that may be skipped only until a stop bit."""
        for training_round in self.program.rounds:
            if training_round.skippable and self.stopped:
                continue
            for call in training_round.calls():
                self.run(call)

    def output(self, name: str) -> Ring:
        """The value of an output."""
        return np.asarray(self.registers[self.program.outputs[name].register])

    def read_input(self, name: str, rows: slice, node: Node) -> Ring:
        """Clear rows of a data set."""
        return self._source(name, rows)

    def load(self, ref: Ref) -> Ring:
        """(Rows of) a register."""
        held = self.registers[ref.name]
        return np.asarray(held if ref.rows is None else held[ref.rows])

    def store(self, ref: Ref, value: Ring, drawn_at: int | None = None) -> None:
        """Write (rows of) a register."""
        self.registers[ref.name][... if ref.rows is None else ref.rows] = value

    def linear(self, node: Node, secrets: Sequence[Array], public: Sequence[Array]) -> Ring:
        """The function itself."""
        return linear(node, secrets, public, constant=True)

    def open(self, nodes: Sequence[Node], values: Values, block: Block) -> None:
        """Opening changes nothing in the clear; declared openings are recorded."""
        for node in nodes:
            value = values[node.id] = values[node.args[0]]
            if node.op == "mask_pairs":
                arity = combination(node).arity
                values[node.id] = comparison.pad_pairs(value, arity, first=True)
            if node.op == "every":
                size = group_size(node)
                groups = conjunction.group_bits(value, size, first=True)
                values[node.id] = (groups == (1 << size) - 1).astype(np.uint8)
            if node.op == "reveal":
                self.opened[str(node.params[0])] = np.array(value)
                self.stopped = self.stopped or bool(node.params[1] == "stop" and np.any(value))

    def noise(self, node: Node, values: Values) -> Ring:
        """The noise of all parties together, as it was given."""
        return self._noise(noise_of(node), node.shape)

    def unmask(self, node: Node, values: Values) -> Ring:
        """The value."""
        return np.asarray(values[node.args[0]])

    def product(self, node: Node, values: Values) -> Ring:
        """x o y."""
        x, y = values[node.args[0]], values[node.args[1]]
        return multiply(node.params, x, y)

    def flag_times(self, node: Node, values: Values) -> Ring:
        """b x."""
        return np.asarray(values[node.args[0]].astype(np.uint64) * values[node.args[1]])

    def flag_share(self, node: Node, values: Values) -> Ring:
        """b as a number."""
        return np.asarray(values[node.args[0]].astype(np.uint64))

    def truncate(self, node: Node, values: Values) -> Ring:
        """x * factor / 2^shift, rounded to nearest."""
        factor = values[node.args[1]] if len(node.args) > 1 else None
        return self._truncated(node, values[node.args[0]], factor)

    def _truncated(self, node: Node, x: Ring, factor: Ring | None) -> Ring:
        shift, width = truncation(node)
        y = np.asarray(x) + np.uint64(1 << (width - 1))
        assert not (y >> np.uint64(width)).any(), f"a value is beyond {width - 1} bits, its bound"
        one = np.uint64(1) if factor is None else factor
        offset = one << np.uint64(width - 1 - shift)
        return np.asarray(scale_down(y, factor, shift, half=True) - offset)

    def flag_truncate(self, node: Node, values: Values) -> Ring:
        """b x / 2^shift."""
        bit, x = values[node.args[0]], values[node.args[1]]
        return np.asarray(bit.astype(np.uint64) * self._truncated(node, x, None))

    def gaps(self, node: Node, values: Values) -> Ring:
        """Differences within rows, each value cut to its upper bits first."""
        clear = np.asarray(values[node.args[0]]).view(np.int64)
        return comparison.gaps(clear >> np.int64(cut(node))).view(np.uint64)

    def words(self, node: Node, values: Values) -> None:
        """Material of the circuit; nothing in the clear."""

    def compare_chunks(self, node: Node, values: Values) -> Bytes:
        """(x < t, x == t) in the top chunk, (no, equal) below it, so that combining keeps it."""
        thresholds, (low, length) = node.params[0], window(node)
        assert isinstance(thresholds, tuple)
        x = np.asarray(values[node.args[0]]).view(np.int64) >> np.int64(low)
        pairs = np.full(node.shape, 2, dtype=np.uint8)
        rows = pairs if len(thresholds) > 1 else pairs[np.newaxis]
        for row, t in zip(rows, thresholds, strict=True):
            reach = x - np.int64(t)
            assert length >= 63 or not ((reach >> np.int64(length)) + 1 >> np.int64(1)).any(), (
                f"a compared value is beyond {length} bits, its bound"
            )
            row[..., -1] = (x < t) | (x == t).astype(np.uint8) << 1
        return pairs

    def sign_bit(self, node: Node, values: Values) -> Bytes:
        """x < t."""
        return np.asarray(values[node.args[0]][..., 0] & 1)

    def equal_bits(self, node: Node, values: Values) -> Bytes:
        """x == t in the top chunk, ones below it."""
        return np.asarray(values[node.args[0]] >> 1)

    def combine(self, node: Node, values: Values) -> Bytes:
        """The first pair from the top that is not equal decides; all equal is equal."""
        groups = values[node.args[0]]
        less, equal = groups & 1, groups >> 1
        result, so_far = less[..., -1], equal[..., -1]
        for j in reversed(range(combination(node).arity - 1)):
            result, so_far = result | (so_far & less[..., j]), so_far & equal[..., j]
        return np.asarray(result | so_far << 1)

    def xor(self, node: Node, values: Values) -> Bytes:
        """Exclusive or."""
        return np.asarray(values[node.args[0]] ^ values[node.args[1]])

    def invert(self, node: Node, values: Values) -> Bytes:
        """Not."""
        return np.asarray(values[node.args[0]] ^ 1)

    def waves(self, node: Node, values: Values) -> Ring:
        """The Fourier sum at the phase of x."""
        low, length = window(node)
        fit, public, dealt = wave(node)
        scale = public + dealt
        phase = np.ascontiguousarray(values[node.args[0]]).reshape(-1) >> np.uint64(low)
        total = trig.wave_value(phase, length, fit.harmonics_array, *fit.arrays, scale)
        return np.asarray(total + fit.constant_at(scale)).view(np.uint64).reshape(node.shape)
