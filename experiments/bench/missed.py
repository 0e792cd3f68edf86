"""What the benchmark's page says of missed targets, and of figures to be read with care."""

MISSED = (
    "## What was missed, and why",
    "",
    "- *Early out.* The criteria of neighbouring λ's are within a few percent of each other, so a "
    "sum over blocks exceeds the best one's only in the last of them: ten or eleven of 29 "
    "candidates are given up, each of them late. Trained weights are no better: in the search on "
    "SmolLM2 below, 1,609 of 1,653 runs of a block remain, on the zoo's models all. Nothing that "
    "is sure to bound the blocks that are still to come was found.",
    "- *Pruning with statistics.* The timed part still held the compilation of the selection "
    "kernels, once and kept on disk: a second or so then. Those that came after compile longer, "
    "and on the day of the searches above Wanda and multiflow took 14.6 and 13.9 s in the same "
    "way, of which the products take nine. Now the benchmark compiles all kernels beforehand; it "
    "has not been run on a GPU since.",
    "",
    "## What to read with care",
    "",
    "- A card that is busy for seconds is held to its power, and its clock falls below that of the "
    "short measurement that tells the matrix rate. What remains of a search beside its products is "
    "what a block does between them (norms, rotations, the MLP's gate), twice a candidate, the "
    "selection, and the statistics.",
    "- Cards of one kind differ by a few percent, and so do hosts, by more, in what a kernel's "
    "launch takes.",
    "- *Ideas, pruning, and selection* were measured a day before the searches, with selection "
    "kernels that count in integers. The present ones count in floats; with them, a block of a "
    "candidate takes 19.5 ms in place of 20.2.",
    "- *Offloaded search, × none.* `7b-none` took 4.6 s for four candidates, more than the 0.7 s "
    "each of the exact search above: it was the first of its process, so this ratio flatters.",
    "- *2:4.* Every call of a converted linear goes through Python, and its result is a transposed "
    "view, which eager operations read slowly. The kernels themselves are timed beside, as a CUDA "
    "graph of one block's linears.",
)
"""Reasons for the figures that are marked as missed, and remarks."""
