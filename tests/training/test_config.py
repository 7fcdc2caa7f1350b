"""Settings: what is refused, what the presets give, and the learning rate of every step."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ti_train.errors import UserError
from ti_train.training.config import PRESETS, TrainConfig
from ti_train.training.learning_rate import rate_segments


def config(**given) -> TrainConfig:
    return TrainConfig(**({"name": "my-cat", "init": "cat"} | given))


def test_a_name_is_used_as_it_is_written_in_prompts():
    assert config(name=" pets/my-cat.safetensors ").name == "pets/my-cat"
    assert config(name="pets/my-cat").bare_name == "my-cat"
    with pytest.raises(UserError, match="Use a name such as my-cat"):
        config(name="my cat")


@pytest.mark.parametrize(
    ("field", "value", "least"),
    [
        ("num_vectors", -1, 0),
        ("steps", 0, 1),
        ("batch_size", 0, 1),
        ("accumulation", 0, 1),
        ("evaluate_every", 0, 1),
        ("checkpoint_every", 0, 1),
        ("warmup", -1, 0),
        ("gradient_clip", -0.1, 0),
        ("preview_every", -1, 0),
        ("resolution", -8, 0),
        ("keep_tags", -1, 0),
        ("progressive_every", -1, 0),
        ("coarse_weight", -0.1, 0),
        ("drop_tags", -0.1, 0),
        ("per_image_words", -0.1, 0),
        ("coarse_weight", math.nan, 0),
    ],
)
def test_a_number_below_its_least_is_refused_by_name(field, value, least):
    config(**{field: least})
    with pytest.raises(UserError, match=f"^{field} is {value}; it must be at least {least}\\.$"):
        config(**{field: value})


@pytest.mark.parametrize(("resolution", "near"), [(500, 496), (3, 8), (515, 512)])
def test_a_resolution_that_the_vae_cannot_take_is_answered_with_the_nearest(resolution, near):
    with pytest.raises(UserError, match=f"Use {near}, or 0"):
        config(resolution=resolution)


@pytest.mark.parametrize(
    ("field", "value", "most"),
    [
        ("num_vectors", 76, 75),
        ("batch_size", 257, 256),
        ("drop_tags", 1, 0.99),
        ("per_image_words", 2, 0.99),
        ("keep_tags", math.inf, 100),
    ],
)
def test_a_number_above_its_most_is_refused_by_name(field, value, most):
    with pytest.raises(UserError, match=f"^{field} is {value}; it must be at most {most}\\.$"):
        config(**{field: value})
    config(**{field: most})


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        ("schedule", "linear, constant"),
        ("mask", "files, alpha, none"),
        ("dtype", "auto, float32, bfloat16, float16"),
    ],
)
def test_a_choice_that_there_is_not_is_answered_with_those_there_are(field, choices):
    with pytest.raises(UserError, match=f"^{field} is 'other'; it must be one of {choices}\\.$"):
        config(**{field: "other"})


@pytest.mark.parametrize("init", ["", "  "])
def test_an_empty_initial_word_is_refused(init):
    with pytest.raises(UserError, match="init is empty"):
        config(init=init)


# --- Presets --------------------------------------------------------------------


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_valid_config(preset):
    made = TrainConfig.from_preset(preset, name="my-cat", init="cat")
    assert {key: getattr(made, key) for key in PRESETS[preset]} == PRESETS[preset]


def test_balanced_is_the_defaults():
    assert TrainConfig.from_preset("Balanced", name="my-cat", init="cat") == config()


def test_given_values_stand_over_the_presets_and_none_means_not_given():
    made = TrainConfig.from_preset("Paper", name="my-cat", init="cat", steps=7, batch_size=None, learning_rate="")
    assert (made.steps, made.batch_size) == (7, PRESETS["Paper"]["batch_size"])


def test_an_unknown_preset_is_answered_with_those_there_are():
    with pytest.raises(UserError, match=r"Unknown preset 'Fast'.*Balanced, Preview, Style, Paper"):
        TrainConfig.from_preset("Fast", name="my-cat", init="cat")


# --- Learning rates -------------------------------------------------------------


def test_linear_starts_at_the_rate_and_falls_evenly_to_zero_after_the_last_step():
    rates = [config(steps=4, learning_rate=0.8).learning_rate_at(step) for step in range(1, 6)]
    assert rates == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0])


def test_constant_stays():
    made = config(steps=3, learning_rate=0.01, schedule="constant")
    assert [made.learning_rate_at(step) for step in (1, 2, 3)] == [0.01] * 3


def test_warmup_rises_evenly_and_reaches_the_rate_in_the_step_after_it():
    made = config(steps=9, learning_rate=0.4, schedule="constant", warmup=3)
    assert [made.learning_rate_at(step) for step in (1, 2, 3, 4, 5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("0.005:-1", {1: 0.005, 500: 0.005}),
        ("0.005:100, 1e-3:400, 1e-5", {1: 0.005, 100: 0.005, 101: 1e-3, 400: 1e-3, 401: 1e-5, 500: 1e-5}),
        ("5e-3:10,1e-3:-1", {10: 5e-3, 11: 1e-3, 500: 1e-3}),
        (" 1e-3 : 500 ", {500: 1e-3}),
        ("1e-3:9999", {500: 1e-3}),
    ],
)
def test_a1111_schedule_strings(text, rates):
    made = config(steps=500, learning_rate=text)
    assert {step: made.learning_rate_at(step) for step in rates} == rates


@pytest.mark.parametrize(
    ("rate", "why"),
    [
        ("", "has an invalid part, ''"),
        ("fast", "has an invalid part, 'fast'"),
        ("1e-3:1.5", "has an invalid part, '1e-3:1.5'"),
        ("1e-3:100,", "has an invalid part, ''"),
        ("1e-3:100:200", "has an invalid part, '1e-3:100:200'"),
        (-1e-3, "it must be a finite number of at least 0"),
        ("nan", "it must be a finite number of at least 0"),
        (math.nan, "it must be a finite number of at least 0"),
        (math.inf, "it must be a finite number of at least 0"),
        ("1e-3:100, 1e-4:100, 1e-5", "do not increase at '1e-4:100'"),
        ("1e-3, 1e-4", "do not increase at '1e-4'"),
        ("1e-3:100", "ends at step 100 of 500"),
    ],
)
def test_rates_that_cannot_be_read_are_refused_with_the_place(rate, why):
    with pytest.raises(UserError, match=why):
        config(steps=500, learning_rate=rate)


RATES = st.floats(0, 1e6, allow_nan=False)


@given(rates=st.lists(RATES, min_size=1, max_size=5), data=st.data())
def test_every_step_of_a_schedule_has_the_rate_of_its_segment(rates, data):
    lasts = sorted(data.draw(st.sets(st.integers(1, 499), min_size=len(rates) - 1, max_size=len(rates) - 1)))
    text = ", ".join(f"{rate!r}:{last}" for rate, last in zip(rates, [*lasts, -1], strict=True))
    assert rate_segments(text, 500) == list(zip(rates, [*map(float, lasts), math.inf], strict=True))
    step = data.draw(st.integers(1, 500))
    assert config(learning_rate=text).learning_rate_at(step) == rates[sum(last < step for last in lasts)]


@given(st.text())
@settings(max_examples=50)
def test_any_text_is_a_schedule_or_refused_in_words(text):
    refused = ""
    try:
        rate = config(learning_rate=text).learning_rate_at(1)
    except UserError as error:
        refused = str(error)
    assert "learning rate" in refused if refused else 0 <= rate < math.inf


@pytest.mark.parametrize("rate", ["0.005", " 5e-3 ", 0.005])
def test_a_plain_rate_has_warmup_and_schedule_also_as_a_text(rate):
    run = config(steps=120, warmup=10, learning_rate=rate)
    assert run.learning_rate_at(1) == pytest.approx(0.005 / 11)
    assert run.learning_rate_at(60) == pytest.approx(0.005 * 61 / 120)
    assert run.learning_rate_at(120) == pytest.approx(0.005 / 120)
    assert run.resume_identity() == config(steps=120, warmup=10, learning_rate=5e-3).resume_identity()


# --- What follows a step ---------------------------------------------------------


@pytest.mark.parametrize(("every", "steps"), [(0, []), (1, [1, 2, 3, 4]), (2, [2, 4])])
def test_numbered_copies_follow_every_so_many_steps_or_none(every, steps):
    made = config(steps=4, copy_every=every)
    assert [step for step in range(1, 5) if made.copies_after(step)] == steps


# --- What a resumed run must share ----------------------------------------------


def test_only_settings_that_shape_the_vectors_tell_runs_apart():
    elsewhere = config(
        checkpoint_every=7, evaluate_every=3, preview_every=5, preview_prompts=("*",), device="cpu", deterministic=True
    )
    previews = config(
        preview_steps=9, preview_cfg=3, preview_sampler="euler", preview_scheduler="beta", preview_negative="dark",
        preview_seed=7,
    )  # fmt: skip
    assert previews.resume_identity() == config().resume_identity()
    assert elsewhere.resume_identity() == config().resume_identity()
    assert config(batch_size=2, accumulation=2).resume_identity() == config(batch_size=4).resume_identity()
    assert config(name="renamed").resume_identity() == config().resume_identity()
    assert config(seed=1).resume_identity() != config().resume_identity()


def test_a_name_is_composed_as_prompts_write_it():
    assert TrainConfig.from_preset("Balanced", name="cafe\u0301", init="cup").name == "caf\u00e9"
