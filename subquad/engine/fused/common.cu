// Polynomial attention of degree 2 or 3 in two passes whose features never leave the registers (sm_90a).
//
// Defined by the host before this text: D (head dimension, a multiple of 16), CW (columns of V; column
// CW of [V, 1] is the weight), NC (columns of a tile: at least CW + DEGREE, a multiple of 8), DEGREE,
// X3 (1: operands split in two, three products), NACC (accumulators of a key warp), and tuning sizes.
//
// A block is 16 features: a prefix (one variable b, or two, a <= b) times the 16 variables of a chunk
// c, for b <= 16 c + 15. Where b lies in c itself the rows below b repeat others. In the key pass the
// degree-2 block of b = 16 c + 15 carries the linear features of its chunk there, all but the last,
// which `pack_keys` sums itself.

typedef unsigned int u32;
typedef unsigned long long u64;

constexpr int CH = D / 16;                 // chunks
constexpr int PARTS = X3 ? 2 : 1;
constexpr int KSTEP = CH * 512 * PARTS;    // bytes of 16 keys in fragment order
constexpr int WHALF = 16 * NC * 2;         // bytes of 16 rows of a B tile, one part
constexpr int WSTEP = WHALF * PARTS;
// Blocks of the query pass come in rounds, each filled up to whole stages of Q_BLOCKS.
// ROTATED: a round has, for each chunk f, 8 blocks of it with itself, 8 for each eight prefixes of f and each
// later chunk, and at the end 2 more for each f: the rest of it with itself, and it alone. In degree 3
// there is a round for each first prefix v, over the chunks but its own, prefixes being of later ones; then
// one for each chunk: its pairs as in degree 2, and its TRIPLES. What v has alone with an earlier chunk is left out.
// Else, in degree 3 a round for each first prefix v: for each eight prefixes, from v's eight on, 8 for each
// chunk from theirs on; a last round as if v = 0, without it; linear blocks.
constexpr bool ROTATED = !X3 && D <= 64;
constexpr int Q_BLOCKS = ROTATED && DEGREE == 3 ? 8 : 4;
constexpr int TRIPLES = 51;   // blocks of three variables of a chunk
// Triples of a chunk: pairs p of variables times those s and u further on modulo 8, each set of three of
// them once; `crossed` and `swapped`: times the other one of each pair s, or u, further on.
struct Triple { int s, u; bool first, crossed, swapped; };   // first: with this s
__device__ constexpr Triple triple_of(int j) {
    if (j < 2) return {0, 0, j == 0, j == 1, false};
    if (j < 23) return {0, (j + 1) / 3, false, (j - 2) % 3 == 1, (j - 2) % 3 == 2};
    const int set = (j - 23) / 4;
    return {set < 5 ? 1 : 2, set < 5 ? set + 2 : set - 1, j == 23 || j == 43, (j - 23) % 4 / 2 > 0, (j - 23) % 2 > 0};
}
__device__ constexpr int whole(int blocks) { return (blocks + Q_BLOCKS - 1) / Q_BLOCKS * Q_BLOCKS; }
__device__ constexpr int query_round(int own) {   // ROTATED; own: the chunk of v, -1 for none
    int total = 0;
    for (int f = 0; f < CH; f++) total += f == own ? 0 : f < own ? 10 : 10 + 16 * (CH - 1 - f);
    return whole(total);
}
constexpr int OWN_ROUND = whole(10 + TRIPLES);
__device__ constexpr int eight_round(int eight) {
    int total = 0;
    for (int c = eight / 2; c < CH; c++) total += (c == eight / 2 && eight % 2 ? 8 : 16) * (CH - c);
    return whole(total);
}
__device__ constexpr int query_blocks() {
    if (ROTATED && DEGREE == 2) return query_round(-1);
    int total = ROTATED ? CH * OWN_ROUND : whole(CH) + eight_round(0);
    for (int c = 0; DEGREE == 3 && ROTATED && c < CH; c++) total += 16 * query_round(c);
    for (int eight = 0; DEGREE == 3 && !ROTATED && eight < 2 * CH; eight++) total += 8 * eight_round(eight);
    return total;
}
constexpr int BLOCKS = query_blocks();
constexpr int NORMS = DEGREE + 1;
constexpr int SUMS = CH + 1;               // columns summed by pack_keys: weights, last of each chunk

__device__ __forceinline__ u32 smem_of(const void* p) { return (u32)__cvta_generic_to_shared(p); }

__device__ __forceinline__ u32 pair(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}
__device__ __forceinline__ float low_of(u32 x) { return __uint_as_float(x << 16); }
__device__ __forceinline__ float high_of(u32 x) { return __uint_as_float(x & 0xffff0000u); }
__device__ __forceinline__ u32 rest(float low, float high, u32 rounded) {
    return pair(low - low_of(rounded), high - high_of(rounded));
}
__device__ __forceinline__ u32 mul2(u32 a, u32 b) {
    u32 r;
    asm("mul.rn.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    return r;
}
__device__ __forceinline__ u32 fma2(u32 a, u32 b, u32 c) {
    u32 r;
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    return r;
}
constexpr u32 ONES = 0x3f803f80u, SIGNS = 0x80008000u;

// ---- mbarriers and bulk copies -------------------------------------------------------------
__device__ __forceinline__ void bar_init(u32 bar, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(count));
}
__device__ __forceinline__ void bar_arrive(u32 bar) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(bar) : "memory");
}
__device__ __forceinline__ void bar_expect(u32 bar, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes)
                 : "memory");
}
__device__ __forceinline__ void bar_wait(u32 bar, u32 parity) {
    asm volatile(
        "{\n.reg .pred p;\nagain:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n"
        "@p bra done;\nbra again;\ndone:\n}" ::"r"(bar), "r"(parity) : "memory");
}
// For a whole warp: its lanes stay together, as wgmma must find them.
__device__ __forceinline__ void warp_wait(u32 bar, u32 parity) {
    u32 done;
    do {
        asm volatile(
            "{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
            "selp.u32 %0, 1, 0, p;\n}" : "=r"(done) : "r"(bar), "r"(parity) : "memory");
    } while (!__all_sync(0xffffffffu, done));
}
// By the lanes with `on`, without a branch.
__device__ __forceinline__ void bar_arrive_if(u32 bar, bool on) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %1, 0;\n@p mbarrier.arrive.shared::cta.b64 _, [%0];\n}"
                 ::"r"(bar), "r"((u32)on) : "memory");
}
__device__ __forceinline__ void bar_expect_if(u32 bar, u32 bytes, bool on) {
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %2, 0;\n@p mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;\n}"
                 ::"r"(bar), "r"(bytes), "r"((u32)on) : "memory");
}
__device__ __forceinline__ void bulk_load_if(u32 to, const void* from, u32 bytes, u32 bar, bool on) {
    asm volatile(
        "{\n.reg .pred p;\nsetp.ne.u32 p, %4, 0;\n"
        "@p cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];\n}"
        ::"r"(to), "l"(from), "r"(bytes), "r"(bar), "r"((u32)on) : "memory");
}
__device__ __forceinline__ void bulk_load(u32 to, const void* from, u32 bytes, u32 bar) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
        ::"r"(to), "l"(from), "r"(bytes), "r"(bar) : "memory");
}

// ---- tensor cores --------------------------------------------------------------------------
// 16 x NC, column groups of 8 with k contiguous: k halves 16 NC bytes apart, groups 128.
// One less than 2^18 bytes away, a tile is (bytes / 16) further on in the low bits.
__device__ __forceinline__ u64 descriptor(u32 address) {
    return (u64)((address & 0x3ffff) >> 4) | ((u64)(16 * NC >> 4) << 16) | ((u64)(128 >> 4) << 32);
}
__device__ __forceinline__ void wg_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wg_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int LEFT> __device__ __forceinline__ void wg_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory");
}
//WGMMA//

struct Operand { u32 high[4], low[4]; };   // low unused unless X3

__device__ __forceinline__ void products(float (&acc)[NC / 2], const Operand& a, u64 tile) {
    wgmma(acc, a.high, tile);
    if constexpr (X3) {
        wgmma(acc, a.high, tile + WHALF / 16);
        wgmma(acc, a.low, tile);
    }
}

// Holds the compiler to building an operand before the products that read it are issued.
__device__ __forceinline__ void settle(Operand& a) {
#pragma unroll
    for (int r = 0; r < 4; r++) {
        asm volatile("" : "+r"(a.high[r]));
        if constexpr (X3) asm volatile("" : "+r"(a.low[r]));
    }
}

// x * s, componentwise: the low part holds what the high one lost and the cross terms.
__device__ __forceinline__ void feature(u32& high, u32& low, u32 xh, u32 xl, u32 sh, u32 sl) {
    high = mul2(xh, sh);
    if constexpr (X3) low = fma2(xh, sl, fma2(xl, sh, fma2(xh, sh, high ^ SIGNS)));
}

