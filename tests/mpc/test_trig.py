"""Waves of a masked value: exact integers, exact agreement, and the errors the module claims."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from masque.errors import RangeError
from masque.mpc import trig
from masque.mpc.fits import EXP, FITS, RECIPROCAL, SIGMOID, Fit
from masque.mpc.types import Ring

UNIT = 2.0**-30
TABLE_DIGEST = "e0a55b63f9a771c649dcba9452990e78b69d50b42a179bc577a08cfa53d7cc47"
FIT_IDS = list(FITS)


def words(rng: np.random.Generator, *shape: int) -> Ring:
    return rng.integers(0, 1 << 64, shape, dtype=np.uint64)


def split(rng: np.random.Generator, values: Ring, parties: int) -> list[Ring]:
    shares = [words(rng, *values.shape) for _ in range(parties - 1)]
    last = values.copy()
    for share in shares:
        last -= share
    return [*shares, last]


def jointly(
    fit: Fit, x: Ring, fraction: int, scales: tuple[int, int], parties: int, seed: int
) -> tuple[Ring, int]:
    """Deal, mask, evaluate at every party, and add up; returns the sum and its scale."""
    rng = np.random.default_rng(seed)
    q = fit.period_bits + fraction
    public_scale, dealt_scale = scales
    harmonics, (alphas, betas) = fit.harmonics_array, fit.arrays
    r = words(rng, len(x))
    c = (x + r) & np.uint64((1 << q) - 1)
    dealt = trig.dealt_waves(r, q, harmonics, dealt_scale)
    shares = [
        trig.wave_sum(c, q, harmonics, alphas, betas, share, public_scale)
        for share in split(rng, dealt, parties)
    ]
    scale = public_scale + dealt_scale
    constant = np.full(len(x), fit.constant_at(scale) % (1 << 64), np.uint64)  # party 0's
    return np.sum([*shares, constant], axis=0, dtype=np.uint64), scale


def interval(fit: Fit, fraction: int, count: int) -> Ring:
    low = math.ceil(fit.low * 2**fraction)
    high = math.floor(fit.high * 2**fraction)
    return np.linspace(low, high, count).round().astype(np.int64).view(np.uint64)


def exact(fit: Fit, x: Ring, fraction: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    angle = np.outer(x.view(np.int64) / 2**fraction, fit.harmonics)
    angle *= 2 * math.pi / 2**fit.period_bits
    total = np.cos(angle) @ np.array(fit.alphas) + np.sin(angle) @ np.array(fit.betas)
    return np.asarray((total + fit.constant) * UNIT).ravel()


def test_table_is_the_same_everywhere() -> None:
    table = trig.table()
    assert table.dtype == np.int32 and not table.flags.writeable
    assert hashlib.sha256(table.astype("<i4").tobytes()).hexdigest() == TABLE_DIGEST


def test_table_holds_the_cosines() -> None:
    truth = np.cos(2 * math.pi * np.arange(4096) / 4096) * 2**30
    assert np.abs(trig.table() - truth).max() <= 0.5 + 1e-5


def test_golden_waves() -> None:
    r = np.array([0, 1, 0x123456, 0xFFFFFFFFFFFFFFFF, 1 << 20], np.uint64)
    harmonics = np.array([1, 3, 253], np.int64)
    waves = trig.dealt_waves(r, 21, harmonics, 24)
    assert waves[0].tolist() == [1 << 24] * 3 + [0] * 3
    assert waves[4].view(np.int64).tolist() == [-(1 << 24)] * 3 + [0] * 3  # half a turn
    share = np.arange(30, dtype=np.uint64).reshape(5, 6) * np.uint64(0x9E3779B97F4A7C15)
    alphas = np.array([1 << 30, -(5 << 30), 12345], np.int64)
    betas = np.array([-(1 << 29), 6 << 30, -987654321], np.int64)
    total = trig.wave_sum(r, 21, harmonics, alphas, betas, share, 22)
    value = trig.wave_value(r, 21, harmonics, alphas, betas, 40)
    digest = hashlib.sha256()
    for array in (waves, total, value):
        digest.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    assert digest.hexdigest() == (
        "b85709a3c3663acb06a5945fb8e11f6795871207de93a610b2de11546ab4868b"
    )


def in_whole_numbers(angle: int) -> tuple[int, int]:
    """The module's recipe once more, in Python's unbounded integers."""
    table = [int(value) for value in trig.table()]
    direction = (angle + (1 << 51)) >> 52
    rest = (angle - (direction << 52)) >> 24
    c, s = table[direction % 4096], table[(direction - 1024) % 4096]
    d = rest * round(2 * math.pi * 2**28) >> 28
    e = d * d >> 41
    return (c << 30) - ((c * e + s * d) >> 10), (s << 30) + ((c * d - s * e) >> 10)


@given(r=st.integers(0, 2**64 - 1), q=st.integers(1, 64), k=st.integers(1, 1000))
def test_kernel_is_the_recipe_without_overflow(r: int, q: int, k: int) -> None:
    x, y = in_whole_numbers((k * r << (64 - q)) % (1 << 64))
    waves = trig.dealt_waves(np.array([r], np.uint64), q, np.array([k], np.int64), 30)
    assert waves.view(np.int64).tolist() == [[(x + (1 << 29)) >> 30, (y + (1 << 29)) >> 30]]


@pytest.mark.parametrize("q", [12, 13, 21, 30, 40, 53])
def test_waves_are_as_near_as_claimed(q: int) -> None:
    edges = np.arange(-(1 << 12), 1 << 12, dtype=np.int64).view(np.uint64)  # around zero
    middles = (np.arange(1 << 12, dtype=np.uint64) << np.uint64(max(q - 12, 0))) + np.uint64(
        1 << max(q - 13, 0)  # as far from the table's directions as it goes
    )
    r = np.concatenate([words(np.random.default_rng(q), 1 << 16), edges, middles])
    waves = trig.dealt_waves(r, q, np.array([1], np.int64), 30).view(np.int64) * UNIT
    angle = (r & np.uint64((1 << q) - 1)).astype(np.float64) * (2 * math.pi / 2.0**q)
    off = waves - np.stack([np.cos(angle), np.sin(angle)], 1)
    assert np.abs(off).max() <= 1.3 * UNIT
    assert np.hypot(off[:, 0], off[:, 1]).max() <= 1.51 * UNIT


@pytest.mark.parametrize("fit", FITS.values(), ids=FIT_IDS)
def test_plain_twin_over_the_whole_interval(fit: Fit) -> None:
    x = interval(fit, 16, 60_001)
    value = trig.wave_value(x, fit.period_bits + 16, fit.harmonics_array, *fit.arrays, 40) / 2.0**40
    heights = sum(math.hypot(a, b) for a, b in zip(fit.alphas, fit.betas, strict=True)) * UNIT
    bound = heights * 1.51 * UNIT + len(fit.harmonics) * 2.0**-49 + 2.0**-41
    assert np.abs(value + fit.constant * UNIT - exact(fit, x, 16)).max() <= bound


@pytest.mark.parametrize("parties", [2, 3, 5])
@pytest.mark.parametrize("fit", FITS.values(), ids=FIT_IDS)
def test_parties_get_the_function_over_the_whole_interval(fit: Fit, parties: int) -> None:
    x = interval(fit, 20, 8_001)
    total, scale = jointly(fit, x, 20, (26, 28), parties, seed=parties)
    bound = trig.wave_error(fit.alphas, fit.betas, 26, 28) + 2.0 ** -(scale - 1)
    error = np.abs(total.view(np.int64) / 2.0**scale - exact(fit, x, 20)).max()
    assert bound / 100 < error <= bound


@settings(deadline=None)
@given(
    fit=st.sampled_from([SIGMOID, EXP, RECIPROCAL]),
    parties=st.sampled_from([2, 3, 5]),
    fraction=st.integers(8, 24),
    scales=st.tuples(st.integers(12, 28), st.integers(12, 28)),  # a peak of 27 fits in 2^63
    seed=st.integers(0, 2**32 - 1),
)
def test_parties_agree_with_the_plain_twin(
    fit: Fit, parties: int, fraction: int, scales: tuple[int, int], seed: int
) -> None:
    x = words(np.random.default_rng(seed + 1), 64)  # anywhere: the identity holds modulo the period
    total, scale = jointly(fit, x, fraction, scales, parties, seed)
    plain = (
        trig.wave_value(x, fit.period_bits + fraction, fit.harmonics_array, *fit.arrays, 48)
        / 2.0**48
    )
    bound = trig.wave_error(fit.alphas, fit.betas, *scales) * 2
    off = total.view(np.int64) / 2.0**scale - fit.constant_at(scale) / 2.0**scale - plain
    assert np.abs(off).max() <= bound + 2.0**-47


def test_public_coefficients_do_not_depend_on_the_share() -> None:
    """Sums are linear in the share: what every party multiplies by is one and the same integer."""
    rng = np.random.default_rng(3)
    harmonics, (alphas, betas) = SIGMOID.harmonics_array, SIGMOID.arrays
    c = words(rng, 50)
    left, right = words(rng, 50, 24), words(rng, 50, 24)
    sums = [
        trig.wave_sum(c, 25, harmonics, alphas, betas, share, 30)
        for share in (left, right, left + right)
    ]
    assert np.array_equal(sums[0] + sums[1], sums[2])


def test_steepest_allowed_coefficients_do_not_overflow() -> None:
    largest = int(7.95 * 2**30)
    one = np.array([1], np.int64)
    phase = np.arange(1 << 12, dtype=np.uint64)
    unit_share = np.zeros((1 << 12, 2), np.uint64)
    unit_share[:, 0] = 1
    for alpha, beta in ((largest, 0), (0, -largest), (int(largest * 0.6), int(largest * 0.8))):
        a = trig.wave_sum(phase, 12, one, np.array([alpha]), np.array([beta]), unit_share, 30)
        angle = np.arange(1 << 12) * (2 * math.pi / 4096)
        truth = alpha * np.cos(angle) + beta * np.sin(angle)
        assert np.abs(a.view(np.int64) - truth).max() <= 8 * 1.51 + 0.5


def test_read_only_and_strided_inputs() -> None:
    r = np.frombuffer(bytes(range(64)), np.uint64)
    harmonics, (alphas, betas) = EXP.harmonics_array, EXP.arrays
    waves = trig.dealt_waves(r[::2], 21, harmonics, 24)
    assert np.array_equal(waves, trig.dealt_waves(r, 21, harmonics, 24)[::2])
    total = trig.wave_sum(r[::2], 21, harmonics, alphas, betas, waves, 24)
    assert total.shape == (4,)
    assert trig.dealt_waves(r[:0], 21, harmonics, 24).shape == (0, 24)


@pytest.mark.parametrize(("q", "scale"), [(0, 24), (65, 24), (21, 0), (21, 31)])
def test_what_cannot_be_done_is_refused(q: int, scale: int) -> None:
    one, k = np.ones(1, np.uint64), np.ones(1, np.int64)
    with pytest.raises(RangeError, match=r"Choose|It takes"):
        trig.dealt_waves(one, q, k, scale)
    with pytest.raises(RangeError):
        trig.wave_sum(one, q, k, k, k, np.ones((1, 2), np.uint64), scale)


def test_warm() -> None:
    trig.warm()
