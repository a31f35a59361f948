"""Functions of secrets over their whole domain: documented errors hold, nothing ever wraps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from masque.mpc import classes as classes_module
from masque.mpc import functions, waves
from masque.mpc.cost import cost
from masque.mpc.fits import FITS
from masque.mpc.secret import Secret
from masque.mpc.trace import Trace
from masque.mpc.trig import wave_error
from tests.mpc.harness import PARTIES, Clear, Reals, encode, evaluate, execute, one_block, traced

Function = Callable[[Secret], Secret]
Real = Callable[[Reals], Reals]


def domain(scale: int, bound: float, seed: int, low: float | None = None) -> Clear:
    """Numbers at every place where something may go wrong, and at random in between."""
    rng = np.random.default_rng(seed)
    low = -bound if low is None else low
    points = [0.0, low, bound, 1.0, 1e-3, 7.75, 8.25]
    for fit in FITS.values():
        points += [fit.low, fit.high, *((fit.guard, -fit.guard) if fit.guard else ())]
    points += [2.0**k for k in range(-12, 40)] + [-(2.0**k) for k in range(-12, 40)]
    near = np.linspace(-17.5, 17.5, 281)
    uniform = rng.uniform(low, bound, 150)
    small = rng.uniform(-20.0, 20.0, 600)
    sizes = np.exp2(rng.uniform(-12, np.log2(bound), 200)) * rng.choice([-1, 1], 200)
    real = np.concatenate([points, near, uniform, small, sizes])
    whole = encode(real[np.abs(real) <= bound], scale)
    whole = np.concatenate([whole + step for step in (-1, 0, 1)])
    kept = whole[(whole >= np.ceil(low * 2.0**scale)) & (whole <= np.floor(bound * 2.0**scale))]
    return Clear(kept.reshape(1, -1), scale, bound)


@dataclass(frozen=True)
class Smooth:
    """A function, what it should be, and its documented error: absolute, or relative."""

    secret: Function
    real: Real
    absolute: float
    relative: float = 0.0
    low: float | None = None
    scales: tuple[int, ...] = (0, 8, 16, 24, 40)
    bounds: tuple[float, ...] = (128.0,)


def saturated(real: Real, low: float, high: float = np.inf) -> Real:
    return lambda x: real(np.clip(x, low, high))


def logistic(x: Reals) -> Reals:
    return np.asarray(1 / (1 + np.exp(-np.clip(x, -700, 700))))


SMOOTH = {
    "sigmoid": Smooth(functions.sigmoid, logistic, 6e-5, bounds=(1.0, 15.0, 128.0, 2.0**20)),
    "sigmoid at 30": Smooth(lambda x: functions.sigmoid(x, scale=30), logistic, 4e-4),
    "coarse sigmoid": Smooth(lambda x: functions.sigmoid(x, "coarse_sigmoid"), logistic, 4e-4),
    "coarse sigmoid at 30": Smooth(
        lambda x: functions.sigmoid(x, "coarse_sigmoid", scale=30), logistic, 6e-4
    ),
    "tanh": Smooth(functions.tanh, np.tanh, 1e-4, bounds=(1.0, 15.0, 128.0, 2.0**20)),
    "softplus": Smooth(functions.softplus, lambda x: np.logaddexp(0, x), 8e-5),
    "exp": Smooth(
        functions.exp, saturated(np.exp, -np.inf, 0), 5e-5, bounds=(16.0, 128.0, 2.0**20)
    ),
    "exp to 2": Smooth(
        lambda x: functions.exp(x, 2.0), saturated(np.exp, -np.inf, 2.0), 5e-5 * np.exp(2.0)
    ),
    "reciprocal": Smooth(
        lambda x: functions.reciprocal(x, 2.0**-8),
        saturated(lambda x: 1 / x, 2.0**-8),
        0.0,
        relative=3e-6,
        scales=(8, 16, 24),
    ),
    "reciprocal of whole numbers": Smooth(
        lambda x: functions.reciprocal(x, 1.0),
        saturated(lambda x: 1 / x, 1.0),
        0.0,
        relative=3e-6,
        scales=(0, 16, 30),
        bounds=(1.0, 100.0, 2.0**20),
    ),
    "inverse square root": Smooth(
        lambda x: functions.inverse_sqrt(x, 2.0**-8),
        saturated(lambda x: 1 / np.sqrt(x), 2.0**-8),
        0.0,
        relative=4e-6,
        scales=(8, 16, 24),
        bounds=(128.0, 2.0**16),
    ),
    "log": Smooth(
        lambda x: functions.log(x, 2.0**-8),
        saturated(np.log, 2.0**-8),
        2e-6,
        scales=(8, 16, 24, 40),
        bounds=(128.0, 2.0**16),
    ),
}


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_functions_keep_their_promise_everywhere(name: str, parties: int) -> None:
    smooth = SMOOTH[name]
    every_other = {2: slice(None), 3: slice(0, None, 2), 5: slice(1, None, 2)}[parties]
    for scale in smooth.scales[every_other]:
        for bound in smooth.bounds:
            if bound * 2.0**scale >= 2.0**58:
                continue
            clear = domain(scale, bound, parties, smooth.low)
            outcome = evaluate(smooth.secret, [clear], parties, parties)
            exact = smooth.real(clear.values / 2.0**scale)
            far = np.abs(outcome.reals() - exact)
            allowed = smooth.absolute + smooth.relative * np.abs(exact)
            worst = int(np.argmax(far - allowed))
            x = clear.values.reshape(-1)[worst] / 2.0**scale
            assert np.all(far <= allowed), f"scale {scale}, bound {bound}, {name}({x})"


# name: fit, (fraction bits of x, public, dealt), steepest slope, what saturating costs, promise
WORST = {
    "sigmoid": ("sigmoid", waves.BULK, 0.25, 6.2e-6, 6e-5),
    "sigmoid at 30": ("sigmoid", (18, 15, 15), 0.25, 6.2e-6, 4e-4),
    "coarse sigmoid": ("coarse_sigmoid", waves.BULK, 0.25, 3.4e-4, 4e-4),
    "coarse sigmoid at 30": ("coarse_sigmoid", (18, 15, 15), 0.25, 3.4e-4, 6e-4),
    "tanh": ("tanh", waves.BULK, 1.0, 1.3e-5, 1e-4),
    "softplus": ("softplus_even", waves.BULK, 0.5, 6.2e-6, 8e-5),
    "exp": ("exp", waves.EXACT, 1.04, 1.2e-7, 5e-5),
    "log": ("log", waves.FINE, 1.0, 0.0, 2e-6),
    "reciprocal": ("reciprocal", waves.FINE, 1.0, 0.0, 3e-6 / 2),
    "inverse square root": ("inverse_sqrt", waves.FINE, 0.5, 0.0, 4e-6 / 2),
}


@pytest.mark.parametrize("name", WORST)
def test_promises_follow_from_the_worst_case(name: str) -> None:
    """The fit, rounded waves, and a phase that is off by 5 units of its last bit (5 parties).

    Relative promises are of values of 1/2 and more, rounded once more to 30 bits.
    """
    fit_name, (phase, public, dealt), slope, saturating, promise = WORST[name]
    fit = FITS[fit_name]
    rounded = wave_error(fit.alphas, fit.betas, public, dealt)
    assert fit.error + rounded + 5 * slope * 2.0**-phase + 2.0**-29 <= promise
    assert saturating <= promise


@pytest.mark.parametrize("parties", [7, 9])
def test_carries_of_many_parties_stay_within_the_guards(parties: int) -> None:
    values = encode([np.linspace(12, 14, 801), np.linspace(-14, -12, 801)], 16)
    outcome = evaluate(functions.sigmoid, [Clear(values, 16, 16.0)], parties)
    assert np.abs(outcome.reals() - logistic(values / 2.0**16)).max() <= 6e-5


def test_limits_of_the_ring() -> None:
    """As large as values get: 2^61 units."""
    edge = (1 << 61) - 1
    values = np.array([[0, 1, -1, edge, -edge, edge - 1, 1 << 60, -(1 << 60)]])
    clear = Clear(values, 40, edge * 2.0**-40)
    sigmoid = evaluate(functions.sigmoid, [clear], 3)
    np.testing.assert_allclose(sigmoid.reals(), logistic(values / 2.0**40), atol=6e-5)
    sign = evaluate(lambda x: functions.less(x).value(), [clear], 3)
    np.testing.assert_array_equal(sign.got["y"], values < 0)
    same = evaluate(lambda x: functions.equals(x, 2.0**20).value(), [clear], 3)
    np.testing.assert_array_equal(same.got["y"], values == 1 << 60)
    positive = evaluate(functions.relu, [clear], 3)
    np.testing.assert_array_equal(positive.got["y"], np.maximum(values, 0))


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("scale", [0, 8, 16, 24, 40])
def test_comparisons_are_exact(scale: int, parties: int) -> None:
    clear = domain(scale, 128.0, parties)
    x = clear.values / 2.0**scale
    for threshold in (0.0, 0.3, -1.0, 7.75, 128.0, -128.0, 130.0, 2.0**-scale, -(2.0**-scale)):
        outcome = evaluate(lambda s, t=threshold: functions.less(s, t).value(), [clear], parties)
        np.testing.assert_array_equal(outcome.got["y"], x < threshold)
    for value in (0.0, 1.0, -7.75, 128.0):
        outcome = evaluate(lambda s, v=value: functions.equals(s, v).value(), [clear], parties)
        expected = clear.values == round(value * 2.0**scale)
        np.testing.assert_array_equal(outcome.got["y"], expected)


@pytest.mark.parametrize(
    ("length", "parties"),
    [*((n, 2) for n in range(1, 63)), *((n, 3) for n in range(1, 63, 3)), (5, 5), (33, 5), (61, 5)],
)
def test_comparisons_of_every_length(length: int, parties: int) -> None:
    """Numbers of 1 to 62 bits: every count of chunks, padded or not, one level or two."""
    rng = np.random.default_rng(length)
    top = (1 << length) - 1
    few = [0, 1, -1, top, -top, top - 1, top // 2, -(top // 2), top // 3]
    values = np.array([[*few, *rng.integers(-top, top + 1, 7)]])
    clear = Clear(
        np.clip(values, -top, top), 0, float(top) if length < 50 else top * (1 - 2.0**-30)
    )
    if length >= 50:
        clear = Clear((clear.values * (1 - 2.0**-20)).astype(np.int64), 0, clear.bound)
    bits = evaluate(lambda x: functions.less_each(x, [0.0, 1.0]).value(), [clear], parties)
    expected = np.stack([clear.values < 0, clear.values < 1])
    np.testing.assert_array_equal(bits.got["y"], expected)
    same = evaluate(lambda x: functions.equals(x, 1.0).value(), [clear], parties)
    np.testing.assert_array_equal(same.got["y"], clear.values == 1)


@pytest.mark.parametrize("parties", PARTIES)
def test_coarse_comparisons_err_near_the_threshold_only(parties: int) -> None:
    values = np.arange(-(1 << 12), 1 << 12).reshape(1, -1)
    clear = Clear(values, 8, 16.0)
    for resolution in (0, 2, 3, 5, 8, 12):
        unit = 2.0 ** -min(resolution, 8)
        outcome = evaluate(
            lambda x, r=resolution: functions.less(x, 3.0, resolution=r).value(), [clear], parties
        )
        x, got = values / 256, outcome.got["y"]
        assert np.all(got[x < 3.0 - unit] == 1)
        carries = 0 if resolution >= 8 else parties - 1
        assert np.all(got[x >= 3.0 + carries * unit] == 0)


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("scale", [0, 8, 24])
def test_piecewise_functions_are_exact(scale: int, parties: int) -> None:
    clear = domain(scale, 100.0, parties)
    relu = evaluate(functions.relu, [clear], parties)
    np.testing.assert_array_equal(relu.got["y"], np.maximum(clear.values, 0))
    for low, high in ((-3.0, 3.0), (-1.0, 7.0), (0.0, 1.0), (-100.0, 99.0), (-12.3456789, 0.1)):
        outcome = evaluate(
            lambda x, lo=low, hi=high: functions.clip(x, lo, hi), [clear], parties, scale=scale
        )
        ends = encode([low, high], scale)
        inside = np.clip(clear.values, *ends)
        np.testing.assert_array_equal(outcome.got["y"], inside)
    other = Clear(clear.values[:, ::-1].copy(), scale, 100.0)
    chosen = evaluate(
        lambda x, y: functions.where(functions.less(x, 1.0), x, y), [clear, other], parties
    )
    expected = np.where(clear.values < 1 << scale, clear.values, other.values)
    np.testing.assert_array_equal(chosen.got["y"], expected)


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize("classes", [2, 3, 5, 10])
def test_argmax_takes_the_first_of_the_largest(classes: int, parties: int) -> None:
    rng = np.random.default_rng(classes)
    values = rng.integers(-3, 4, (60, classes))  # many ties
    values[0], values[1], values[2] = 0, -100 << 16, 100 << 16
    clear = Clear(values, 16, 100.0)
    outcome = evaluate(functions.argmax, [clear], parties)
    np.testing.assert_array_equal(outcome.got["y"], values.argmax(axis=1))
    hot = evaluate(lambda x: functions.argmax_one_hot(x).value(), [clear], parties)
    np.testing.assert_array_equal(hot.got["y"], np.eye(classes)[values.argmax(axis=1)])


@pytest.mark.parametrize("parties", PARTIES)
@pytest.mark.parametrize(
    ("classes", "scale", "bound"),
    [
        (2, 16, 100.0),
        (3, 8, 1000.0),
        (4, 2, 50.0),
        (5, 38, 2.0**19),
        (10, 24, 30.0),
        (11, 16, 64.0),
        (64, 20, 30.0),
    ],
)
def test_softmax(classes: int, scale: int, bound: float, parties: int) -> None:
    rng = np.random.default_rng(classes)
    x = rng.uniform(-bound, bound, (80, classes))
    x[0], x[1], x[2], x[3] = 0, bound, -bound, np.linspace(-bound, bound, classes)
    x[4:40] = rng.uniform(-3, 3, (36, classes))
    x[40:50] = rng.uniform(-0.1, 0.1, (10, classes))  # the comparisons cannot tell them apart
    x[50:60] = rng.uniform(-18, -15, (10, classes))  # about where powers are cut off
    x[50:60, 0] = 0
    x[60, :] = np.linspace(0, 1 / 16, classes)
    clear = Clear(encode(x, scale), scale, bound)
    x = clear.values / 2.0**scale
    outcome = evaluate(functions.softmax, [clear], parties)
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    exact = powers / powers.sum(axis=1, keepdims=True)
    for got in (outcome.reals(), outcome.plain["y"] / 2.0 ** outcome.program.outputs["y"].scale):
        np.testing.assert_allclose(got, exact, rtol=0, atol=classes_module.softmax_error(classes))


@pytest.mark.parametrize(("classes", "rounds"), [(2, 7), (10, 8), (11, 10), (64, 11)])
def test_rounds_of_softmax(classes: int, rounds: int) -> None:
    """Opened: x, pairs, AND, bits, x - largest, powers, their sum, the factors; see there."""
    clear = Clear(np.zeros((1, classes), dtype=np.int64), 24, 100.0)
    assert cost(traced(functions.softmax, [clear], 2)).rounds == rounds


def test_promises_of_softmax_follow_from_the_worst_case() -> None:
    """All powers off by as much as they can be, in the same direction; five parties."""
    power, inverse = FITS["exp"], FITS["wide_reciprocal"]
    phase, *scales = classes_module.POWER
    one = power.error + wave_error(power.alphas, power.betas, *scales)
    one += 6 * 1.134 * 2.0**-phase  # of a power
    phase, *scales = classes_module.INVERSE
    turned = inverse.error + wave_error(inverse.alphas, inverse.betas, *scales) + 6 * 2.0**-phase
    assert np.exp(0.125) + one < classes_module.POWER_BOUND
    assert 2.0**-3 + 6 * 2.0**-phase < power.high
    for count in (10, 64):
        promise = classes_module.softmax_error(count)
        assert 1 - count * one - 6 * 2.0**-phase > inverse.low
        least = 1 - count * one  # the sum of powers; the largest may be exp(0) and all others none
        assert (one + 2.0**-20) / least + count * one / least**2 + 1.134 * turned < promise


@pytest.mark.parametrize("parties", PARTIES)
def test_every_ands_any_number_of_bits(parties: int) -> None:
    rng = np.random.default_rng(0)
    for count in (1, 2, 3, 4, 5, 9, 16, 17, 20):
        values = np.where(rng.random((200, count)) < 0.1 / count**0.5, 1, -1)
        outcome = evaluate(
            lambda x: functions.every(functions.less(x)).value(), [Clear(values, 0, 1.0)], parties
        )
        np.testing.assert_array_equal(outcome.got["y"], np.all(values < 0, axis=1))


@pytest.mark.parametrize("parties", PARTIES)
def test_whole_words_are_equal_or_not(parties: int) -> None:
    """Words of digests use all 64 bits: one bit of difference anywhere is one."""
    rng = np.random.default_rng(4)
    one = rng.integers(0, 1 << 64, (3, 64), dtype=np.uint64)
    other = one.copy()
    other[1] ^= np.uint64(1) << np.arange(64, dtype=np.uint64)
    other[2, ::2] = rng.integers(0, 1 << 64, 32, dtype=np.uint64)
    trace = Trace("words", parties)
    x, y = trace.words("x", one.shape), trace.words("y", one.shape)
    trace.output("same", functions.equals(x - y).value(), 0)
    inputs = {"x": Clear(one.view(np.int64), 0, 0.0), "y": Clear(other.view(np.int64), 0, 0.0)}
    program = one_block(trace.freeze(), inputs, {"same": 0})
    outcome = execute(program, {"x": one, "y": other}, 1)
    for got in (outcome.got["same"], outcome.plain["same"]):
        np.testing.assert_array_equal(got, one == other)
