// Measuring heads together, blockIdx.y the head: rounded as in portable.cu, in an order that
// does not hang on how many heads there are. `places` holds of each head the address of its rows
// and their two strides.

template <class In>
struct HeadRows {
    const In* x;
    index_t row, column;
    __device__ HeadRows(const index_t* places)
        : x((const In*)places[3 * blockIdx.y]), row(places[3 * blockIdx.y + 1]),
          column(places[3 * blockIdx.y + 2]) {}
    __device__ In at(index_t r, index_t c) const { return x[r * row + c * column]; }
};

// One warp a row: the norm of x * pre - centre, rounded up; `units` (heads, 2, d): pre, centre.
template <class In>
__global__ void stack_norms(const index_t* places, index_t n, index_t d, const double* units,
                            double outward, double root, double* norms) {
    const HeadRows<In> x(places);
    units += blockIdx.y * 2 * d;
    for (index_t r = thread_number() / 32; r < n; r += thread_count() / 32) {
        double norm, entry;
        row_size(x.x + r * x.row, d, x.column, units, outward, root, norm, entry);
        if (threadIdx.x % 32 == 0) norms[blockIdx.y * n + r] = norm;
    }
}

struct Sum {
    double total = 0.0;
    __device__ void add(double y) { total += y; }
    __device__ void write(double* out, index_t) const { *out = total; }
};

struct Ends {
    double low = infinity(), high = -infinity();
    __device__ void add(double y) {
        low = (y < low || y != y) ? y : low;
        high = larger(high, y);
    }
    __device__ void write(double* out, index_t d) const {
        out[0] = low;
        out[d] = high;
    }
};

// Block b of a head takes rows b * share .. (b + 1) * share - 1, `lanes` of them at once, and
// writes what it finds of each column to out (heads, gridDim.x, size).
template <class In, class Found>
__device__ void of_columns(const index_t* places, index_t n, index_t d, index_t share, int lanes,
                           index_t size, double* out) {
    __shared__ double kept[256];
    const HeadRows<In> x(places);
    const index_t width = blockDim.x / lanes, lane = threadIdx.x / width;
    const index_t begin = blockIdx.x * share, end = begin + share < n ? begin + share : n;
    out += (blockIdx.y * (index_t)gridDim.x + blockIdx.x) * size;
    for (index_t first = 0; first < d; first += width) {
        const index_t c = first + threadIdx.x % width;
        Found found;
        if (lane < lanes && c < d)
            for (index_t r = begin + lane; r < end; r += lanes) found.add(wide(x.at(r, c)));
        for (int part = 0; part < sizeof(Found) / sizeof(double); ++part) {
            kept[threadIdx.x] = ((const double*)&found)[part];
            __syncthreads();
            if (lane == 0 && c < d)
                for (int other = 1; other < lanes && begin + other < end; ++other)
                    found.add(kept[other * width + threadIdx.x]);
            __syncthreads();
        }
        if (lane == 0 && c < d) found.write(out + c, d);
    }
}

// out (heads, gridDim.x, d): sums of x.
template <class In>
__global__ void stack_sums(const index_t* places, index_t n, index_t d, index_t share,
                           index_t lanes, double* out) {
    of_columns<In, Sum>(places, n, d, share, lanes, d, out);
}

// out (heads, gridDim.x, 2, d): the smallest and the largest entries, NaN where met.
template <class In>
__global__ void stack_ends(const index_t* places, index_t n, index_t d, index_t share,
                           index_t lanes, double* out) {
    of_columns<In, Ends>(places, n, d, share, lanes, 2 * d, out);
}

// out (heads, count, d): rows index[r]; head h has its own from index[h * step] on.
template <class In>
__global__ void stack_rows(const index_t* places, index_t count, index_t d, const index_t* index,
                           index_t step, In* out) {
    const HeadRows<In> x(places);
    for (index_t i = thread_number(); i < count * d; i += thread_count())
        out[blockIdx.y * count * d + i] = x.at(index[blockIdx.y * step + i / d], i % d);
}
