"""When those who follow a training ask again."""

from __future__ import annotations

from ..ti_train.polling import Turns

STATUS, LOOK = 0.0018, 0.005  # seconds of a processor for an answer of the API, of the tab; see docs/reliability.md
MEASUREMENT = 0.000004  # and for each step in one of the API
LEAST = 1.0  # seconds between two questions of one client

turns = Turns(LEAST)
