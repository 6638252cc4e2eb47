// ---- query pass ------------------------------------------------------------------------------
constexpr int Q_BLOCKS = 4, Q_PER = 2, Q_STAGE = Q_BLOCKS * WSTEP;   // blocks of a stage, of a commit
constexpr int Q_ROWS = 64 * Q_GROUPS;
constexpr int Q_PART = CH * 512;        // bytes of 16 queries, one part
constexpr int Q_OPERANDS = 4 * Q_GROUPS * PARTS * Q_PART;

struct Rows { u32 x[4], xl[4]; };
struct Scalar { u32 x, x8, xl, x8l; };   // twice in a word, of row g and of row g + 8

// Q (heads, n, D) float32. FINISHED: out (heads, n, CW) float32 is numerator over normaliser;
// else the numerator. by_degree (heads, n, 4): the normalisers of degree 0, 1, 2, 3.
extern "C" __global__ void __launch_bounds__(Q_GROUPS * 128, Q_RESIDENT) query_pass(
    const float* __restrict__ Q, const char* __restrict__ table, const float* __restrict__ constants,
    int n, float c0, float c1, float c2, float c3, int finished,
    float* __restrict__ out, float4* __restrict__ by_degree) {
    extern __shared__ __align__(128) char smem[];
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
    const int head = blockIdx.y, first = blockIdx.x * Q_ROWS;
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
    for (int i = tid; i < Q_ROWS * D / 4; i += Q_GROUPS * 128) {
        const int row = i / (D / 4), col = i % (D / 4) * 4, r = col % 16 / 8 * 2 + row % 16 / 8;
        float4 v = first + row < n ? *(const float4*)(Q + (size_t)(first + row) * D + col)
                                   : make_float4(0.f, 0.f, 0.f, 0.f);
        const u32 x = pair(v.x, v.y), y = pair(v.z, v.w);
        const u32 at = rows + row / 16 * PARTS * Q_PART + col / 16 * 512 + r * 128 + row % 8 * 16 + col % 8 * 2;
        asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at), "r"(x), "r"(y) : "memory");
        if constexpr (X3)
            asm volatile("st.shared.v2.u32 [%0], {%1, %2};" ::"r"(at + Q_PART),
                         "r"(rest(v.x, v.y, x)), "r"(rest(v.z, v.w, y)) : "memory");
    }
    __syncthreads();
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
    const char* next = table + (size_t)Q_STAGES * Q_STAGE;
    auto enter = [&]() { bar_wait(full + 8 * slot, phase); };
    auto leave = [&]() {   // called once the stage before `stage` is done with
        if (lane == 0 && stage > 0) bar_arrive(empty + 8 * (slot == 0 ? Q_STAGES - 1 : slot - 1));
        if (tid == 0 && stage > 1 && stage < stages - Q_STAGES + 2) {
            const u32 bar = full + 8 * refill;
            bar_wait(empty + 8 * refill, refill_phase);
            bar_expect(bar, Q_STAGE);
            bulk_load(base + refill * Q_STAGE, next, Q_STAGE, bar);
            next += Q_STAGE;
            if (++refill == Q_STAGES) { refill = 0; refill_phase ^= 1; }
        }
    };
    auto advance = [&]() { stage++; if (++slot == Q_STAGES) { slot = 0; phase ^= 1; } };
    auto scaled = [&](u32 (&high)[4], u32 (&low)[4], const Rows& q, const Scalar& s) {
#pragma unroll
        for (int r = 0; r < 4; r++)
            feature(high[r], low[r], q.x[r], q.xl[r], r & 1 ? s.x8 : s.x, r & 1 ? s.x8l : s.xl);
    };
    Operand a[2][Q_PER];
    auto multiply = [&](Operand (&to)[Q_PER], int count, int commit) {
        const u64 tile = first_tile + (slot * Q_STAGE + commit * Q_PER % Q_BLOCKS * WSTEP) / 16;
#pragma unroll
        for (int e = 0; e < Q_PER; e++) if (e < count) settle(to[e]);
        wg_fence();
#pragma unroll
        for (int e = 0; e < Q_PER; e++) if (e < count) products(acc, to[e], tile + e * (WSTEP / 16));
        wg_commit();
        wg_wait<1>();   // of the two groups of operands one may be built now
        if (commit * Q_PER % Q_BLOCKS == 0) leave();
        if ((commit + 1) * Q_PER % Q_BLOCKS == 0) advance();
    };
    // First prefixes v of degree 3; the last round, without one, is degree 2.
#pragma unroll 1
    for (int v = DEGREE == 3 ? 0 : D; v <= D; v++) {
        const bool cubic = DEGREE == 3 && v < D;
        Scalar before = {};
        if (cubic) {
            const u32 at = mine + v / 16 * 512 + v % 16 / 8 * 256 + g * 16 + v % 8 / 2 * 4, pick = v & 1 ? 0x3232 : 0x1010;
            before.x = __byte_perm(word(at), 0, pick);
            before.x8 = __byte_perm(word(at + 128), 0, pick);
            if constexpr (X3) {
                before.xl = __byte_perm(word(at + Q_PART), 0, pick);
                before.x8l = __byte_perm(word(at + Q_PART + 128), 0, pick);
            }
        }
#pragma unroll 1
        for (int e8 = cubic ? v / 8 : 0; e8 < 2 * CH; e8++) {   // prefixes b = 8 e8 .. 8 e8 + 7
            const u32 at = mine + e8 / 2 * 512 + e8 % 2 * 256 + g * 16;
            u32 up[4], down[4], upl[4], downl[4];
            load16(up, at);
            load16(down, at + 128);
            if constexpr (X3) { load16(upl, at + Q_PART); load16(downl, at + Q_PART + 128); }
            Scalar scalars[8];   // split operands leave no registers to keep them: see below
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const u32 pick = i & 1 ? 0x3232 : 0x1010;
                scalars[i] = {__byte_perm(up[i / 2], 0, pick), __byte_perm(down[i / 2], 0, pick), 0, 0};
                if constexpr (!X3) asm volatile("" : "+r"(scalars[i].x), "+r"(scalars[i].x8));
            }
#pragma unroll 1
            for (int c = e8 / 2; c < CH; c++) {
                Rows q = chunk_of(c);
                if (cubic) { const Rows x = q; scaled(q.x, q.xl, x, before); }
#pragma unroll
                for (int commit = 0; commit < 8 / Q_PER; commit++) {
                    if (commit * Q_PER % Q_BLOCKS == 0) enter();
#pragma unroll
                    for (int e = 0; e < Q_PER; e++) {
                        const int i = commit * Q_PER + e;
                        Scalar s = scalars[i];
                        if constexpr (X3) {
                            const u32 pick = i & 1 ? 0x3232 : 0x1010;
                            s.xl = __byte_perm(upl[i / 2], 0, pick);
                            s.x8l = __byte_perm(downl[i / 2], 0, pick);
                        }
                        scaled(a[commit % 2][e].high, a[commit % 2][e].low, q, s);
                    }
                    multiply(a[commit % 2], Q_PER, commit);
                }
            }
        }
    }
    wg_wait<0>();
    const u32 one = word(ones);
    const Scalar unit = {one, one, 0, 0};
#pragma unroll
    for (int commit = 0; commit < (CH + Q_PER - 1) / Q_PER; commit++) {   // linear blocks
        if (commit * Q_PER % Q_BLOCKS == 0) enter();
#pragma unroll
        for (int e = 0; e < Q_PER; e++)
            if (commit * Q_PER + e < CH) scaled(a[commit % 2][e].high, a[commit % 2][e].low, chunk_of(commit * Q_PER + e), unit);
        multiply(a[commit % 2], CH - commit * Q_PER, commit);
    }
    wg_wait<0>();

    // Degree 0 in float32, last. The normalisers have a column each; whoever holds it tells its row.
    constants += head * NC;
    const float zero = constants[CW];
    float upper[4] = {zero, 0.f, 0.f, 0.f}, lower[4] = {zero, 0.f, 0.f, 0.f};
#pragma unroll
    for (int k = 1; k <= DEGREE; k++) {
        const int col = CW + k - 1, j = col / 8 * 4 + col % 2, holder = g * 4 + col % 8 / 2;
        upper[k] = __shfl_sync(0xffffffffu, acc[j], holder);
        lower[k] = __shfl_sync(0xffffffffu, acc[j + 2], holder);
    }
    const int row = first + warp * 16 + g;
    by_degree += (size_t)head * n;
    if (t == 0 && row < n) by_degree[row] = make_float4(upper[0], upper[1], upper[2], upper[3]);
    if (t == 0 && row + 8 < n) by_degree[row + 8] = make_float4(lower[0], lower[1], lower[2], lower[3]);
    const float sum = c0 * zero + c1 * upper[1] + c2 * upper[2] + c3 * upper[3];
    const float sum8 = c0 * zero + c1 * lower[1] + c2 * lower[2] + c3 * lower[3];
    const float r1 = finished ? 1.f / sum : 1.f, r2 = finished ? 1.f / sum8 : 1.f;
    out += (size_t)head * n * CW;
#pragma unroll
    for (int j = 0; j < NC / 8; j++) {
        const int col = 8 * j + 2 * t;
        if (col >= CW) continue;
        const float2 c = *(const float2*)(constants + col);
        const float2 x = make_float2((acc[4 * j] + c.x) * r1, (acc[4 * j + 1] + c.y) * r1);
        const float2 y = make_float2((acc[4 * j + 2] + c.x) * r2, (acc[4 * j + 3] + c.y) * r2);
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
