// X W + b, of a matrix W that was laid out in panels: WIDTH of its columns side by side, row by row.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <algorithm>
#include <vector>

#include "tile.h"

namespace tuned {

constexpr int64_t DEPTH = 512;        // of W at a time: a panel of it stays in the nearest cache
constexpr int64_t ROWS = 8 * MOST_ROWS * 2;  // of X at a time: they stay in the second cache

struct Product {
    const float *X, *W, *b;
    float* Y;
    int64_t rows, K, columns;

    // Rows from `top` to `bottom`, panels from `left` to `right`.
    void part(int64_t top, int64_t bottom, int64_t left, int64_t right) const {
        thread_local std::vector<float> own;
        own.resize(ROWS * DEPTH);
        const int64_t height = bottom - top, tiles = tiles_for(height), step = WIDTH / tiles;
        for (int64_t k = 0; k < K; k += DEPTH) {
            const int64_t depth = std::min(DEPTH, K - k);
            interleave(X + top * K + k, K, 1, height, depth, own.data());
            for (int64_t p = left; p < right; ++p) {
                const float *panel = W + (p * K + k) * WIDTH, *next = panel + (p + 1 < right ? K * WIDTH : 0);
                const int64_t filled = std::min<int64_t>(WIDTH, columns - p * WIDTH);
                for (int64_t i = 0; i < tiles; ++i) {
                    const int64_t first = begin_of(i, height, tiles), R = begin_of(i + 1, height, tiles) - first;
                    float* y = Y + (top + first) * columns + p * WIDTH;
                    const float* ahead = next + i * step * depth;
                    const float* x = own.data() + first * depth;
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

at::Tensor linear(const at::Tensor& X, const at::Tensor& W, const at::Tensor& b, int64_t columns) {
    const int64_t K = X.size(-1), rows = X.numel() / K, count = W.size(0);
    const at::Tensor dense = X.contiguous();
    at::Tensor Y = at::empty({rows, columns}, X.options());
    const Product product{dense.const_data_ptr<float>(), W.const_data_ptr<float>(), b.const_data_ptr<float>(), Y.mutable_data_ptr<float>(), rows, K, columns};
    const int64_t threads = at::get_num_threads(), chunks = (rows + ROWS - 1) / ROWS;
    const int64_t groups = std::min(count, chunks >= 2 * threads ? 1 : threads);
    at::parallel_for(0, chunks * groups, 1, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const int64_t chunk = i / groups, group = i % groups;
            product.part(chunk * rows / chunks, (chunk + 1) * rows / chunks, group * count / groups, (group + 1) * count / groups);
        }
    });
    return Y;
}

}  // namespace tuned

TORCH_LIBRARY(veriformer, library) {
    library.def("width() -> int", [] { return static_cast<int64_t>(tuned::WIDTH); });
    library.def("linear(Tensor X, Tensor W, Tensor b, int columns) -> Tensor", &tuned::linear);
}
