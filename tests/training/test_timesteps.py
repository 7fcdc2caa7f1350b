"""Noise levels: the distributions that the option names, and places in them that are spread over a step, run, image."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_host import TinyHost, dataset_of

from ti_train.errors import UserError
from ti_train.host import Prediction
from ti_train.training.loop import train
from ti_train.training.timesteps import NoiseLevels, check_timesteps, positions, stratified

FLOW = torch.arange(1, 1001) / 1000
SD1 = torch.logspace(-1.5, 1.1646, 1000)  # whose log(SNR) ends at -5.36


def quantiles(sigmas: torch.Tensor, kind: str, prediction: Prediction, *shares: float) -> list[float]:
    """Of the distribution, in noise levels."""
    levels = NoiseLevels.of(kind, sigmas, prediction)
    return [round(float(level), 2) for level in levels.at(torch.tensor(shares, dtype=torch.float64))]


# --- Distributions --------------------------------------------------------------


def test_flow_models_draw_from_a_logit_normal():
    """Esser et al. 2024: its quartiles are sigmoid(-.674), sigmoid(0), sigmoid(.674)."""
    assert quantiles(FLOW, "logit-normal", "flow", 0.25, 0.5, 0.75) == [0.34, 0.5, 0.66]
    assert quantiles(FLOW, "auto", "flow", 0.25, 0.5, 0.75) == [0.34, 0.5, 0.66]
    assert quantiles(FLOW, "auto", "eps", 0.25, 0.5, 0.75) == quantiles(FLOW, "uniform", "flow", 0.25, 0.5, 0.75)
    assert quantiles(FLOW, "uniform", "flow", 0.25, 0.5, 0.75) == [0.25, 0.5, 0.75]


def test_high_noise_is_where_styles_are_decided():
    """log(SNR) from N(-6, 2): half the draws of a flow model are above sigmoid(3) = .953."""
    assert quantiles(FLOW, "high-noise", "flow", 0.25, 0.5, 0.75) == [0.91, 0.95, 0.98]
    low, middle = quantiles(SD1, "high-noise", "eps", 0.25, 0.5)
    assert 4 < low < middle < 14.6


@pytest.mark.parametrize("prediction", ["eps", "v", "flow"])
def test_a_mean_of_log_snr_is_the_median_of_its_draws_where_the_table_is_wide(prediction):
    sigmas = FLOW if prediction == "flow" else torch.logspace(-4, 4, 4000)
    (median,) = NoiseLevels.of("logsnr -1 0.5", sigmas, prediction).at(torch.tensor([0.5], dtype=torch.float64))
    signal = 1 - median if prediction == "flow" else 1.0
    assert 2 * math.log(signal / median) == pytest.approx(-1, abs=0.02)


@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from(["", " .1", " 0.5"]))
def test_a_range_draws_from_it_alone_but_for_the_share_of_all_levels(one, other, share):
    low, high = sorted((one, other))
    levels = NoiseLevels.of(f"{low}-{high}{share}", torch.arange(1000.0), "eps")
    drawn = levels.at(torch.linspace(0, 1, 4001, dtype=torch.float64)[:-1])
    inside = float(((drawn >= low) & (drawn <= high)).double().mean())
    everywhere = float(share or 0)
    assert inside == pytest.approx(1 - everywhere + everywhere * (high - low + 1) / 1000, abs=1e-3)


@pytest.mark.parametrize(
    "wrong", ["", "low", "500", "899-500", "500-1000", "500-899 2", "logsnr -3", "logsnr 1 0", "logsnr . 1"]
)
def test_what_cannot_be_read_is_refused_with_examples(wrong, settings):
    with pytest.raises(UserError, match=r"must be one of auto, .* such as '500-899', or .* 'logsnr -3 2'"):
        settings(timesteps=wrong)


def test_a_distribution_without_a_level_of_the_model_is_refused():
    check_timesteps("logsnr 90 1")
    with pytest.raises(UserError, match="the model has no noise level there"):
        NoiseLevels.of("logsnr 90 1", SD1, "eps")


# --- Places ---------------------------------------------------------------------


@given(count=st.integers(1, 16), seed=st.integers(0, 2**32))
def test_one_place_comes_from_each_stratum(count, seed):
    drawn = stratified(count, torch.Generator().manual_seed(seed))
    assert (drawn * count).long().tolist() == list(range(count))


def places_of(dataset, batch: int, steps: int, seed: int = 0) -> list[tuple[str, float]]:
    """The image and the place of every draw of a run, as training/steps.py asks for them."""
    drawn = []
    for step in range(1, steps + 1):
        images = dataset.take((step - 1) * batch, batch, seed)
        places = positions(dataset, step, batch, seed).tolist()
        drawn += [(image.name, place) for image, place in zip(images, places, strict=True)]
    return drawn


def discrepancy(places: list[float]) -> float:
    """The largest difference between the share of the draws below a place and the place."""
    return max(
        max(abs(place - i / len(places)), abs(place - (i + 1) / len(places))) for i, place in enumerate(sorted(places))
    )


@pytest.mark.parametrize(("batch", "steps"), [(1, 4), (2, 2), (3, 2), (4, 1), (5, 1), (8, 1)])
@pytest.mark.parametrize("round_", [0, 1, 17, 10**6])
def test_a_step_of_four_images_or_the_steps_of_four_have_one_place_in_each_part(dataset, batch, steps, round_):
    of_steps = [positions(dataset, round_ * steps + i + 1, batch, 0) for i in range(steps)]
    parts = (torch.cat(of_steps) * batch * steps).long()
    assert sorted(parts.tolist()) == list(range(batch * steps))


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5, 8])
def test_a_run_fills_the_interval_evenly(dataset, batch):
    """Independent draws have a discrepancy of about 0.87 / sqrt(N): here 0.06."""
    places = [place for _, place in places_of(dataset, batch, steps=200 // batch)]
    assert discrepancy(places) < 0.02


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_each_image_meets_every_band(dataset, batch):
    """Three images: of 60 draws of each, each tenth of the noise levels gets six, give or take a few."""
    drawn = places_of(dataset, batch, steps=180 // batch)
    for name in {name for name, _ in drawn}:
        places = [place for drawn_name, place in drawn if drawn_name == name]
        assert torch.histc(torch.tensor(places), 10, 0, 1).min() >= 3


@pytest.mark.parametrize("batch", [1, 4])
def test_over_the_seeds_an_image_meets_all_levels_alike(dataset, batch):
    runs = [places_of(dataset, batch, 12 // batch, seed) for seed in range(2000)]
    for of_a_round in (slice(4), slice(-4, None)):
        places = [place for run in runs for name, place in run[of_a_round] if name == "red.png"]
        assert discrepancy(places) < 0.04


def test_a_run_trains_at_the_levels_of_these_places(pictures, settings, tmp_path):
    host, levels = TinyHost(), []
    dataset = dataset_of(host, pictures)
    hook = host.denoiser.register_forward_hook(
        lambda _module, inputs, _output: levels.extend(inputs[1].tolist() if torch.is_grad_enabled() else [])
    )
    for _ in train(host, dataset, settings(timesteps="500-899", steps=8), tmp_path):
        pass
    hook.remove()
    expected = [0.5 + 0.4 * place for _, place in places_of(dataset, 2, 8)]
    table = [host.sigmas[int(place * len(host.sigmas))].item() for place in expected]
    assert levels == pytest.approx(table)


def test_places_and_levels_are_in_fp64(dataset):
    """The millionth step has as many different places as the first."""
    levels = NoiseLevels.of("uniform", torch.arange(1.0, 4.0), "eps")
    places = positions(dataset, 10**6, 4, seed=0)
    for values in (levels.cumulative, places, stratified(4, torch.Generator())):
        assert values.dtype == torch.float64
    assert not torch.equal(places, places.float().double())
