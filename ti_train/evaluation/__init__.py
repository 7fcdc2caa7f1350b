"""Evaluation of fidelity and editability: samples, the judge in CLIP space, tables and plots."""
