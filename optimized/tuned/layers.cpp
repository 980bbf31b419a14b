// What follows the projections of a layer, in one call: attention, its last matrix, add & norm, and feed-forward.
//
// The products are those of linear.cpp. Attention is torch's own, but for a single query, which needs no blocks of keys. Layers are
// post-norm and ReLU, as the paper's are.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "tile.h"

namespace tuned {

using at::Tensor;

Tensor linear(const Tensor& X, const Tensor& W, const Tensor& b);  // linear.cpp

constexpr int64_t NUMBERS = 1 << 14;  // worth a thread

inline float dot(const float* x, const float* y, int64_t count) {
    Vector sums[2] = {};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        sums[0] += load(x + i) * load(y + i);
        sums[1] += load(x + i + LANES) * load(y + i + LANES);
    }
    const Vector both = sums[0] + sums[1];
    float total = 0.0f;
    for (int lane = 0; lane < LANES; ++lane) total += both[lane];
    for (; i < count; ++i) total += x[i] * y[i];
    return total;
}

// softmax(q Kᵀ / √d_k) V, of one query in one head.
void attend_to_all(const float* q, const float* K, int64_t K_stride, const float* V, int64_t V_stride, int64_t m, int64_t d_k, int64_t d_v, float* out) {
    thread_local std::vector<float> weights;
    weights.resize(m);
    const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d_k)));
    float most = -std::numeric_limits<float>::infinity(), sum = 0.0f;
    for (int64_t key = 0; key < m; ++key) {
        weights[key] = dot(q, K + key * K_stride, d_k) * scale;
        most = weights[key] > most ? weights[key] : most;
    }
    for (float& weight : weights) sum += weight = std::exp(weight - most);
    std::fill_n(out, d_v, 0.0f);
    for (int64_t key = 0; key < m; ++key)
        for (int64_t i = 0; i < d_v; ++i) out[i] += weights[key] * V[key * V_stride + i];
    for (int64_t i = 0; i < d_v; ++i) out[i] /= sum;
}

// The heads' results side by side: (b, n, h d_v).
Tensor attend(const Tensor& Q, const Tensor& K, const Tensor& V, bool causal) {
    const int64_t b = Q.size(0), h = Q.size(1), n = Q.size(2), d_v = V.size(3), m = K.size(2);
    if (n > 1) return at::scaled_dot_product_attention(Q, K, V, {}, 0.0, causal).transpose(1, 2).reshape({b, n, h * d_v});
    Tensor out = at::empty({b, 1, h * d_v}, Q.options());
    const auto head = [&](const Tensor& X, int64_t i) { return X.const_data_ptr<float>() + i / h * X.stride(0) + i % h * X.stride(1); };
    float* Y = out.mutable_data_ptr<float>();
    at::parallel_for(0, b * h, std::max<int64_t>(1, NUMBERS / (m * d_v)), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            attend_to_all(head(Q, i), head(K, i), K.stride(2), head(V, i), V.stride(2), m, Q.size(3), d_v, Y + i * d_v);
    });
    return out;
}

// LayerNorm(X + Y), into Y.
Tensor add_and_norm(const Tensor& X, Tensor Y, const Tensor& gain, const Tensor& bias, double eps) {
    const int64_t d = X.size(-1), rows = X.numel() / d;
    const Tensor dense = X.contiguous(), g = gain.contiguous(), c = bias.contiguous();
    const float *x = dense.const_data_ptr<float>(), *scale = g.const_data_ptr<float>(), *shift = c.const_data_ptr<float>();
    float* y = Y.mutable_data_ptr<float>();
    at::parallel_for(0, rows, std::max<int64_t>(1, NUMBERS / d), [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; ++row) {
            const float* from = x + row * d;
            float* to = y + row * d;
            double total = 0.0, squares = 0.0;
            for (int64_t i = 0; i < d; ++i) total += to[i] += from[i];
            const float mean = static_cast<float>(total / d);
            for (int64_t i = 0; i < d; ++i) squares += static_cast<double>(to[i] - mean) * (to[i] - mean);
            const float narrow = static_cast<float>(1.0 / std::sqrt(squares / d + eps));
            for (int64_t i = 0; i < d; ++i) to[i] = (to[i] - mean) * narrow * scale[i] + shift[i];
        }
    });
    return Y;
}

Tensor feed_forward(const Tensor& X, const at::TensorList& W) {
    const Tensor hidden = linear(X, W[0], W[1]);
    float* u = hidden.mutable_data_ptr<float>();
    at::parallel_for(0, hidden.numel(), NUMBERS, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) u[i] = u[i] < 0.0f ? 0.0f : u[i];  // NaN stays
    });
    return linear(hidden, W[2], W[3]);
}

// `weights`: W_O, b_O, gain, bias of attention; W_1, b_1, W_2, b_2, gain, bias of feed-forward. Matrices are in panels.
Tensor encoder_layer(const Tensor& X, const Tensor& Q, const Tensor& K, const Tensor& V, at::TensorList weights, double eps) {
    const auto own = weights.slice(0, 4), ff = weights.slice(4, 6);
    const Tensor Y = add_and_norm(X, linear(attend(Q, K, V, false), own[0], own[1]), own[2], own[3], eps);
    return add_and_norm(Y, feed_forward(Y, ff), ff[4], ff[5], eps);
}

// `weights`: W_O, b_O, gain, bias of self-attention; W_Q, b_Q, W_O, b_O, gain, bias of cross-attention; then as above.
Tensor decoder_layer(const Tensor& X, const Tensor& Q, const Tensor& K, const Tensor& V, bool causal, const Tensor& memory_K, const Tensor& memory_V,
                     at::TensorList weights, double eps) {
    const auto own = weights.slice(0, 4), across = weights.slice(4, 6), ff = weights.slice(10, 6);
    Tensor Y = add_and_norm(X, linear(attend(Q, K, V, causal), own[0], own[1]), own[2], own[3], eps);
    const int64_t h = Q.size(1);
    const Tensor asked = linear(Y, across[0], across[1]).unflatten(-1, {h, -1}).transpose(1, 2);
    Y = add_and_norm(Y, linear(attend(asked, memory_K, memory_V, false), across[2], across[3]), across[4], across[5], eps);
    return add_and_norm(Y, feed_forward(Y, ff), ff[4], ff[5], eps);
}

}  // namespace tuned

TORCH_LIBRARY_FRAGMENT(veriformer, library) {
    library.def("encoder_layer(Tensor X, Tensor Q, Tensor K, Tensor V, Tensor[] weights, float eps) -> Tensor", &tuned::encoder_layer);
    library.def("decoder_layer(Tensor X, Tensor Q, Tensor K, Tensor V, bool causal, Tensor memory_K, Tensor memory_V, Tensor[] weights, float eps) -> Tensor",
                &tuned::decoder_layer);
}
