// A matrix in panels, and products with it.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <vector>

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
    int64_t features() const { return words() * 4 / blocks.element_size(); }  // at most
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

// Each of several threads takes tasks of its own share first, then helps the others with theirs.
struct Shares {
    struct alignas(64) Next : std::atomic<int64_t> { using std::atomic<int64_t>::operator=; };
    int64_t tasks = 0, threads = 0;
    std::vector<Next> next;
    Shares() = default;
    Shares(int64_t tasks, int64_t threads) : tasks(tasks), threads(threads), next(threads) {
        for (int64_t t = 0; t < threads; ++t) next[t] = begin(t);
    }
    int64_t begin(int64_t t) const { return t * tasks / threads; }
    template <class Work>
    void work(int64_t me, const Work& task) {
        for (int64_t t = me; t < me + threads; ++t)
            for (int64_t whose = t % threads, i; (i = next[whose]++) < begin(whose + 1);) task(i, begin(whose + 1));
    }
};

// X (rows, features) W + b, with ReLU or without, once: each of some threads calls `work`. The last panels are computed while the memory
// is asked for the first of `next`.
struct Linear {
    using Work = void (*)(Linear&, int64_t me, const void* X, void* Y, const Panels* next);
    Panels W;
    int64_t features, rows;
    bool relu;
    Work work;
    Shares shares;
    Linear(const Panels& W, int64_t features, int64_t rows, bool relu, int64_t threads);
    int64_t columns() const { return W.b.size(-1); }
};

}  // namespace tuned
