"""What bounds the values of a job, as `masque plan` shows it: by layer, one by one, as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from masque.ml.ranges import Ranges
    from masque.ml.record import Found

LAYERS = ("layer", "values to", "norm", "bits after point", "gradient to", "of 62 bits", "checks")
VALUES = ("layer", "value", "to", "norm", "bits after point", "of 62 bits", "checked", "divided")


def as_json(ranges: Ranges | None) -> dict[str, Any]:
    """Ready for JSON: values and warnings."""
    if ranges is None:
        return {}
    return {
        "values": [_entry(ranges, found) for found in ranges.found],
        "warnings": [
            {"message": c.message, "field": c.field, "layer": c.layer} for c in ranges.concerns
        ],
    }


def _entry(ranges: Ranges, found: Found) -> dict[str, Any]:
    return {
        "layer": found.layer,
        "kind": None if found.layer is None else ranges.layers[found.layer],
        "what": found.what,
        "largest": found.largest,
        "norm": found.norm,
        "fraction_bits": found.scale,
        "ring_bits": round(found.bits, 2),
        "checks": [{"norm": norm, "limit": limit} for norm, limit in found.checks],
        "truncations": [{"by": shift, "width": width} for shift, width in found.cuts],
    }


def by_layer(ranges: Ranges) -> Iterator[Sequence[str]]:
    """Of a network, what leaves every layer and comes back to it, and the widest on the way."""
    for layer, kind in enumerate(ranges.layers):
        here = {found.what: found for found in ranges.found if found.layer == layer}
        values, gradient = here["values"], here.get("gradient")
        checks = sum(len(found.checks) for found in here.values())
        yield (
            f"{kind} {layer}",
            _number(values.largest),
            _number(values.norm),
            str(values.scale),
            _number(gradient.largest) if gradient else "-",
            f"{max(found.bits for found in here.values()):.1f}",
            str(checks) if checks else "-",
        )


def one_by_one(ranges: Ranges) -> Iterator[Sequence[str]]:
    """Of any model, every value that is known of, in the order of a step."""
    for found in ranges.found:
        layer = "-" if found.layer is None else f"{ranges.layers[found.layer]} {found.layer}"
        yield (
            layer,
            found.what,
            _number(found.largest),
            _number(found.norm),
            str(found.scale),
            f"{found.bits:.1f}",
            ", ".join(f"{_number(norm)} to {_number(most)}" for norm, most in found.checks) or "-",
            _divisions(found.cuts),
        )


def _divisions(cuts: Sequence[tuple[int, int]]) -> str:
    """By how many bits, in openings of what width."""
    if not cuts:
        return "-"
    if len(cuts) <= 2:
        return ", ".join(f"{shift} of {width}" for shift, width in cuts)
    return f"{len(cuts)} times, up to {max(width for _, width in cuts)}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
