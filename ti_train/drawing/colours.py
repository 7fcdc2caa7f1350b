"""The colours of all drawings."""

from __future__ import annotations

INK, FAINT, BAND, GRID, PAPER, MARK = "#1b4f8f", "#b9c9dd", "#e4ecf6", "#e6e6e6", "white", "#c03028"
