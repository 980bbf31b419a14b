// The product that all kernels here are made of, in the registers of one core.
#pragma once

#include <array>
#include <cstdint>
#include <utility>

namespace tuned {

#if defined(__AVX512F__)
constexpr int LANES = 16, MOST_ROWS = 12;  // of 32 registers: 24 sums, 2 of B
#elif defined(__AVX2__)
constexpr int LANES = 8, MOST_ROWS = 6;  // of 16 registers: 12 sums, 2 of B, 1 of A
#else
constexpr int LANES = 4, MOST_ROWS = 6;
#endif
constexpr int WIDTH = 2 * LANES;  // columns of a tile

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef float Unaligned __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

inline Vector load(const float* from) { return *reinterpret_cast<const Unaligned*>(from); }
inline void store(float* to, Vector x) { *reinterpret_cast<Unaligned*>(to) = x; }

// C = start + A B for R rows: A is [K][R], B is [K][WIDTH], rows of C and of start lie so far apart (0: one row for all).
// On the way it asks the memory for what `next` points to, `step` numbers further for each of the K.
template <int R>
void tile(const float* A, const float* B, int64_t K, const float* start, int64_t apart, float* C, int64_t stride, const float* next, int64_t step) {
    constexpr int CHAINS = R == 1 ? 4 : R <= 3 ? 2 : 1;  // sums of few rows wait for one another: several of each
    Vector sums[CHAINS][R][2] = {};
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        sums[0][r][0] = load(start + r * apart);
        sums[0][r][1] = load(start + r * apart + LANES);
    }
    int64_t k = 0;
    for (; k + CHAINS <= K; k += CHAINS) {
#pragma GCC unroll 4
        for (int c = 0; c < CHAINS; ++c) {
            const Vector left = load(B), right = load(B + LANES);
            __builtin_prefetch(next, 0, 2);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                sums[c][r][0] += A[r] * left;
                sums[c][r][1] += A[r] * right;
            }
            A += R, B += WIDTH, next += step;
        }
    }
    for (; k < K; ++k, A += R, B += WIDTH)
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            sums[0][r][0] += A[r] * load(B);
            sums[0][r][1] += A[r] * load(B + LANES);
        }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        for (int c = 1; c < CHAINS; ++c) sums[0][r][0] += sums[c][r][0], sums[0][r][1] += sums[c][r][1];
        store(C + r * stride, sums[0][r][0]);
        store(C + r * stride + LANES, sums[0][r][1]);
    }
}

using Tile = void (*)(const float*, const float*, int64_t, const float*, int64_t, float*, int64_t, const float*, int64_t);

template <std::size_t... R>
constexpr std::array<Tile, sizeof...(R) + 1> tiles_of(std::index_sequence<R...>) {
    return {nullptr, tile<R + 1>...};
}
constexpr auto TILES = tiles_of(std::make_index_sequence<MOST_ROWS>());  // by their number of rows

// So many rows in tiles that are as equal as they can be: where the i-th of `tiles` begins.
inline int64_t tiles_for(int64_t rows) { return (rows + MOST_ROWS - 1) / MOST_ROWS; }
inline int64_t begin_of(int64_t i, int64_t rows, int64_t tiles) { return i * rows / tiles; }

// Rows of A as tiles read them, [K][R] for each, one after the other; `row` and `column` are how far apart its numbers lie.
inline void interleave(const float* A, int64_t row, int64_t column, int64_t rows, int64_t K, float* to) {
    const int64_t tiles = tiles_for(rows);
    for (int64_t i = 0; i < tiles; ++i) {
        const int64_t first = begin_of(i, rows, tiles), R = begin_of(i + 1, rows, tiles) - first;
        for (int64_t k = 0; k < K; ++k)
            for (int64_t r = 0; r < R; ++r) *to++ = A[(first + r) * row + k * column];
    }
}

}  // namespace tuned
