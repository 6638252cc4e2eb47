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

