"""Layers that make their weight at each call: their gradient, and what is kept of the weight."""

from __future__ import annotations

import gc
import weakref
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from ti_train.hosts.recast import recast
from ti_train.hosts.saved_tensors import copied_before_changes


class Linear(nn.Linear):
    """Casts as ComfyUI's layers do, into a buffer that the next call overwrites."""

    comfy_cast_weights = True
    buffer = torch.empty(64)
    made: list[weakref.ref[Tensor]] = []  # noqa: RUF012

    def forward(self, x: Tensor) -> Tensor:
        weight = self.buffer[: self.weight.numel()].view(self.weight.shape)
        weight.data.copy_(self.weight)  # as a copy on another stream: autograd does not see it
        return nn.functional.linear(x, weight, self.bias.to(x.dtype))


class Borrowing:
    class Linear(Linear):
        """Gives the memory of its weight back when its call ends, as ComfyUI's layers do (`uncast_bias_weight`)."""

        def forward(self, x: Tensor) -> Tensor:
            answer = super().forward(x)
            self.buffer.data.fill_(torch.nan)
            return answer


class Fast:
    class Linear(nn.Linear):
        """Multiplies in eight bits, as those of ComfyUI 0.3's fast mode: it never calls `linear`."""

        comfy_cast_weights = True

        def forward(self, x: Tensor) -> Tensor:
            one = torch.ones(())
            return torch._scaled_mm(
                x.to(self.weight.dtype), self.weight.t(), out_dtype=torch.bfloat16, scale_a=one, scale_b=3 * one
            )


class Own(Tensor):
    """The class of a GGUF file's weights in ComfyUI-GGUF, which nobody makes without their kind."""

    def __init__(self, _: Tensor, *, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __new__(cls, stored: Tensor, *, kind: str) -> Tensor:
        return stored.as_subclass(cls)


class Packed:
    class Linear(nn.Linear):
        """Keeps bytes, and makes a plain tensor of them at each call."""

        comfy_cast_weights = True

        def forward(self, x: Tensor) -> Tensor:
            made = self.weight.to(x.dtype)
            return nn.functional.linear(x, Tensor(made) if isinstance(made, Own) else made, self.bias.to(x.dtype))


class Norm(nn.LayerNorm):
    comfy_cast_weights = True

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype)
        Linear.made.append(weakref.ref(weight))
        return nn.functional.layer_norm(x, self.normalized_shape, weight, self.bias.to(x.dtype))


def network(linear: type[Linear] = Linear) -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Sequential(linear(8, 8), Norm(8), nn.SiLU(), linear(8, 8)).half()
    return layers.requires_grad_(False)


def gradient(layers: nn.Module, context=nullcontext) -> Tensor:
    given = torch.linspace(-1, 1, 16).reshape(2, 8).requires_grad_()
    with context(layers):
        answer = layers(given)
        answer += 1  # as some blocks do
        answer.pow(2).sum().backward()
    return given.grad


def exact() -> Tensor:
    plain = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.SiLU(), nn.Linear(8, 8))
    plain.load_state_dict({name: tensor.float() for name, tensor in network().state_dict().items()})
    return gradient(plain)


def test_weights_that_others_overwrite_have_the_right_gradient():
    assert torch.allclose(gradient(network(), recast), exact(), rtol=1e-5)


def test_a_weight_is_not_read_after_its_layer_has_given_it_back():
    assert torch.allclose(gradient(network(Borrowing.Linear), recast), exact(), rtol=1e-5)


def test_without_it_the_gradient_is_wrong_and_nobody_says_so():
    assert not torch.allclose(gradient(network()), exact(), rtol=0.1)


def test_nothing_that_was_made_of_a_weight_is_kept_until_backward():
    layers, given = network(), torch.ones(1, 8, requires_grad=True)
    Linear.made.clear()
    with recast(layers):
        answer = layers(given)
        gc.collect()
        assert Linear.made
        assert all(weight() is None for weight in Linear.made)
        answer.sum().backward()


def test_the_layers_are_what_they_were():
    layers = network()
    layers[3].forward = lambda x: x  # of a LoRA that computes beside the layer
    own = layers[3].forward
    with pytest.raises(KeyError), recast(layers):
        raise KeyError
    assert "forward" not in vars(layers[0])
    assert layers[3].forward is own


def test_a_layer_whose_forward_the_host_has_replaced_keeps_that_gradient():
    layers = network()
    plain = layers[3].forward
    layers[3].forward = lambda x: plain(x) + 3 * x
    given = torch.ones(1, 8, requires_grad=True)
    with recast(layers[3]):
        layers[3](given).sum().backward()
    assert torch.allclose(given.grad, layers[3].weight.float().sum(0) + 3, rtol=1e-5)


@pytest.mark.skipif(torch.__version__.startswith("2.1."), reason="PyTorch 2.1 loses such a class in this context")
def test_a_weight_of_the_hosts_own_class_becomes_a_plain_one_as_it_does_without_gradients():
    layer = Packed.Linear(8, 8).requires_grad_(False)
    stored = torch.arange(64).reshape(8, 8) % 7
    layer.weight = nn.Parameter(Own(stored.to(torch.int8), kind="Q8_0"), requires_grad=False)
    given = torch.ones(1, 8, requires_grad=True)
    with recast(layer), copied_before_changes():
        layer(given).sum().backward()
        assert layer(torch.ones(1, 8)).shape == (1, 8)
    assert torch.equal(given.grad, stored.float().sum(0, keepdim=True))


def test_a_layer_that_multiplies_in_eight_bits_has_the_gradient_of_its_weight():
    torch.manual_seed(0)
    layer = Fast.Linear(16, 16, bias=False).to(torch.float8_e4m3fn).requires_grad_(False)
    given = torch.ones(2, 16, dtype=torch.bfloat16, requires_grad=True)
    try:
        layer(given.detach())
    except NotImplementedError:
        pytest.skip("this PyTorch multiplies in eight bits on CUDA only")
    with recast(layer):
        layer(given).sum().backward()
    assert torch.allclose(given.grad.float(), 3 * layer.weight.float().sum(0), rtol=0.02, atol=0.02)
