"""The previews that the tab keeps; no WebUI is needed."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from ti_train.embedding import Embedding
from ti_train.events import Preview


def test_a_long_run_keeps_a_few_small_previews(load_in_webui):
    module = load_in_webui("webui_tab.previews")
    previews = module.Previews(("a *", "the *"))
    image = Image.new("RGB", (1024, 768), "teal")
    for step in range(0, 500, 5):
        for number, prompt in enumerate(("a *", "the *")):
            previews.add(Preview(step, prompt, image, Embedding("it", {}), number))
    assert previews.seen == 200
    shown = previews.shown()
    assert len(shown) <= 2 * (module.KEPT + 1)
    assert shown[0][1] == "step 0: a *"
    assert shown[-1][1] == "step 495: the *"
    with Image.open(shown[0][0]) as small:
        assert small.size == (512, 384)
    folder = Path(shown[0][0]).parent
    del previews
    assert not folder.exists()


def test_equal_prompts_have_previews_of_their_own(load_in_webui):
    previews = load_in_webui("webui_tab.previews").Previews(("a *", "a *"))
    for number, colour in enumerate(("red", "blue")):
        previews.add(Preview(0, "a *", Image.new("RGB", (8, 8), colour), Embedding("it", {}), number))
    one, other = (Path(file).read_bytes() for file, _ in previews.shown())
    assert one != other
