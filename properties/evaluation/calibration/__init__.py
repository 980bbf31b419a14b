"""Calibration: how often a budget accuses a correct implementation, and how small a fault it sees.

Reading order: `low_precision` (one readable implementation whose every arithmetic choice is a parameter), `variants` (the
correct variants), `faults` (the named faults, on inputs that show them, and graded ones), `evaluation.baseline_rules`,
`cases` (what the variants are run on), `options` (cases and variants of attention with its options), `simulated` (trials of our
own rounding simulator, on all that properties ask), `tally` (what is counted), `backward` (the same for gradients), `runner`
(chunks of work, in parallel, resumable) and `table` (what came out).

What no budget sees, and a user should know:

* one unit in the last place of one weight; a gain below about 8·u/√N over N components;
* in bfloat16 an attention scale off by a thousandth: it moves scores by less than storing them does;
* LayerNorm's eps of 1e-6 for 1e-5 in bfloat16, unless the variance is about 1e-5;
* a mask of −1e4 for −∞, unless a live score is below it; a positional encoding's base off by a millionth;
* where a score times the unit roundoff reaches 1, an eager low precision makes softmax arbitrary: such inputs show nothing.

Not measured: GPU kernels, TF32 units, flush-to-zero hardware, fp8, gradients of whole modules. The model and its constants were set
and tested by the same hand: a new family of kernels must run correct first.
"""
