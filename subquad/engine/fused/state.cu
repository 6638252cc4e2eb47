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
        int a, b, c;
        if (!variables_of(unit_of(unit), line / 16 % NACC, line % 16, a, b, c)) return;
        const int row = b < 0 ? 1 + c : graded_row(a, b, c);
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
// table[head][BLOCKS][PARTS][WHALF bytes] in the order of the query pass. Value columns carry coefficient
// and multinomial; the normaliser of degree k, multinomial alone, in column CW + k - 1.

// What a block multiplies: prefix a (-1: none), chunk c, and `with`: 0..15 prefix b of the chunk `from`;
// 16 + 2 s + e the pairs s further on in the chunk, the two of each changed over if e; 64 + j both of those of
// Triple j; or nothing but a.
constexpr int LINEAR = 32, NOTHING = 33, TRIPLE = 64;
struct Block { int a, c, from, with; };

// Of the chunk with itself, then alone.
__device__ __forceinline__ int with_itself(int block) {
    return block < 8 ? 16 + (2 + block) % 8 : block == 8 ? 24 : LINEAR;
}

__device__ __forceinline__ Block rotated_block(int block) {
    int own = DEGREE == 3 ? 0 : -1, v = -1;
    if (DEGREE == 3) {
        while (own < CH && block >= 16 * query_round(own)) block -= 16 * query_round(own++);
        if (own == CH) {
            const int at = block % OWN_ROUND, with = at < 10 ? with_itself(at) : TRIPLE + at - 10;
            return {-1, block / OWN_ROUND, 0, at < 10 + TRIPLES ? with : NOTHING};
        }
        v = 16 * own + block / query_round(own);
        block %= query_round(own);
    }
    for (int f = 0; f < CH; f++) {
        if (f == own) continue;
        if (block < 8) return {v, f, f, with_itself(block)};
        block -= 8;
        const int here = f > own ? 16 * (CH - 1 - f) : 0;
        if (block < here) {
            const int each = here / 2, in = block % each;
            return {v, f + 1 + in / 8, f, block / each * 8 + in % 8};
        }
        block -= here;
    }
    const int f = block / 2 + (own >= 0 && block / 2 >= own ? 1 : 0);
    return {v, f, f, f >= CH || (f < own && block % 2) ? NOTHING : with_itself(8 + block % 2)};
}

__device__ __forceinline__ Block even_block(int block) {
    for (int v = DEGREE == 3 ? 0 : D; v <= D; v++) {
        const int eights = v < D ? v / 8 : 0, a = v < D ? v : -1;
        if (block >= eight_round(eights)) { block -= eight_round(eights); continue; }
        for (int eight = eights; eight < 2 * CH; eight++) {
            const int here = 8 * (CH - eight / 2);
            if (block < here) return {a, eight / 2 + block / 8, eight / 2, eight % 2 * 8 + block % 8};
            block -= here;
        }
        return {a, 0, 0, NOTHING};
    }
    return {-1, block, 0, block < CH ? LINEAR : NOTHING};
}

__device__ __forceinline__ void order(int& low, int& high) {
    const int other = max(low, high);
    low = min(low, high);
    high = other;
}

// The variables a <= b <= c of feature k of a block, -1 for none; false where it repeats another.
__device__ __forceinline__ bool feature_of(const Block& block, int k, int& a, int& b, int& c) {
    const int own = 16 * block.c;
    a = block.a; b = -1; c = own + k;
    if (block.with == NOTHING) return false;
    if (block.with == LINEAR) {   // a prefix times the chunk is of degree 2
        b = a; a = -1;
        return true;
    }
    if (block.with >= TRIPLE) {
        const Triple f = triple_of(block.with - TRIPLE);
        a = own + (k / 2 + f.s) % 8 * 2 + (k % 2 ^ (f.crossed ? 1 : 0));
        b = own + (k / 2 + f.u) % 8 * 2 + (k % 2 ^ (f.swapped ? 1 : 0));
        order(a, b);
    } else if (block.with < 16) {
        b = 16 * block.from + block.with;
        return b <= c && a <= b;   // it has b and c the other way round too
    } else {
        const int s = (block.with - 16) / 2, e = (block.with - 16) % 2;
        if (s == 0 && e == 1 && k % 2 == 0) return false;   // the next has it
        if (s == 4) c = own + k % 8;
        b = s == 4 ? own + 8 + (k % 8 ^ k / 8) : own + (k / 2 + s) % 8 * 2 + (k % 2 ^ e);
    }
    order(b, c);
    order(a, b);
    order(b, c);
    return true;
}

extern "C" __global__ void pack_state(
    const double* __restrict__ moments, double c0, double c1, double c2, double c3,
    u32* __restrict__ table, float* __restrict__ constants, const Given* given, const double* own) {
    const int head = blockIdx.y, tid = threadIdx.x;
    if (given) own = given_at<double>(own, given->coefficients);
    if (own) { c0 = own[4 * head]; c1 = own[4 * head + 1]; c2 = own[4 * head + 2]; c3 = own[4 * head + 3]; }
    const double* M = moments + (size_t)head * STATE_ROWS * COLUMNS;
    if (blockIdx.x == 0) for (int i = tid; i < NC; i += blockDim.x)   // degree 0, added last in float32
        constants[head * NC + i] = i >= COLUMNS ? 0.f : (float)(M[i] * (i < CW ? c0 : 1.0));
    const Block block = ROTATED ? rotated_block(blockIdx.x) : even_block(blockIdx.x);
    u32* out = table + ((size_t)head * BLOCKS + blockIdx.x) * (WSTEP / 4);
    for (int i = tid; i < 2 * NC * 4; i += blockDim.x) {   // word: two features of a column
        const int r = i % 4, col = i / 4 % NC, half = i / 4 / NC;
        float x[2];
        for (int e = 0; e < 2; e++) {
            int a, b, c;
            const bool here = feature_of(block, 8 * half + 2 * r + e, a, b, c);
            const int degree = a >= 0 ? 3 : b >= 0 ? 2 : 1;
            const int source = col < CW ? col : col == CW + degree - 1 ? CW : -1;
            double value = 0.0;
            if (here && source >= 0) {
                const int row = degree == 1 ? 1 + c : graded_row(a, b, c);
                value = M[(size_t)row * COLUMNS + source];
                if (col < CW) value *= degree == 3 ? c3 : degree == 2 ? c2 : c1;
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

