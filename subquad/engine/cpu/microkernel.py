"""The innermost loops of the compiled passes: sums that stay in registers.

Needs numba, and a processor with fused multiply-add (`AVAILABLE`). Written as LLVM instructions,
because no loop in Python says which numbers are to stay in registers; the rest is numba's. Arrays
are indexed as if flat, in C order, and nothing is checked. Operands are of one compute dtype, and
what is added up over a loop is added to float64 at its end.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding
import numba
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = dict(llvmlite.binding.get_host_cpu_features())
_ARM = llvmlite.binding.get_process_triple().startswith(("aarch64", "arm64"))

_OWN = not (numba.config.DISABLE_JIT or numba.config.CPU_NAME or numba.config.CPU_FEATURES)

AVAILABLE = _OWN and (_ARM or bool(_FEATURES.get("fma")))
"""Without the instruction each multiply-add would be a call. Nothing is known of a processor that
numba was told to compile for in place of this one."""

VECTOR_BYTES = 64 if _FEATURES.get("avx512f") else 16 if _ARM else 32
ROWS, VECTORS = 6, 2 if VECTOR_BYTES == 32 else 4
"""Rows of sums at once, and registers of each: with a row of the right operand and one number of
the left they fill the registers there are (32; 16 with AVX2 alone), and none waits for another."""

TOKENS = 48
"""What `combine` adds up at once: a multiple of ROWS, and of the lanes of any register."""

_SIZE, _INDEX = ir.IntType(64), numba.types.intp


class _Code:
    """Emits instructions on vectors of the dtype of an intrinsic's first argument."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Sequence) -> None:
        bits = signature.args[0].dtype.bitwidth
        self.builder, self.lanes = builder, 8 * VECTOR_BYTES // bits
        self._number = ir.FloatType() if bits == 32 else ir.DoubleType()
        self._vector = ir.VectorType(self._number, self.lanes)
        self._wide = ir.VectorType(ir.DoubleType(), self.lanes)
        self._multiply_add = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(self._vector, [self._vector] * 3),
            f"llvm.fma.v{self.lanes}f{bits}",
        )
        self.arguments = [
            context.make_array(kind)(context, builder, value).data
            if isinstance(kind, numba.types.Array)
            else value
            for kind, value in zip(signature.args, arguments, strict=True)
        ]

    def at(self, base: Any, index: Any, step: Any = None) -> Any:
        """Return the address of base[index * step]."""
        index = index if isinstance(index, ir.Value) else _SIZE(index)
        return self.builder.gep(base, [index if step is None else self.builder.mul(index, step)])

    def load(self, base: Any, index: Any, kind: Any = None) -> Any:
        """Return a register, of operands unless said: rows begin anywhere."""
        kind = kind or self._vector
        loaded = self.builder.load(self.builder.bitcast(self.at(base, index), kind.as_pointer()))
        loaded.align = 4 if kind.element == ir.FloatType() else 8
        return loaded

    def store(self, value: Any, base: Any, index: Any) -> None:
        """Store a register."""
        place = self.builder.bitcast(self.at(base, index), value.type.as_pointer())
        self.builder.store(value, place).align = 4 if value.type.element == ir.FloatType() else 8

    def spread(self, base: Any, index: Any, step: Any) -> Any:
        """Return a register full of one number, base[index * step]."""
        number = self.builder.load(self.at(base, index, step))
        empty, place = ir.Constant(self._vector, ir.Undefined), ir.IntType(32)
        one = self.builder.insert_element(empty, number, place(0))
        return self.builder.shuffle_vector(
            one, empty, ir.Constant(ir.VectorType(place, self.lanes), [0] * self.lanes)
        )

    def multiply_add(self, a: Any, b: Any, total: Any) -> Any:
        """Return a * b + total, rounded once."""
        return self.builder.call(self._multiply_add, [a, b, total])

    def add_to(self, out: Any, index: Any, total: Any) -> None:
        """Add a register to float64 numbers."""
        self.store(
            self.builder.fadd(self.load(out, index, self._wide), self._widened(total)), out, index
        )

    def add_lanes(self, out: Any, total: Any) -> None:
        """Add the sum of the numbers of a register, in float64, to one."""
        builder, wide, place = self.builder, self._widened(total), ir.IntType(32)
        numbers = [builder.extract_element(wide, place(lane)) for lane in range(self.lanes)]
        sum_ = functools.reduce(builder.fadd, numbers)
        builder.store(builder.fadd(builder.load(out), sum_), out)

    def _widened(self, vector: Any) -> Any:
        same = vector.type.element == ir.DoubleType()
        return vector if same else self.builder.fpext(vector, self._wide)

    def loop(self, length: Any, step: int, count: int, body: Callable) -> list[Any]:
        """Return `count` sums, first 0, after sums = body(k, sums) for k = 0, step .. < length.

        The length is at least 1.
        """
        builder, before = self.builder, self.builder.block
        inside, after = (builder.append_basic_block(name) for name in ("sums", "summed"))
        builder.branch(inside)
        builder.position_at_end(inside)
        k = builder.phi(_SIZE)
        k.add_incoming(_SIZE(0), before)
        sums = [builder.phi(self._vector) for _ in range(count)]
        done, following = body(k, sums), builder.add(k, _SIZE(step))
        k.add_incoming(following, inside)
        for total, new in zip(sums, done, strict=True):
            total.add_incoming(ir.Constant(self._vector, None), before)
            total.add_incoming(new, inside)
        builder.cbranch(builder.icmp_signed("<", following, length), inside, after)
        builder.position_at_end(after)
        return done


def _emitting(emit: Callable[..., None], *arguments: Any) -> tuple[Any, Callable]:
    """Return the signature and the generator of an intrinsic whose code `emit` writes."""

    def generate(context, builder, signature, values):
        code = _Code(context, builder, signature, values)
        emit(code, *code.arguments)
        return context.get_dummy_value()

    return numba.types.void(*arguments), generate


def products_of(vectors: int) -> Any:
    """Return the loop add_products, for `vectors` registers of columns.

    out[to + i out_step + c] += sum_k left[at + i row_step + k step] right[begin + k right_step + c]
    for i < ROWS, c < vectors * lanes, k < length.
    """

    def emit(code, left, at, row_step, step, right, begin, right_step, length, out, to, out_step):
        first, right, out = code.at(left, at), code.at(right, begin), code.at(out, to)
        rows = [code.at(first, i, row_step) for i in range(ROWS)]

        def body(k, sums):
            start = code.at(right, k, right_step)
            done: list[Any] = []
            others = [code.load(start, v * code.lanes) for v in range(vectors)]
            for row in rows:
                one = code.spread(row, k, step)
                done += [
                    code.multiply_add(one, v, sums[len(done) + j]) for j, v in enumerate(others)
                ]
            return done

        for i, total in enumerate(code.loop(length, 1, ROWS * vectors, body)):
            row, v = divmod(i, vectors)
            code.add_to(code.at(out, row, out_step), v * code.lanes, total)

    @intrinsic
    def add_products(
        _, left, at, row_step, step, right, begin, right_step, length, out, to, out_step
    ):
        return _emitting(
            emit, left, _INDEX, _INDEX, _INDEX, right, _INDEX, _INDEX, _INDEX, out, _INDEX, _INDEX
        )

    return add_products


@intrinsic
def add_dots(_, left, at, row_step, right, length, out, to, out_step):
    """out[to + i out_step] += sum_k left[at + i row_step + k] right[k], i < ROWS, k < length.

    The length is a multiple of the lanes.
    """

    def emit(code, left, at, row_step, right, length, out, to, out_step):
        first, out = code.at(left, at), code.at(out, to)
        rows = [code.at(first, i, row_step) for i in range(ROWS)]

        def body(k, sums):
            other = code.load(right, k)
            return [
                code.multiply_add(code.load(row, k), other, total)
                for row, total in zip(rows, sums, strict=True)
            ]

        for i, total in enumerate(code.loop(length, code.lanes, ROWS, body)):
            code.add_lanes(code.at(out, i, out_step), total)

    return _emitting(emit, left, _INDEX, _INDEX, right, _INDEX, out, _INDEX, _INDEX)


@intrinsic
def combine(_, factors, at, factor_step, rows, begin, step, length, out):
    """out[j] += sum_k factors[at + k factor_step] rows[begin + k step + j], j < TOKENS."""

    def emit(code, factors, at, factor_step, rows, begin, step, length, out):
        factors, rows = code.at(factors, at), code.at(rows, begin)

        def body(k, sums):
            one, row = code.spread(factors, k, factor_step), code.at(rows, k, step)
            return [
                code.multiply_add(one, code.load(row, v * code.lanes), total)
                for v, total in enumerate(sums)
            ]

        for v, total in enumerate(code.loop(length, 1, TOKENS // code.lanes, body)):
            code.add_to(out, v * code.lanes, total)

    return _emitting(emit, factors, _INDEX, _INDEX, rows, _INDEX, _INDEX, _INDEX, out)


@intrinsic
def write_product(_, left, at, right, begin, length, out, to):
    """out[to + j] = left[at + j] right[begin + j], j < length, a multiple of the lanes."""

    def emit(code, left, at, right, begin, length, out, to):
        left, right, out = code.at(left, at), code.at(right, begin), code.at(out, to)

        def body(k, _):
            code.store(code.builder.fmul(code.load(left, k), code.load(right, k)), out, k)
            return []

        code.loop(length, code.lanes, 0, body)

    return _emitting(emit, left, _INDEX, right, _INDEX, _INDEX, out, _INDEX)
