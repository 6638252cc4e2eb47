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

