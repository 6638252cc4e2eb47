// ---- key pass --------------------------------------------------------------------------------
constexpr int KEY_WARPS = 8;
// A unit is NACC blocks of one warp: prefixes b .. b + NACC - 1 times the chunk c, and in degree 3 times a
// first prefix a <= b + NACC - 1. Where b lies in the chunk and a before it, half of that would repeat:
// there a HALVES unit has for each of b .. b + NACC - 1 < 8 the lower variables times x_b and the upper
// ones times x_(b + 8), a CROSS unit the lower ones times x_(8 + b + 2 i) and times x_(9 + b + 2 i).
enum Kind { PLAIN, HALVES, CROSS };
struct Unit { int a, b, c; Kind kind; };   // a < 0: degree 2

__device__ constexpr int plain_units(int groups) { return NACC * groups * (groups + 1) / 2; }   // a < b + NACC
constexpr int PAIRED = 12 / NACC;   // units of one a and a later chunk with itself
__device__ constexpr int cubic_units(int c) {
    return plain_units(16 / NACC * c) + plain_units(16 / NACC) + 16 * c * PAIRED;
}
__device__ constexpr int unit_count(int chunks, bool cubic) {
    int total = 0;
    for (int c = 0; c < chunks; c++) total += cubic ? cubic_units(c) : 16 / NACC * (c + 1);
    return total;
}
constexpr int UNITS2 = unit_count(CH, false), UNITS = UNITS2 + (DEGREE == 3 ? unit_count(CH, true) : 0);
constexpr int KEY_STAGE = KEY_STEPS * (KSTEP + WSTEP);
constexpr int FEATURE_GROUPS = (UNITS + KEY_WARPS - 1) / KEY_WARPS;
constexpr int ROWS = FEATURE_GROUPS * KEY_WARPS * NACC * 16;
constexpr int FLUSH = FLUSH_STEPS / KEY_STEPS;   // stages between additions to `partial`

__device__ __forceinline__ Unit unit_of(int index) {
    Unit u = {-1, 0, 0, PLAIN};
    if (DEGREE == 2 || index < UNITS2) {
        while (index >= 16 / NACC * (u.c + 1)) index -= 16 / NACC * ++u.c;
        u.b = index * NACC;
        return u;
    }
    index -= UNITS2;
    while (index >= cubic_units(u.c)) index -= cubic_units(u.c++);
    const int later = 16 * u.c * PAIRED, below = plain_units(16 / NACC * u.c);
    if (index < later) {
        u.a = index / PAIRED;
        const int which = index % PAIRED;
        u.kind = which < 8 / NACC ? HALVES : CROSS;
        u.b = (u.kind == HALVES ? which : 2 * (which - 8 / NACC)) * NACC;
        return u;
    }
    index -= later;
    const int origin = index < below ? 0 : 16 * u.c;
    if (index >= below) index -= below;
    while (index >= u.b + NACC) { index -= u.b + NACC; u.b += NACC; }
    u.a = origin + index;
    u.b += origin;
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
    const u32 prefix_at = pairs_at(unit.b + (unit.kind == PLAIN ? 0 : 16 * unit.c + (unit.kind == CROSS ? 8 : 0)));
    const u32 first_at = pairs_at(max(unit.a, 0));
    const bool paired = DEGREE == 3 && unit.kind != PLAIN, cross = DEGREE == 3 && unit.kind == CROSS;
    const u32 apart = unit.kind == CROSS ? 128 : 64, second = unit.kind == CROSS ? 64 : 8;
    const bool cubic = DEGREE == 3 && unit.a >= 0;
    const bool linear = !cubic && unit.b + NACC == 16 * unit.c + 16;   // its last b is that of the chunk
    const bool corner = g == 7;

    float acc[NACC][NC / 2];
    Operand a[2][2];
    struct Prefix { uint2 upper, lower, upper_l, lower_l; };   // of the rows g and g + 8
    auto prefix_of = [&](u32 from, int i) {
        const u32 at = from + prefix_at + (DEGREE == 3 ? i * apart : i * 64);
        const uint2 s = load8(at), sl = X3 ? load8(at + CH * 512) : make_uint2(0, 0);
        Prefix p = {s, s, sl, sl};
        if (paired) {
            p.lower = load8(at + second);
            if constexpr (X3) p.lower_l = load8(at + CH * 512 + second);
        }
        return p;
    };
    auto build = [&](Operand& to, const Keys& key, const Prefix& p, int i) {
        uint2 upper = p.upper, upper_l = p.upper_l, lower = p.lower, lower_l = p.lower_l;
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
    auto half = [&](Operand (&to)[2], const Keys& key, const Prefix& first, const Prefix& next, u64 tile, int i) {
        build(to[0], key, first, i);
        build(to[1], key, next, i + 1);
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
            warp_wait(full + 8 * slot, (stage / KEY_STAGES) & 1);
            const u32 keys = base + slot * KEY_STAGE;
            const u64 values = first_tile + slot * (KEY_STAGE / 16);
            for (int s = 0; s < count; s++) {
                const u32 from = keys + s * KSTEP;
                const u64 tile = values + s * (WSTEP / 16);
                Keys key;
                load16(key.x, from + chunk_at);
                if constexpr (X3) load16(key.xl, from + CH * 512 + chunk_at);
                Prefix prefix[NACC];   // split operands leave no registers to load all of them at once
                if constexpr (!X3)
#pragma unroll
                    for (int i = 0; i < NACC; i++) prefix[i] = prefix_of(from, i);
                if (cubic) {   // the chunk times the first prefix
                    const Keys x = key;
                    const uint2 v = load8(from + first_at), vl = X3 ? load8(from + CH * 512 + first_at) : v;
#pragma unroll
                    for (int r = 0; r < 4; r++)
                        feature(key.x[r], key.xl[r], x.x[r], x.xl[r], r & 1 ? v.y : v.x, r & 1 ? vl.y : vl.x);
                    if (cross) { key.x[2] = key.x[0]; key.x[3] = key.x[1]; }
                    if (X3 && cross) { key.xl[2] = key.xl[0]; key.xl[3] = key.xl[1]; }
                }
#pragma unroll
                for (int i = 0; i < NACC; i += 2) {
                    if constexpr (X3) half(a[i / 2 % 2], key, prefix_of(from, i), prefix_of(from, i + 1), tile, i);
                    else half(a[i / 2 % 2], key, prefix[i], prefix[i + 1], tile, i);
                    wg_wait<NACC == 2 ? 0 : 1>();   // with one buffer only, nothing may be in flight
                    if (i == 0 && s == 0 && stage > 0) {   // the stage before is done with
                        const int old = (stage - 1) % KEY_STAGES;
                        if (lane == 0) bar_arrive(empty + 8 * old);
                        const int next = stage - 2 + KEY_STAGES;   // one stage late, so as not to wait
                        if (tid == 0 && stage > 1 && next < stages) {
                            bar_wait(empty + 8 * ((stage - 2) % KEY_STAGES), ((stage - 2) / KEY_STAGES) & 1);
                            fill(next);
                        }
                        __syncwarp();
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

