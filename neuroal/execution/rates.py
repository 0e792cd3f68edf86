"""Rates by which the time of work is estimated before it starts."""

from __future__ import annotations

GPU_RATE, CPU_RATE = 2e14, 5e10
"""Floating-point operations per second of the pipeline on a large GPU, and on one CPU core."""
