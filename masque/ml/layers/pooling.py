"""Pooling: one number for each window of every channel."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, prod, sqrt
from typing import ClassVar

from masque.ml.layers.base import ACTIVATION_SCALE, GRADIENT_SCALE, Batch, Gradients, Layer, Tape
from masque.mpc.bits import Bit
from masque.mpc.functions import less
from masque.mpc.secret import Secret, concatenate, place
from masque.mpc.types import Shape

Pair = tuple[int, int]
RESOLUTION = 12  # fraction bits that the larger of two is decided by


@dataclass(frozen=True)
class Pool(Layer):
    """Windows of `size`, `stride` apart, all of them within the row: what sticks out is left."""

    size: Pair
    stride: Pair

    def output_shape(self, shape: Shape) -> Shape:
        """[channels, height', width']."""
        if len(shape) != 3:
            raise ValueError(f"{self.kind} reads [channels, height, width], not {shape}")
        if self.size[0] > shape[1] or self.size[1] > shape[2]:
            raise ValueError(f"a window of {self.size} is larger than rows of {shape}")
        return (shape[0], *(self._steps(shape, axis) for axis in (0, 1)))

    def _steps(self, shape: Shape, axis: int) -> int:
        return (shape[axis + 1] - self.size[axis]) // self.stride[axis] + 1

    def _windows(self, x: Secret) -> list[Secret]:
        """By place in a window, the elements there: each [rows, channels, height', width']."""
        shape = x.shape[1:]
        (down, right), ends = self.stride, [self._steps(shape, axis) for axis in (0, 1)]
        return [
            x[:, :, i : i + down * ends[0] : down, j : j + right * ends[1] : right]
            for i in range(self.size[0])
            for j in range(self.size[1])
        ]

    def _unwindowed(self, parts: list[Secret], shape: Shape) -> Secret:
        """The adjoint of `_windows`: what lies in several windows is added up."""
        (down, right), ends = self.stride, parts[0].shape[2:]
        whole = (parts[0].shape[0], *shape)
        windows = [
            (
                *(slice(None), slice(None)),
                slice(i, i + down * ends[0], down),
                slice(j, j + right * ends[1], right),
            )
            for i in range(self.size[0])
            for j in range(self.size[1])
        ]
        if self._spread == 1:
            return place(parts, windows, whole)
        total = parts[0].placed(whole, windows[0])
        for part, window in zip(parts[1:], windows[1:], strict=True):
            total = total + part.placed(whole, window)
        return total

    @property
    def _spread(self) -> int:
        """Windows that an element may lie in."""
        return prod(ceil(k / s) for k, s in zip(self.size, self.stride, strict=True))


@dataclass(frozen=True)
class AveragePool(Pool):
    """The mean of every window: linear, without rounds of its own."""

    kind: ClassVar[str] = "average_pool"

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """Sums of windows over their sizes."""
        tape.kept["shape"] = x.value.shape[1:]
        windows = self._windows(x.value)
        total = windows[0]
        for window in windows[1:]:
            total = total + window
        mean = self._shared(total, ACTIVATION_SCALE)
        rounding = 2.0 ** (2 - ACTIVATION_SCALE)
        norm = x.norm * sqrt(self._spread / prod(self.size)) * 1.001
        norm += rounding * sqrt(prod(mean.shape[1:]))
        return Batch.of(mean.bounded(x.value.bound * 1.001 + rounding), norm)

    def _shared(self, x: Secret, scale: int) -> Secret:
        """x over the size of a window: for free if that is a power of two, else at `scale`."""
        count = prod(self.size)
        if count & (count - 1) == 0:
            return x.halved(count.bit_length() - 1)
        return x.scaled(1.0 / count, scale)

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """Every element of a window gets its share."""
        del inputs
        shape, count = tape.kept["shape"], prod(self.size)
        assert isinstance(shape, tuple)
        share = self._shared(gradient.value, GRADIENT_SCALE)
        norm = gradient.norm * sqrt(self._spread / count) * 1.001
        norm += 2.0 ** (2 - GRADIENT_SCALE) * sqrt(self._spread * count * prod(share.shape[1:]))
        return Batch.of(self._unwindowed([share] * count, shape), norm), {}


@dataclass(frozen=True)
class MaxPool(Pool):
    """The largest of every window: a knock-out tournament, half of those left at a time.

    At the scale at which x enters: there are fewer numbers to be truncated afterwards.
    """

    kind: ClassVar[str] = "max_pool"

    def forward(self, x: Batch, tape: Tape) -> Batch:
        """Rounds a level of the tournament: elements, pairs (1 or 2), bits."""
        tape.kept["shape"] = x.value.shape[1:]
        level, levels = self._windows(x.value), []
        while len(level) > 1:
            half = len(level) // 2
            left, right = _stacked(level[:half]), _stacked(level[half : 2 * half])
            ahead = left - right  # opened once
            wins = ~less(ahead, resolution=RESOLUTION)
            best = (wins.times(ahead) + right).bounded(x.value.bound)
            levels.append((wins, len(level) % 2))
            level = [best[i] for i in range(half)] + level[2 * half :]
        tape.kept["levels"] = levels
        return Batch.of(level[0], x.norm * sqrt(self._spread))

    def backward(self, gradient: Batch, tape: Tape, *, inputs: bool) -> tuple[Batch, Gradients]:
        """The gradient goes back to the winners, a level at a time. Rounds a level: what it has."""
        del inputs
        shape, levels = tape.kept["shape"], tape.kept["levels"]
        assert isinstance(shape, tuple) and isinstance(levels, list)
        scale = min(GRADIENT_SCALE, gradient.value.scale)
        level = [gradient.value]
        for wins, odd in reversed(levels):
            assert isinstance(wins, Bit)
            after = _stacked(level[: len(level) - odd])
            left = wins.times_at(after, scale)
            right = (after.at(scale) - left).bounded(after.bound + 2.0 ** (2 - scale))
            count = after.shape[0]
            level = [
                *(left[i] for i in range(count)),
                *(right[i] for i in range(count)),
                *(part.at(scale) for part in level[len(level) - odd :]),
            ]
        rounding = (
            len(levels)
            * 2.0 ** (2 - scale)
            * sqrt(prod(self.size) * prod(gradient.value.shape[1:]))
        )
        norm = (gradient.norm + rounding) * self._spread
        return Batch.of(self._unwindowed([part.at(scale) for part in level], shape), norm), {}


def _stacked(parts: list[Secret]) -> Secret:
    """Several of one shape along a new first axis."""
    raised = [part.reshape(1, *part.shape) for part in parts]
    return raised[0] if len(raised) == 1 else concatenate(raised, axis=0)
