// What a run of a plan has of its own, in memory of the device: launches that are kept, and captured in
// a graph, find it there. The host writes it before each run, in this order.
struct Given {
    unsigned long long Q, K, V;                 // (heads, n, d), (heads, m, d), (heads, m, d_v) float32, as they are
    unsigned long long out;                     // (heads, n, d_v) float32
    unsigned long long key_sides, query_sides;  // (heads, d + 4) float32: centre, pre, post, two more
    unsigned long long coefficients, tilts;     // float64 (heads, 4), padded; (heads, 3, d): pre, centre, tilt of keys
    unsigned long long limits;                  // (heads, 5) float64: see `key_report`
};

// Addresses count from null, which the argument that `base` is is then. An address out of memory alone might be one
// of shared memory as well, and what is loaded from there would wait for what is stored here.
template <typename T, typename U> __device__ __forceinline__ const T* given_at(const U* base, unsigned long long place) {
    return (const T*)((const char*)base + place);
}

