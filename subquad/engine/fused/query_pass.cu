// ---- query pass ------------------------------------------------------------------------------
constexpr int Q_PER = 2, Q_STAGE = Q_BLOCKS * WSTEP;   // blocks of a commit; bytes of a stage
constexpr int Q_ROWS = 64 * Q_GROUPS;
constexpr int Q_PART = CH * 512;        // bytes of 16 queries, one part
constexpr int Q_OPERANDS = 4 * Q_GROUPS * PARTS * Q_PART;

struct Rows { u32 x[4], xl[4]; };

// A row of the operands in shared memory, its squared norm rounded up.
__device__ __forceinline__ float squared_norm(u32 at) {
    float sum = 0.f;
#pragma unroll
    for (int c = 0; c < CH; c++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            u32 high[4], low[4] = {0, 0, 0, 0};
            load16(high, at + c * 512 + half * 256);
            if constexpr (X3) load16(low, at + c * 512 + half * 256 + Q_PART);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float x = low_of(high[i]) + low_of(low[i]), y = high_of(high[i]) + high_of(low[i]);
                sum = fmaf(x, x, fmaf(y, y, sum));
            }
        }
    return sum * (X3 ? 1.f + 0x1p-13f : 1.f + 0x1p-6f);   // operands are within 2^-16, 2^-8; and roundings
}

// Two columns of the output: (mid + radius * x) / pre within [low, high], `values` as `Raw` has them.
__device__ __forceinline__ float2 restored(float2 x, const float* values, int col) {
    auto one = [&](float x, int c) {
        const float* v = values + min(c, CW - 1);
        const float y = (fmaf(x, v[4 * CW], v[2 * CW]) + v[CW]) * v[5 * CW], low = v[6 * CW], high = v[7 * CW];
        return y < low ? low : y > high ? high : y;   // NaN stays
    };
    return make_float2(one(x.x, col), one(x.y, col + 1));
}

// Q (heads, n, D) float32, or raw (`pack_keys`), where `given` has it: then `largest` of a head becomes that of
// its queries, and the output, where `given` says, is in the units of V. `own` (heads, 4), if any, has coefficients for each head. FINISHED: out (heads, n, CW) float32 is
// numerator over normaliser; else the numerator. by_degree (heads, n, 4), if
// any: the normalisers of degree 0, 1, 2, 3.
extern "C" __global__ void __launch_bounds__(Q_GROUPS * 128, Q_RESIDENT) query_pass(
    const float* __restrict__ Q, const char* __restrict__ table, const float* __restrict__ constants,
    int n, float c0, float c1, float c2, float c3, int finished,
    float* __restrict__ out, float4* __restrict__ by_degree, const Given* given, const float* values,
    u32* __restrict__ largest, int apart, const double* own) {
    extern __shared__ __align__(128) char smem[];
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
    const int head = blockIdx.y, first = blockIdx.x * Q_ROWS;
    const float* centre = given ? given_at<float>(Q, given->query_sides) + (size_t)head * (D + 4) : nullptr;
    if (given) Q = given_at<float>(Q, given->Q);
    Q += (size_t)head * n * D; table += (size_t)head * BLOCKS * WSTEP;
    const u32 base = smem_of(smem), rows = base + Q_STAGES * Q_STAGE, ones = rows + Q_OPERANDS, bars = ones + 8;
    const u32 full = bars, empty = bars + 8 * Q_STAGES;
    const u64 first_tile = descriptor(base);
    constexpr int stages = BLOCKS / Q_BLOCKS;
    if (tid == 0) {
        for (int i = 0; i < Q_STAGES; i++) { bar_init(full + 8 * i, 1); bar_init(empty + 8 * i, 4 * Q_GROUPS); }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        for (int s = 0; s < Q_STAGES && s < stages; s++) {
            bar_expect(full + 8 * s, Q_STAGE);
            bulk_load(base + s * Q_STAGE, table + (size_t)s * Q_STAGE, Q_STAGE, full + 8 * s);
        }
    }
    // Operands of a warp, [part][chunk][word r of a lane][lane]: a lane's four words are its part of a
    // chunk, and eight variables of one row are four consecutive words. A pair of ones behind them (not
    // a literal: a product with that is a move, and moves into operands keep products from overlapping).
    if (tid == 0) asm volatile("st.shared.u32 [%0], %1;" ::"r"(ones), "r"(ONES) : "memory");
    const float pre = given ? centre[D] : 1.f, post = given ? centre[D + 1] : 1.f;
    for (int i = tid; i < Q_ROWS * D / 4; i += Q_GROUPS * 128) {
        const int row = i / (D / 4), col = i % (D / 4) * 4, r = col % 16 / 8 * 2 + row % 16 / 8;
        float4 v = first + row < n ? *(const float4*)(Q + (size_t)(first + row) * D + col)
                                   : make_float4(0.f, 0.f, 0.f, 0.f);
        if (given && first + row < n) {
            const float4 down = *(const float4*)(centre + col);
            v = make_float4((v.x * pre - down.x) * post, (v.y * pre - down.y) * post,
                            (v.z * pre - down.z) * post, (v.w * pre - down.w) * post);
        }
        const u32 x = pair(v.x, v.y), y = pair(v.z, v.w);
        const u32 at = rows + row / 16 * PARTS * Q_PART + col / 16 * 512 + r * 128 + row % 8 * 16 + col % 8 * 2;
        asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at), "r"(x), "r"(y) : "memory");
        if constexpr (X3)
            asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at + Q_PART),
                         "r"(rest(v.x, v.y, x)), "r"(rest(v.z, v.w, y)) : "memory");
    }
    __syncthreads();
    if (given && tid < Q_ROWS) {
        const float square = squared_norm(rows + tid / 16 * PARTS * Q_PART + tid / 8 % 2 * 128 + tid % 8 * 16);
        const u32 longest = __reduce_max_sync(0xffffffffu, __float_as_uint(square));
        if (lane == 0) atomicMax(largest + (size_t)head * apart, longest);
    }
    const u32 mine = rows + warp * PARTS * Q_PART;
    auto word = [&](u32 at) {
        u32 r;
        asm volatile("ld.shared.u32 %0, [%1];" : "=r"(r) : "r"(at));
        return r;
    };
    auto chunk_of = [&](int c) {
        Rows q;
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const u32 at = mine + c * 512 + r * 128 + lane * 4;
            q.x[r] = word(at);
            q.xl[r] = X3 ? word(at + Q_PART) : 0;
        }
        return q;
    };
    float acc[NC / 2];
#pragma unroll
    for (int j = 0; j < NC / 2; j++) acc[j] = 0.f;

    // Stages come in order; the one before the last is refilled, so as not to wait for it.
    int stage = 0, slot = 0, phase = 0, refill = 0, refill_phase = 0;
    int at = 0;   // block of the stage: set anew in each loop, all of which take whole stages, to be a constant
    const char* next = table + (size_t)Q_STAGES * Q_STAGE;
    const int uniform_warp = __shfl_sync(0xffffffffu, warp, 0);
    auto enter = [&]() { if (at == 0) warp_wait(full + 8 * slot, phase); };
    auto leave = [&]() {   // called once the stage before `stage` is done with
        bar_arrive_if(empty + 8 * (slot == 0 ? Q_STAGES - 1 : slot - 1), lane == 0 && stage > 0);
        if (uniform_warp == 0 && stage > 1 && stage < stages - Q_STAGES + 2) {
            warp_wait(empty + 8 * refill, refill_phase);
            bar_expect_if(full + 8 * refill, Q_STAGE, lane == 0);
            bulk_load_if(base + refill * Q_STAGE, next, Q_STAGE, full + 8 * refill, lane == 0);
            next += Q_STAGE;
            if (++refill == Q_STAGES) { refill = 0; refill_phase ^= 1; }
        }
    };
    auto advance = [&]() { at = 0; stage++; if (++slot == Q_STAGES) { slot = 0; phase ^= 1; } };
    // Row r of an operand times multiplier r, words of two: upper and lower rows, variables 0-7 and 8-15.
    auto scaled = [&](u32 (&high)[4], u32 (&low)[4], const Rows& q, const Rows& s) {
#pragma unroll
        for (int r = 0; r < 4; r++) feature(high[r], low[r], q.x[r], q.xl[r], s.x[r], s.xl[r]);
    };
    Operand a[2][Q_PER];
    auto multiply = [&](Operand (&to)[Q_PER], int count) {
        const u64 tile = first_tile + (slot * Q_STAGE + at * WSTEP) / 16;
#pragma unroll
        for (int e = 0; e < Q_PER; e++) if (e < count) settle(to[e]);
        wg_fence();
#pragma unroll
        for (int e = 0; e < Q_PER; e++) if (e < count) products(acc, to[e], tile + e * (WSTEP / 16));
        wg_commit();
        wg_wait<1>();   // of the two groups of operands one may be built now
        if (at == 0) leave();
        at += Q_PER;
        if (at == Q_BLOCKS) advance();
    };
    auto one_of = [&](const Rows& pairs, int e) {   // the first or second of each word, twice
        Rows s;
#pragma unroll
        for (int r = 0; r < 4; r++) {
            s.x[r] = __byte_perm(pairs.x[r], 0, e ? 0x3232 : 0x1010);
            s.xl[r] = X3 ? __byte_perm(pairs.xl[r], 0, e ? 0x3232 : 0x1010) : 0;
        }
        return s;
    };
    const u32 eights = mine + g * 16;   // of this lane's rows: variables 8 e on are at e * 256
    auto unit = [&]() {
        const u32 one = word(ones);
        return Rows{{one, one, one, one}, {0, 0, 0, 0}};
    };
    Rows before = {};   // the first prefix v of degree 3
    auto start = [&](int v) {
        const u32 from = eights + v / 8 * 256 + v % 8 / 2 * 4;
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const u32 pick = v & 1 ? 0x3232 : 0x1010;
            before.x[r] = __byte_perm(word(from + r % 2 * 128), 0, pick);
            if constexpr (X3) before.xl[r] = __byte_perm(word(from + Q_PART + r % 2 * 128), 0, pick);
        }
    };
    auto times = [&](int c, bool cubic) {
        Rows q = chunk_of(c);
        if (cubic) { const Rows x = q; scaled(q.x, q.xl, x, before); }
        return q;
    };
    // ptxas lets products overlap only where every loop runs at least once and ends with none in flight.
    if constexpr (ROTATED) {   // so a round has no loop, and all its chunks stay in registers
        auto end = [&]() {
            if (at > 0) advance();
            wg_wait<0>();
        };
        auto swapped = [&](const Rows& pairs) {   // the two of each word change places
            Rows s = {};
#pragma unroll
            for (int r = 0; r < 4; r++) s.x[r] = __byte_perm(pairs.x[r], 0, 0x1032);
            return s;
        };
        auto pairs_of = [&](int c, int s) -> Rows {   // of variables (two a lane: t and t + 4), s further on modulo 8
            const int p = t + s;
            const u32 low = eights + c * 512 + (p & 4) * 64 + (p & 3) * 4, high = low + 256 - (p & 4) * 128;
            return {{word(low), word(low + 128), word(high), word(high + 128)}, {}};
        };
        auto two = [&](int i, const Rows& q, const Rows& s, const Rows& s2) {   // blocks q s, q s2
            enter();
            scaled(a[i % 2][0].high, a[i % 2][0].low, q, s);
            scaled(a[i % 2][1].high, a[i % 2][1].low, q, s2);
            multiply(a[i % 2], 2);
        };
        auto with_itself = [&](int c, const Rows& q) {   // its pairs times those s = 1, 2, 3, then 0 further on
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const Rows s = pairs_of(c, (i + 1) % 4);
                two(i, q, s, swapped(s));
            }
        };
        auto rest_of = [&](int i, int c, const Rows& q, bool alone) {   // pairs p < 4 times p + 4, and the chunk alone
            const Rows x = chunk_of(c), y = swapped(x);
            Operand (&to)[Q_PER] = a[i % 2];
            enter();
            scaled(to[0].high, to[0].low, {{q.x[0], q.x[1], q.x[0], q.x[1]}, {}},
                   {{x.x[2], x.x[3], y.x[2], y.x[3]}, {}});
            if (alone) scaled(to[1].high, to[1].low, q, unit());
            multiply(to, alone ? 2 : 1);
        };
        auto round = [&](int own) {
            Rows held[CH];
            at = 0;
#pragma unroll
            for (int f = 0; f < CH; f++) if (f != own) held[f] = times(f, own >= 0);
#pragma unroll
            for (int f = 0; f < CH; f++) {
                if (f == own) continue;
                with_itself(f, held[f]);
#pragma unroll
                for (int e = 2 * f; e < 2 * f + 2 && f > own && f < CH - 1; e++) {
                    u32 up[4], down[4];
                    load16(up, eights + e * 256);
                    load16(down, eights + e * 256 + 128);
#pragma unroll
                    for (int c = f + 1; c < CH; c++)
#pragma unroll
                        for (int i = 0; i < 4; i++) {
                            const Rows pairs = {{up[i], down[i], up[i], down[i]}, {}};
                            two(i, held[c], one_of(pairs, 0), one_of(pairs, 1));
                        }
                }
            }
#pragma unroll
            for (int f = 0, i = 0; f < CH; f++) if (f != own) rest_of(i++, f, held[f], f > own);
            end();
        };
        // Three of a chunk, as pairs p times those s and u further on: each set of three modulo 8 once.
        auto own_round = [&](int c) {
            const Rows x = chunk_of(c);
            at = 0;
            with_itself(c, x);
            rest_of(0, c, x, true);
            Rows straight, crossed, z;   // pairs p times those s further on
#pragma unroll
            for (int j = 0; j < TRIPLES; j++) {
                const Triple f = triple_of(j);
                if (f.first) {
                    const Rows y = pairs_of(c, f.s);
                    scaled(straight.x, straight.xl, x, y);
                    scaled(crossed.x, crossed.xl, x, swapped(y));
                }
                if (j == 0 || f.u != triple_of(j - 1).u || f.first) z = pairs_of(c, f.u);
                if (j % 2 == 0) enter();
                Operand& to = a[(j / 2 + 1) % 2][j % 2];
                scaled(to.high, to.low, f.crossed ? crossed : straight, f.swapped ? swapped(z) : z);
                if (j % 2 || j == TRIPLES - 1) multiply(a[(j / 2 + 1) % 2], j % 2 + 1);
            }
            end();
        };
        if constexpr (DEGREE == 2) round(-1);
        else {
#pragma unroll
            for (int own = 0; own < CH && CH > 1; own++)
#pragma unroll 1
                for (int v = 16 * own; v < 16 * own + 16; v++) { start(v); round(own); }
#pragma unroll 1
            for (int c = 0; c < CH; c++) own_round(c);
        }
    } else {   // so there is one nest of loops; the last round of v is that of degree 2
#pragma unroll 1
        for (int v = DEGREE == 3 ? 0 : D; v <= D; v++) {
            const bool cubic = DEGREE == 3 && v < D;
            if (cubic) start(v);
#pragma unroll 1
            for (int e8 = cubic ? v / 8 : 0; e8 < 2 * CH; e8++) {   // prefixes b = 8 e8 .. 8 e8 + 7
                u32 up[4], down[4], upl[4], downl[4];
                load16(up, eights + e8 * 256);
                load16(down, eights + e8 * 256 + 128);
                if constexpr (X3) { load16(upl, eights + e8 * 256 + Q_PART); load16(downl, eights + e8 * 256 + Q_PART + 128); }
                u32 upper[8], lower[8];   // split operands leave no registers to keep them: see below
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const u32 pick = i & 1 ? 0x3232 : 0x1010;
                    upper[i] = __byte_perm(up[i / 2], 0, pick);
                    lower[i] = __byte_perm(down[i / 2], 0, pick);
                    if constexpr (!X3) asm volatile("" : "+r"(upper[i]), "+r"(lower[i]));
                }
#pragma unroll 1
                for (int c = e8 / 2; c < CH; c++) {
                    const Rows q = times(c, cubic);
                    at = 0;
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        if (i % 2 == 0) enter();
                        u32 su = 0, sl = 0;
                        if constexpr (X3) {
                            const u32 pick = i & 1 ? 0x3232 : 0x1010;
                            su = __byte_perm(upl[i / 2], 0, pick);
                            sl = __byte_perm(downl[i / 2], 0, pick);
                        }
                        Operand& to = a[i / 2 % 2][i % 2];
                        scaled(to.high, to.low, q, {{upper[i], lower[i], upper[i], lower[i]}, {su, sl, su, sl}});
                        if (i % 2) multiply(a[i / 2 % 2], 2);
                    }
                }
            }
        }
        wg_wait<0>();
    }
    if constexpr (!ROTATED) {
        at = 0;
#pragma unroll
        for (int c = 0; c < CH; c += Q_PER) {   // linear blocks
            enter();
#pragma unroll
            for (int e = 0; e < Q_PER; e++)
                if (c + e < CH) scaled(a[c / 2 % 2][e].high, a[c / 2 % 2][e].low, chunk_of(c + e), unit());
            multiply(a[c / 2 % 2], CH - c);
        }
        wg_wait<0>();
    }

    // Degree 0 in float32, last. The normalisers have a column each; whoever holds it tells its row.
    constants += head * NC;
    if (given) {   // read here: no register holds them through the products
        values += (size_t)head * 8 * CW;
        out = (float*)given_at<float>(out, given->out);
        own = given_at<double>(own, given->coefficients);
    }
    if (own) { c0 = own[4 * head]; c1 = own[4 * head + 1]; c2 = own[4 * head + 2]; c3 = own[4 * head + 3]; }
    const float zero = constants[CW];
    float upper[4] = {zero, 0.f, 0.f, 0.f}, lower[4] = {zero, 0.f, 0.f, 0.f};
#pragma unroll
    for (int k = 1; k <= DEGREE; k++) {
        const int col = CW + k - 1, j = col / 8 * 4 + col % 2, holder = g * 4 + col % 8 / 2;
        upper[k] = __shfl_sync(0xffffffffu, acc[j], holder);
        lower[k] = __shfl_sync(0xffffffffu, acc[j + 2], holder);
    }
    const int row = first + warp * 16 + g;
    if (by_degree) by_degree += (size_t)head * n;
    if (by_degree && t == 0 && row < n) by_degree[row] = make_float4(upper[0], upper[1], upper[2], upper[3]);
    if (by_degree && t == 0 && row + 8 < n) by_degree[row + 8] = make_float4(lower[0], lower[1], lower[2], lower[3]);
    const float sum = c0 * zero + c1 * upper[1] + c2 * upper[2] + c3 * upper[3];
    const float sum8 = c0 * zero + c1 * lower[1] + c2 * lower[2] + c3 * lower[3];
    const float r1 = finished ? 1.f / sum : 1.f, r2 = finished ? 1.f / sum8 : 1.f;
    out += (size_t)head * n * CW;
#pragma unroll
    for (int j = 0; j < NC / 8; j++) {
        const int col = 8 * j + 2 * t;
        if (col >= CW) continue;
        const float2 c = *(const float2*)(constants + col);
        float2 x = make_float2((acc[4 * j] + c.x) * r1, (acc[4 * j + 1] + c.y) * r1);
        float2 y = make_float2((acc[4 * j + 2] + c.x) * r2, (acc[4 * j + 3] + c.y) * r2);
        if (given) { x = restored(x, values, col); y = restored(y, values, col); }
        float* at = out + (size_t)row * CW + col;
        if constexpr (CW % 2 == 0) {
            if (row < n) *(float2*)at = x;
            if (row + 8 < n) *(float2*)(at + 8 * CW) = y;
        } else {
            if (row < n) { at[0] = x.x; if (col + 1 < CW) at[1] = x.y; }
            if (row + 8 < n) { at[8 * CW] = y.x; if (col + 1 < CW) at[8 * CW + 1] = y.y; }
        }
    }
}
