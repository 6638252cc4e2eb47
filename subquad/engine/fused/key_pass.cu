// ---- key pass --------------------------------------------------------------------------------
constexpr int KEY_WARPS = 8;
// A unit is NACC blocks of one warp: the chunk c, in degree 3 times a first factor, times prefixes p .. p + NACC - 1.
// PLAIN: the first factor is a variable a <= p + NACC - 1 of a chunk before c. Two variables of c itself and one before
// are met as those of c times their neighbours s further on (TURNED, modulo 16); of three in c two are in one half of it
// (HALVED: s further on modulo 8, times any of c). In degree 3 linear features have a unit for each chunk, in degree 2
// spare rows (`common`).
enum Kind { SQUARE, ALONE, PLAIN, TURNED, HALVED };
struct Unit { Kind kind; int c, p, first; };   // first: a, or s

constexpr int GROUPS = 16 / NACC;   // groups of prefixes of a chunk
__device__ constexpr int plain_units(int c) { return NACC * GROUPS * c * (GROUPS * c + 1) / 2; }   // a < p + NACC
__device__ constexpr int cubic_units(int c) { return plain_units(c) + 9 * GROUPS * c + 5 * GROUPS; }
__device__ constexpr int unit_count(int chunks, bool cubic) {
    int total = 0;
    for (int c = 0; c < chunks; c++) total += cubic ? 1 + cubic_units(c) : GROUPS * (c + 1);
    return total;
}
constexpr int UNITS2 = unit_count(CH, false), UNITS = UNITS2 + (DEGREE == 3 ? unit_count(CH, true) : 0);
constexpr int KEY_STAGE = KEY_STEPS * (KSTEP + WSTEP);
constexpr int FEATURE_GROUPS = (UNITS + KEY_WARPS - 1) / KEY_WARPS;
constexpr int ROWS = FEATURE_GROUPS * KEY_WARPS * NACC * 16;
constexpr int FLUSH = FLUSH_STEPS / KEY_STEPS;   // stages between additions to `partial`

__device__ __forceinline__ Unit unit_of(int index) {
    Unit u = {SQUARE, 0, 0, 0};
    if (DEGREE == 2 || index < UNITS2) {
        while (index >= GROUPS * (u.c + 1)) index -= GROUPS * ++u.c;
        u.p = index * NACC;
        return u;
    }
    index -= UNITS2;
    if (index < CH) return {ALONE, index, 0, 0};
    index -= CH;
    while (index >= cubic_units(u.c)) index -= cubic_units(u.c++);
    if (index < plain_units(u.c)) {
        u.kind = PLAIN;
        while (index >= u.p + NACC) { index -= u.p + NACC; u.p += NACC; }
        u.first = index;
        return u;
    }
    index -= plain_units(u.c);
    u.kind = index < 9 * GROUPS * u.c ? TURNED : HALVED;
    if (u.kind == HALVED) index -= 9 * GROUPS * u.c;
    const int groups = u.kind == TURNED ? GROUPS * u.c : GROUPS;
    u.first = index / groups;
    u.p = index % groups * NACC + (u.kind == TURNED ? 0 : 16 * u.c);
    return u;
}

// The variable that row k of the chunk is multiplied with first.
__device__ __forceinline__ int partner_of(const Unit& u, int k) {
    const int own = 16 * u.c;
    return u.kind == TURNED ? own + (k + u.first) % 16 : u.kind == HALVED ? own + k / 8 * 8 + (k + u.first) % 8 : u.first;
}

// The variables a <= b <= c of row k of block i, -1 for none; false where another row has the same.
__device__ __forceinline__ bool variables_of(const Unit& u, int i, int k, int& a, int& b, int& c) {
    const int own = 16 * u.c, prefix = u.p + i, last = own + 15;
    a = -1; b = prefix; c = own + k;
    if (u.kind == ALONE || (DEGREE == 2 && b == last && c < last)) {   // `pack_keys` has the last of a chunk
        b = -1;
        return i == (u.kind == ALONE ? 0 : NACC - 1) && c < last;
    }
    if (u.kind == SQUARE) return b <= c;
    a = prefix;
    b = partner_of(u, k);
    if (u.kind == PLAIN) { const int other = a; a = b; b = other; return a <= b; }
    if (u.kind == TURNED && u.first == 8 && k >= 8) return false;
    if (u.kind == HALVED && u.first == 4 && k % 8 >= 4) return false;
    if (b > c) { const int other = b; b = c; c = other; }
    if (u.kind == TURNED) return true;
    if (a / 8 == b / 8 && a < c) return false;   // all in one half: the prefix is the largest
    if (a > c) { const int other = a; a = b; b = c; c = other; }
    else if (a > b) { const int other = a; a = b; b = other; }
    return true;
}

constexpr int ONES_WORDS = 16 * NACC;   // as many as the prefixes of a unit
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
    const int low = (int)((long long)(steps / KEY_STEPS) * group / groups);   // `steps` are whole stages
    const int stages = (int)((long long)(steps / KEY_STEPS) * (group + 1) / groups) - low;
    const u32 base = smem_of(smem), bars = base + KEY_STAGES * KEY_STAGE;
    const u32 full = bars, empty = bars + 8 * KEY_STAGES;
    const u64 first_tile = descriptor(base + KEY_STEPS * KSTEP);
    if (tid == 0) {
        for (int i = 0; i < KEY_STAGES; i++) { bar_init(full + 8 * i, 1); bar_init(empty + 8 * i, KEY_WARPS); }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    }
    // Ones, and the zeros that they are split into: in place of a factor that a unit has not.
    const u32 ones = bars + 128;
    for (int i = tid; i < 2 * ONES_WORDS; i += KEY_WARPS * 32)
        asm volatile("st.shared.u32 [%0], %1;" ::"r"(ones + 4 * i), "r"(i < ONES_WORDS ? ONES : 0u) : "memory");
    __syncthreads();
    auto fill = [&](int stage, int slot, bool on) {
        const u32 to = base + slot * KEY_STAGE, bar = full + 8 * slot;
        const size_t from = low + stage;
        bar_expect_if(bar, KEY_STAGE, on);
        bulk_load_if(to, fragments + from * (KEY_STEPS * KSTEP), KEY_STEPS * KSTEP, bar, on);
        bulk_load_if(to + KEY_STEPS * KSTEP, tiles + from * (KEY_STEPS * WSTEP), KEY_STEPS * WSTEP, bar, on);
    };
    const int uniform_warp = __shfl_sync(0xffffffffu, warp, 0);
    if (uniform_warp == 0)
        for (int s = 0; s < min(stages, KEY_STAGES); s++) fill(s, s, lane == 0);

    // This warp's unit; surplus warps repeat the last.
    const Unit unit = unit_of(min((int)blockIdx.y * KEY_WARPS + warp, UNITS - 1));
    const u32 chunk_at = unit.c * 512 + lane * 16;
    struct Place { u32 at, mask, low; };   // `mask` of the keys at hand; `low` of the low parts
    const Place none = {ones + t * 16, 0, 4 * ONES_WORDS};
    auto place_of = [&](int v) -> Place {
        return {(u32)(v / 16 * 512 + v % 8 * 64 + t * 16 + v % 16 / 8 * 8), ~0u, CH * 512};
    };
    const Place prefix_at = unit.kind == ALONE ? none : place_of(unit.p);
    const bool cubic = unit.kind > ALONE;
    const Place upper_at = cubic ? place_of(partner_of(unit, g)) : none;   // the first factor of the rows g
    const Place lower_at = cubic ? place_of(partner_of(unit, g + 8)) : none;   // and g + 8
    // In degree 2 the last prefix of a chunk has linear features: all rows but the last are taken once.
    const bool linear = DEGREE == 2 && unit.p + NACC == 16 * unit.c + 16;
    Place last_at = prefix_at;
    last_at.at += (NACC - 1) * 64;
    const Place last_upper = linear ? none : last_at, last_lower = linear && g != 7 ? none : last_at;

    float acc[NACC][NC / 2];
    Operand a[2][2];
    struct Factor { uint2 upper, lower, upper_l, lower_l; };   // of the rows g and g + 8
    auto read = [&](u32 from, const Place& place, u32 further, uint2& high, uint2& low) {
        const u32 at = (from & place.mask) + place.at + further;
        high = load8(at);
        low = X3 ? load8(at + place.low) : make_uint2(0, 0);
    };
    auto factor_of = [&](u32 from, const Place& upper, const Place& lower) {
        Factor f;
        read(from, upper, 0, f.upper, f.upper_l);
        read(from, lower, 0, f.lower, f.lower_l);
        return f;
    };
    auto prefix_of = [&](u32 from, int i) {
        if (DEGREE == 2 && i == NACC - 1) return factor_of(from, last_upper, last_lower);
        Factor f;
        read(from, prefix_at, i * 64, f.upper, f.upper_l);
        f.lower = f.upper; f.lower_l = f.upper_l;
        return f;
    };
    auto key_of = [&](u32 from) {
        Keys key = {};
        load16(key.x, from + chunk_at);
        if constexpr (X3) load16(key.xl, from + CH * 512 + chunk_at);
        return key;
    };
    // Stored order: (g, tokens low), (g, high), (g+8, low), (g+8, high); that of operands has the middle two changed.
    auto times = [&](u32 (&high)[4], u32 (&low)[4], const Keys& key, const Factor& f) {
        feature(high[0], low[0], key.x[0], key.xl[0], f.upper.x, f.upper_l.x);
        feature(high[1], low[1], key.x[1], key.xl[1], f.upper.y, f.upper_l.y);
        feature(high[2], low[2], key.x[2], key.xl[2], f.lower.x, f.lower_l.x);
        feature(high[3], low[3], key.x[3], key.xl[3], f.lower.y, f.lower_l.y);
    };
    auto build = [&](Operand& to, const Keys& key, const Factor& f) {
        u32 high[4], low[4];
        times(high, low, key, f);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int from = r == 1 ? 2 : r == 2 ? 1 : r;
            to.high[r] = high[from];
            if constexpr (X3) to.low[r] = low[from];
        }
    };
    auto half = [&](Operand (&to)[2], const Keys& key, const Factor& first, const Factor& next, u64 tile, int i) {
        build(to[0], key, first);
        build(to[1], key, next);
        settle(to[0]);
        settle(to[1]);
        wg_fence();
        products(acc[i], to[0], tile);
        products(acc[i + 1], to[1], tile);
        wg_commit();
    };
    // What a step reads of the keys is read while the products of the step before it run; split operands leave
    // no registers for that.
    Keys key;
    Factor first, prefix[NACC];
    auto read_key = [&](u32 from) {
        key = key_of(from);
        if constexpr (DEGREE == 3) first = factor_of(from, upper_at, lower_at);
    };
    warp_wait(full, 0);
    if constexpr (!X3) {
        read_key(base);
#pragma unroll
        for (int i = 0; i < NACC; i++) prefix[i] = prefix_of(base, i);
    }
    const int wide = (int)blockIdx.y * KEY_WARPS + warp;
    float* out = partial + (((size_t)head * groups + group) * ROWS + (size_t)wide * NACC * 16) * NC;
    int stage = 0, slot = 0, refill = 0, refill_phase = 0, ahead = 0, ahead_phase = 0;
    do {   // tensor cores round every step: short runs, added in float32
        const int end = min(stage + FLUSH, stages);
        const bool again = stage > 0;
#pragma unroll
        for (int i = 0; i < NACC; i++)
#pragma unroll
            for (int j = 0; j < NC / 2; j++) acc[i][j] = 0.f;
        for (; stage < end; stage++) {
            // The stage before the last is refilled, so as not to wait; the next one is there before this one is begun.
            if (uniform_warp == 0 && stage > 1 && stage - 2 + KEY_STAGES < stages) {
                warp_wait(empty + 8 * refill, refill_phase);
                fill(stage - 2 + KEY_STAGES, refill, lane == 0);
                if (++refill == KEY_STAGES) { refill = 0; refill_phase ^= 1; }
            }
            if (stage + 1 < stages) {
                if (++ahead == KEY_STAGES) { ahead = 0; ahead_phase ^= 1; }
                warp_wait(full + 8 * ahead, ahead_phase);
            }
            const u32 keys = base + slot * KEY_STAGE, values = first_tile + slot * (KEY_STAGE / 16);
            const u32 later = base + ahead * KEY_STAGE, old = empty + 8 * (slot == 0 ? KEY_STAGES - 1 : slot - 1);
#pragma unroll
            for (int s = 0; s < KEY_STEPS; s++) {
                const u64 tile = (first_tile & ~0xffffffffull) | (values + s * (WSTEP / 16));   // the low bits have room
                const u32 from = keys + s * KSTEP, next = s == KEY_STEPS - 1 ? later : from + KSTEP;
                if constexpr (X3) read_key(from);
                Keys x = key;
                if constexpr (DEGREE == 3) times(x.x, x.xl, key, first);
#pragma unroll
                for (int i = 0; i < NACC; i += 2) {
                    if constexpr (X3) half(a[i / 2 % 2], x, prefix_of(from, i), prefix_of(from, i + 1), tile, i);
                    else {
                        half(a[i / 2 % 2], x, prefix[i], prefix[i + 1], tile, i);
                        if (i == 0) read_key(next);
                        prefix[i] = prefix_of(next, i);
                        prefix[i + 1] = prefix_of(next, i + 1);
                    }
                    wg_wait<NACC == 2 ? 0 : 1>();   // with one buffer only, nothing may be in flight
                    if (i == 0 && s == 0) bar_arrive_if(old, lane == 0 && stage > 0);   // the stage before is done with
                }
            }
            if (++slot == KEY_STAGES) slot = 0;
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

