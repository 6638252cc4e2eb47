// The row passes and tiles of the portable GPU path: any CUDA device, no atomics, fixed orders.
//
// Compiled at run time with --fmad=false, so that every product and sum is rounded as on the CPU.
// CuPy adds -ftz=true, which would flush the subnormal numbers of float32 to zero; so whatever
// float32 arithmetic there is, conversions included, is written as instructions that do not.

typedef long long index_t;

struct half16 { unsigned short bits; };

template <class T> __device__ double wide(T x);
template <> __device__ double wide<double>(double x) { return x; }
template <> __device__ double wide<float>(float x) {
    double y;
    asm("cvt.f64.f32 %0, %1;" : "=d"(y) : "f"(x));
    return y;
}
template <> __device__ double wide<half16>(half16 x) {
    double y;
    asm("cvt.f64.f16 %0, %1;" : "=d"(y) : "h"(x.bits));
    return y;
}

template <class T> __device__ T narrow(double x);
template <> __device__ double narrow<double>(double x) { return x; }
template <> __device__ float narrow<float>(double x) {
    float y;
    asm("cvt.rn.f32.f64 %0, %1;" : "=f"(y) : "d"(x));
    return y;
}
template <> __device__ half16 narrow<half16>(double x) {  // one rounding: never through float
    half16 y;
    asm("cvt.rn.f16.f64 %0, %1;" : "=h"(y.bits) : "d"(x));
    return y;
}

__device__ double times(double a, double b) { return a * b; }
__device__ float times(float a, float b) {
    float y;
    asm("mul.rn.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}
__device__ double minus(double a, double b) { return a - b; }
__device__ float minus(float a, float b) {
    float y;
    asm("sub.rn.f32 %0, %1, %2;" : "=f"(y) : "f"(a), "f"(b));
    return y;
}

__device__ index_t thread_number() { return blockIdx.x * (index_t)blockDim.x + threadIdx.x; }
__device__ index_t thread_count() { return gridDim.x * (index_t)blockDim.x; }

__device__ double infinity() { return __longlong_as_double(0x7ff0000000000000LL); }
__device__ double larger(double a, double b) { return (b > a || b != b) ? b : a; }  // keeps NaN

// ---- Preparation. `units` holds rows of length d: pre, centre, post, ... -----------------------

template <class In, class Out>
__global__ void affine(const In* x, index_t n, index_t d, index_t row, index_t column,
                       const double* units, Out* out) {
    for (index_t i = thread_number(); i < n * d; i += thread_count()) {
        const index_t r = i / d, c = i - r * d;
        double y = wide(x[r * row + c * column]) * units[c];
        y = (y - units[d + c]) * units[2 * d + c];
        out[i] = narrow<Out>(y);
    }
}

// Of a row x * pre - centre of `units`, by a warp: rounded up, the square root of the sum of squares
// and the largest |entry|, for its first lane. In an order that hangs on d alone.
template <class In>
__device__ void row_size(const In* x, index_t d, index_t column, const double* units,
                         double outward, double root, double& norm, double& entry) {
    double squares = 0.0, top = 0.0;
    for (index_t c = threadIdx.x % 32; c < d; c += 32) {
        const double y = wide(x[c * column]) * units[c] - units[d + c];
        squares += y * y;
        top = larger(top, fabs(y));
    }
    for (int step = 16; step > 0; step /= 2) {
        squares += __shfl_down_sync(0xffffffffu, squares, step);
        top = larger(top, __shfl_down_sync(0xffffffffu, top, step));
    }
    // Squares below 2**-1022 vanish: short by at most 2**-500; a row of zeros has norm 0.
    norm = sqrt(squares) * outward + exp2(-500.0);
    entry = top * outward;
    const double most = entry * (root * outward);
    norm = most < norm ? most : norm;
}

// One warp a row: `row_size`.
template <class In>
__global__ void measures(const In* x, index_t n, index_t d, index_t row, index_t column,
                         const double* units, double outward, double root, double* norms,
                         double* entries) {
    for (index_t r = thread_number() / 32; r < n; r += thread_count() / 32) {
        double norm, entry;
        row_size(x + r * row, d, column, units, outward, root, norm, entry);
        if (threadIdx.x % 32 > 0) continue;
        entries[r] = entry;
        norms[r] = norm;
    }
}

// One warp a row: (x * pre - centre) . vector.
template <class In>
__global__ void dots(const In* x, index_t n, index_t d, index_t row, index_t column,
                     const double* units, double* out) {
    const int lane = threadIdx.x % 32;
    for (index_t r = thread_number() / 32; r < n; r += thread_count() / 32) {
        double sum = 0.0;
        for (index_t c = lane; c < d; c += 32)
            sum += (wide(x[r * row + c * column]) * units[c] - units[d + c]) * units[2 * d + c];
        for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
        if (lane == 0) out[r] = sum;
    }
}

// Block b takes rows b * share .. (b + 1) * share - 1; its lanes take every `lanes`-th of them.
// out (gridDim.x * lanes, 2, d): the smallest and largest entry of each column, NaN where met.
template <class In>
__global__ void extremes(const In* x, index_t n, index_t d, index_t row, index_t column,
                         index_t share, index_t lanes, double* out) {
    const index_t width = blockDim.x / lanes, lane = threadIdx.x / width;
    if (lane >= lanes) return;
    const index_t begin = blockIdx.x * share, end = begin + share < n ? begin + share : n;
    for (index_t c = threadIdx.x % width; c < d; c += width) {
        double low = infinity(), high = -infinity();
        for (index_t r = begin + lane; r < end; r += lanes) {
            const double y = wide(x[r * row + c * column]);
            low = (y < low || y != y) ? y : low;
            high = larger(high, y);
        }
        double* own = out + (blockIdx.x * lanes + lane) * 2 * d;
        own[c] = low;
        own[d + c] = high;
    }
}

// Shared out like `extremes`. out (gridDim.x * lanes, d): sums of weights * x * pre.
template <class In>
__global__ void column_sums(const In* x, index_t n, index_t d, index_t row, index_t column,
                            double pre, const double* weights, index_t share, index_t lanes,
                            double* out) {
    const index_t width = blockDim.x / lanes, lane = threadIdx.x / width;
    if (lane >= lanes) return;
    const index_t begin = blockIdx.x * share, end = begin + share < n ? begin + share : n;
    for (index_t c = threadIdx.x % width; c < d; c += width) {
        double sum = 0.0;
        for (index_t r = begin + lane; r < end; r += lanes) {
            const double y = wide(x[r * row + c * column]) * pre;
            sum += weights ? weights[r] * y : y;
        }
        out[(blockIdx.x * lanes + lane) * d + c] = sum;
    }
}

// [clip((v * pre - centre) * post), 1] * weights, (m, d + 1).
template <class In, class Out>
__global__ void weighted(const In* v, index_t m, index_t d, index_t row, index_t column,
                         const double* units, const double* weights, Out* out) {
    for (index_t i = thread_number(); i < m * (d + 1); i += thread_count()) {
        const index_t r = i / (d + 1), c = i - r * (d + 1);
        double y = 1.0;
        if (c < d) {
            y = (wide(v[r * row + c * column]) * units[c] - units[d + c]) * units[2 * d + c];
            y = y < -1.0 ? -1.0 : (y > 1.0 ? 1.0 : y);
        }
        out[i] = narrow<Out>(weights ? y * weights[r] : y);
    }
}

// (centre + radius * x) / pre within [low, high]; units: pre, centre, radius, low, high.
template <class Out>
__global__ void restored(const double* x, index_t n, index_t d, const double* units, Out* out) {
    for (index_t i = thread_number(); i < n * d; i += thread_count()) {
        const index_t c = i % d;
        double y = (x[i] * units[2 * d + c] + units[d + c]) / units[c];
        y = y < units[3 * d + c] ? units[3 * d + c] : (y > units[4 * d + c] ? units[4 * d + c] : y);
        out[i] = narrow<Out>(y);
    }
}

// ---- The polynomial passes ---------------------------------------------------------------------

// out (batch, gridDim.y, tile): monomials first .. first + gridDim.y - 1 of x (batch, d, tile),
// zeros from `end` on. Row s of `variables` holds the factors of monomial s, the leading one
// first, -1 for none; multiplied from the last, in the order of the CPU's recipe.
template <class T>
__global__ void monomials(const T* x, index_t d, const short* variables, index_t degree,
                          index_t first, index_t end, index_t tile, T* out) {
    const index_t t = thread_number(), s = first + blockIdx.y;
    if (t >= tile) return;
    T y = s < end ? T(1) : T(0);
    if (s < end) {
        const T* own = x + blockIdx.z * d * tile + t;
        const short* factor = variables + s * degree;
        for (index_t i = degree - 1; i >= 0; --i)
            if (factor[i] >= 0) y = times(own[factor[i] * tile], y);
    }
    out[(blockIdx.z * (index_t)gridDim.y + blockIdx.y) * tile + t] = y;
}

// out (groups, size): out[g] = part[g * per] + ... + part[g * per + per - 1], in this order, in
// float64; added to what is there where `keep`.
template <class T>
__global__ void add_slices(const T* part, index_t count, index_t size, index_t per, index_t keep,
                           double* out) {
    const index_t groups = (count + per - 1) / per;
    for (index_t i = thread_number(); i < groups * size; i += thread_count()) {
        const index_t g = i / size, e = i - g * size;
        const index_t end = (g + 1) * per < count ? (g + 1) * per : count;
        double sum = wide(part[g * per * size + e]);
        for (index_t b = g * per + 1; b < end; ++b) sum += wide(part[b * size + e]);
        out[i] = keep ? out[i] + sum : sum;
    }
}

// out (gridDim.y, threads): partial sums over the rows of weight * norm^k, k = blockIdx.y; no term
// underflows to 0, as the sums are upper bounds.
template <class T>
__global__ void power_sums(const double* norms, const T* weights, index_t stride, index_t m,
                           double* out) {
    const double least = exp2(-1022.0);
    double sum = 0.0;
    for (index_t i = thread_number(); i < m; i += thread_count()) {
        const double weight = wide(weights[i * stride]), norm = norms[i];
        if (weight == 0.0 || (norm == 0.0 && blockIdx.y > 0)) continue;
        double power = 1.0;
        for (int k = 0; k < blockIdx.y; ++k) {
            power *= norm;
            power = power < least ? least : power;
        }
        const double term = weight * power;
        sum += term < least ? least : term;
    }
    out[blockIdx.y * thread_count() + thread_number()] = sum;
}

// ---- The exact pass: logits (blocks, rows, width), keys counted over blocks and width ----------

// A float32 weight below the smallest normal number may be 0: the bound has it.
__device__ float exponential(float x) { return expf(x); }
__device__ double exponential(double x) { return exp(x); }

// In place exp(logit - shift ln 2), 0 from key `keys` on; `shift` may be null for none.
template <class T>
__global__ void weigh(T* logits, index_t rows, index_t width, index_t keys, double per_bit,
                      const index_t* shift) {
    const index_t r = blockIdx.x, b = blockIdx.y;
    const T down = shift ? narrow<T>(shift[r] * per_bit) : T(0);
    T* own = logits + (b * rows + r) * width;
    for (index_t j = threadIdx.x; j < width; j += blockDim.x)
        own[j] = b * width + j < keys ? exponential(minus(own[j], down)) : T(0);
}
