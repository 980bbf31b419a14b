// A matrix in panels, and products with it.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>

#include "tile.h"

namespace tuned {

using at::Tensor;

constexpr int64_t GROUP = 1 << 18;  // bytes

// `blocks` are [panels][words][WIDTH words], of float32, bfloat16 or int8; for int8 `scales` are the scale of each column and, as
// int32, what the offset of X adds to its sums.
struct Panels {
    const Tensor &blocks, &scales, &b;
    const float* data() const { return static_cast<const float*>(blocks.const_data_ptr()); }
    int64_t count() const { return blocks.size(0); }
    int64_t words() const { return blocks.size(1); }
    int64_t bytes() const { return words() * WIDTH * 4; }
    // Panels are read in groups: of as many as the second cache holds twice, and of all that are read together.
    int64_t group(int64_t together) const { return std::max(together, std::clamp<int64_t>(GROUP / bytes(), 1, STREAMS)); }
    Ahead ahead(int64_t i, int64_t group) const {
        const uint64_t size = group * bytes();
        return {reinterpret_cast<const char*>(data()) + i * size, size / STREAMS};
    }
    // Where the share of a thread begins.
    Ahead first(int64_t thread, int64_t threads, int64_t together) const {
        const int64_t size = group(together), groups = (count() + size - 1) / size;
        return ahead(thread * groups / threads, size);
    }
};

// X (…, K) W + b, with ReLU or without. Its last panels are computed while the memory is asked for the first of `next`.
Tensor linear(const Tensor& X, const Panels& W, bool relu = false, const Panels* next = nullptr);

}  // namespace tuned
