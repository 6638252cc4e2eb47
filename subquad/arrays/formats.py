"""The floating-point formats of inputs, passes and operands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """A floating-point format: unit roundoff `u` and smallest normal number `normal`."""

    u: float
    normal: float


FORMATS = {
    "float16": Format(2.0**-11, 2.0**-14),
    "float32": Format(2.0**-24, 2.0**-126),
    "float64": Format(2.0**-53, 2.0**-1022),
    # Operands of tensor cores, stored in float32; one number, and the sum of two. CUDA code may
    # flush what is below 2^-126 to zero: `normal` is set so that this is one subnormal.
    "bfloat16": Format(2.0**-8, 2.0**-119),
    "bfloat16x3": Format(2.0**-16, 2.0**-111),
}
U64 = FORMATS["float64"].u
"""Unit roundoff of float64."""
