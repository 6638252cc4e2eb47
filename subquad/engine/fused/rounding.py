"""What the fused passes (`fused/`) lose by rounding, degree by degree; nothing here needs a GPU.

Operands are numbers in bfloat16 (unit roundoff v = 2^-8) or, for `bfloat16x3`, two of them,
x = high + low: three products for one, what is left out is low times low. Let e be v, or v^2 where
operands are split. Queries and keys as rounded to the operands are taken for the exact ones: that
is a perturbation of the logits (`bounds.rounding.FORMATS`). Then, for degree k >= 1,

* k - 1 products for the key's feature, as many for the query's, each within v; [V, 1] times the
  weight, rounded to the operand, and the moment as an operand of the query pass, e each (the
  moment passes through a float64 product and float32 before): 2 k v in all. Split, all of these
  with what each pass leaves out of its products, low times low, are within OF_SPLIT v^2, the
  largest over all roundings as enumerated by the claim `rounding-tensor-cores`: the low part of a
  product grows, and with it what is left out. The linear feature of a chunk's last variable is
  that of the key before it is rounded, so it is off by e; in return its weight is not rounded;
* the products of the tensor cores are exact;
* a step of the tensor cores adds 16 products to the sum so far: within STEP_ERROR of the sum of
  the absolute values of the 17 (an assumption, probed on the device by the tests: products and sum
  are aligned to the largest of them, cut off two bits below its last one, added, and cut off once
  more; claim `tensor-core-step`). At most FLUSH_STEPS steps in a run of keys, `Sizes.blocks` in
  the query pass;
* runs are added in float32, groups and States in float64; degree 0 and the sum over degrees in
  float32, last.

`fused_errors` is the sum of all this to first order, times 1 + 2^-5, which covers the rest as
long as it is below 3 2^-6 (beyond that it is infinity); its unit is |q|^k M_k, M_k = sum_j w_j
|k_j|^k. M_k is of keys before they are rounded; `stored_norm_bound` of the query's norm makes up
for it.
"""

from __future__ import annotations

import math

from subquad.arrays.formats import FORMATS, U64
from subquad.engine.fused.sizes import FLUSH_STEPS, GROUPS_MAX, sizes_for

V, U32 = FORMATS["bfloat16"].u, FORMATS["float32"].u
"""Unit roundoff of bfloat16 and of float32."""
STEP_ERROR = (16.0 / 4.0 + 1.0) * 2.0**-23
"""Of one step of the tensor cores, relative to the sum of absolute values."""
OF_SPLIT = (0.0, 4.0, 17.0, 40.0)
"""By degree, in v^2: what split operands and the products left out cost."""


def fused_errors(d: int, degree: int, operands: str, keys: int) -> tuple[float, ...]:
    """Return, for k = 0..degree, g_k: degree k of a row is within g_k |q|^k M_k of its exact value.

    Of rows and keys as rounded to the operands; see the accounting above. `keys` are those of all
    States that were added.
    """
    sizes = sizes_for(d, 1, degree, operands)  # how many blocks there are does not depend on d_v
    steps = -(-keys // 16)
    runs = -(-steps // FLUSH_STEPS) + GROUPS_MAX
    split = sizes.parts == 2
    adding = STEP_ERROR * sizes.products * (min(steps, FLUSH_STEPS) + sizes.blocks)
    rest = (runs + 8.0) * U32 + (keys / 8.0 + 1024.0) * U64
    found = [rest]
    for k in range(1, sizes.degree + 1):
        of_operands = OF_SPLIT[k] * V * V if split else 2.0 * k * V
        first = of_operands + adding + rest
        found.append(first * (1.0 + 2.0**-5) if first < 2.0**-6 * 3.0 else math.inf)
    return tuple(found)
