// exp of a vector, of numbers that are not above 0: within an ulp and a half; subnormal results are kept, NaN stays NaN.
#pragma once

#include <cstdint>

#include "tile.h"

namespace tuned {

typedef int32_t Integers __attribute__((vector_size(4 * LANES)));

// 2ⁿ, for n from -126 on.
inline Vector power(Integers n) { return (Vector)((n + 127) << 23); }

// x = n ln 2 + r with |r| ≤ ln 2 / 2; eʳ is 1 + r + r² p(r), and 2ⁿ comes in two factors, since 2⁻¹⁴⁹ has no exponent of its own.
// The polynomial and the two parts of ln 2 are those of the Cephes library's expf (S. Moshier).
inline Vector exp(Vector x) {
    constexpr float LEAST = -150.0f, ROUNDER = 12582912.0f;  // 1.5 × 2²³: adding it rounds to an integer
    x = x < LEAST ? LEAST - Vector{} : x;
    const Vector shifted = x * 1.44269504088896341f + ROUNDER, n = shifted - ROUNDER;
    const Integers integer = (Integers)shifted - (Integers)(ROUNDER - Vector{}), half = integer >> 1;
    const Vector r = x - n * 0.693359375f + n * 2.12194440e-4f;
    Vector p = r * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    return (p * (r * r) + r + 1.0f) * power(half) * power(integer - half);
}

}  // namespace tuned
