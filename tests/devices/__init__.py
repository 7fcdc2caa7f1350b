"""A pretended CUDA device for tests, and what is tried on it."""
