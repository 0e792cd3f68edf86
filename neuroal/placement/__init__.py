"""Placement of idle weights: on the device, in host memory or on disk."""
