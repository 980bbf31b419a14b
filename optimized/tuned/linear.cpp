// X W + b, of a matrix W that was laid out in panels: WIDTH of its columns side by side, row by row.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <vector>

#include "tile.h"

namespace tuned {

constexpr int64_t DEPTH = 512;              // of W at a time: a panel of it stays in the nearest cache
constexpr int64_t NUMBERS = 1 << 16;        // of X at a time: they stay in the second cache
constexpr int64_t SHARES = 4, PANELS = 16;  // tasks for each thread at least, and panels of a task at most

struct Product {
    const float *X, *W, *b;
    float* Y;
    int64_t rows, K, columns;

    // Rows of X as tiles read them, DEPTH of their numbers after another.
    void lay_out(int64_t top, int64_t height, std::vector<float>& own) const {
        own.resize(height * K);
        for (int64_t k = 0; k < K; k += DEPTH) interleave(X + top * K + k, K, 1, height, std::min(DEPTH, K - k), own.data() + k * height);
    }

    // Those rows times the panels from `left` to `right`, which lie one behind the other.
    void multiply(int64_t top, int64_t height, const std::vector<float>& own, int64_t left, int64_t right) const {
        const int64_t tiles = tiles_for(height), step = WIDTH / tiles;
        for (int64_t p = left; p < right; ++p) {
            const int64_t filled = std::min<int64_t>(WIDTH, columns - p * WIDTH);
            for (int64_t k = 0; k < K; k += DEPTH) {
                const int64_t depth = std::min(DEPTH, K - k);
                const float *panel = W + (p * K + k) * WIDTH, *next = panel + depth * WIDTH;
                for (int64_t i = 0; i < tiles; ++i) {
                    const int64_t first = begin_of(i, height, tiles), R = begin_of(i + 1, height, tiles) - first;
                    const float *x = own.data() + k * height + first * depth, *ahead = next + i * step * depth;
                    float* y = Y + (top + first) * columns + p * WIDTH;
                    if (filled == WIDTH) {
                        TILES[R](x, panel, depth, k ? y : b + p * WIDTH, k ? columns : 0, y, columns, ahead, step);
                        continue;
                    }
                    float edge[MOST_ROWS * WIDTH] = {};
                    for (int64_t r = 0; r < R; ++r) std::copy_n(k ? y + r * columns : b + p * WIDTH, filled, edge + r * WIDTH);
                    TILES[R](x, panel, depth, edge, WIDTH, edge, WIDTH, ahead, step);
                    for (int64_t r = 0; r < R; ++r) std::copy_n(edge + r * WIDTH, filled, y + r * columns);
                }
            }
        }
    }
};

// X (…, K) times W, plus b, of which there are as many as columns.
at::Tensor linear(const at::Tensor& X, const at::Tensor& W, const at::Tensor& b) {
    const int64_t columns = b.size(0), K = X.size(-1), rows = X.numel() / K, count = W.size(0), threads = at::get_num_threads();
    const at::Tensor dense = X.contiguous();
    std::vector<int64_t> sizes(X.sizes().begin(), X.sizes().end());
    sizes.back() = columns;
    at::Tensor Y = at::empty(sizes, X.options());
    const Product product{dense.const_data_ptr<float>(), W.const_data_ptr<float>(), b.const_data_ptr<float>(), Y.mutable_data_ptr<float>(), rows, K, columns};
    const int64_t most = std::max<int64_t>(NUMBERS / K / MOST_ROWS, 1) * MOST_ROWS, chunks = (rows + most - 1) / most;
    const int64_t wide = std::clamp<int64_t>(count * chunks / (SHARES * threads), 1, PANELS);
    const int64_t groups = (count + wide - 1) / wide, tasks = chunks * groups;
    const int64_t workers = std::min(threads, tasks);
    std::vector<std::atomic<int64_t>> next(workers);  // task of each thread's own share; then it helps the others with theirs
    for (int64_t t = 0; t < workers; ++t) next[t] = t * tasks / workers;
    at::parallel_for(0, workers, 1, [&](int64_t me, int64_t) {
        thread_local std::vector<float> own;
        int64_t laid_out = -1;
        for (int64_t t = me; t < me + workers; ++t) {
            const int64_t whose = t % workers, end = (whose + 1) * tasks / workers;
            for (int64_t i; (i = next[whose]++) < end;) {
                const int64_t chunk = i / groups, top = chunk * rows / chunks, height = (chunk + 1) * rows / chunks - top;
                if (chunk != laid_out) product.lay_out(top, height, own);
                laid_out = chunk;
                product.multiply(top, height, own, i % groups * wide, std::min(count, (i % groups + 1) * wide));
            }
        }
    });
    return Y;
}

}  // namespace tuned

TORCH_LIBRARY(veriformer, library) {
    library.def("width() -> int", [] { return static_cast<int64_t>(tuned::WIDTH); });
    library.def("linear(Tensor X, Tensor W, Tensor b) -> Tensor", &tuned::linear);
}
