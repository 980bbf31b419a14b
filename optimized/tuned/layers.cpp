// Stacks of layers in one call: what is between the products of linear.cpp.
//
// Layers are post-norm and ReLU, as the paper's are. Attention to many keys is torch's own.
#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <torch/library.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "linear.h"

namespace tuned {

constexpr int64_t NUMBERS = 1 << 14;  // worth a thread
constexpr int64_t SCORES = 1 << 12;   // of a head, up to which no blocks of keys are worth it

// The sum of all lanes: each half is added to the other, so that no addition waits for more than four before it.
template <std::size_t... lanes>
float total(Vector x, std::index_sequence<lanes...>) {
    if constexpr (LANES > 8) x += Vector{x[lanes ^ 8]...};
    if constexpr (LANES > 4) x += Vector{x[lanes ^ 4]...};
    x += Vector{x[lanes ^ 2]...};
    x += Vector{x[lanes ^ 1]...};
    return x[0];
}
inline float total(Vector x) { return total(x, std::make_index_sequence<LANES>()); }

template <class Number>
float dot(const float* x, const Number* y, int64_t count) {
    Vector sums[2] = {};
    int64_t i = 0;
    for (; i + 2 * LANES <= count; i += 2 * LANES) {
        sums[0] += load(x + i) * load(y + i);
        sums[1] += load(x + i + LANES) * load(y + i + LANES);
    }
    float sum = total(sums[0] + sums[1]);
    for (; i < count; ++i) sum += x[i] * static_cast<float>(y[i]);
    return sum;
}

// eˣ for x ≤ 0, to about one unit in the last place: 2ⁿ eʳ, r at most half of ln 2 (Cephes' polynomial). NaN stays.
inline Vector exponential(Vector x) {
    const Vector near = x < -104.0f ? Vector{} - 104.0f : x;  // e⁻¹⁰⁴ is 0
    const Vector n = near * 1.44269504f + 12582912.0f - 12582912.0f, r = near - n * 0.693359375f + n * 2.12194440e-4f;
    const Vector p = ((((1.9875691500e-4f * r + 1.3981999507e-3f) * r + 8.3334519073e-3f) * r + 4.1665795894e-2f) * r + 1.6666665459e-1f) * r + 5.0000001201e-1f;
    const Integers whole = __builtin_convertvector(x == x ? n : Vector{}, Integers), half = whole >> 1;  // in two steps: 2ⁿ alone may be too small
    return (p * r * r + r + 1.0f) * (Vector)((half + 127) << 23) * (Vector)((whole - half + 127) << 23);
}

// softmax(q Kᵀ / √d_k) V, of one query in one head.
template <class Number>
void attend_to_all(const Number* q, const Number* K, int64_t K_stride, const Number* V, int64_t V_stride, int64_t m, int64_t d_k, int64_t d_v, Number* to) {
    thread_local std::vector<float> room;
    const int64_t padded = (m + LANES - 1) / LANES * LANES;
    room.resize(padded + d_k);
    float *weights = room.data(), *query = weights + padded;
    const float scale = static_cast<float>(1.0 / std::sqrt(static_cast<double>(d_k))), nothing = -std::numeric_limits<float>::infinity();
    std::copy_n(q, d_k, query);
    std::fill_n(weights + m, padded - m, nothing);
    float most = nothing;
    for (int64_t key = 0; key < m; ++key) {
        weights[key] = dot(query, K + key * K_stride, d_k) * scale;
        most = weights[key] > most ? weights[key] : most;
    }
    Vector sums = {};
    for (int64_t key = 0; key < padded; key += LANES) {
        const Vector part = exponential(load(weights + key) - most);
        store(weights + key, part);
        sums += part;
    }
    const float sum = total(sums);
    int64_t i = 0;
    for (; i + LANES <= d_v; i += LANES) {
        Vector out = {};
        for (int64_t key = 0; key < m; ++key) out += weights[key] * load(V + key * V_stride + i);
        store(to + i, out / sum);
    }
    for (; i < d_v; ++i) {
        float out = 0.0f;
        for (int64_t key = 0; key < m; ++key) out += weights[key] * static_cast<float>(V[key * V_stride + i]);
        to[i] = out / sum;
    }
}

// (b, h, n, width) of the features from `offset` on.
Tensor heads(const Tensor& X, int64_t h, int64_t width, int64_t offset) {
    return X.as_strided({X.size(0), h, X.size(1), width}, {X.stride(0), width, X.stride(1), 1}, X.storage_offset() + offset);
}

// The heads' results side by side: (b, n, h d_v). A causal query attends to the keys before it, of which `known` are before the first.
template <class Number>
Tensor attend(const Tensor& Q, const Tensor& K, const Tensor& V, bool causal, int64_t known = 0) {
    const int64_t b = Q.size(0), h = Q.size(1), n = Q.size(2), d_k = Q.size(3), d_v = V.size(3), m = K.size(2);
    if (n > 1 && n * m > SCORES && known == 0) return at::scaled_dot_product_attention(Q, K, V, {}, 0.0, causal).transpose(1, 2).reshape({b, n, h * d_v});
    Tensor out = at::empty({b, n, h * d_v}, Q.options());
    Number* Y = out.mutable_data_ptr<Number>();
    const Number *q = Q.const_data_ptr<Number>(), *k = K.const_data_ptr<Number>(), *v = V.const_data_ptr<Number>();
    at::parallel_for(0, b * h, std::max<int64_t>(1, NUMBERS / (n * m * d_v)), [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i)
            for (int64_t row = 0, s = i / h, head = i % h; row < n; ++row)
                attend_to_all(q + s * Q.stride(0) + head * Q.stride(1) + row * Q.stride(2), k + s * K.stride(0) + head * K.stride(1), K.stride(2),
                              v + s * V.stride(0) + head * V.stride(1), V.stride(2), causal ? known + row + 1 : m, d_k, d_v, Y + ((s * n + row) * h + head) * d_v);
    });
    return out;
}

// LayerNorm(X + Y).
template <class Number>
void add_and_norm(const Number* x, const Number* y, const Number* gain, const Number* bias, int64_t d, float eps, Number* to, float* sum) {
    const auto over = [d](const auto& each, const auto& last) {  // whole vectors, then what is left
        int64_t i = 0;
        for (; i + LANES <= d; i += LANES) each(i);
        for (; i < d; ++i) last(i);
    };
    Vector parts = {};
    float rest = 0.0f;
    over([&](int64_t i) { const Vector both = load(x + i) + load(y + i); store(sum + i, both); parts += both; },
         [&](int64_t i) { rest += sum[i] = static_cast<float>(x[i]) + static_cast<float>(y[i]); });
    const float mean = (total(parts) + rest) / static_cast<float>(d);
    Vector squares = {};
    rest = 0.0f;
    over([&](int64_t i) { const Vector from = load(sum + i) - mean; store(sum + i, from); squares += from * from; },
         [&](int64_t i) { sum[i] -= mean; rest += sum[i] * sum[i]; });
    const float narrow = 1.0f / std::sqrt((total(squares) + rest) / static_cast<float>(d) + eps);
    over([&](int64_t i) { store(to + i, load(sum + i) * narrow * load(gain + i) + load(bias + i)); },
         [&](int64_t i) { to[i] = sum[i] * narrow * static_cast<float>(gain[i]) + static_cast<float>(bias[i]); });
}

template <class Number>
Tensor add_and_norm(const Tensor& X, const Tensor& Y, const Tensor& gain, const Tensor& bias, double eps) {
    const int64_t d = X.size(-1), rows = X.numel() / d;
    TORCH_CHECK(Y.size(-1) == d && gain.numel() == d && bias.numel() == d, "norm: expected ", d, " features everywhere");
    const Tensor dense = X.contiguous(), g = gain.contiguous(), c = bias.contiguous();
    Tensor out = at::empty(X.sizes(), X.options());
    const Number *x = dense.const_data_ptr<Number>(), *y = Y.const_data_ptr<Number>(), *scale = g.const_data_ptr<Number>(), *shift = c.const_data_ptr<Number>();
    Number* to = out.mutable_data_ptr<Number>();
    at::parallel_for(0, rows, std::max<int64_t>(1, NUMBERS / d), [&](int64_t begin, int64_t end) {
        std::vector<float> sum(d);
        for (int64_t row = begin; row < end; ++row)
            add_and_norm(x + row * d, y + row * d, scale, shift, d, static_cast<float>(eps), to + row * d, sum.data());
    });
    return out;
}

// The weights of layers in the order in which they are needed: three tensors for a matrix, two for a norm.
struct Weights {
    at::TensorList matrices, norms;
    double eps;
    std::size_t matrix = 0, norm = 0;
    Panels at(std::size_t i) const { return {matrices[3 * i], matrices[3 * i + 1], matrices[3 * i + 2]}; }
    // With the next matrix.
    Tensor product(const Tensor& X, bool relu = false) {
        const Panels W = at(matrix++);
        if (3 * matrix == matrices.size()) return linear(X, W, relu);
        const Panels next = at(matrix);
        return linear(X, W, relu, &next);
    }
    template <class Number>
    Tensor add_to(const Tensor& X, const Tensor& Y) {
        const std::size_t i = 2 * norm++;
        return add_and_norm<Number>(X, Y, norms[i], norms[i + 1], eps);
    }
};

// Each layer: W_QKV, W_O, norm, W_1, W_2, norm.
template <class Number>
Tensor encoder_of(Tensor X, Weights W, int64_t h, int64_t d_v) {
    while (W.matrix * 3 < W.matrices.size()) {
        const Tensor QKV = W.product(X);
        const int64_t d_k = (QKV.size(-1) / h - d_v) / 2;
        TORCH_CHECK(QKV.size(-1) == h * (2 * d_k + d_v), "W_QKV: expected columns for ", h, " heads, got ", QKV.size(-1));
        const Tensor Q = heads(QKV, h, d_k, 0), K = heads(QKV, h, d_k, h * d_k), V = heads(QKV, h, d_v, 2 * h * d_k);
        X = W.add_to<Number>(X, W.product(attend<Number>(Q, K, V, false)));
        X = W.add_to<Number>(X, W.product(W.product(X, true)));
    }
    return X;
}

// Each layer: W_QKV, W_O, norm, W_Q, W_O, norm, W_1, W_2, norm. `own` are its keys and values so far, with room for more: those of X are
// written behind the first `known`. `memory` are those of the encoder's output.
template <class Number>
Tensor decoder_of(Tensor X, Weights W, at::TensorList own, at::TensorList memory, int64_t known) {
    const int64_t n = X.size(1);
    for (std::size_t i = 0; i < own.size(); i += 2) {
        const Tensor K = own[i].narrow(2, 0, known + n), V = own[i + 1].narrow(2, 0, known + n), QKV = W.product(X);
        const int64_t h = K.size(1), d_k = K.size(3), d_v = V.size(3);
        TORCH_CHECK(QKV.size(-1) == h * (2 * d_k + d_v), "W_QKV: expected columns for ", h, " heads as the cache has them, got ", QKV.size(-1));
        K.narrow(2, known, n).copy_(heads(QKV, h, d_k, h * d_k));
        V.narrow(2, known, n).copy_(heads(QKV, h, d_v, 2 * h * d_k));
        X = W.add_to<Number>(X, W.product(attend<Number>(heads(QKV, h, d_k, 0), K, V, true, known)));
        const Tensor asked = W.product(X);
        TORCH_CHECK(asked.size(-1) == h * memory[i].size(3) && memory[i].size(1) == h, "memory: expected keys of ", h, " heads, as W_Q asks for");
        const Tensor Q = heads(asked, h, memory[i].size(3), 0);
        X = W.add_to<Number>(X, W.product(attend<Number>(Q, memory[i], memory[i + 1], false)));
        X = W.add_to<Number>(X, W.product(W.product(X, true)));
    }
    return X;
}

Tensor encoder(const Tensor& X, at::TensorList matrices, at::TensorList norms, int64_t h, int64_t d_v, double eps) {
    const Weights W{matrices, norms, eps};
    return X.scalar_type() == at::kFloat ? encoder_of<float>(X, W, h, d_v) : encoder_of<BFloat16>(X, W, h, d_v);
}

Tensor decoder(const Tensor& X, at::TensorList matrices, at::TensorList norms, at::TensorList own, at::TensorList memory, int64_t known, double eps) {
    const Weights W{matrices, norms, eps};
    return X.scalar_type() == at::kFloat ? decoder_of<float>(X, W, own, memory, known) : decoder_of<BFloat16>(X, W, own, memory, known);
}

}  // namespace tuned

TORCH_LIBRARY_FRAGMENT(veriformer, library) {
    library.def("encoder(Tensor X, Tensor[] matrices, Tensor[] norms, int h, int d_v, float eps) -> Tensor", &tuned::encoder);
    library.def("decoder(Tensor X, Tensor[] matrices, Tensor[] norms, Tensor(a!)[] own, Tensor[] memory, int known, float eps) -> Tensor", &tuned::decoder);
}
