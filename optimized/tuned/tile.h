// The products that all kernels here are made of, in the registers of one core.
//
// A word is 32 bits of a row of X, and as many of a column of W: one float32, two bfloat16 or four int8. A panel is WIDTH columns of W
// side by side, word by word, so that whatever it holds it is read alike. Sums are float32, those of int8 are int32.
#pragma once

#include <c10/util/BFloat16.h>
#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include <array>
#include <cstdint>
#include <cstring>
#include <utility>

namespace tuned {

using c10::BFloat16;

#if defined(__AVX512F__)
constexpr int LANES = 16, MOST_ROWS = 12;  // of 32 registers: 24 sums, 2 of B
#elif defined(__AVX2__)
constexpr int LANES = 8, MOST_ROWS = 6;  // of 16 registers: 12 sums, 2 of B, 1 of A
#else
constexpr int LANES = 4, MOST_ROWS = 6;
#endif
#if defined(__AMX_TILE__)
constexpr bool AMX = true;
#else
constexpr bool AMX = false;
#endif
constexpr int WIDTH = 2 * LANES, BLOCK = 16;  // columns of a panel; rows, words and columns of a tile of AMX

typedef float Vector __attribute__((vector_size(4 * LANES)));
typedef uint32_t Words __attribute__((vector_size(4 * LANES)));
typedef int32_t Integers __attribute__((vector_size(4 * LANES)));
typedef uint16_t Halves __attribute__((vector_size(2 * LANES)));

template <class To, class From>
inline To load_as(const From* from) {
    To bits;
    std::memcpy(&bits, from, sizeof bits);
    return bits;
}
inline Vector load(const float* from) { return load_as<Vector>(from); }
inline Vector load(const BFloat16* from) { return (Vector)(__builtin_convertvector(load_as<Halves>(from), Words) << 16); }
inline void store(float* to, Vector x) { std::memcpy(to, &x, sizeof x); }
inline void store(BFloat16* to, Vector x) {  // to nearest, ties to even; a NaN stays one
    const Words bits = (Words)x, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const Halves halves = __builtin_convertvector(x == x ? rounded : Words{} + 0x7fc0, Halves);
    std::memcpy(to, &halves, sizeof halves);
}

template <class Number>
Number* aligned(Number* room) {  // to a line of the cache
    return reinterpret_cast<Number*>((reinterpret_cast<uintptr_t>(room) + 63) & ~uintptr_t{63});
}

inline void pause() {  // between two looks at what another thread will change
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

struct Floats {
    static constexpr bool WHOLE = false, TILED = false;
    using Word = float;
    using Sum = Vector;
    static Sum add(Sum sum, Word a, Vector b) { return sum + a * b; }
};
#if defined(__AVX512BF16__)
template <bool IN_TILES>
struct Pairs {
    static constexpr bool WHOLE = false, TILED = IN_TILES;
    using Word = int32_t;
    using Sum = Vector;
    static Sum add(Sum sum, Word a, Vector b) { return (Sum)_mm512_dpbf16_ps((__m512)sum, (__m512bh)_mm512_set1_epi32(a), (__m512bh)b); }
};
#endif
#if defined(__AVX512VNNI__)
template <bool IN_TILES>
struct Quads {  // X without a sign, W with one
    static constexpr bool WHOLE = true, TILED = IN_TILES;
    using Word = int32_t;
    using Sum = Integers;
    static Sum add(Sum sum, Word a, Vector b) { return (Sum)_mm512_dpbusd_epi32((__m512i)sum, _mm512_set1_epi32(a), (__m512i)b); }
};
#endif

// Words of a panel at a time, which stay in the first cache; and how far apart rows of X lie.
template <class Kind>
constexpr int DEPTH = Kind::TILED ? 128 : 256;
template <class Kind>
constexpr int STRIDE = DEPTH<Kind> + BLOCK;

constexpr int STREAMS = 4;  // panels asked for side by side: the processor fetches some streams of memory faster than one

// Memory that will be read next: its STREAMS parts in turn.
struct Ahead {
    const char* memory = nullptr;
    uint64_t part = 0, line = 0;
    void ask(int lines) {
        for (int i = 0; i < lines; ++i, ++line) __builtin_prefetch(memory + line % STREAMS * part + line / STREAMS * 64, 0, 2);
    }
};

constexpr int SOON = 32 * WIDTH;  // words ahead in a panel, which are asked for: the processor by itself looks less far
template <class Number>
void ask(const Number* from, int64_t count) {
    for (int64_t at = 0; at < count; at += 64 / sizeof(Number)) __builtin_prefetch(from + at, 0, 2);
}

// C += A B for R rows and G panels, or C = A B at `first`: rows of A lie STRIDE words apart, a panel is [words][WIDTH], the next lies
// `apart`; C is [G][R][WIDTH].
template <class Kind, int R, int G>
void tile(const typename Kind::Word* A, const float* B, int64_t words, int64_t apart, float* C, bool first, Ahead& behind, int pace) {
    Ahead ahead = behind;  // in registers
    typename Kind::Sum sums[G][R][2];
#pragma GCC unroll 24
    for (int i = 0; i < G * R * 2; ++i) sums[i / 2 / R][i / 2 % R][i % 2] = first ? typename Kind::Sum{} : (typename Kind::Sum)load(C + i * LANES);
    for (int64_t k = 0; k < words; ++k, ++A, B += WIDTH) {
        if (pace > 0) ahead.ask(1);
        if (pace > 1) ahead.ask(1);
#pragma GCC unroll 4
        for (int g = 0; g < G; ++g) {
            ask(B + g * apart + SOON, WIDTH);
            const Vector left = load(B + g * apart), right = load(B + g * apart + LANES);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                sums[g][r][0] = Kind::add(sums[g][r][0], A[r * STRIDE<Kind>], left);
                sums[g][r][1] = Kind::add(sums[g][r][1], A[r * STRIDE<Kind>], right);
            }
        }
    }
#pragma GCC unroll 24
    for (int i = 0; i < G * R * 2; ++i) store(C + i * LANES, (Vector)sums[i / 2 / R][i / 2 % R][i % 2]);
    behind = ahead;
}

template <class Kind>
using Tile = void (*)(const typename Kind::Word*, const float*, int64_t, int64_t, float*, bool, Ahead&, int);

// So many panels side by side as there are registers for.
constexpr int side_by_side(int rows) { return 4 * rows <= MOST_ROWS ? 4 : 2 * rows <= MOST_ROWS ? 2 : 1; }

template <class Kind, std::size_t... R>
constexpr std::array<std::array<Tile<Kind>, 2>, sizeof...(R) + 1> tiles_of(std::index_sequence<R...>) {
    return {{{}, {tile<Kind, R + 1, 1>, tile<Kind, R + 1, side_by_side(R + 1)>}...}};
}
template <class Kind>
constexpr auto TILES = tiles_of<Kind>(std::make_index_sequence<MOST_ROWS>());  // by their rows: of one panel, and of as many as can be

#if defined(__AMX_TILE__)
// The same in the tiles of a core that has them: up to 32 rows of one panel, or up to 16 of two, where the next lies `apart`. Words are
// a multiple of 16, and so many rows of C are written. `ahead`: B is read for the first time.
struct Tiles {
    Tiles() {
        struct alignas(64) { uint8_t palette = 1, start = 0, unused[14] = {}; uint16_t bytes[16] = {}; uint8_t rows[16] = {}; } shape;
        for (int i = 0; i < 8; ++i) shape.bytes[i] = 64, shape.rows[i] = BLOCK;
        _tile_loadconfig(&shape);
    }
    ~Tiles() { _tile_release(); }
};
#define SUM_OF_TILES(c, a, b) if constexpr (Kind::WHOLE) { _tile_dpbusd(c, a, b); } else { _tile_dpbf16ps(c, a, b); }
template <class Kind>
void in_tiles(const typename Kind::Word* A, int64_t rows, const float* B, int64_t words, int64_t apart, float* C, bool first, bool ahead) {
    const bool tall = rows > BLOCK, two = !tall && apart;
    float *left = C, *right = C + BLOCK, *below = C + BLOCK * WIDTH;
    if (first) {
        _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3);
    } else {
        _tile_loadd(0, left, WIDTH * 4); _tile_loadd(1, right, WIDTH * 4);
        if (tall || two) { _tile_loadd(2, below, WIDTH * 4); _tile_loadd(3, below + BLOCK, WIDTH * 4); }
    }
    for (int64_t k = 0; k < words; k += BLOCK, B += BLOCK * WIDTH) {
        if (ahead) ask(B + SOON, BLOCK * WIDTH);
        if (ahead && two) ask(B + apart + SOON, BLOCK * WIDTH);
        _tile_loadd(4, A + k, STRIDE<Kind> * 4); _tile_loadd(6, B, WIDTH * 4); _tile_loadd(7, B + BLOCK, WIDTH * 4);
        SUM_OF_TILES(0, 4, 6); SUM_OF_TILES(1, 4, 7);
        if (tall) {
            _tile_loadd(5, A + BLOCK * STRIDE<Kind> + k, STRIDE<Kind> * 4);
            SUM_OF_TILES(2, 5, 6); SUM_OF_TILES(3, 5, 7);
        }
        if (two) {
            _tile_loadd(5, B + apart, WIDTH * 4); _tile_loadd(6, B + apart + BLOCK, WIDTH * 4);
            SUM_OF_TILES(2, 4, 5); SUM_OF_TILES(3, 4, 6);
        }
    }
    _tile_stored(0, left, WIDTH * 4); _tile_stored(1, right, WIDTH * 4);
    if (tall || two) { _tile_stored(2, below, WIDTH * 4); _tile_stored(3, below + BLOCK, WIDTH * 4); }
}
#undef SUM_OF_TILES
#endif

}  // namespace tuned
