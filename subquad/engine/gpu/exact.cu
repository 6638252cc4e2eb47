// Between the two products of a step of the exact pass; compiled behind portable.cu.

template <class T, int V> struct alignas(sizeof(T) * V) Pack { T x[V]; };

// The sum of x over the block, in a fixed order, for its first thread.
__device__ double block_sum(double x, double* warps) {
    for (int step = 16; step > 0; step /= 2) x += __shfl_down_sync(0xffffffffu, x, step);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    double sum = 0.0;
    for (int i = 0; i < blockDim.x / 32; i++) sum += warps[i];
    return sum;
}

// One block a row r of logits (blocks, rows, width), of which `keys` count, over blocks and width:
// raise shift[r] to their peak (`shift` may be null for none), add `previous` (before, rows, columns)
// to total[r] (columns + 1) and re-shift that, put exp(logit - shift ln 2) in place of the logits,
// and add their sum times `weights` (blocks, width), in float64, to the last of total[r].
template <class T, int V>
__global__ void turn(T* logits, index_t rows, index_t width, index_t blocks, index_t keys,
                     const T* weights, double per_bit, index_t* shift, index_t first,
                     const T* previous, index_t before, index_t columns, double* total) {
    __shared__ double warps[32];
    __shared__ int down;
    const index_t r = blockIdx.x;
    const unsigned across = width / V, packs = blocks * across, inside = keys;   // V divides the width
    auto at = [&](unsigned i) { return (Pack<T, V>*)(logits + (i / across * rows + r) * width) + i % across; };
    T less = T(0);
    if (shift) {
        T peak = narrow<T>(-infinity());
        for (unsigned i = threadIdx.x; i < packs; i += blockDim.x) {
            const Pack<T, V> own = *at(i);
#pragma unroll
            for (int v = 0; v < V; ++v)
                if (i * V + v < inside && (own.x[v] > peak || own.x[v] != own.x[v]))
                    peak = own.x[v];  // keeps NaN
        }
        double most = wide(peak);
        for (int step = 16; step > 0; step /= 2)
            most = larger(most, __shfl_down_sync(0xffffffffu, most, step));
        if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = most;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int i = 1; i < blockDim.x / 32; ++i) most = larger(most, warps[i]);
            const double limit = 1125899906842624.0;  // 2**50
            double bits = ceil(most / per_bit);
            bits = bits < -limit ? -limit : (bits > limit ? limit : bits);
            index_t needed = static_cast<index_t>(bits);
            if (!first && needed < shift[r]) needed = shift[r];
            const index_t step = first ? 0 : shift[r] - needed;
            down = step < -2200 ? -2200 : static_cast<int>(step);
            shift[r] = needed;
        }
        __syncthreads();
        less = narrow<T>(shift[r] * per_bit);
    }
    double* own_total = total + r * (columns + 1);
    for (index_t c = threadIdx.x; c < columns; c += blockDim.x) {
        double sum = own_total[c];
        for (index_t b = 0; b < before; ++b) sum += wide(previous[(b * rows + r) * columns + c]);
        own_total[c] = shift && down < 0 ? ldexp(sum, down) : sum;
    }
    double sum = 0.0;
    constexpr int AT_ONCE = 4;   // loads on their way together
    for (unsigned first = threadIdx.x; first < packs; first += AT_ONCE * blockDim.x) {
        Pack<T, V> own[AT_ONCE];
#pragma unroll
        for (int u = 0; u < AT_ONCE; ++u)
            if (first + u * blockDim.x < packs) own[u] = *at(first + u * blockDim.x);
#pragma unroll
        for (int u = 0; u < AT_ONCE; ++u) {
            const unsigned i = first + u * blockDim.x;
            if (i >= packs) break;
            const Pack<T, V> weight = ((const Pack<T, V>*)weights)[i];
#pragma unroll
            for (int v = 0; v < V; ++v) {
                own[u].x[v] = i * V + v < inside ? exponential(minus(own[u].x[v], less)) : T(0);
                sum += wide(own[u].x[v]) * wide(weight.x[v]);
            }
            *at(i) = own[u];
        }
    }
    __syncthreads();
    sum = block_sum(sum, warps);
    if (threadIdx.x == 0)
        own_total[columns] = (shift && down < 0 ? ldexp(own_total[columns], down) : own_total[columns]) + sum;
}
