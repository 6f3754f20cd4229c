// Philox4x64-10 (Salmon et al. 2011): the words of numpy.random.Philox, many blocks at a time.
#pragma GCC optimize("tree-loop-vectorize")  // TorchInductor's flags switch it off
#include <cstdint>

using word = uint64_t;

#if defined(__AVX512DQ__)
constexpr int LANES = 32;
// The upper half of x * m from products of 32-bit halves, which become vector instructions.
inline word high(word x, word m) {
    word x0 = (uint32_t)x, x1 = x >> 32, m0 = (uint32_t)m, m1 = m >> 32;
    word a = x1 * m0 + ((x0 * m0) >> 32), b = x0 * m1 + (uint32_t)a;
    return x1 * m1 + (a >> 32) + (b >> 32);
}
#else
constexpr int LANES = 1;
inline word high(word x, word m) { return (word)(((unsigned __int128)x * m) >> 64); }
#endif

// Blocks 0, 1, ... below `blocks` of a stream, from `at` on: as many as there are lanes.
inline void lanes(word k0, word k1, word lo, word hi, int64_t at, int64_t blocks, word* out) {
    word c0[LANES], c1[LANES], c2[LANES], c3[LANES];
    for (int j = 0; j < LANES; j++) c0[j] = lo + at + j, c1[j] = hi + (c0[j] < lo), c2[j] = c3[j] = 0;
#pragma GCC unroll 10
    for (int round = 0; round < 10; round++) {
        for (int j = 0; j < LANES; j++) {
            word p = c0[j] * 0xD2E7470EE14C6C93, upper_p = high(c0[j], 0xD2E7470EE14C6C93);
            word q = c2[j] * 0xCA5A826395121157, upper_q = high(c2[j], 0xCA5A826395121157);
            c0[j] = upper_q ^ c1[j] ^ k0, c1[j] = q, c2[j] = upper_p ^ c3[j] ^ k1, c3[j] = p;
        }
        k0 += 0x9E3779B97F4A7C15, k1 += 0xBB67AE8584CAA73B;
    }
    int count = blocks - at < LANES ? (int)(blocks - at) : LANES;
    for (int j = 0; j < count; j++) {
        word* to = out + 4 * (at + j);
        to[0] = c0[j], to[1] = c1[j], to[2] = c2[j], to[3] = c3[j];
    }
}

struct Stretch {
    word k0, k1, lo, hi, blocks;  // key, counter of the first block (128 bits), number of blocks
};

extern "C" void philox(int64_t count, const Stretch* stretches, word* out, int threads) {
    for (int64_t s = 0; s < count; s++) {
        const Stretch t = stretches[s];
        const int64_t blocks = (int64_t)t.blocks;
#pragma omp parallel for num_threads(threads) if (threads > 1 && blocks > 4096)
        for (int64_t at = 0; at < blocks; at += LANES) lanes(t.k0, t.k1, t.lo, t.hi, at, blocks, out);
        out += 4 * blocks;
    }
}
