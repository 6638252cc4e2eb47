// ---- pack: rows to bf16 tiles ---------------------------------------------------------------
// K (heads, m, D) and W (heads, m, CW + 1) float32 -> fragments (steps, KSTEP), tiles (steps, WSTEP),
// and float64 sums of each block: norms[head][NORMS][blocks] of w |k|^0, 1, .., rounded up in float32, and
// sums[head][SUMS][NC][blocks]. Rows come through shared memory in bulk; grid (blocks, heads).
//
// As they are, or raw, where `given` has them: then a key is (k * pre - centre) * post, W is V (heads, m, CW),
// a value clip((v * pre - mid) / radius), the weight of a token `weights` or 1, and the head's `largest`, 0
// before, becomes the largest squared norm of a key, rounded up, as bits. In float32: pre are powers of two.
struct Raw {
    const float *centre, *values;   // (D,); (8, CW) of `value_units`: pre, mid in two parts, 1 / radius, ..
    const double* weights;          // (m,) or null
    float pre, post;
    int on;
};
constexpr int COLUMNS = CW + 1, TILE = D + COLUMNS > 160 ? 64 : 128;
constexpr int PACK_THREADS = 4 * NC <= 256 ? 256 : (4 * NC + 31) / 32 * 32;
constexpr int SLOTS = PACK_THREADS / NC < TILE / 8 ? PACK_THREADS / NC : TILE / 8;
constexpr int PACK_STAGE = TILE * (D + COLUMNS);   // floats

// One step of 16 keys by one warp, `down` its centres: fragments and the squared norms of its tokens, `here` of them.
__device__ __forceinline__ void pack_fragments(
    const float* k, const float* w, const double* weights, int here, const Raw& raw,
    const float (&down)[2 * CH], uint4* __restrict__ fragments, double (&norms)[NORMS], u32& largest) {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    float squares[4] = {0.f, 0.f, 0.f, 0.f};
#pragma unroll
    for (int c = 0; c < CH; c++) {
        u32 high[4], low[4];
#pragma unroll
        for (int r = 0; r < 4; r++) {   // (row g: tokens 2t.., 2t+8..), (row g+8: the same)
            const float* at = k + (2 * t + 8 * (r & 1)) * D + 16 * c + g + 8 * (r >> 1);
            const int token = 2 * t + 8 * (r & 1);
            const float x = token < here ? (at[0] * raw.pre - down[2 * c + (r >> 1)]) * raw.post : 0.f;
            const float y = token + 1 < here ? (at[D] * raw.pre - down[2 * c + (r >> 1)]) * raw.post : 0.f;
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
    const int token = 2 * t + (g & 1) + 8 * (g >> 1);
    const double weight = !raw.on ? w[token * COLUMNS + CW] : token >= here ? 0.0
                        : raw.weights ? (float)weights[token] : 1.0;
    const float mine = g == 0 ? squares[0] : g == 1 ? squares[1] : g == 2 ? squares[2] : squares[3];
    const double square = mine * (1.f + 0x1p-14f);   // D + 8 roundings, upwards
    largest = max(largest, __float_as_uint((float)square));
    double power = weight;
#pragma unroll
    for (int i = 0; i < NORMS; i++) { norms[i] += power; power *= sqrt(square); }
}

// What a column of raw values and the last ones of the chunks are made with.
struct Column { float pre, mid, mid_rest, inverse, centres[CH]; };

__device__ __forceinline__ Column column_of(int col, const Raw& raw) {
    Column u = {1.f, 0.f, 0.f, 1.f};
    if (raw.on && col < CW) {
        const float* v = raw.values + col;
        u.pre = v[0]; u.mid = v[CW]; u.mid_rest = v[2 * CW]; u.inverse = v[3 * CW];
    }
#pragma unroll
    for (int s = 0; s < CH; s++) u.centres[s] = raw.on ? raw.centre[16 * s + 15] : 0.f;
    return u;
}

// Half a step, one column: a row of its tile, and what the key pass has no place for.
__device__ __forceinline__ void pack_column(
    const float* k, const float* w, const double* weights, int here, const Raw& raw,
    const Column& u, int col, uint4* __restrict__ tile, double (&totals)[SUMS]) {
    float x[8], part[SUMS];
#pragma unroll
    for (int s = 0; s < SUMS; s++) part[s] = 0.f;
#pragma unroll
    for (int r = 0; r < 8; r++) {
        if (raw.on) {
            const float weight = r >= here ? 0.f : raw.weights ? (float)weights[r] : 1.f;
            const float v = col < CW ? ((w[r * CW + col] * u.pre - u.mid) - u.mid_rest) * u.inverse : 1.f;
            x[r] = col < COLUMNS && r < here ? fminf(fmaxf(v, -1.f), 1.f) * weight : 0.f;
        } else x[r] = col < COLUMNS ? w[r * COLUMNS + col] : 0.f;
        part[0] += x[r];
#pragma unroll
        for (int s = 1; s < SUMS; s++)
            part[s] = fmaf(x[r], (k[r * D + 16 * s - 1] * raw.pre - u.centres[s - 1]) * raw.post, part[s]);
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
    double* __restrict__ norms, const Given* given, const float* values, u32* __restrict__ largest,
    int apart, const double* weights) {
    extern __shared__ __align__(128) char smem[];
    const int tid = threadIdx.x, warp = tid / 32, lane = tid % 32, slot = tid / NC, col = tid % NC;
    const int head = blockIdx.y, blocks = gridDim.x, block = blockIdx.x, total = (16 * steps + TILE - 1) / TILE;
    Raw raw = {nullptr, nullptr, weights, 1.f, 1.f, given != nullptr};
    if (raw.on) {
        raw.centre = given_at<float>(K, given->key_sides) + (size_t)head * (D + 4);
        K = given_at<float>(K, given->K);
        W = given_at<float>(W, given->V);
        raw.values = values + (size_t)head * 8 * CW;
        raw.pre = raw.centre[D]; raw.post = raw.centre[D + 1];
        largest += (size_t)head * apart;
    }
    const int width = raw.on ? CW : COLUMNS;
    K += (size_t)head * m * D; W += (size_t)head * m * width;
    if (weights) weights += (size_t)head * m;
    fragments += (size_t)head * steps * (KSTEP / 16); tiles += (size_t)head * steps * (WSTEP / 16);
    const u32 base = smem_of(smem), bars = base + PACK_STAGES * PACK_STAGE * 4;
    const bool aligned = (size_t)W % 16 == 0;
    auto in_bulk = [&](int tile) { return aligned && (tile + 1) * TILE <= m; };
    auto fill = [&](int tile, int stage) {
        const u32 to = base + stage * PACK_STAGE * 4, bar = bars + 8 * stage;
        bar_expect(bar, TILE * (D + width) * 4);
        bulk_load(to, K + (size_t)tile * TILE * D, TILE * D * 4, bar);
        bulk_load(to + TILE * D * 4, W + (size_t)tile * TILE * width, TILE * width * 4, bar);
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
    u32 longest = 0;
    const Column u = column_of(col, raw);
    float down[2 * CH];
#pragma unroll
    for (int i = 0; i < 2 * CH; i++) down[i] = raw.on ? raw.centre[8 * i + lane / 4] : 0.f;
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
            for (int i = tid; i < TILE * width; i += PACK_THREADS)
                w[i] = i < here * width ? W[(size_t)first * width + i] : 0.f;
            __syncthreads();
        }
        if (warp < TILE / 16 && first / 16 + warp < steps)
            pack_fragments(k + warp * 16 * D, w + warp * 16 * width, weights + first + warp * 16,
                           here - warp * 16, raw, down,
                           fragments + (size_t)(first / 16 + warp) * (KSTEP / 16), moments, longest);
        if (slot < SLOTS)
            for (int half = slot; half < TILE / 8 && first / 16 + half / 2 < steps; half += SLOTS)
                pack_column(k + half * 8 * D, w + half * 8 * width, weights + first + half * 8,
                            here - half * 8, raw, u, col,
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
    longest = __reduce_max_sync(0xffffffffu, longest);
    if (raw.on && lane == 0 && warp < TILE / 16) atomicMax(largest, longest);
    __syncthreads();
    if (tid < NORMS) {
        double sum = 0.0;
        for (int i = 0; i < TILE / 16; i++) sum += shared[tid * 8 + i];
        norms[((size_t)head * NORMS + tid) * blocks + block] = sum;
    }
}

