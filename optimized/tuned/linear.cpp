// X W + b, of a matrix W that was laid out in panels.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <tuple>
#include <vector>

#include "linear.h"
#include "tile.h"

namespace tuned {

constexpr int64_t NUMBERS = 1 << 17;  // words of X at a time: they stay in the second cache
constexpr int64_t FEW = 5;            // rows, which are faster without tiles

#if defined(__AVX512VNNI__)
inline __m512 some(const float* x, int64_t count) { return _mm512_maskz_loadu_ps(count < LANES ? (1 << std::max<int64_t>(count, 0)) - 1 : 0xffff, x); }

// What x is multiplied with to lie between −127 and 127; and its inverse, which is NaN where one of them is not finite.
std::pair<float, float> scale_of(const float* x, int64_t count) {
    __m512 most = _mm512_setzero_ps(), lost = most;
    for (int64_t i = 0; i < count; i += LANES) {
        const __m512 part = some(x + i, count - i);
        most = _mm512_max_ps(most, _mm512_abs_ps(part));
        lost = _mm512_fmadd_ps(part, _mm512_setzero_ps(), lost);
    }
    const float largest = _mm512_reduce_max_ps(most), scale = largest / 127.0f + _mm512_reduce_add_ps(lost);
    return {scale > 0.0f ? 127.0f / largest : 0.0f, scale};
}
// Numbers of x as 1 to 255, with zeros behind them.
void whole_numbers(const float* x, int64_t count, int64_t padded, float by, uint8_t* to) {
    for (int64_t i = 0; i < padded; i += LANES) {
        const __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(some(x + i, count - i), _mm512_set1_ps(by)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm512_cvtepi32_epi8(_mm512_add_epi32(whole, _mm512_set1_epi32(128))));
    }
}
#else  // no kind here needs them
std::pair<float, float> scale_of(const float*, int64_t) { return {}; }
void whole_numbers(const float*, int64_t, int64_t, float, uint8_t*) {}
#endif

template <class Kind, class Number>
struct Product {
    const Number *X, *b;
    const float *W, *scales;
    Number* Y;
    int64_t K, columns, words;
    bool relu;
    using Word = typename Kind::Word;
    static constexpr int64_t MOST = Kind::TILED ? 32 : MOST_ROWS, DEPTH = tuned::DEPTH<Kind>, STRIDE = tuned::STRIDE<Kind>;

    static int64_t together(int64_t rows) {
        if (Kind::TILED) return rows > BLOCK ? 1 : 2;
        return rows > MOST ? 1 : side_by_side(rows);
    }
    static int64_t tiles_for(int64_t rows) { return (rows + MOST - 1) / MOST; }
    static int64_t first_of(int64_t i, int64_t rows, int64_t tiles) { return i * rows / tiles; }

    // The words of a row from k on; `by` is what it is multiplied with before it is rounded to whole numbers, in those kinds.
    void words_of(int64_t row, int64_t k, int64_t count, float by, Word* to) const {
        constexpr int64_t IN_A_WORD = Kind::WHOLE ? 4 : 4 / sizeof(Number);
        const Number* from = X + row * K + k * IN_A_WORD;
        const int64_t there = std::clamp<int64_t>(K - k * IN_A_WORD, 0, count * IN_A_WORD);
        if constexpr (Kind::WHOLE) {
            whole_numbers(from, there, count * 4, by, reinterpret_cast<uint8_t*>(to));
        } else {
            std::memmove(to, from, there * sizeof(Number));  // a call: what compilers write for memcpy takes longer
            std::fill(reinterpret_cast<Number*>(to) + there, reinterpret_cast<Number*>(to + count), Number{});
        }
    }

    struct Rows {
        std::vector<float> room, scales;
        float* sums;
        Word* words;
        int64_t apart;
    };

    // Rows from `top` on, DEPTH words of each side by side; tiles read up to MOST rows at once, whose results are dropped.
    void lay_out(int64_t top, int64_t height, Rows& own) const {
        const int64_t sums = (tiles_for(height) + 1) * MOST * WIDTH * 4, size = sums + (words + DEPTH - 1) / DEPTH * (height + MOST) * STRIDE + BLOCK;
        if (static_cast<int64_t>(own.room.size()) < size) own.room.resize(size);
        if (static_cast<int64_t>(own.scales.size()) < height) own.scales.resize(height);
        own.apart = (height + MOST) * STRIDE;
        own.sums = aligned(own.room.data());
        own.words = reinterpret_cast<Word*>(own.sums + sums);
        for (int64_t r = 0; r < height; ++r) {
            float by = 1.0f;
            if constexpr (Kind::WHOLE) std::tie(by, own.scales[r]) = scale_of(X + (top + r) * K, K);
            for (int64_t k = 0; k < words; k += DEPTH) words_of(top + r, k, std::min<int64_t>(DEPTH, words - k), by, own.words + k / DEPTH * own.apart + r * STRIDE);
        }
    }

    // Those rows times the panels from `left` to `right`; `ahead` is what will be read next.
    void multiply(int64_t top, int64_t height, Rows& own, int64_t left, int64_t right, Ahead ahead) const {
        const int64_t tiles = tiles_for(height), most = together(height), size = words * WIDTH;
        const int pace = most > 1 ? 0 : tiles == 1 ? 2 : 1;
        for (int64_t p = left, g; p < right; p += g) {
            g = right - p < most ? 1 : most;
            for (int64_t k = 0; k < words; k += DEPTH)
                for (int64_t i = 0; i < tiles; ++i) {
                    const int64_t first = first_of(i, height, tiles), R = first_of(i + 1, height, tiles) - first, depth = std::min<int64_t>(DEPTH, words - k);
                    const Word* rows = own.words + k / DEPTH * own.apart + first * STRIDE;
                    const float* panel = W + p * size + k * WIDTH;
                    float* sums = own.sums + i * MOST * WIDTH;
#if defined(__AMX_TILE__)
                    if constexpr (Kind::TILED) in_tiles<Kind>(rows, R, panel, depth, g > 1 ? size : 0, sums, k == 0, i == 0);
#endif
                    if constexpr (!Kind::TILED) TILES<Kind>[R][g > 1](rows, panel, depth, size, sums, k == 0, ahead, i < 2 ? pace : 0);
                }
            for (int64_t i = 0; i < tiles; ++i) {
                const int64_t first = first_of(i, height, tiles), R = first_of(i + 1, height, tiles) - first;
                for (int64_t at = 0; at < g; ++at)
                    finish(top + first, R, p + at, own.sums + (i * MOST + at * (Kind::TILED ? BLOCK : R)) * WIDTH, own.scales.data() + first);
            }
        }
    }

    // Sums of R rows become numbers of Y, a row at a time.
    void finish(int64_t row, int64_t R, int64_t p, const float* sums, const float* of_rows) const {
        const int64_t filled = std::min<int64_t>(WIDTH, columns - p * WIDTH), apart = columns;
        const bool positive = relu;
        float added[3][WIDTH];  // what is behind the last column is dropped
        for (int64_t c = 0; c < filled; ++c) added[0][c] = static_cast<float>(b[p * WIDTH + c]);
        for (int i = 0; i < (Kind::WHOLE ? 2 : 0); ++i) std::copy_n(scales + i * columns + p * WIDTH, filled, added[1 + i]);
        Number line[WIDTH], *y = Y + row * columns + p * WIDTH;
        for (int64_t r = 0; r < R; ++r, y += apart) {
            Number* to = filled == WIDTH ? y : line;
            for (int at = 0; at < WIDTH; at += LANES) {
                Vector sum = load(sums + r * WIDTH + at);
                if constexpr (Kind::WHOLE) sum = of_rows[r] * load(added[1] + at) * __builtin_convertvector((Integers)sum - (Integers)load(added[2] + at), Vector);
                sum += load(added[0] + at);
                if (positive) sum = sum < 0.0f ? Vector{} : sum;  // NaN stays
                store(to + at, sum);
            }
            if (to == line) std::copy_n(line, filled, y);
        }
    }

    void work(int64_t me, int64_t rows, const Panels& all, const Panels* next, Shares& shares) const {
#if defined(__AMX_TILE__)
        const std::conditional_t<Kind::TILED, Tiles, int> registers{};
#endif
        thread_local Rows own;
        const int64_t most = chunk_of(rows, words), group = all.group(together(rows)), groups = shares.tasks / ((rows + most - 1) / most);
        int64_t laid_out = -1;
        shares.work(me, [&](int64_t i, int64_t end) {
            const int64_t chunk = i / groups, top = chunk * most, height = std::min(most, rows - top);
            if (chunk != laid_out) lay_out(top, height, own);
            laid_out = chunk;
            const Ahead ahead = i + 1 < end || !next ? all.ahead((i + 1) % groups, group) : next->first(me, shares.threads, together(rows));
            multiply(top, height, own, i % groups * group, std::min(all.count(), (i % groups + 1) * group), ahead);
        });
    }

    // How many rows of X are multiplied at a time: whole tiles, and about as many each time.
    static int64_t chunk_of(int64_t rows, int64_t words) {
        rows = std::max<int64_t>(rows, 1);  // none are no tasks
        const int64_t most = std::max<int64_t>(NUMBERS / words / MOST, 1) * MOST, chunks = (rows + most - 1) / most;
        return tiles_for((rows + chunks - 1) / chunks) * MOST;
    }
    static int64_t tasks(int64_t rows, const Panels& W) {
        const int64_t group = W.group(together(rows)), most = chunk_of(rows, W.words());
        return (rows + most - 1) / most * ((W.count() + group - 1) / group);
    }
    static void of(Linear& job, int64_t me, const void* X, void* Y, const Panels* next) {
        const Panels& W = job.W;
        Product{static_cast<const Number*>(X), W.b.const_data_ptr<Number>(), W.data(), static_cast<const float*>(W.scales.const_data_ptr()), static_cast<Number*>(Y), job.features, job.columns(), W.words(), job.relu}.work(me, job.rows, W, next, job.shares);
    }
};

template <class Kind, class Number>
std::pair<int64_t, Linear::Work> kernel(int64_t rows, const Panels& W) {
    return {Product<Kind, Number>::tasks(rows, W), &Product<Kind, Number>::of};
}

// How many tasks it is, and what does them.
std::pair<int64_t, Linear::Work> kernel(int64_t rows, const Panels& W) {
    const bool tiled = AMX && rows > FEW;
    switch (W.blocks.scalar_type()) {
        case at::kFloat: return kernel<Floats, float>(rows, W);
#if defined(__AVX512BF16__)
        case at::kBFloat16: return tiled ? kernel<Pairs<AMX>, BFloat16>(rows, W) : kernel<Pairs<false>, BFloat16>(rows, W);
#endif
#if defined(__AVX512VNNI__)
        case at::kChar: return tiled ? kernel<Quads<AMX>, float>(rows, W) : kernel<Quads<false>, float>(rows, W);
#endif
        default: TORCH_CHECK(false, "W: no product of ", W.blocks.scalar_type(), " on this processor");
    }
}

Linear::Linear(const Panels& W, int64_t features, int64_t rows, bool relu, int64_t threads) : W(W), features(features), rows(rows), relu(relu) {
    const int64_t bytes = features * W.blocks.element_size();
    TORCH_CHECK(bytes <= W.words() * 4 && bytes > W.words() * 4 - BLOCK * 4, "X: expected the features that W has rows, got ", features);
    TORCH_CHECK((columns() + WIDTH - 1) / WIDTH == W.count(), "b: expected a number for each column of W, got ", columns());
    const auto type = W.blocks.scalar_type() == at::kChar ? at::kFloat : W.blocks.scalar_type();
    TORCH_CHECK(W.b.scalar_type() == type && W.b.is_contiguous() && W.blocks.is_contiguous(), "b: expected ", type, ", got ", W.b.scalar_type());
    const auto [tasks, found] = kernel(rows, W);
    work = found;
    shares = Shares(tasks, std::min(threads, tasks));
}

// Memory that is new at every call, as that of many logits is, takes long to get in small pages.
void in_large_pages(void* memory, uint64_t bytes) {
#if defined(__linux__)
    constexpr uint64_t PAGE = 1 << 21;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(memory) + PAGE - 1) / PAGE * PAGE, end = (reinterpret_cast<uintptr_t>(memory) + bytes) / PAGE * PAGE;
    if (end > begin + PAGE) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // a wish
#endif
}

Tensor linear(const Tensor& X, const Panels& W) {
    std::vector<int64_t> sizes(X.sizes().begin(), X.sizes().end());
    sizes.back() = W.b.size(-1);
    Tensor Y = at::empty(sizes, X.options());
    in_large_pages(Y.mutable_data_ptr(), Y.nbytes());
    const Tensor dense = X.contiguous();
    TORCH_CHECK(X.scalar_type() == W.b.scalar_type(), "X: expected ", W.b.scalar_type(), " as b is, got ", X.scalar_type());
    Linear job(W, X.size(-1), X.numel() / X.size(-1), false, at::get_num_threads());
    at::parallel_for(0, job.shares.threads, 1, [&](int64_t me, int64_t) { job.work(job, me, dense.const_data_ptr(), Y.mutable_data_ptr(), nullptr); });
    return Y;
}

}  // namespace tuned

TORCH_LIBRARY(veriformer, library) {
    library.def("width() -> int", [] { return static_cast<int64_t>(tuned::WIDTH); });
    library.def("linear(Tensor X, Tensor W, Tensor scales, Tensor b) -> Tensor",
                [](const at::Tensor& X, const at::Tensor& W, const at::Tensor& scales, const at::Tensor& b) { return tuned::linear(X, {W, scales, b}); });
}
