// Polynomial attention of degree 2 or 3 in two passes whose features never leave the registers (sm_90a).
//
// Defined by the host before this text: D (head dimension, a multiple of 16), CW (columns of V; column
// CW of [V, 1] is the weight), NC (columns of a tile: at least CW + DEGREE, a multiple of 8), DEGREE,
// X3 (1: operands split in two, three products), NACC (accumulators of a key warp), and tuning sizes.
//
// A block is 16 features: a prefix (one variable b, or two, a <= b) times the 16 variables of a chunk
// c, for b <= 16 c + 15. Where b lies in c itself the rows below b repeat others. In the key pass the
// degree-2 block of b = 16 c + 15 carries the linear features of its chunk there, all but the last,
// which `pack_keys` sums itself.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int CH = D / 16;                 // chunks
constexpr int PARTS = X3 ? 2 : 1;
constexpr int KSTEP = CH * 512 * PARTS;    // bytes of 16 keys in fragment order
constexpr int WHALF = 16 * NC * 2;         // bytes of 16 rows of a B tile, one part
constexpr int WSTEP = WHALF * PARTS;
constexpr int BLOCKS2 = 8 * CH * (CH + 1);
__device__ constexpr int blocks3(int chunks) {   // of the chunks below: eights of b from that of a on
    int total = 0;
    for (int c = 0; c < chunks; c++) total += 64 * (c + 1) * (2 * c + 3);
    return total;
}
constexpr int BLOCKS3 = DEGREE == 3 ? blocks3(CH) : 0;
constexpr int BLOCKS = BLOCKS3 + BLOCKS2 + (CH + 3) / 4 * 4;   // the last ones zero
constexpr int NORMS = DEGREE + 1;
constexpr int SUMS = CH + 1;               // columns summed by pack_keys: weights, last of each chunk

__device__ __forceinline__ u32 smem_of(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ u32 pair(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ float low_of(u32 x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float high_of(u32 x) { return __uint_as_float(x & 0xffff0000u); }
__device__ __forceinline__ u32 rest(float low, float high, u32 rounded) {
    return pair(low - low_of(rounded), high - high_of(rounded));
}
__device__ __forceinline__ u32 mul2(u32 a, u32 b) {
    u32 r;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
__device__ __forceinline__ u32 fma2(u32 a, u32 b, u32 c) {
    u32 r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
constexpr u32 ONES = 0x3f803f80u, SIGNS = 0x80008000u;

// ---- mbarriers and bulk copies -------------------------------------------------------------
__device__ __forceinline__ void bar_init(u32 bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
__device__ __forceinline__ void bar_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void bar_expect(u32 bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void bar_wait(u32 bar, u32 parity) {
    asm volatile(
        "{\n.reg .pred p;\nagain:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@p bra done;\nbra again;\ndone:\n}" ::"r"(bar), "r"(parity) : "memory");
}
__device__ __forceinline__ void bulk_load(u32 to, const void* from, u32 bytes, u32 bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        ::"r"(to), "l"(from), "r"(bytes), "r"(bar) : "memory");
}

// ---- tensor cores --------------------------------------------------------------------------
// 16 x NC, column groups of 8 with k contiguous: k halves 16 NC bytes apart, groups 128.
// One less than 2^18 bytes away, a tile is (bytes / 16) further on in the low bits.
__device__ __forceinline__ u64 descriptor(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | ((u64)(16 * NC >> 4) << 16) | ((u64)(128 >> 4) << 32);
}
__device__ __forceinline__ void wg_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wg_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int LEFT> __device__ __forceinline__ void wg_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
//WGMMA//

struct Operand { u32 high[4], low[4]; };   // low unused unless X3

__device__ __forceinline__ void products(float (&acc)[NC / 2], const Operand& a, u64 tile) {
    wgmma(acc, a.high, tile);
    if constexpr (X3) {
        wgmma(acc, a.high, tile + WHALF / 16);
        wgmma(acc, a.low, tile);
    }
}

// Holds the compiler to building an operand before the products that read it are issued.
__device__ __forceinline__ void settle(Operand& a) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
        asm volatile("" : "+r"(a.high[r]));
        if constexpr (X3) asm volatile("" : "+r"(a.low[r]));
    }
}

// x * s, componentwise: the low part holds what the high one lost and the cross terms.
__device__ __forceinline__ void feature(u32& high, u32& low, u32 xh, u32 xl, u32 sh, u32 sl) {
    high = mul2(xh, sh);
    if constexpr (X3) low = fma2(xh, sl, fma2(xl, sh, fma2(xh, sh, high ^ SIGNS)));
}

// ---- pack: rows to bf16 tiles ---------------------------------------------------------------
// K (heads, m, D) and W (heads, m, CW + 1) float32 -> fragments (steps, KSTEP), tiles (steps, WSTEP),
// and float64 sums of each block: norms[head][NORMS][blocks] of w |k|^0, 1, .., rounded up in float32, and
// sums[head][SUMS][NC][blocks]. Rows come through shared memory in bulk; grid (blocks, heads).
constexpr int COLUMNS = CW + 1, TILE = D + COLUMNS > 160 ? 64 : 128;
constexpr int PACK_THREADS = 4 * NC <= 256 ? 256 : (4 * NC + 31) / 32 * 32;
constexpr int SLOTS = PACK_THREADS / NC < TILE / 8 ? PACK_THREADS / NC : TILE / 8;
constexpr int PACK_STAGE = TILE * (D + COLUMNS);   // floats

// One step of 16 keys by one warp: fragments and the squared norms of its tokens.
__device__ __forceinline__ void pack_fragments(
    const float* k, const float* w, uint4* __restrict__ fragments, double (&norms)[NORMS]) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float squares[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int c = 0; c < CH; c++) {
        u32 high[4], low[4];
#pragma unroll
        for (int r = 0; r < 4; r++) {   // (row g: tokens 2t.., 2t+8..), (row g+8: the same)
            const float* at = k + (2 * t + 8 * (r & 1)) * D + 16 * c + g + 8 * (r >> 1);
            const float x = at[0], y = at[D];
            squares[2 * (r & 1)] = fmaf(x, x, squares[2 * (r & 1)]);
            squares[2 * (r & 1) + 1] = fmaf(y, y, squares[2 * (r & 1) + 1]);
            high[r] = pair(x, y);
            low[r] = rest(x, y, high[r]);
        }
        fragments[c * 32 + lane] = make_uint4(high[0], high[1], high[2], high[3]);
        if constexpr (X3) fragments[(CH + c) * 32 + lane] = make_uint4(low[0], low[1], low[2], low[3]);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2)
            squares[i] += __shfl_xor_sync(0xffffffffu, squares[i], apart);
    if (g >= 4) return;   // each of 16 lanes takes a token
    const double weight = w[(2 * t + (g & 1) + 8 * (g >> 1)) * COLUMNS + CW];
    const float mine = g == 0 ? squares[0] : g == 1 ? squares[1] : g == 2 ? squares[2] : squares[3];
    const double square = mine * (1.f + 0x1p-14f);   // D + 8 roundings, upwards
    double power = weight;
#pragma unroll
    for (int i = 0; i < NORMS; i++) { norms[i] += power; power *= sqrt(square); }
}

// Half a step, one column: a row of its tile, and what the key pass has no place for.
__device__ __forceinline__ void pack_column(
    const float* k, const float* w, int col, uint4* __restrict__ tile, double (&totals)[SUMS]) {
    float x[8], part[SUMS];
#pragma unroll
    for (int s = 0; s < SUMS; s++) part[s] = 0.f;
#pragma unroll
    for (int r = 0; r < 8; r++) {
        x[r] = col < COLUMNS ? w[r * COLUMNS + col] : 0.f;
        part[0] += x[r];
#pragma unroll
        for (int s = 1; s < SUMS; s++) part[s] = fmaf(x[r], k[r * D + 16 * s - 1], part[s]);
    }
#pragma unroll
    for (int s = 0; s < SUMS; s++) totals[s] += (double)part[s];
    u32 high[4], low[4];
#pragma unroll
    for (int r = 0; r < 4; r++) {
        high[r] = pair(x[2 * r], x[2 * r + 1]);
        low[r] = rest(x[2 * r], x[2 * r + 1], high[r]);
    }
    tile[col] = make_uint4(high[0], high[1], high[2], high[3]);
    if constexpr (X3) tile[WHALF / 16 + col] = make_uint4(low[0], low[1], low[2], low[3]);
}

extern "C" __global__ void __launch_bounds__(PACK_THREADS) pack_keys(
    const float* __restrict__ K, const float* __restrict__ W, int m, int steps,
    uint4* __restrict__ fragments, uint4* __restrict__ tiles, double* __restrict__ sums,
    double* __restrict__ norms) {
    extern __shared__ __align__(128) char smem[];
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, slot = tid / NC, col = tid % NC;
    const int head = blockIdx.y, blocks = gridDim.x, block = blockIdx.x, total = (m + TILE - 1) / TILE;
    K += (size_t)head * m * D; W += (size_t)head * m * COLUMNS;
    fragments += (size_t)head * steps * (KSTEP / 16); tiles += (size_t)head * steps * (WSTEP / 16);
    const u32 base = smem_of(smem), bars = base + PACK_STAGES * PACK_STAGE * 4;
    const bool aligned = (size_t)W % 16 == 0;
    auto in_bulk = [&](int tile) { return aligned && (tile + 1) * TILE <= m; };
    auto fill = [&](int tile, int stage) {
        const u32 to = base + stage * PACK_STAGE * 4, bar = bars + 8 * stage;
        bar_expect(bar, PACK_STAGE * 4);
        bulk_load(to, K + (size_t)tile * TILE * D, TILE * D * 4, bar);
        bulk_load(to + TILE * D * 4, W + (size_t)tile * TILE * COLUMNS, TILE * COLUMNS * 4, bar);
    };
    if (tid == 0) {
        for (int s = 0; s < PACK_STAGES; s++) bar_init(bars + 8 * s, 1);
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        for (int s = 0; s < PACK_STAGES; s++) {
            const int tile = block + s * blocks;
            if (tile < total && in_bulk(tile)) fill(tile, s);
        }
    }
    __syncthreads();
    double totals[SUMS], moments[NORMS] = {};
#pragma unroll
    for (int s = 0; s < SUMS; s++) totals[s] = 0.0;
    int stage = 0, phase = 0;
    for (int tile = block; tile < total; tile += blocks) {
        float* k = (float*)smem + stage * PACK_STAGE;
        float* w = k + TILE * D;
        const int first = tile * TILE, here = min(TILE, m - first);
        if (in_bulk(tile)) bar_wait(bars + 8 * stage, phase);
        else {
            for (int i = tid; i < TILE * D; i += PACK_THREADS)
                k[i] = i < here * D ? K[(size_t)first * D + i] : 0.f;
            for (int i = tid; i < TILE * COLUMNS; i += PACK_THREADS)
                w[i] = i < here * COLUMNS ? W[(size_t)first * COLUMNS + i] : 0.f;
            __syncthreads();
        }
        if (warp < TILE / 16 && first / 16 + warp < steps)
            pack_fragments(k + warp * 16 * D, w + warp * 16 * COLUMNS,
                           fragments + (size_t)(first / 16 + warp) * (KSTEP / 16), moments);
        if (slot < SLOTS)
            for (int half = slot; half < TILE / 8 && first / 16 + half / 2 < steps; half += SLOTS)
                pack_column(k + half * 8 * D, w + half * 8 * COLUMNS, col,
                            tiles + (size_t)(first / 16 + half / 2) * (WSTEP / 16) + (half & 1) * NC, totals);
        __syncthreads();
        const int later = tile + PACK_STAGES * blocks;
        if (tid == 0 && later < total && in_bulk(later)) fill(later, stage);
        if (++stage == PACK_STAGES) { stage = 0; phase ^= 1; }
    }
    // Sums of the block, in a fixed order; all copies have arrived, so their memory is free.
    double* shared = (double*)smem;
    __syncthreads();
    for (int s = 0; s < SUMS; s++) {
        if (slot < SLOTS) shared[slot * NC + col] = totals[s];
        __syncthreads();
        if (slot == 0) {
            double sum = 0.0;
            for (int i = 0; i < SLOTS; i++) sum += shared[i * NC + col];
            sums[(((size_t)head * SUMS + s) * NC + col) * blocks + block] = sum;
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < NORMS; i++) {
#pragma unroll
        for (int apart = 1; apart < 32; apart *= 2) moments[i] += __shfl_xor_sync(0xffffffffu, moments[i], apart);
        if (lane == 0 && warp < TILE / 16) shared[i * 8 + warp] = moments[i];
    }
    __syncthreads();
    if (tid < NORMS) {
        double sum = 0.0;
        for (int i = 0; i < TILE / 16; i++) sum += shared[tid * 8 + i];
        norms[((size_t)head * NORMS + tid) * blocks + block] = sum;
    }
}

// ---- key pass --------------------------------------------------------------------------------
constexpr int KEY_WARPS = 8;
__device__ constexpr int unit_count(int chunks, bool cubic) {   // groups of NACC prefixes b with one chunk and one a
    int total = 0;
    for (int c = 0; c < chunks; c++) {
        const int wide = 16 / NACC * (c + 1);
        total += cubic ? NACC * wide * (wide + 1) / 2 : wide;
    }
    return total;
}
constexpr int UNITS2 = unit_count(CH, false), UNITS = UNITS2 + (DEGREE == 3 ? unit_count(CH, true) : 0);
constexpr int KEY_STAGE = KEY_STEPS * (KSTEP + WSTEP);
constexpr int FEATURE_GROUPS = (UNITS + KEY_WARPS - 1) / KEY_WARPS;
constexpr int ROWS = FEATURE_GROUPS * KEY_WARPS * NACC * 16;
constexpr int FLUSH = FLUSH_STEPS / KEY_STEPS;   // stages between additions to `partial`

struct Unit { int a, b, c; };   // prefixes a and b .. b + NACC - 1, chunk; a < 0: degree 2

__device__ __forceinline__ Unit unit_of(int index) {
    Unit u = {-1, 0, 0};
    if (DEGREE == 2 || index < UNITS2) {
        while (index >= 16 / NACC * (u.c + 1)) index -= 16 / NACC * ++u.c;
        u.b = index * NACC;
        return u;
    }
    index -= UNITS2;
    for (int wide = 16 / NACC; index >= NACC * wide * (wide + 1) / 2; wide += 16 / NACC) {
        index -= NACC * wide * (wide + 1) / 2;
        u.c++;
    }
    while (index >= u.b + NACC) { index -= u.b + NACC; u.b += NACC; }
    u.a = index;
    return u;
}

struct Keys { u32 x[4], xl[4]; };

__device__ __forceinline__ void load16(u32 (&to)[4], u32 at) {
    asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3]) : "r"(at));
}
__device__ __forceinline__ uint2 load8(u32 at) {
    uint2 r;
    asm volatile("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(r.x), "=r"(r.y) : "r"(at));
    return r;
}

// Grid (token groups, feature groups, heads); partial[head][group][ROWS][NC] float32.
extern "C" __global__ void __launch_bounds__(KEY_WARPS * 32, 1) key_pass(
    const char* __restrict__ fragments, const char* __restrict__ tiles, int steps,
    float* __restrict__ partial) {
    extern __shared__ __align__(128) char smem[];
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, g = lane / 4, t = lane % 4;
    const int head = blockIdx.z, group = blockIdx.x, groups = gridDim.x;
    fragments += (size_t)head * steps * KSTEP; tiles += (size_t)head * steps * WSTEP;
    const int low = (int)((long long)steps * group / groups);
    const int high = (int)((long long)steps * (group + 1) / groups);
    const int stages = (high - low + KEY_STEPS - 1) / KEY_STEPS;
    const u32 base = smem_of(smem), bars = base + KEY_STAGES * KEY_STAGE;
    const u32 full = bars, empty = bars + 8 * KEY_STAGES;
    const u64 first_tile = descriptor(base + KEY_STEPS * KSTEP);
    if (tid == 0) {
        for (int i = 0; i < KEY_STAGES; i++) { bar_init(full + 8 * i, 1); bar_init(empty + 8 * i, KEY_WARPS); }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    __syncthreads();
    auto fill = [&](int stage) {
        int slot = stage % KEY_STAGES, at = low + stage * KEY_STEPS, count = min(KEY_STEPS, high - at);
        u32 to = base + slot * KEY_STAGE, bar = full + 8 * slot;
        bar_expect(bar, count * (KSTEP + WSTEP));
        bulk_load(to, fragments + (size_t)at * KSTEP, count * KSTEP, bar);
        bulk_load(to + KEY_STEPS * KSTEP, tiles + (size_t)at * WSTEP, count * WSTEP, bar);
    };
    if (tid == 0) for (int s = 0; s < min(stages, KEY_STAGES); s++) fill(s);

    // This warp's unit; surplus warps repeat the last.
    const Unit unit = unit_of(min((int)blockIdx.y * KEY_WARPS + warp, UNITS - 1));
    const u32 chunk_at = unit.c * 512 + lane * 16;
    auto pairs_at = [&](int v) { return (u32)(v / 16 * 512 + v % 8 * 64 + t * 16 + (v % 16 >= 8 ? 8 : 0)); };
    const u32 prefix_at = pairs_at(unit.b), first_at = pairs_at(max(unit.a, 0));
    const bool cubic = DEGREE == 3 && unit.a >= 0;
    const bool linear = !cubic && unit.b + NACC == 16 * unit.c + 16;   // its last b is that of the chunk
    const bool corner = g == 7;

    float acc[NACC][NC / 2];
    Operand a[2][2];
    uint2 before = make_uint2(0, 0), before_l = before;   // the pairs of prefix a
    auto build = [&](Operand& to, const Keys& key, u32 from, int i) {
        uint2 s = load8(from + prefix_at + i * 64), sl = make_uint2(0, 0);
        if constexpr (X3) sl = load8(from + CH * 512 + prefix_at + i * 64);
        if (cubic) {
            const uint2 x = s, xl = sl;
            feature(s.x, sl.x, x.x, xl.x, before.x, before_l.x);
            feature(s.y, sl.y, x.y, xl.y, before.y, before_l.y);
        }
        uint2 upper = s, upper_l = sl, lower = s, lower_l = sl;
        if (i == NACC - 1) {
            if (linear) { upper = make_uint2(ONES, ONES); upper_l = make_uint2(0, 0); }
            if (linear && !corner) { lower = make_uint2(ONES, ONES); lower_l = make_uint2(0, 0); }
        }
        // Stored order: (g, tokens low), (g, high), (g+8, low), (g+8, high).
        feature(to.high[0], to.low[0], key.x[0], key.xl[0], upper.x, upper_l.x);
        feature(to.high[2], to.low[2], key.x[1], key.xl[1], upper.y, upper_l.y);
        feature(to.high[1], to.low[1], key.x[2], key.xl[2], lower.x, lower_l.x);
        feature(to.high[3], to.low[3], key.x[3], key.xl[3], lower.y, lower_l.y);
    };
    auto half = [&](Operand (&to)[2], const Keys& key, u32 from, u64 tile, int i) {
        build(to[0], key, from, i);
        build(to[1], key, from, i + 1);
        settle(to[0]);
        settle(to[1]);
        wg_fence();
        products(acc[i], to[0], tile);
        products(acc[i + 1], to[1], tile);
        wg_commit();
    };
    const int wide = (int)blockIdx.y * KEY_WARPS + warp;
    float* out = partial + (((size_t)head * groups + group) * ROWS + (size_t)wide * NACC * 16) * NC;
    int stage = 0;
    do {   // tensor cores round every step: short runs, added in float32
        const int end = min(stage + FLUSH, stages);
        const bool again = stage > 0;
#pragma unroll
        for (int i = 0; i < NACC; i++)
#pragma unroll
            for (int j = 0; j < NC / 2; j++) acc[i][j] = 0.f;
        for (; stage < end; stage++) {
            const int slot = stage % KEY_STAGES, count = min(KEY_STEPS, high - low - stage * KEY_STEPS);
            bar_wait(full + 8 * slot, (stage / KEY_STAGES) & 1);
            const u32 keys = base + slot * KEY_STAGE;
            const u64 values = first_tile + slot * (KEY_STAGE / 16);
            for (int s = 0; s < count; s++) {
                const u32 from = keys + s * KSTEP;
                const u64 tile = values + s * (WSTEP / 16);
                Keys key;
                load16(key.x, from + chunk_at);
                if constexpr (X3) load16(key.xl, from + CH * 512 + chunk_at);
                if (cubic) {
                    before = load8(from + first_at);
                    if constexpr (X3) before_l = load8(from + CH * 512 + first_at);
                }
#pragma unroll
                for (int i = 0; i < NACC; i += 2) {
                    half(a[i / 2 % 2], key, from, tile, i);
                    wg_wait<NACC == 2 ? 0 : 1>();   // with one buffer only, nothing may be in flight
                    if (i == 0 && s == 0 && stage > 0) {   // the stage before is done with
                        const int old = (stage - 1) % KEY_STAGES;
                        if (lane == 0) bar_arrive(empty + 8 * old);
                        const int next = stage - 2 + KEY_STAGES;   // one stage late, so as not to wait
                        if (tid == 0 && stage > 1 && next < stages) {
                            bar_wait(empty + 8 * ((stage - 2) % KEY_STAGES), ((stage - 2) / KEY_STAGES) & 1);
                            fill(next);
                        }
                    }
                }
            }
        }
        wg_wait<0>();
#pragma unroll
        for (int i = 0; i < NACC; i++) {
            float2* at = (float2*)(out + (16 * i + g) * NC + 2 * t);
            if (again) {   // all loads before the first store, or they would wait for one another
                float2 old[NC / 4];
#pragma unroll
                for (int j = 0; j < NC / 4; j++) old[j] = at[j / 2 * 4 + j % 2 * 4 * NC];
#pragma unroll
                for (int j = 0; j < NC / 4; j++) { acc[i][2 * j] += old[j].x; acc[i][2 * j + 1] += old[j].y; }
            }
#pragma unroll
            for (int j = 0; j < NC / 4; j++)
                at[j / 2 * 4 + j % 2 * 4 * NC] = make_float2(acc[i][2 * j], acc[i][2 * j + 1]);
        }
    } while (stage < stages);
}

// ---- reduce: partial sums to the State, in a fixed order ---------------------------------------
// moments[head][STATE_ROWS][columns] float64, graded order; norm_moments[head][NORMS].
// Grid (blocks, heads): blocks of entries of `partial`, then a warp for each sum of pack_keys.
constexpr int ENTRY_BLOCKS = (ROWS * NC / 4 + 255) / 256;
constexpr int STATE2 = 1 + D + D * (D + 1) / 2;
constexpr int STATE_ROWS = STATE2 + (DEGREE == 3 ? D * (D + 1) * (D + 2) / 6 : 0);

// Row of x_a x_b x_c, a <= b <= c; a < 0: of x_b x_c.
__device__ __forceinline__ int graded_row(int a, int b, int c) {
    if (a < 0) return 1 + D + b * D - b * (b - 1) / 2 + c - b;
    const int left = D - a;   // leading variables below a: C(D + 2, 3) - C(left + 2, 3)
    return STATE2 + (D * (D + 1) * (D + 2) - left * (left + 1) * (left + 2)) / 6
         + (b - a) * left - (b - a) * (b - a - 1) / 2 + c - b;
}

extern "C" __global__ void __launch_bounds__(256) reduce_state(
    const float* __restrict__ partial, const double* __restrict__ sums,
    const double* __restrict__ norms, int groups, int blocks,
    double* __restrict__ moments, double* __restrict__ norm_moments) {
    const int head = blockIdx.y;
    moments += (size_t)head * STATE_ROWS * COLUMNS;
    if (blockIdx.x < ENTRY_BLOCKS) {
        const int entry = blockIdx.x * 256 + threadIdx.x;
        const int line = entry / (NC / 4), col = entry % (NC / 4) * 4, unit = line / 16 / NACC;
        if (unit >= UNITS) return;
        const Unit u = unit_of(unit);
        const int b = u.b + line / 16 % NACC, c = 16 * u.c + line % 16;
        if (u.a > b || (b > c && (u.a >= 0 || b != 16 * u.c + 15))) return;
        const int row = b <= c ? graded_row(u.a, b, c) : 1 + c;
        const float* at = partial + ((size_t)head * groups * ROWS + line) * NC + col;
        double total[4] = {0.0, 0.0, 0.0, 0.0};
#pragma unroll 8
        for (int i = 0; i < groups; i++) {
            const float4 x = *(const float4*)(at + (size_t)i * ROWS * NC);
            total[0] += x.x; total[1] += x.y; total[2] += x.z; total[3] += x.w;
        }
        for (int e = 0; e < 4; e++) if (col + e < COLUMNS) moments[(size_t)row * COLUMNS + col + e] = total[e];
        return;
    }
    const int item = (blockIdx.x - ENTRY_BLOCKS) * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    const int s = item / NC, col = item % NC;
    if (item >= SUMS * NC + NORMS || (s < SUMS && col >= COLUMNS)) return;
    const double* at = s < SUMS ? sums + ((size_t)head * SUMS * NC + item) * blocks
                                : norms + ((size_t)head * NORMS + item - SUMS * NC) * blocks;
    double total = 0.0;
    for (int i = lane; i < blocks; i += 32) total += at[i];
#pragma unroll
    for (int apart = 1; apart < 32; apart *= 2) total += __shfl_xor_sync(0xffffffffu, total, apart);
    if (lane) return;
    if (s < SUMS) moments[(size_t)(s == 0 ? 0 : 16 * s) * COLUMNS + col] = total;   // row 1 + (16 s - 1)
    else norm_moments[head * NORMS + item - SUMS * NC] = total;
}

// ---- the State as tiles of the query pass --------------------------------------------------------
// table[head][BLOCKS][PARTS][WHALF bytes] in the order of the query pass: prefix a (none last), eights
// of b, chunks c, the eight b; the linear blocks. Value columns
// carry coefficient and multinomial; the normaliser of degree k, multinomial alone, in column CW + k - 1.
__device__ __forceinline__ void block_of(int block, int& a, int& b, int& c) {
    int first = DEGREE == 3 ? 0 : D;   // prefix a; D: none, degree 2
    for (; first <= D; first++)
        for (int eight = first < D ? first / 8 : 0; eight < 2 * CH; eight++) {
            const int here = 8 * (CH - eight / 2);
            if (block < here) {
                a = first < D ? first : -1;
                b = 8 * eight + block % 8;
                c = eight / 2 + block / 8;
                return;
            }
            block -= here;
        }
    a = b = -1;
    c = block;
}

extern "C" __global__ void pack_state(
    const double* __restrict__ moments, double c0, double c1, double c2, double c3,
    u32* __restrict__ table, float* __restrict__ constants) {
    const int head = blockIdx.y, tid = threadIdx.x;
    const double* M = moments + (size_t)head * STATE_ROWS * COLUMNS;
    if (blockIdx.x == 0) for (int i = tid; i < NC; i += blockDim.x)   // degree 0, added last in float32
        constants[head * NC + i] = i >= COLUMNS ? 0.f : (float)(M[i] * (i < CW ? c0 : 1.0));
    int a, b, chunk;
    block_of(blockIdx.x, a, b, chunk);
    u32* out = table + ((size_t)head * BLOCKS + blockIdx.x) * (WSTEP / 4);
    const int degree = a >= 0 ? 3 : b >= 0 ? 2 : 1;
    const double coefficient = degree == 3 ? c3 : degree == 2 ? c2 : c1;
    for (int i = tid; i < 2 * NC * 4; i += blockDim.x) {   // word: two features of a column
        const int r = i % 4, col = i / 4 % NC, half = i / 4 / NC;
        const int source = col < CW ? col : col == CW + degree - 1 ? CW : -1;
        float x[2];
        for (int e = 0; e < 2; e++) {
            const int c = 16 * chunk + 8 * half + 2 * r + e;
            double value = 0.0;
            if (chunk < CH && source >= 0 && a <= b && b <= c) {
                const int row = degree == 1 ? 1 + c : graded_row(a, b, c);
                value = M[(size_t)row * COLUMNS + source] * (col < CW ? coefficient : 1.0);
                if (degree == 2) value *= b < c ? 2.0 : 1.0;
                if (degree == 3) value *= a == c ? 1.0 : a == b || b == c ? 3.0 : 6.0;
            }
            x[e] = (float)value;
        }
        const u32 high = pair(x[0], x[1]);
        out[i] = high;
        if constexpr (X3) out[WHALF / 4 + i] = rest(x[0], x[1], high);
    }
}

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
