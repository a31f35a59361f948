"""A Fourier sum of a secret: the one step that all smooth functions share (docs/protocol.md, 6)."""

from __future__ import annotations

from masque.errors import RangeError
from masque.mpc.fits import FITS
from masque.mpc.graph import Kind
from masque.mpc.secret import Secret

# (fraction bits of x looked at, of the public coefficients, of the dealt waves)
BULK = (18, 18, 18)
EXACT = (20, 20, 20)
FINE = (26, 22, 26)


def wave(x: Secret, name: str, precision: tuple[int, int, int]) -> Secret:
    """The Fourier sum `name` at x, taken modulo its period: valid on the fit's interval only."""
    fit = FITS[name]
    phase, public, dealt = precision
    low = max(0, x.scale - phase)
    length = x.scale - low + fit.period_bits
    if low + length > 64:
        raise RangeError(
            f"{name} of values at {x.scale} fraction bits takes {low + length} bits; the ring has "
            "64.",
            hint=f"Bring them to {64 - fit.period_bits} fraction bits or fewer first.",
        )
    masked = x.masked(low, low + length)
    params = (name, fit.digest.hex(), public, dealt, low, length)
    node = x.graph.add("waves", (masked,), Kind.SHARE, x.shape, params)
    return Secret(x.graph, x.shape, public + dealt, fit.peak, share=node)
