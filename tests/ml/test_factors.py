"""Public factors: the same on every machine."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from masque.ml.factors import power


@given(base=st.floats(0.0, 1.0), exponent=st.integers(0, 40))
def test_powers_are_those_of_whole_numbers(base: float, exponent: int) -> None:
    exact = Fraction(base) ** exponent
    assert abs(Fraction(power(base, exponent)) - exact) <= exact / 2**45 + Fraction(1, 2**1000)


def test_powers_of_long_jobs() -> None:
    assert power(0.999, 20_000_000) == 0.0
    assert 0.3676 < power(0.999, 1000) < 0.3678
    assert power(0.5, 10) == 2.0**-10
