"""What a request refuses, and in which words; no WebUI is needed."""

from __future__ import annotations

import json

import pytest


def test_an_unknown_field_is_named_with_the_nearest(load_in_webui):
    request = load_in_webui("webui_tab.request").TrainRequest
    with pytest.raises(ValueError, match="unknown field 'learnig_rate', did you mean 'learning_rate'"):
        request(name="cat", pictures="cats", learnig_rate="1e-3")


@pytest.mark.parametrize("body", [7, True, None, "cat", [1, 2], [None]])
def test_a_body_that_is_no_object_is_refused(load_in_webui, body):
    """The API's answer is 422 then, not 500."""
    pydantic = pytest.importorskip("pydantic")
    with pytest.raises(pydantic.ValidationError):
        load_in_webui("webui_tab.request").TrainRequest.parse_obj(body)


def test_a_mistake_in_a_field_is_told_by_its_label(load_in_webui):
    module, pydantic = load_in_webui("webui_tab.request"), pytest.importorskip("pydantic")
    given = {"name": "cat", "pictures": "cats", "num_vectors": 99, "preview_width": 99}
    with pytest.raises(pydantic.ValidationError) as mistake:
        module.TrainRequest(**given)
    told = module.in_words(mistake.value, given)
    assert "Vectors is '99': " in told
    assert "Preview width is '99': " in told
    assert "\n" not in told


def test_a_request_that_was_kept_asks_for_the_very_same_training(load_in_webui):
    """The header of a resumed run's embedding is that of a whole run, bit for bit: 0 and 0.0 are not the same."""
    request = load_in_webui("webui_tab.request").TrainRequest
    kept = json.dumps(request(name="cat", pictures="cats", init="toy").dict())
    assert json.dumps(request(**json.loads(kept)).dict()) == kept


def test_a_field_shows_what_its_option_is(load_in_webui):
    fields = load_in_webui("webui_tab.fields")
    assert fields.of_preset("Paper") | {
        "steps": 5000,
        "learning_rate": "0.005",
        "square": "square",
    } == fields.of_preset("Paper")


def test_a_preset_replaces_the_numbers_of_the_earlier_one_and_no_others(load_in_webui):
    fields = load_in_webui("webui_tab.fields")

    def filled(earlier: str, preset: str, **entered) -> dict:
        values = fields.of_preset(earlier) | entered
        kept, *found = fields.filled_from(preset, earlier, *values.values())
        assert kept == preset
        return dict(zip(fields.OF_PRESETS, found, strict=True))

    assert filled("Balanced", "Paper") == fields.of_preset("Paper")
    assert filled("Balanced", "Paper", steps=500) == fields.of_preset("Paper") | {"steps": 500}
    assert filled("Balanced", "Style", steps=0, learning_rate="") == fields.of_preset("Style"), "0: left to the preset"
    assert filled("Paper", "Balanced", learning_rate="5e-3:9") == fields.of_preset("Balanced") | {
        "learning_rate": "5e-3:9"
    }


def test_from_txt2img_finds_the_embedding_with_and_without_its_folder(load_in_webui):
    found = load_in_webui("webui_tab.preview_fields").with_placeholder
    assert found("my-cat and pets/my-cat\non my-cats", "pets/my-cat ") == "* and * on my-cats"
    assert found("a cat", "") == "a cat"


def test_previews_have_the_bounds_of_the_webuis_own_fields(load_in_webui):
    module, pydantic = load_in_webui("webui_tab.request"), pytest.importorskip("pydantic")
    given = {"name": "cat", "pictures": "cats", "preview_steps": 999, "preview_cfg": 31}
    with pytest.raises(pydantic.ValidationError) as mistake:
        module.TrainRequest(**given)
    told = module.in_words(mistake.value, given)
    assert "150" in told
    assert "30" in told


def test_previews_are_sampled_as_the_request_says(load_in_webui):
    """By the options that every host reads; the sampler is one of the WebUI's."""
    request = load_in_webui("webui_tab.request").TrainRequest
    config = request(name="cat", pictures="cats", preview_sampler="DPM++ 2M", preview_steps=9, preview_cfg=3).config()
    assert (config.preview_sampler, config.preview_steps, config.preview_cfg) == ("DPM++ 2M", 9, 3)
