
// ---- Heads (blockIdx.y) of float32 rows in C order, at most 32 J columns: what the host would have
// measured first is measured beside the work. One warp a row, its lanes with the units of their
// columns.

template <int J>
struct Units {  // one row of `units` (rows of d), for the columns of a lane
    double of[J];
    __device__ Units(const double* row, int d) {
        for (int j = 0; j < J; ++j) {
            const int c = threadIdx.x % 32 + 32 * j;
            of[j] = row[c < d ? c : 0];
        }
    }
};

// Order of floats as an order of unsigned numbers; NaN lies outside of both infinities.
__device__ unsigned ordered(float x) {
    const unsigned bits = __float_as_uint(x);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ double unordered(unsigned code) {
    return wide(__uint_as_float(code & 0x80000000u ? code ^ 0x80000000u : ~code));
}

// ends (2, d): the smallest and the largest entry of each column, `ordered`, the bits of the first
// turned over; 0 before.
template <int J>
__global__ void column_ends(const float* x, index_t n, int d, unsigned* ends) {
    x += blockIdx.y * n * d;
    ends += blockIdx.y * 2 * d;
    __shared__ unsigned shared[2][8][32 * J];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned low[J], high[J];
    for (int j = 0; j < J; ++j) low[j] = high[j] = 0u;
#pragma unroll 4
    for (index_t r = thread_number() / 32; r < n; r += thread_count() / 32)
        for (int j = 0; j < J; ++j) {
            const int c = lane + 32 * j;
            const unsigned y = ordered(x[r * d + (c < d ? c : 0)]);
            low[j] = max(low[j], ~y);
            high[j] = max(high[j], y);
        }
    for (int j = 0; j < J; ++j) {
        shared[0][warp][lane + 32 * j] = low[j];
        shared[1][warp][lane + 32 * j] = high[j];
    }
    __syncthreads();
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        unsigned least = 0u, most = 0u;
        for (int w = 0; w < 8; ++w) {
            least = max(least, shared[0][w][c]);
            most = max(most, shared[1][w][c]);
        }
        atomicMax(ends + c, least);
        atomicMax(ends + d + c, most);
    }
}

// The same for rows of d / 4 = 1, 2, .. 32 words of four columns, the last rows first: the first ones may
// then still be in the cache when they are packed.
__global__ void column_ends4(const float4* x, index_t n, int d, unsigned* ends) {
    const int words = d / 4, word = threadIdx.x % words;
    x += blockIdx.y * n * words;
    ends += blockIdx.y * 2 * d;
    __shared__ unsigned shared[2][4][256];
    unsigned low[4] = {0u, 0u, 0u, 0u}, high[4] = {0u, 0u, 0u, 0u};
    const index_t apart = thread_count() / words;
#pragma unroll 8
    for (index_t r = thread_number() / words; r < n; r += apart) {
        const float4 row = x[(n - 1 - r) * words + word];
        const float of[4] = {row.x, row.y, row.z, row.w};
        for (int e = 0; e < 4; ++e) {
            const unsigned y = ordered(of[e]);
            low[e] = max(low[e], ~y);
            high[e] = max(high[e], y);
        }
    }
    for (int e = 0; e < 4; ++e) {
        shared[0][e][threadIdx.x] = low[e];
        shared[1][e][threadIdx.x] = high[e];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < 2 * d; i += blockDim.x) {
        const int end = i / d, c = i % d;
        unsigned most = 0u;
        for (int t = c / 4; t < 256; t += words) most = max(most, shared[end][c % 4][t]);
        atomicMax(ends + i, most);
    }
}

// units (7, d): pre, mid, 1 / radius or 0, radius, 1 / pre, low, high: `frame.value_units`; narrow
// (8, d): the same in float32, mid in two parts.
// A block a head.
__global__ void value_units(const unsigned* ends, int d, double* units, float* narrowed) {
    ends += blockIdx.x * 2 * d;
    units += blockIdx.x * 7 * d;
    narrowed += blockIdx.x * 8 * d;
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        const double low = unordered(~ends[c]), high = unordered(ends[d + c]);
        int exponent;
        frexp(fmax(fabs(low), fabs(high)), &exponent);
        const double pre = ldexp(1.0, -exponent), mid = (low * pre + high * pre) / 2.0;
        const double radius = fmax(high * pre - mid, mid - low * pre) * (1.0 + exp2(-51.0));
        const double all[7] = {pre, mid, radius > 0.0 ? 1.0 / radius : 0.0, radius,
                               ldexp(1.0, exponent), low, high};
        for (int i = 0; i < 7; ++i) {
            units[i * d + c] = all[i];
            narrowed[(i < 2 ? i : i + 1) * d + c] = narrow<float>(all[i]);
        }
        narrowed[2 * d + c] = narrow<float>(mid - wide(narrow<float>(mid)));
    }
}

__device__ unsigned long long ordered(double x) {
    const unsigned long long bits = __double_as_longlong(x);
    return bits >> 63 ? ~bits : bits | 1ULL << 63;
}
__device__ double unordered(unsigned long long code) {
    return __longlong_as_double(code >> 63 ? code ^ 1ULL << 63 : ~code);
}

// The largest of all threads' `top` into `largest`, by the first of each block.
__device__ void raise_largest(unsigned long long top, unsigned long long* largest) {
    __shared__ unsigned long long tops[8];
    __syncthreads();
    if (threadIdx.x % 32 == 0) tops[threadIdx.x / 32] = top;  // alike in all lanes of a warp
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int w = 1; w < 8; ++w) top = tops[w] > top ? tops[w] : top;
    atomicMax(largest, top);
}

// logits (m,): (x * pre - centre) . tilt, units (3, d) these three; the largest of them, `ordered`.
template <int J>
__global__ void key_logits(const float* x, index_t m, int d, const double* units, double* logits,
                           unsigned long long* largest) {
    x += blockIdx.y * m * d;
    units += blockIdx.y * 3 * d;
    logits += blockIdx.y * m;
    largest += blockIdx.y;
    const int lane = threadIdx.x % 32;
    const Units<J> pre(units, d), centre(units + d, d), tilt(units + 2 * d, d);
    unsigned long long top = 0;
#pragma unroll 4
    for (index_t r = thread_number() / 32; r < m; r += thread_count() / 32) {
        double logit = 0.0;
        for (int j = 0; j < J; ++j) {
            const int c = lane + 32 * j;
            if (c < d) logit += (wide(x[r * d + c]) * pre.of[j] - centre.of[j]) * tilt.of[j];
        }
        for (int apart = 16; apart > 0; apart /= 2)
            logit += __shfl_xor_sync(0xffffffffu, logit, apart);
        if (lane == 0) logits[r] = logit;
        top = max(top, ordered(logit));
    }
    raise_largest(top, largest);
}

// In place: exp(logit) over a power of two that leaves the largest of them between 1/2 and 1.
__global__ void key_weights(double* logits, index_t m, const unsigned long long* largest) {
    logits += blockIdx.y * m;
    largest += blockIdx.y;
    const double bit = 0.69314718055994531, shift = ceil(unordered(*largest) / bit);
    for (index_t i = thread_number(); i < m; i += thread_count())
        logits[i] = exp(logits[i] - shift * bit);
}

// report (2 + d + 2 d_v) of a head, a block each: largest squared norm of a key, sums of the weights and of
// the weighted keys, smallest and largest entries of the columns. It may be memory of the host.
__global__ void key_report(const double* moments, index_t apart, int d, int d_v, const float* largest,
                           const double* units, double* report) {
    moments += blockIdx.x * apart;
    units += blockIdx.x * 7 * d_v;
    report += blockIdx.x * (2 + d + 2 * d_v);
    if (threadIdx.x == 0) report[0] = wide(largest[blockIdx.x]);
    for (int i = threadIdx.x; i <= d; i += blockDim.x) report[1 + i] = moments[i * (d_v + 1) + d_v];
    for (int i = threadIdx.x; i < 2 * d_v; i += blockDim.x) report[2 + d + i] = units[5 * d_v + i];
}

// At the end of a run: the words `from` .. `from` + heads of what was found (largest squared norms of queries)
// to memory of the host, and all of it 0 for the next run.
__global__ void query_report(unsigned* found, index_t words, index_t from, int heads, unsigned* report) {
    for (index_t i = thread_number(); i < words; i += thread_count()) {
        if (i >= from && i < from + heads) report[i - from] = found[i];
        found[i] = 0u;
    }
}
