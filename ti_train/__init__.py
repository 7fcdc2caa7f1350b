"""Textual inversion (Gal et al. 2022) on a model that a host has already loaded."""

__version__ = "0.1.0"
