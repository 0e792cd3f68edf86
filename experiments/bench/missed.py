"""What the benchmark's page says of the targets that were missed."""

MISSED = (
    "## What was missed, and why",
    "",
    "- *Exact search.* The products alone take three quarters of it, at the rate that a short "
    "measurement finds and a card that has been busy for a minute does not hold. The rest is what "
    "a block does beside its products (norms, rotations, the MLP's gate), twice a candidate, the "
    "selection, and the statistics.",
    "- *Early out.* With random weights the criteria of neighbouring λ's are within two percent of "
    "each other, so a loser shows only in the last blocks. There is more to gain on trained "
    "weights, where they are further apart.",
    "- *Adaptive.* It ranks 15 candidates on an eighth of the tokens and measures eight or nine "
    "of 29 in full. What the full ones do not account for leaves about 0.3 s a rank, three times "
    "what its products need: the selection does not shrink with the tokens, and small kernels "
    "leave gaps between them. Fewer finalists would be faster, but over neighbouring λ's the "
    "criterion of models as small as the zoo's jumps by a percent or two, and on shortened windows "
    "it jumps elsewhere: at most four finalists found other λ's in half of the cases below.",
    "- *Compiled and uncompiled, bfloat16.* Three digits are what its eight bits of mantissa "
    "leave: weights near a threshold go or stay as their scores are rounded.",
    "- *Pruning with statistics* takes little more than its products at the measured rate.",
    "- *The same result from disk.* `7b-disk` was measured with a later version than `7b-none` and "
    "`7b-blocks`, which rounds otherwise: with all weights on the GPU, its criteria differ from "
    "theirs by as much (6e-4). On a CPU all three find the same masks "
    "(`tests/placement/test_equal.py`). The perplexity of the dense model is the same to the last "
    "digit from disk and from host memory.",
    "- *Offloaded search, × none.* `7b-none` took 5.0 s for four candidates, more than the 0.7 s "
    "each of the exact search above: it was the first of its process, so this ratio flatters.",
)
"""Reasons for the figures that are marked as missed."""
