// Stacks of layers in one call, and in one parallel region: what is between the products of linear.cpp.
//
// Layers are post-norm and ReLU, as the paper's are. In bfloat16, attention of long sequences is torch's own.
#include <ATen/Parallel.h>
#include <ATen/ops/clone.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <omp.h>
#include <torch/library.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "linear.h"

namespace tuned {

constexpr int64_t SCORES = 1 << 20;  // of a head, from which torch's kernel is faster in bfloat16
constexpr int64_t in(int64_t count, int64_t size) { return (count + size - 1) / size; }  // how many of a size that takes

// All lanes as one: each half is joined with the other, so that nothing waits for more than four before it.
template <class Join, std::size_t... lanes>
float across(Vector x, const Join& join, std::index_sequence<lanes...>) {
    if constexpr (LANES > 8) x = join(x, Vector{x[lanes ^ 8]...});
    if constexpr (LANES > 4) x = join(x, Vector{x[lanes ^ 4]...});
    x = join(x, Vector{x[lanes ^ 2]...});
    return join(x, Vector{x[lanes ^ 1]...})[0];
}
inline Vector larger(Vector x, Vector y) { return y > x ? y : x; }  // x where y is NaN
inline float total(Vector x) { return across(x, [](Vector one, Vector other) { return one + other; }, std::make_index_sequence<LANES>()); }
inline float largest(Vector x) { return across(x, larger, std::make_index_sequence<LANES>()); }

// As another kind of number, times `scale`.
template <class From, class To>
void copy(const From* from, int64_t count, float scale, To* to) {
    int64_t i = 0;
    for (; i + LANES <= count; i += LANES) store(to + i, load(from + i) * scale);
    for (; i < count; ++i) to[i] = static_cast<float>(from[i]) * scale;
}

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
    const Vector power = p * r * r + r + 1.0f;
#if defined(__AVX512F__)
    return (Vector)_mm512_scalef_ps((__m512)power, (__m512)n);
#else
    const Integers whole = __builtin_convertvector(x == x ? n : Vector{}, Integers), half = whole >> 1;  // in two steps: 2ⁿ alone may be too small
    return power * (Vector)((half + 127) << 23) * (Vector)((whole - half + 127) << 23);
#endif
}

// The scores of one query become e to the power of each, less the largest, and up to the next WIDTH 0; their sum.
float exponentials(float* scores, int64_t keys) {
    const float nothing = -std::numeric_limits<float>::infinity();
    const int64_t all = in(keys, WIDTH) * WIDTH;
    std::fill(scores + keys, scores + all, nothing);
    Vector most = Vector{} + nothing, sums = {};
    for (int64_t key = 0; key < all; key += LANES) most = larger(most, load(scores + key));
    const float highest = largest(most);
    for (int64_t key = 0; key < all; key += LANES) {
        const Vector part = exponential(load(scores + key) - highest);
        store(scores + key, part);
        sums += part;
    }
    return total(sums);
}

// Keys and values of one head: m rows.
template <class Number>
struct Offered {
    const Number *K, *V;
    int64_t K_stride, V_stride, m, d_k, d_v;
    float scale() const { return static_cast<float>(1.0 / std::sqrt(static_cast<double>(d_k))); }
};

// softmax(q Kᵀ / √d_k) V of one query, which reads K and V once, as they lie; `next_K` is what will be read then.
template <class Number>
void attend_once(const Number* query, const Offered<Number>& to, Number* out, const Number* next_K) {
    thread_local std::vector<float> room;
    room.resize(to.d_k + to.m + WIDTH);
    float *q = room.data(), *scores = q + to.d_k;
    copy(query, to.d_k, to.scale(), q);
    for (int64_t key = 0; key < to.m; ++key) {
        scores[key] = dot(q, to.K + key * to.K_stride, to.d_k);
        ask(to.V + key * to.V_stride, to.d_v), ask(next_K + key * to.K_stride, to.d_k);
    }
    const float sum = exponentials(scores, to.m);
    int64_t i = 0;
    for (; i + LANES <= to.d_v; i += LANES) {
        Vector all = {};
        for (int64_t key = 0; key < to.m; ++key) all += scores[key] * load(to.V + key * to.V_stride + i);
        store(out + i, all / sum);
    }
    for (; i < to.d_v; ++i) {
        float all = 0.0f;
        for (int64_t key = 0; key < to.m; ++key) all += scores[key] * static_cast<float>(to.V[key * to.V_stride + i]);
        out[i] = all / sum;
    }
}

// Rows (m, d) as panels of what they are turned: (d, WIDTH) for each WIDTH of them.
template <class Number>
void turned(const Number* rows, int64_t stride, int64_t m, int64_t d, float* to) {
    Integers lane;
    for (int i = 0; i < LANES; ++i) lane[i] = i;
    for (int64_t row = 0; row < m; row += LANES)
        for (int64_t i = 0; i < d; i += LANES) {
            const Number* from = rows + row * stride + i;
            float* place = to + (row / WIDTH * d + i) * WIDTH + row % WIDTH;
            if (m - row < LANES || d - i < LANES) {
                for (int64_t r = 0; r < std::min<int64_t>(LANES, m - row); ++r)
                    for (int64_t c = 0; c < std::min<int64_t>(LANES, d - i); ++c) place[c * WIDTH + r] = static_cast<float>(from[r * stride + c]);
                continue;
            }
            Vector block[LANES];
#pragma GCC unroll 16
            for (int r = 0; r < LANES; ++r) block[r] = load(from + r * stride);
#pragma GCC unroll 4
            for (int half = 1; half < LANES; half *= 2)  // what differs in one bit of row and column changes places
#pragma GCC unroll 16
                for (int r = 0; r < LANES; ++r)
                    if (!(r & half)) {
                        const Vector upper = block[r], lower = block[r + half];
                        block[r] = __builtin_shuffle(upper, lower, (lane & half) == 0 ? lane : lane - half + LANES);
                        block[r + half] = __builtin_shuffle(upper, lower, (lane & half) == 0 ? lane + half : lane + LANES);
                    }
#pragma GCC unroll 16
            for (int r = 0; r < LANES; ++r) store(place + r * WIDTH, block[r]);
        }
}

// Values of two keys become words, in panels; keys from m on are 0.
void paired(const BFloat16* V, int64_t stride, int64_t m, int64_t d, int64_t words, float* to) {
    for (int64_t i = 0; i < d; i += LANES)
        for (int64_t k = 0; k < words; ++k) {
            const BFloat16* from = V + 2 * k * stride + i;
            Words pair = 2 * k < m ? __builtin_convertvector(load_as<Halves>(from), Words) : Words{};
            if (2 * k + 1 < m) pair |= __builtin_convertvector(load_as<Halves>(from + stride), Words) << 16;
            store(to + (i / WIDTH * words + k) * WIDTH + i % WIDTH, (Vector)pair);
        }
}

// Of a product in attention: its left side is laid out in rows of words, DEPTH of each side by side; its right side is a panel.
template <class Kind, class Number>
struct Side {
    static constexpr int64_t IN_A_WORD = Kind::TILED ? 2 : 1, MOST = Kind::TILED ? 32 : MOST_ROWS, DEPTH = tuned::DEPTH<Kind>, APART = MOST * STRIDE<Kind>;
    static constexpr int64_t whole(int64_t count) { return Kind::TILED ? in(count, WIDTH) * BLOCK : count; }  // words for so many numbers
    static constexpr int64_t size(int64_t count) { return in(whole(count), DEPTH) * APART; }

    template <class From>
    static void lay_out(const From* from, int64_t count, float scale, float* row) {
        for (int64_t i = 0; i < count; i += DEPTH * IN_A_WORD, row += APART) copy(from + i, std::min(DEPTH * IN_A_WORD, count - i), scale, reinterpret_cast<Number*>(row));
    }
    // C = A B for R rows; C is [R][WIDTH].
    static void multiply(const float* A, int64_t R, const float* B, int64_t words, float* C) {
        Ahead nothing;
        if (words == 0) std::fill_n(C, R * WIDTH, 0.0f);
        for (int64_t k = 0; k < words; k += DEPTH, A += APART) {
            const int64_t depth = std::min<int64_t>(DEPTH, words - k);
#if defined(__AMX_TILE__)
            if constexpr (Kind::TILED) in_tiles<Kind>(reinterpret_cast<const int32_t*>(A), R, B + k * WIDTH, depth, 0, C, k == 0, false);
#endif
            if constexpr (!Kind::TILED) TILES<Kind>[R][0](A, B + k * WIDTH, depth, 0, C, k == 0, nothing, 0);
        }
    }
};

// softmax(Q Kᵀ / √d_k) V of one head. Of the first query `seen` keys count, of each next one `more` more. Kᵀ and V are laid out in panels,
// then some queries at a time are multiplied with both.
template <class Kind, class Number>
void attend_in_panels(const Number* Q, int64_t Q_stride, int64_t n, const Offered<Number>& to, int64_t seen, int64_t more, Number* out, int64_t out_stride) {
    using Side = tuned::Side<Kind, std::conditional_t<Kind::TILED, BFloat16, float>>;
    thread_local std::vector<float> room;
    const auto [K, V, K_stride, V_stride, m, d_k, d_v] = to;
    const int64_t all = in(m, WIDTH) * WIDTH, K_words = Side::whole(d_k), V_words = Side::whole(m), K_size = all * K_words, V_size = in(d_v, WIDTH) * WIDTH * V_words;
    room.resize(std::max(Side::size(d_k), Side::size(m)) + K_size + V_size + Side::MOST * (all + WIDTH) + BLOCK);
    float *keys = aligned(room.data()), *values = keys + K_size, *scores = values + V_size, *sums = scores + Side::MOST * all, *rows = sums + Side::MOST * WIDTH, totals[Side::MOST];
    if constexpr (Kind::TILED) {
        turned(reinterpret_cast<const float*>(K), K_stride / 2, m, K_words, keys);
        paired(V, V_stride, m, d_v, V_words, values);
    } else {
        turned(K, K_stride, m, d_k, keys);
        for (int64_t i = 0; i < d_v; i += WIDTH)
            for (int64_t key = 0; key < m; ++key) copy(V + key * V_stride + i, std::min<int64_t>(WIDTH, d_v - i), 1.0f, values + i * m + key * WIDTH);
    }
    const auto value = [=](int64_t key, int64_t i, int64_t c) {
        if constexpr (Kind::TILED) return load(V + key * V_stride + i + c);
        else return load(values + i * m + key * WIDTH + c);
    };
    const int64_t tiles = in(n, Side::MOST);
    for (int64_t t = 0; t < tiles; ++t) {
        const int64_t top = t * n / tiles, R = (t + 1) * n / tiles - top, common = seen + top * more, last = common + (R - 1) * more;
        const int64_t together = more && Kind::TILED ? common / WIDTH * WIDTH : common;  // keys that all of these queries see
        for (int64_t r = 0; r < R; ++r) Side::lay_out(Q + (top + r) * Q_stride, d_k, to.scale(), rows + r * STRIDE<Kind>);
        for (int64_t key = 0; key < last; key += WIDTH) {
            Side::multiply(rows, R, keys + key * K_words, K_words, sums);
            for (int64_t r = 0; r < R; ++r) std::copy_n(sums + r * WIDTH, WIDTH, scores + r * all + key);
        }
        for (int64_t r = 0; r < R; ++r) {
            totals[r] = exponentials(scores + r * all, common + r * more);
            Side::lay_out(scores + r * all, Kind::TILED ? in(together, WIDTH) * WIDTH : together, 1.0f, rows + r * STRIDE<Kind>);
        }
        for (int64_t i = 0; i < d_v; i += WIDTH) {
            Side::multiply(rows, R, values + i * V_words, Side::whole(together), sums);
            for (int64_t r = 0; r < R; ++r) {
                float* sum = sums + r * WIDTH;
                for (int64_t key = together; key < common + r * more; ++key)
                    for (int64_t c = 0; c < WIDTH; c += LANES) store(sum + c, load(sum + c) + scores[r * all + key] * value(key, i, c));
                copy(sum, std::min<int64_t>(WIDTH, d_v - i), 1.0f / totals[r], out + (top + r) * out_stride + i);
            }
        }
    }
}

template <class Number>
void attend(const Number* Q, int64_t Q_stride, int64_t n, const Offered<Number>& to, int64_t seen, int64_t more, Number* out, int64_t out_stride, const Number* next_K) {
    if (n == 1) return attend_once(Q, to, out, next_K);
#if defined(__AMX_TILE__)
    if constexpr (std::is_same_v<Number, BFloat16>)
        if (to.d_k % WIDTH == 0 && to.d_v % WIDTH == 0 && to.K_stride % 2 == 0) {
            const Tiles registers;
            return attend_in_panels<Pairs<true>>(Q, Q_stride, n, to, seen, more, out, out_stride);
        }
#endif
    attend_in_panels<Floats>(Q, Q_stride, n, to, seen, more, out, out_stride);
}

// X becomes LayerNorm(X + Y), of one row.
template <class Number>
void add_and_norm(Number* x, const Number* y, const Number* gain, const Number* bias, int64_t d, float eps) {
    thread_local std::vector<float> room;
    room.resize(d);
    float* sum = room.data();
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
    over([&](int64_t i) { store(x + i, load(sum + i) * narrow * load(gain + i) + load(bias + i)); },
         [&](int64_t i) { x[i] = sum[i] * narrow * static_cast<float>(gain[i]) + static_cast<float>(bias[i]); });
}

// Where threads wait for each other: for a short while awake, then asleep, since one of them may have to wait for a core.
struct Barrier {
    static constexpr int AWAKE = 1 << 12;
    std::atomic<int> arrived{0}, round{0};
    void wait(int64_t threads) {
        const int now = round.load(std::memory_order_acquire);
        if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == threads) {
            arrived.store(0, std::memory_order_relaxed);
            round.store(now + 1, std::memory_order_release);
            round.notify_all();
            return;
        }
        for (int i = 0; i < AWAKE; ++i) {
            if (round.load(std::memory_order_acquire) != now) return;
            pause();
        }
        round.wait(now, std::memory_order_acquire);
    }
};

// The threads of one parallel region, of which this is one.
struct Team {
    int64_t me, of;
    Barrier& barrier;
    void wait() const { barrier.wait(of); }
    // Each takes its part, and waits for the others.
    template <class Work>
    void share(int64_t count, const Work& work) const {
        for (int64_t i = count * me / of; i < count * (me + 1) / of; ++i) work(i);
        wait();
    }
};

// Where (b, h, n, d) numbers are.
template <class Number>
struct Heads {
    Number* data;
    int64_t b, h, n, d, of_b, of_h, of_n;
    Heads(const Tensor& X) : data(X.data_ptr<Number>()), b(X.size(0)), h(X.size(1)), n(X.size(2)), d(X.size(3)), of_b(X.stride(0)), of_h(X.stride(1)), of_n(X.stride(2)) {
        TORCH_CHECK(X.stride(3) == 1, "keys and values: expected features side by side, got ", X.stride(3), " apart");
    }
    // In rows of `width` features: those from `first` on.
    Heads(Number* rows, int64_t width, int64_t first, int64_t b, int64_t h, int64_t n, int64_t d) : data(rows + first), b(b), h(h), n(n), d(d), of_b(n * width), of_h(d), of_n(width) {}
    Number* at(int64_t i, int64_t row = 0) const { return data + i / h * of_b + i % h * of_h + row * of_n; }
    Tensor tensor(const Tensor& like) const { return at::from_blob(data, {b, h, n, d}, {of_b, of_h, of_n, 1}, like.options()); }
    Heads first(int64_t keys) const {
        TORCH_CHECK(keys <= n, "cache: expected room for ", keys, " tokens, got ", n);
        Heads few = *this;
        few.n = keys;
        return few;
    }
};

// A stack of layers. Steps are gathered, then walked through in one parallel region: every thread takes its part of each.
template <class Number>
struct Stack {
    at::TensorList matrices, norms;
    float eps;
    Tensor X, M, lengths, room;  // (b, n, d), which the layers change; (b, m, d) of the encoder, or as X; (b); and what is between the steps
    int64_t b, n, m, d, threads = at::in_parallel_region() ? 1 : at::get_num_threads();
    const int64_t* real;
    Number *x, *one, *other, *keys, *values;
    std::vector<Linear> products;
    std::vector<Tensor> kept;
    std::vector<std::function<void(const Team&)>> steps;

    Stack(const Tensor& given, const Tensor& memory, const Tensor& lengths, at::TensorList matrices, at::TensorList norms, double eps)
        : matrices(matrices), norms(norms), eps(static_cast<float>(eps)), X(given.clone(at::MemoryFormat::Contiguous)), M(memory.contiguous()), lengths(lengths.contiguous()), b(X.size(0)), n(X.size(1)), m(M.size(1)), d(X.size(2)), real(this->lengths.template const_data_ptr<int64_t>()), x(X.data_ptr<Number>()) {
        TORCH_CHECK(X.dim() == 3 && M.dim() == 3 && M.size(0) == b, "X and M: expected as many sequences of both, got ", X.sizes(), " and ", M.sizes());
        TORCH_CHECK(lengths.numel() == b, "lengths: expected one for each of ", b, " sequences, got ", lengths.sizes());
        int64_t most = d;
        for (std::size_t i = 0; i < matrices.size(); i += 3) most = std::max({most, panels(i).features(), panels(i).b.size(-1)});
        const int64_t apart = b * std::max(n, m) * most;
        room = at::empty({4, apart}, X.options());
        one = room.data_ptr<Number>(), other = one + apart, keys = other + apart, values = keys + apart;
        products.reserve(matrices.size() / 3), kept.reserve(norms.size());
    }
    Panels panels(std::size_t i) const { return {matrices.at(i), matrices.at(i + 1), matrices.at(i + 2)}; }
    bool more() const { return 3 * products.size() < matrices.size(); }

    // With the next matrix, whose columns are told.
    int64_t multiply(const Number* from, int64_t rows, int64_t features, Number* to, bool relu = false) {
        const std::size_t i = products.size();
        TORCH_CHECK(panels(3 * i).b.scalar_type() == X.scalar_type(), "X: expected ", panels(3 * i).b.scalar_type(), " as the biases are, got ", X.scalar_type());
        products.emplace_back(panels(3 * i), features, rows, relu, threads);
        steps.push_back([this, from, to, i](const Team& team) {
            Linear& now = products[i];
            now.work(now, team.me, from, to, i + 1 < products.size() ? &products[i + 1].W : nullptr);
            team.wait();
        });
        return products[i].columns();
    }
    int64_t multiply(const Number* from, int64_t features, Number* to, bool relu = false) { return multiply(from, b * n, features, to, relu); }
    void multiply_and_add(const Number* from, int64_t features, Number* to) {
        const int64_t columns = multiply(from, features, to);
        const Tensor &gain = kept.emplace_back(norms.at(kept.size()).contiguous()), &bias = kept.emplace_back(norms.at(kept.size()).contiguous());
        TORCH_CHECK(columns == d && gain.numel() == d && bias.numel() == d, "norm: expected ", d, " features everywhere");
        steps.push_back([this, to, scale = gain.const_data_ptr<Number>(), shift = bias.const_data_ptr<Number>()](const Team& team) {
            team.share(b * n, [&](int64_t row) { add_and_norm(x + row * d, to + row * d, scale, shift, d, eps); });
        });
    }

    void keep(const Heads<Number>& from, const Heads<Number>& to, int64_t known) {
        steps.push_back([from, to, known](const Team& team) {
            team.share(from.b * from.h, [&](int64_t i) {
                for (int64_t row = 0; row < from.n; ++row) std::copy_n(from.at(i, row), from.d, to.at(i, known + row));
            });
        });
    }
    // The heads' results side by side. A causal query sees the keys up to its own, of which `known` are before the first; all others see
    // the first keys of a sequence, as many as `lengths` says.
    void attend(const Heads<Number>& Q, const Heads<Number>& K, const Heads<Number>& V, bool causal, int64_t known, Number* to) {
        for (const auto& each : {K, V}) TORCH_CHECK(each.b == b && each.h == Q.h && each.n == K.n, "keys and values: expected ", K.n, " of ", Q.h, " heads for ", b, " sequences");
        for (int64_t i = 0; i < b && !causal; ++i) TORCH_CHECK(0 < real[i] && real[i] <= K.n, "lengths: expected 1 to ", K.n, ", got ", real[i]);
        const bool whole = causal || std::all_of(real, real + b, [&](int64_t keys) { return keys == K.n; });
        if (X.scalar_type() == at::kBFloat16 && n * K.n > SCORES && known == 0 && whole) {
            run();
            const Tensor found = at::scaled_dot_product_attention(Q.tensor(X), K.tensor(X), V.tensor(X), {}, 0.0, causal);
            at::from_blob(to, {b, n, Q.h, V.d}, X.options()).copy_(found.transpose(1, 2));
            return;
        }
        steps.push_back([this, Q, K, V, causal, known, to](const Team& team) {
            team.share(b * Q.h, [&](int64_t i) {
                const Offered<Number> all{K.at(i), V.at(i), K.of_n, V.of_n, causal ? K.n : real[i / Q.h], Q.d, V.d};
                tuned::attend(Q.at(i), Q.of_n, n, all, causal ? known + 1 : all.m, causal ? 1 : 0, to + (i / Q.h * n * Q.h + i % Q.h) * V.d, Q.h * V.d, K.at(i + 1));
            });
        });
    }

    void run() {
        if (steps.empty()) return;
        Barrier barrier;
#pragma omp parallel num_threads(threads)
        for (const auto& step : steps) step({omp_get_thread_num(), omp_get_num_threads(), barrier});
        steps.clear();
    }
};

// Each layer: W_QKV, W_O, norm; in the decoder W_Q, W_O, norm, and before them W_K and W_V unless `memory` has what they give; W_1, W_2,
// norm. `own` are keys and values so far, with room for more: those of X are written behind the first `known`.
template <class Number>
Tensor layers(Stack<Number> stack, int64_t h, int64_t d_v, bool decoder, at::TensorList own = {}, at::TensorList memory = {}, int64_t known = 0) {
    const int64_t b = stack.b, n = stack.n, m = stack.m, d = stack.d;
    Number *x = stack.x, *one = stack.one, *other = stack.other;
    for (std::size_t i = 0; stack.more(); i += 2) {
        const int64_t width = stack.multiply(x, d, one), d_k = (width / h - d_v) / 2;
        TORCH_CHECK(d_k > 0 && width == h * (2 * d_k + d_v), "W_QKV: expected columns for ", h, " heads, got ", width);
        const Heads<Number> Q(one, width, 0, b, h, n, d_k), K(one, width, h * d_k, b, h, n, d_k), V(one, width, 2 * h * d_k, b, h, n, d_v);
        if (own.empty()) {
            stack.attend(Q, K, V, decoder, 0, other);
        } else {
            const Heads<Number> all_K = Heads<Number>(own.at(i)).first(known + n), all_V = Heads<Number>(own.at(i + 1)).first(known + n);
            TORCH_CHECK(all_K.d == d_k && all_V.d == d_v, "cache: expected keys of ", d_k, " features and values of ", d_v);
            stack.keep(K, all_K, known), stack.keep(V, all_V, known);
            stack.attend(Q, all_K, all_V, true, known, other);
        }
        stack.multiply_and_add(other, h * d_v, one);
        if (decoder) {
            const auto offered = [&](Number* to, std::size_t which) {
                if (!memory.empty()) return Heads<Number>(memory.at(i + which));
                const int64_t width = stack.multiply(stack.M.template data_ptr<Number>(), b * m, stack.M.size(2), to);
                TORCH_CHECK(width % h == 0, "W_K and W_V: expected columns for ", h, " heads, got ", width);
                return Heads<Number>(to, width, 0, b, h, m, width / h);
            };
            const Heads<Number> K = offered(stack.keys, 0), V = offered(stack.values, 1);
            const int64_t asked = stack.multiply(x, d, one);
            TORCH_CHECK(asked == h * K.d, "memory: expected keys of ", h, " heads, as W_Q asks for");
            stack.attend(Heads<Number>(one, asked, 0, b, h, n, K.d), K, V, false, 0, other);
            stack.multiply_and_add(other, h * V.d, one);
        }
        const int64_t wide = stack.multiply(x, d, one, true);
        stack.multiply_and_add(one, wide, other);
    }
    stack.run();
    return stack.X;
}

Tensor encoder(const Tensor& X, const Tensor& lengths, at::TensorList matrices, at::TensorList norms, int64_t h, int64_t d_v, double eps) {
    if (X.scalar_type() == at::kFloat) return layers<float>({X, X, lengths, matrices, norms, eps}, h, d_v, false);
    return layers<BFloat16>({X, X, lengths, matrices, norms, eps}, h, d_v, false);
}

Tensor decoder(const Tensor& X, const Tensor& M, const Tensor& lengths, at::TensorList matrices, at::TensorList norms, int64_t h, int64_t d_v, double eps) {
    if (X.scalar_type() == at::kFloat) return layers<float>({X, M, lengths, matrices, norms, eps}, h, d_v, true);
    return layers<BFloat16>({X, M, lengths, matrices, norms, eps}, h, d_v, true);
}

Tensor continued(const Tensor& X, const Tensor& lengths, at::TensorList matrices, at::TensorList norms, at::TensorList own, at::TensorList memory, int64_t known, double eps) {
    TORCH_CHECK(known >= 0 && own.size() > 1 && own.size() == memory.size(), "cache: expected keys and values of each layer, got ", own.size(), " and ", memory.size(), ", and ", known, " tokens");
    if (X.scalar_type() == at::kFloat) return layers<float>({X, X, lengths, matrices, norms, eps}, own[0].size(1), own[1].size(3), true, own, memory, known);
    return layers<BFloat16>({X, X, lengths, matrices, norms, eps}, own[0].size(1), own[1].size(3), true, own, memory, known);
}

}  // namespace tuned

TORCH_LIBRARY_FRAGMENT(veriformer, library) {
    library.def("encoder(Tensor X, Tensor lengths, Tensor[] matrices, Tensor[] norms, int h, int d_v, float eps) -> Tensor", &tuned::encoder);
    library.def("decoder(Tensor X, Tensor M, Tensor lengths, Tensor[] matrices, Tensor[] norms, int h, int d_v, float eps) -> Tensor", &tuned::decoder);
    library.def("continue_decoder(Tensor X, Tensor lengths, Tensor[] matrices, Tensor[] norms, Tensor(a!)[] own, Tensor[] memory, int known, float eps) -> Tensor", &tuned::continued);
}
