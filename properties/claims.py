"""The catalogue: every statement of the article that a program can check, in our words, and what mathematics says about it.

At its end, marked as such, stand laws of what is not in the article: options that today's implementations of a step take.

A *law* holds. A *refuted* claim passes when its counterexample is found on the implementation at hand and the corrected law
holds there. A *study* has a table and a plot and no verdict.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Test = TypeVar("Test", bound=Callable[..., object])


@dataclass(frozen=True)
class Claim:
    """One row of the catalogue. Ids that begin with X are of what lies beyond the article."""

    id: str
    step: str  # a module of `reference`
    kind: Literal["law", "refuted", "study"]
    statement: str
    formula: str
    expectation: str  # what is to be seen: that it holds, or the counterexample and what holds instead


# Of each claim: id, kind and step; the statement, its formula, and what is to be seen. A deeper line goes on with the one above.
CATALOGUE = """
# Embedding and positional encoding

E1 law embedding
  A sentence of 16 words with 512 features each is a 16×512 matrix, one row for each word.
  embed(tokens) has shape (n, d_model)
  holds for every n and d_model

E2 law embedding
  The same word gets the same row wherever it stands; before positions are added, its places cannot be told apart.
  embed(t)_i depends on t_i alone
  holds bit for bit

E3 law positional_encoding
  The input is embedding plus positional encoding, of the same shape; a repeated word now differs from place to place.
  X = embed(t) + PE[:n]; t_i = t_j and i ≠ j ⇒ X_i ≠ X_j
  holds over the reals. Rounded, a large feature swallows the difference: in bfloat16 512 + sin 1 = 512 + sin 2

E4 law embedding
  Embeddings are multiplied by √d_model before positions are added (the paper's; the article is silent).
  embed(t)_i = √d_model · table[t_i]
  an option that is on unless switched off; off, the table's row comes back bit for bit

PE1 law positional_encoding
  Even features are a sine of the position, odd features a cosine.
  PE[p, 2i] = sin(p·ω_i), PE[p, 2i+1] = cos(p·ω_i), ω_i = 10000^(−2i/d_model)
  holds; the frequency is the paper's, the article leaves it open

PE2 refuted positional_encoding
  Every value of the encoding lies strictly between −1 and 1.
  −1 < PE[p, j] < 1
  refuted at position 0: cos 0 = 1 (rounded to float32 or less, also later). What holds: −1 ≤ PE ≤ 1

PE3 law positional_encoding
  The encoding is continuous in the position.
  |PE[p+δ, j] − PE[p, j]| ≤ δ·ω_⌊j/2⌋
  holds: for real δ on the oracle, for whole δ on implementations

PE4 refuted positional_encoding
  Read by rows, no two positions look alike.
  p ≠ q ⇒ PE[p] ≠ PE[q]
  refuted once rounded and narrow (bfloat16, d_model = 2: rows 1 and 711). What holds: distinct over the reals, since ω_0 =
    1 and π is irrational, and rounded from exact values at every length in use at d_model = 512. Positions computed in
    bfloat16 collide at 256 and 257: that is a fault

PE5 refuted positional_encoding
  Read by columns, no two features look alike.
  i ≠ j ⇒ PE[:, i] ≠ PE[:, j]
  refuted for n = 1 and d_model ≥ 4, and by rounding at 16×512 in bfloat16 and float16. What holds: distinct over the reals
    for n ≥ 2

PE6 law positional_encoding
  The encoding lets the model see the distance between words.
  ⟨PE[p], PE[q]⟩ depends on p − q alone; PE[p+k] = R_k·PE[p], one rotation R_k for all p
  holds to rounding

PE7 refuted positional_encoding
  Whole numbers 1, 2, 3 … for positions would swamp small embeddings; sines do not.
  ‖PE[p]‖² = d_model/2 for every p
  refuted without E4: at d_model = 512 ‖PE[p]‖ = 16, an embedding of N(0, 1/d) entries has norm 1. What holds: the norm is
    the same at every position, while whole numbers grow

# Scaled dot-product attention

A1 law multi_head
  Q, K and V come from the same X by three learned matrices and have X's shape.
  Q = X·W_Q, K = X·W_K, V = X·W_V; each (n, d_model)
  holds

A2 law attention
  Q·Kᵀ is 16×16; entry (i, j) relates word i to word j.
  S[i, j] = ⟨q_i, k_j⟩
  holds: query i gives most weight to the key that its scores point at, and no other row moves with it

A3 refuted attention
  Similar words score high, dissimilar ones low; a word's relation to itself stands on the diagonal and is the largest.
  S[i, i] = max_j S[i, j]
  refuted for rows of unequal norm (and for learned W_Q, W_K). What holds: for W_Q = W_K = I and rows of equal norm
    (Cauchy–Schwarz)

A4 refuted attention
  A sum over 512 features surely exceeds 1, so it is divided by the root of the dimension.
  Q, K independent, entries iid, mean 0, variance 1 ⇒ Var S = d_k, Var(S/√d_k) = 1
  "surely" refuted: orthogonal words score 0; and two equal words of ones score 22.6 even after scaling. What holds: the
    variance law, exactly, over all vectors of ±1

A5 law softmax
  Softmax turns scores into probabilities that sum to 1.
  P ≥ 0, Σ_j P[i, j] = 1
  holds, within the rounding of the dtype

A6 law attention
  Weights times values: each word becomes a weighted average of all words.
  min_j V[j, c] ≤ out[i, c] ≤ max_j V[j, c]
  holds to rounding (bfloat16 weights of three equal keys sum to 1.002)

A7 law attention
  Averaging mixes words, not features.
  given P, out[:, c] depends on V[:, c] alone, linearly
  holds; other columns stay bit-identical

A8 law attention
  Attention without positions has no order.
  permuted queries permute the output; (K, V) permuted together change nothing
  holds to rounding

A9 law softmax
  Only differences of scores matter.
  softmax(s + c) = softmax(s); no overflow at large scores
  holds, however large the shift

A10 refuted attention
  Since columns combine with themselves, attention does not cross features: that is left to the feed-forward step.
  ∂out[i, c]/∂X[j, c′] = 0 for c ≠ c′
  refuted: another feature of a word changes P and so every feature of the output, even with W_Q = W_K = W_V = I. What holds
    is A7: given P

A11 study softmax
  Large scores are bad for learning.
  ‖J‖ of softmax's Jacobian against the scale of the scores
  the norm falls as scores grow (0.19 → 0.0006 at scale 22.6 on one row). A law beside it: ‖J‖ ≤ 1/2

# Residual, norm and feed-forward

R1 law residual_norm
  A sublayer's input is added to its output, to keep the original features.
  sublayer ≡ 0 ⇒ the sum is X
  holds bit for bit

R2 refuted residual_norm
  Adding may exceed 1, so a norm makes sure that nothing is above 1.
  max_j |LayerNorm(x)_j| ≤ 1
  refuted, and upside down: before gain and bias, as eps → 0, the mean of y² is 1, so 1 is the floor of max|y|, attained by
    rows of ±1 alone. The ceiling is √(d − 1), attained by a one-hot row

R3 study residual_norm
  Without residual and norm, rounds of attention drift apart and gradients explode.
  growth of activations and gradients over depths 1–24, with and without each part
  against the wording at initialisation: without the residual the words collapse onto each other; with it and without the
    norm, activations and gradients grow by orders of magnitude; the norm tames that

F1 law feed_forward
  The feed-forward step lets every feature influence every other.
  every entry of its Jacobian is non-zero where a hidden unit is active
  holds for generic weights; where all units are dead the Jacobian is 0

F2 law feed_forward
  Feed-forward treats each word by itself.
  out[i] depends on X[i] alone
  holds bit for bit

L1 law encoder
  An encoder layer is attention, add & norm, feed-forward, add & norm; the shape stays 16×512.
  X₁ = norm(X + attention(X)), out = norm(X₁ + ffn(X₁))
  holds

L2 law encoder
  Layers are stacked: an encoder is N of them in a row.
  encoder = layer_N ∘ … ∘ layer_1
  holds

L3 law decoder
  A decoder layer is masked attention, cross-attention and feed-forward, each with add & norm.
  three sublayers, each norm(x + sublayer(x))
  holds in the form of the paper and the article's figure; the article's text leaves out the last two norms

# Decoder

D1 law decoder
  The output embedding is made just like the input embedding.
  same function, a table of its own
  holds

M1 law mask
  The mask sets what lies ahead to −∞: the matrix is lower-triangular, a word sees itself and what came before.
  P[i, j] = 0 exactly for j > i
  holds; the alignment for n ≠ m is a convention

M2 law mask
  The mask is added to Q·Kᵀ, before softmax.
  Σ_j P[i, j] = 1 over what i may look at
  holds; masking after softmax would break A5. What a row gets that may look nowhere is a convention

M3 law mask
  So no future word can influence a word.
  X[j] changed for j > i leaves out[i] bit-identical
  holds for anything finite; NaN and ∞ behind a mask are a declared capability (0·∞ is NaN)

C1 law decoder
  In the second attention Q comes from the decoder, K and V from the encoder's output.
  out has the decoder's n rows whatever m is, and depends on M
  holds

C2 law decoder
  Cross-attention reads the encoder's output as a set.
  permuting M's rows changes nothing; hidden rows of M have no influence
  holds

C3 law decoder
  Every decoder layer reads the encoder's final output.
  K, V of layer l from M, Q = x·W_Q
  holds in the paper's form; the article feeds the masked attention's result directly as Q

O1 law output_projection
  A linear map and a softmax give 16×n, n the size of the dictionary; each row is a distribution over the next word.
  shape (n, vocab), rows ≥ 0 that sum to 1
  holds

O3 refuted output_projection
  The largest probability marks the word with the largest logit.
  argmax softmax(z) = argmax z
  refuted once rounded: z = [0, 2⁻⁹] gives equal probabilities in bfloat16, a closer pair in every dtype. What holds: where
    the largest logit leads clearly

O2 law transformer
  Row 1 predicts word 2, …, row 16 predicts word 17.
  row i depends on target words 1 … i and on the source alone
  holds

G1 law generation
  To generate, take the largest entry of the last row, append its word, go round again.
  greedy decoding = teacher forcing on its own output, with cached K and V too
  holds where the largest logit leads by more than rounding

G2 study generation
  A longer prompt gives cross-attention more to go on, so that predictions improve.
  accuracy against the length of the source and of the given context
  a statement about trained models: a study on a small task

# Many heads

H1 law multi_head
  16×512 is split into 8 matrices of 16×64.
  concat(split(X, h)) = X; head i is columns d_k·i … d_k·(i+1) − 1
  holds bit for bit

H2 law multi_head
  Every head has Q, K, V of its own and works alone.
  before W_O, head i's weights change head i's columns alone
  holds bit for bit

H3 law multi_head
  The heads are concatenated and multiplied by a learned 512×512 matrix that mixes them.
  out = concat(heads)·W_O
  holds

H4 law multi_head
  One head is the special case.
  h = 1: plain attention followed by W_O
  holds

H5 law multi_head
  The features are split first, and each slice gets its own small Q, K, V.
  = multi-head attention with block-diagonal W_Q, W_K, W_V
  holds as a special case: the paper's heads each see all features

H6 law multi_head
  The order of the heads means nothing.
  heads permuted together with W_O's row blocks change nothing
  holds to rounding

# Backward (beyond the article)

B1 law attention
  The gradients of queries, keys and values are the derivatives of the output.
  dV = Pᵀ·dO, dP = dO·Vᵀ, dS = P∘(dP − Σ P∘dP), dQ = dS·K/√d_k, dK = dSᵀ·Q/√d_k
  holds to rounding, in whatever memory dO lies, whichever inputs a gradient is asked of, and on every pass

B2 law softmax
  A constant added to a row of scores changes nothing, so a row of their gradients sums to 0.
  dS = P∘(dP − Σ P∘dP), Σ_j dS[i, j] = 0, and Σ_j dK[j] = 0
  holds to rounding

B3 law attention
  Who is not attended to learns nothing, and who attends to nothing gives and gets nothing.
  j masked for all i ⇒ dK[j] = dV[j] = 0; i fully masked, or dO[i] = 0 ⇒ dQ[i] = 0
  holds exactly, whatever finite numbers are behind the mask; NaN and ∞ are a declared capability

B4 law attention
  Forward and backward are adjoint.
  ⟨dO, J·v⟩ = ⟨Jᵀ·dO, v⟩: ⟨dO, A(Q, K, U)⟩ = ⟨dV, U⟩, and ⟨dQ, Q⟩ = ⟨dK, K⟩
  holds to rounding, where sums are exact bit for bit

B5 law residual_norm
  The gradient of a norm's input sums to 0 and is orthogonal to the normalised row; gain and bias learn from every row.
  dX = (dx̂ − mean dx̂ − x̂·mean(x̂∘dx̂))/r, dgain = Σ_rows dY∘x̂, dbias = Σ_rows dY
  holds to rounding; orthogonal as eps → 0

B6 law feed_forward
  Both maps of the feed-forward step learn from every row, and a dead unit learns nothing.
  dU = dY·W_2ᵀ∘act′, dW_1 = Xᵀ·dU, db_1 = Σ_rows dU, dW_2 = Hᵀ·dY, db_2 = Σ_rows dY
  holds to rounding; exactly 0 where a unit is dead

B7 law transformer
  Some steps of training end at the weights that the oracle's gradients lead to, by SGD and by Adam.
  W_t = W_{t−1} − η·move(dL/dW at W_{t−1}), the same batches and the same start
  holds within what rounding makes of all steps together

# The whole

T1 law transformer
  The encoder reads the source, the decoder writes the target.
  (source, target) → (n, vocab)
  holds

T2 refuted transformer
  All the matrices are random at first and can be learned.
  every parameter has a gradient that is not 0
  first half refuted: key biases get 0 (A9), so do W_Q and W_K where there is one key, absent words and dead units. What
    holds: every other parameter is reached, and a small model learns to copy and to reverse

T3 law transformer
  A sentence's result depends neither on what else is in the batch nor on padding.
  batch invariance, padding invariance
  holds to rounding

# Beyond the article: what kernels of attention are asked for today

Y1 law attention
  Not in the article: a kernel also returns the logarithm of the sum that softmax divides by.
  L_i = log Σ_j exp(S[i, j]); Σ_j exp(S[i, j] − L_i) = 1; −∞ for a fully masked row
  holds, to the base and for fully masked rows as declared

Y2 law attention
  Not in the article: attention over parts of the keys is merged to attention over all of them.
  L = log Σ_p exp(L_p), out = Σ_p exp(L_p − L)·out_p, for any parts p of the keys
  holds to rounding; a part without keys has L_p = −∞ and adds nothing

Y3 law attention
  Not in the article: sequences packed one after another are as if each were alone.
  out[q_r : q_{r+1}] = Attention(Q[q_r : q_{r+1}], K[k_r : k_{r+1}], V[k_r : k_{r+1}])
  holds; what another sequence holds, NaN too, moves no bit

Y4 law attention
  Not in the article: keys and values lie in pages that a block table names, wherever these are.
  out_r = Attention(Q_r, K_r, V_r), K_r = the first ℓ_r rows of K_pages[T_r0], K_pages[T_r1], …
  holds; pages permuted with their table, and slots that nobody wrote to, move no bit

Y5 law attention
  Not in the article: cumulative lengths, lengths and block tables that cannot be are refused.
  f(corrupt) raises, or is the answer where there is one
  holds where `corrupt_indices = refused`; there is an answer where rows belong to no sequence, or entries to no position

Y6 law attention
  Not in the article: keys and values lie in a cache with room for more, of which each row has written its own number of slots.
  out_r = Attention(Q_r, K_r[:ℓ_r], V_r[:ℓ_r]), the n queries being the last n of ℓ_r positions
  holds; slots that nobody wrote to move no bit, more room changes nothing, and tokens one by one are tokens at once

Y7 law attention
  Not in the article: a cache that is full wraps: a new token takes the slot of the oldest.
  position p lies in slot p mod c; a query at p attends to positions max(0, ℓ_r − c) to p
  holds; as attention to what is left, in its order, wherever in the cache it begins

Y8 law attention
  Not in the article: a cache of attention forgets, copies and reorders what it holds; each row is answered as if it were alone.
  out_r[i] = Attention(Q_r[i], K_r[:i + 1], V_r[:i + 1]) after any operations; with a window of w, of the last w
  holds for any chunks and rows of any lengths, whichever slots, ring or pages they lie in, whoever else has them

# Beyond the article: options of attention. They are asked for only where an implementation offers them

X1 law attention_options
  Causal: a token attends to itself and to what came before, without a mask being handed over.
  P[i, j] = 0 for j > i (top left) or j > i + m − n (bottom right)
  holds; equal to the explicit mask to rounding, and what lies ahead moves no bit. Given a mask too, a key must be seen by both

X2 law attention_options
  Scale: the factor of the scores in place of 1/√d_k.
  S = scale·Q·Kᵀ
  holds; a power of four in the scale is one in the queries, bit for bit; 0 gives the mean of what is seen, and hidden keys stay
    hidden for every sign

X3 law attention_options
  Bias: a matrix is added to the scores.
  S + B
  holds; a constant changes nothing, −∞ is the boolean mask

X4 law attention_options
  Grouped heads: several query heads share a key head.
  query head i reads key head ⌊i·g/h⌋
  holds; equal to repeated key heads, and a key head moves its own query heads alone

X5 law attention_options
  Window: a token attends to some tokens before it and some after it.
  P[i, j] = 0 for j < i − left or j > i + right
  holds; under equal scores each row is 1/(number of keys in the window) inside of it and 0 outside; (0, 0) copies V bit for bit

X6 law attention_options
  Softcap: scores are squeezed between −c and c, before anything is added to them or hidden.
  c·tanh(S/c)
  holds; no score is above c, the sign of a score is kept, and what is hidden has no weight

X7 law attention_options
  Sinks: each head has one more score, which takes weight and says nothing.
  P[i, j] = exp(S[i, j]) / (exp(sink) + Σ_k exp(S[i, k]))
  holds; equal to one more key whose value is 0, and for sink → −∞ to none

X8 law attention_options
  ALiBi: the further away a key is, the lower it scores.
  S[i, j] − slope·|i − j|
  holds; only the distance counts, and each head has a slope of its own

X9 law attention_options
  Options compose, in one order.
  scale·Q·Kᵀ; c·tanh(s/c); + B − slope·|i − j|; −∞ where hidden; the sink; softmax; V
  holds for every two of them, with a mask and without, for n = m, n < m and n > m

X10 law multi_head_options
  Causal, of a whole layer: each token attends to itself and to what came before, whatever mask stands beside.
  P_h[i, j] = 0 for every head h and j > i (top left) or j > i + m − n (bottom right), or where the mask hides j from i
  holds; equal to the explicit mask to rounding, and what lies ahead moves no bit

X11 law multi_head_options
  A layer also returns the weights of each head, and asking for them changes nothing else.
  (Concat(P_1·V_1, …, P_h·V_h)·W_O, P), Σ_j P_h[i, j] = 1, P_h[i, j] = 0 where j is hidden from i
  holds; the output to rounding, hidden keys exactly

X12 law attention_options
  Dropout with a given mask: what is dropped weighs nothing, what is kept 1/(1 − p) times as much.
  (P ∘ D / (1 − p))·V
  holds; the mean over all masks, each by its probability, is attention without
"""


def _read(catalogue: str) -> tuple[Claim, ...]:
    paragraphs = [block for block in catalogue.strip().split("\n\n") if not block.startswith("#")]
    rows = [block.replace("\n    ", " ").splitlines() for block in paragraphs]
    return tuple(
        Claim(identifier, step, kind, *(line.strip() for line in lines))  # type: ignore[arg-type]
        for (identifier, kind, step), *lines in ((row[0].split(), *row[1:]) for row in rows)
    )


CLAIMS = _read(CATALOGUE)


@dataclass(frozen=True)
class Property:
    """What a test function says about itself: the claim it carries and the steps an implementation must offer for it."""

    claim: str
    needs: tuple[str, ...]
    oracle_only: bool  # about the oracle's own worked example: planned for `reference` alone
    dtypes: tuple[str, ...] | None  # the dtypes in which the statement is made; None: every one
    shrinks: bool  # makes its failures small itself (`judgement.judge`): Hypothesis leaves them as they are


def claim(
    identifier: str,
    *,
    needs: str | Sequence[str] = (),
    oracle_only: bool = False,
    dtypes: Sequence[str] | None = None,
    shrinks: bool = False,
) -> Callable[[Test], Test]:
    """Mark a test as a property of claim `identifier`: it takes a `impl` and runs on each one that offers all of `needs`."""

    def mark(test: Test) -> Test:
        steps = (needs,) if isinstance(needs, str) else tuple(needs)
        only_in = None if dtypes is None else tuple(dtypes)
        test.property_of_claim = Property(identifier, steps, oracle_only, only_in, shrinks)  # type: ignore[attr-defined]
        return test

    return mark
