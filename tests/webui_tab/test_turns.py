"""How often those who follow a training in a WebUI are told to ask; tests/test_polling.py has more clients."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("kind", ["STATUS", "LOOK"])
def test_who_asks_alone_comes_back_after_a_second(load_in_webui, kind):
    module = load_in_webui("webui_tab.turns")
    assert module.turns.next(getattr(module, kind)) == pytest.approx(module.LEAST) == 1.0
