
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

// Of the last block of a head (`left` counts them, 0 before) to come here, from the ends of its columns:
// units (7, d): pre, mid, 1 / radius or 0, radius, 1 / pre, low, high: `frame.value_units`; narrowed
// (8, d): the same in float32, mid in two parts.
__device__ void value_units(const unsigned* ends, unsigned* left, int d, double* units, float* narrowed) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) last = atomicAdd(left, 1u) == gridDim.x - 1;
    __syncthreads();
    if (!last) return;
    __threadfence();
    for (int c = threadIdx.x; c < d; c += blockDim.x) {
        const double low = unordered(~__ldcg(ends + c)), high = unordered(__ldcg(ends + d + c));
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

// ends (2, d): the smallest and the largest entry of each column of V, `ordered`, the bits of the first
// turned over; 0 before. Then `value_units`.
template <int J>
__global__ void column_ends(const Given* given, index_t n, int d, unsigned* ends, unsigned* left,
                            double* units, float* narrowed) {
    const float* x = (const float*)given->V + blockIdx.y * n * d;
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
    value_units(ends, left + blockIdx.y, d, units + blockIdx.y * 7 * d, narrowed + blockIdx.y * 8 * d);
}

// The same for rows of d / 4 = 1, 2, .. 32 words of four columns, the last rows first: the first ones may
// then still be in the cache when they are packed.
__global__ void column_ends4(const Given* given, index_t n, int d, unsigned* ends, unsigned* left,
                             double* units, float* narrowed) {
    const int words = d / 4, word = threadIdx.x % words;
    const float4* x = (const float4*)given->V + blockIdx.y * n * words;
    ends += blockIdx.y * 2 * d;
    __shared__ unsigned shared[2][4][256];
    unsigned low[4] = {0u, 0u, 0u, 0u}, high[4] = {0u, 0u, 0u, 0u};
    const index_t apart = thread_count() / words;
    for (index_t r = thread_number() / words; r < n; r += 4 * apart) {
        float4 rows[4];   // on their way together, past the end the last one again
        for (int i = 0; i < 4; ++i) rows[i] = x[(n - 1 - min(r + i * apart, n - 1)) * words + word];
        for (int i = 0; i < 4; ++i) {
            const float of[4] = {rows[i].x, rows[i].y, rows[i].z, rows[i].w};
            for (int e = 0; e < 4; ++e) {
                const unsigned y = ordered(of[e]);
                low[e] = max(low[e], ~y);
                high[e] = max(high[e], y);
            }
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
    value_units(ends, left + blockIdx.y, d, units + blockIdx.y * 7 * d, narrowed + blockIdx.y * 8 * d);
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

// logits (m,) of the keys: (k * pre - centre) . tilt; the largest of them, `ordered`.
template <int J>
__global__ void key_logits(const Given* given, index_t m, int d, double* logits,
                           unsigned long long* largest) {
    const float* x = (const float*)given->K + blockIdx.y * m * d;
    const double* units = (const double*)given->tilts + blockIdx.y * 3 * d;
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

// report (6,) of a head, a warp each: the largest squared norm of a key; whether values and norms are in range; how
// many steps and powers of two cover the next two, 0 where not in range; |weighted mean of the keys| over their
// largest norm, rounded up, at most 1; over the columns of V that are not constant, the largest of 2 (max|v| + least
// normal float) / width, rounded up, at least 1. Limits of a head: what is added to the first, the largest norm of
// a key, steps in 1, powers in a factor of 2, the largest max|v|, the smallest being its inverse.
__global__ void key_report(const Given* given, const double* moments, index_t apart, int d, int d_v,
                           const float* largest, const double* units, double* report) {
    const double* limits = (const double*)given->limits + blockIdx.x * 5;
    moments += blockIdx.x * apart;
    units += blockIdx.x * 7 * d_v;
    report += blockIdx.x * 6;
    double squares = 0.0, ratio = 0.0;
    bool near = true;
    for (int i = 1 + threadIdx.x; i <= d; i += 32) {
        const double mean = moments[i * (d_v + 1) + d_v] / moments[d_v];
        squares += mean * mean;
    }
    for (int c = threadIdx.x; c < d_v; c += 32) {
        const double low = units[5 * d_v + c], high = units[6 * d_v + c], width = high - low;
        const double size = fmax(fabs(low), fabs(high)), none = low - low + (high - high);   // 0, or NaN
        near &= size + none == 0.0 || (size + none <= limits[4] && size >= 1.0 / limits[4]);
        if (width > 0.0) ratio = fmax(ratio, (size + exp2(-126.0)) / width);
    }
    for (int apart = 16; apart > 0; apart /= 2) {
        squares += __shfl_xor_sync(0xffffffffu, squares, apart);
        ratio = fmax(ratio, __shfl_xor_sync(0xffffffffu, ratio, apart));
    }
    near = __all_sync(0xffffffffu, near);
    if (threadIdx.x > 0) return;
    const double up = 1.0 + exp2(-44.0), norm = sqrt(wide(largest[blockIdx.x])) * up;
    double offset = sqrt(squares) / norm * (up * up) + limits[0];
    if (!(norm > 0.0 && offset < 1.0)) offset = 1.0;
    near &= norm <= limits[1];
    ratio = fmax(1.0, 2.0 * ratio * up);
    report[0] = wide(largest[blockIdx.x]);
    report[1] = near ? 1.0 : 0.0;
    report[2] = near ? ceil(offset * limits[2]) : 0.0;
    report[3] = near ? ceil(log2(ratio * up) * limits[3]) : 0.0;
    report[4] = offset;
    report[5] = ratio;
}

// At the end of a run: the words `from` .. `from` + heads of what was found (largest squared norms of queries)
// to memory of the host, and all of it 0 for the next run.
__global__ void query_report(unsigned* found, index_t words, index_t from, int heads, unsigned* report) {
    for (index_t i = thread_number(); i < words; i += thread_count()) {
        if (i >= from && i < from + heads) report[i - from] = found[i];
        found[i] = 0u;
    }
}
