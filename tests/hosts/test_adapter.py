"""What all adapters have in common: in which mode weights are loaded and used, and what is left of them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from ti_train.host import Latents, TextStates, Vocabulary, digest_of
from ti_train.hosts import adapter
from ti_train.hosts.adapter import Adapter
from ti_train.hosts.checkpointing import Recomputed
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.hosts.weights import frozen

VERBS = ("training", "fingerprint", "vocabulary", "latents", "encode", "conditioning", "predict", "sample")


class Layer(Adapter):
    """A host whose model is a table of three words and a layer, made in one mode; its loading moves them."""

    def __init__(self, made_in_inference_mode: bool) -> None:
        with torch.inference_mode(made_in_inference_mode):
            self.table, self.network = nn.Embedding(3, 4), nn.Linear(4, 4)
        self.dtype, self.loaded_in, self.recomputed = torch.float64, list[bool](), list[Recomputed]()
        super().__init__(torch.device("cpu"), {"encoder": 4}, "eps", torch.arange(1.0, 4.0), 8)

    def _weights(self):
        return self.table, self.network

    def _load(self, memory=0):
        self.loaded_in.append(torch.is_inference_mode_enabled())
        for module in self._weights():
            module.to(self.dtype)  # another type is other memory, as another device is

    def _step(self, what):
        self.recomputed.append(what)
        return nullcontext()

    def _fingerprint(self):
        return str(float(self.network.weight.sum()))

    def _vocabulary(self, encoder):
        return Vocabulary(self.table.weight, lambda text: [len(text)], str)

    def _latents(self, pixels):
        pictures = self._signed(pixels)
        return Latents(pictures.mean(1, keepdim=True), pictures.amax(1, keepdim=True))

    def _encode(self, prompts, words, sizes):
        return self.network(words["*"]["encoder"].to(self.dtype))

    def _conditioning(self, prompts, words):
        return {"encoder": [TextStates(self._encode(prompts, words, ()), None, 1)]}

    def _predict(self, noisy, sigma, cond):
        return noisy + cond.mean()

    def _sample(self, request, words):
        return [torch.is_inference_mode_enabled(), *words.values()]


def gradient(host: Layer) -> torch.Tensor:
    vector = torch.ones(1, 4, requires_grad=True)
    with host.training():
        cond = host.encode([("*",)], {"*": {"encoder": vector}})
        host.predict(torch.zeros(1, 4, 2, 2), torch.ones(1), cond).sum().backward()
    return vector.grad


@pytest.mark.parametrize("caller", [torch.inference_mode, nullcontext], ids=["called inside", "called outside"])
@pytest.mark.parametrize("made_inside", [True, False], ids=["made inside", "made outside"])
def test_whatever_loads_weights_does_so_in_inference_mode(made_inside, caller):
    host = Layer(made_inside)
    with caller():
        for action in (
            lambda: host.fingerprint,
            lambda: gradient(host) if caller is nullcontext else None,
            lambda: host.predict(torch.zeros(1, 4, 2, 2), torch.ones(1), torch.zeros(1)),
            lambda: host.encode([("*",)], {"*": {"encoder": torch.ones(1, 4)}}),
        ):
            host.dtype = torch.float32 if host.dtype == torch.float64 else torch.float64
            action()
    assert host.loaded_in == [True] * len(host.loaded_in)
    assert gradient(host).abs().sum() > 0
    with torch.inference_mode():
        host.network(torch.ones(1, 4, dtype=host.dtype))


def test_weights_that_somebody_else_has_moved_train_and_sample():
    host = Layer(made_in_inference_mode=True)
    for module in host._weights():
        module.to(torch.float64)  # outside: `_load` has nothing to do any more
    with pytest.raises(RuntimeError, match="do not track version counter"):
        host.network(torch.ones(1, 4, dtype=torch.float64))
    assert host.vocabulary("encoder").rows("a").shape == (1, 4)
    assert gradient(host).abs().sum() > 0
    with torch.inference_mode():
        host.network(torch.ones(1, 4, dtype=torch.float64))


def test_what_leaves_a_host_can_be_trained_with():
    with torch.inference_mode():
        host = Layer(made_in_inference_mode=True)
        latents = host.latents(torch.ones(1, 8, 8, 3, dtype=torch.uint8))
        predicted = host.predict(torch.zeros(1, 4, 2, 2), torch.ones(1), torch.zeros(1))
        table = host.vocabulary("encoder").table
    left = [host.sigmas, latents.mean, latents.log_variance, predicted]
    assert not any(tensor.is_inference() for tensor in [*left, table])
    assert all(tensor.dtype == torch.float32 for tensor in left)


def test_a_preview_is_sampled_in_inference_mode_with_fixed_words():
    inference, words = Layer(True).sample(None, {"*": {"encoder": torch.ones(1, 4, requires_grad=True)}})
    assert inference
    assert not words["encoder"].requires_grad


def test_a_step_loads_nothing():
    host = Layer(made_in_inference_mode=True)
    gradient(host)
    assert len(host.loaded_in) == 1


def test_a_step_that_fails_is_over():
    host = Layer(made_in_inference_mode=True)
    with contextlib.suppress(KeyError), host.training():
        raise KeyError
    assert host.network.weight.is_inference()
    assert not host.stepping


@pytest.mark.parametrize("adapter", [Layer, DiffusersHost])
def test_an_adapter_leaves_the_verbs_alone(adapter):
    assert not {*VERBS} & {*vars(adapter)}


# frozen(): the weights of one module


def made(inside: bool, moved_inside: bool) -> nn.Linear:
    with torch.inference_mode(inside):
        module = nn.Linear(2, 2)
    with torch.inference_mode(moved_inside):
        return module.to(torch.float64)


@contextmanager
def trained(module: nn.Module) -> Iterator[None]:
    vector = torch.ones(1, 2, dtype=torch.float64, requires_grad=True)
    with frozen(module):
        module(vector).sum().backward()
        yield
    assert vector.grad.shape == (1, 2)


@pytest.mark.parametrize("moved_inside", [True, False], ids=["moved inside", "moved outside"])
@pytest.mark.parametrize("made_inside", [True, False], ids=["made inside", "made outside"])
def test_weights_train_and_sample_wherever_they_were_made_and_moved(made_inside, moved_inside):
    module = made(made_inside, moved_inside)
    before = {name: (id(p), p.requires_grad) for name, p in module.named_parameters()}
    with trained(module):
        assert not any(p.requires_grad for p in module.parameters())
    assert {name: (id(p), p.requires_grad) for name, p in module.named_parameters()} == before
    with torch.inference_mode():
        module(torch.ones(1, 2, dtype=torch.float64))
        module.weight.mul_(2)
    with trained(module):
        pass


@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
def test_a_model_that_is_moved_within_a_step_stays_where_it_was_put(inside):
    module = made(True, True)
    weight = module.weight
    with trained(module), torch.inference_mode(inside):
        module.to(torch.float32)
    assert module.weight is weight
    assert weight.dtype == torch.float32
    assert weight.is_inference()
    with torch.inference_mode():
        module(torch.ones(1, 2))


def test_a_weight_that_the_host_has_replaced_within_a_step_stays():
    module, patched = made(True, True), nn.Parameter(torch.zeros(2, 2, dtype=torch.float64))
    with trained(module):
        module.weight = patched
    assert module.weight is patched


def test_weights_are_put_back_where_one_cannot_be_swapped(monkeypatch):
    """Of several that are swapped the second fails."""
    module = made(True, True)
    before = dict(module.named_parameters())
    monkeypatch.setitem(module._buffers, "broken", Broken())
    with pytest.raises(ZeroDivisionError), frozen(module):
        pass
    assert dict(module.named_parameters()) == before


class Broken:
    """Stands in a module's buffers, and cannot be read."""

    @property
    def data(self):
        raise ZeroDivisionError


@pytest.mark.parametrize(("dtype", "size"), [(torch.float16, 1), (torch.float32, 2)])
def test_the_estimate_counts_the_type_that_the_denoiser_computes_in(dtype, size):
    host = Layer(made_in_inference_mode=False)
    host.widths = {"clip_l": 768}
    host.table.to(dtype)
    assert host.bytes_per_latent == (size * 62_000, size * 150_000)


def test_full_precision_is_fp32_of_all_weights():
    host = Layer(False)
    for dtype, full in ((torch.float32, True), (torch.float16, False), (torch.bfloat16, False)):
        host.network.to(dtype)
        assert host.full_precision is full


def test_pixels_reach_the_autoencoder_in_fp32():
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16, 1).expand(-1, -1, -1, 3)
    signed = Layer(False)._signed(levels)
    assert signed.dtype == torch.float32
    assert torch.equal(signed[0, 0].flatten(), torch.arange(256.0) / 127.5 - 1)


def test_rows_and_neighbours_of_a_vocabulary_have_all_their_digits():
    table = torch.eye(3) + torch.arange(9.0).reshape(3, 3) * 1e-5
    words = Vocabulary(table, lambda text: [len(text)], str)
    assert torch.equal(words.rows("a"), table[1:2])
    assert words.nearest(table[2], 1)[0] == ("2", pytest.approx(1, abs=1e-6))


def test_a_fingerprint_of_an_earlier_version_is_that_of_the_same_tensors():
    """It stands in resume files."""
    assert digest_of([("weight", torch.arange(48.0).reshape(4, 12) / 7)]) == "2631b63ef15ed520"


def test_where_less_is_free_than_a_step_needs_feed_forwards_are_computed_again(monkeypatch):
    """Until there is twice as much: graphs that come and go from step to step would cost more."""
    host = Layer(False)

    def step(free: int | None, needed: int, checkpointing: bool = False) -> Recomputed:
        monkeypatch.setattr(adapter, "free_memory", lambda _: free)
        with host.training(checkpointing, needed):
            return host.recomputed[-1]

    assert step(None, 100) is step(100, 100) is step(0, 0) is Recomputed.NOTHING
    assert step(99, 100) is step(199, 100) is step(None, 200) is Recomputed.FEED_FORWARDS
    assert step(199, 50) is Recomputed.NOTHING, "smaller parts, which fitted"
    assert step(199, 50, checkpointing=True) is Recomputed.BLOCKS
    assert step(199, 100) is Recomputed.FEED_FORWARDS
    assert step(200, 100) is step(199, 100) is Recomputed.NOTHING
    monkeypatch.setattr(Layer, "memory_measured", False)
    assert step(99, 100) is Recomputed.NOTHING
