"""Console scripts, and what they share."""

import os

os.environ.setdefault("TQDM_DISABLE", "1")  # before tqdm is imported: runs show their own progress
