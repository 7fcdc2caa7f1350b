"""What a step does beyond the bare pass, in calls of PyTorch's kernels and in tensors kept: a clock would waver."""

from __future__ import annotations

from collections import Counter
from contextlib import closing

import pytest
import torch
from tiny_host import dataset_of
from torch.utils._python_dispatch import TorchDispatchMode

pytest.importorskip("diffusers")

from ti_train.events import Step
from ti_train.host import Slot
from ti_train.hosts.diffusers.host import DiffusersHost
from ti_train.prompts import PLACEHOLDER
from ti_train.training.config import TrainConfig
from ti_train.training.loop import train

MOST_FURTHER_CALLS = 200  # draws, noise, the loss, AdamW, what is logged: it does not grow with the network
CONVOLUTION = torch.ops.aten.convolution_backward.default


class Calls(TorchDispatchMode):
    """Counts kernels, and notes which gradients convolutions compute: of input, weight and bias."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.masks: set[tuple[bool, ...]] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        if func is CONVOLUTION:
            self.masks.add(tuple(args[-1]))
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def host(pipeline_folder):
    return DiffusersHost.load(pipeline_folder, "cpu", "float32")


@pytest.fixture
def steps(host, pictures, tmp_path):
    """The steps of a run, after the untrained one and the first."""
    config = TrainConfig("word", "a", batch_size=1, steps=10**4, evaluate_every=10**4, checkpoint_every=10**4)
    with closing(train(host, dataset_of(host, pictures), config, tmp_path)) as events:
        found = (event for event in events if isinstance(event, Step))
        next(found)
        next(found)
        yield found


def bare_pass(host, picture):
    """The forward and backward pass that no trainer can leave out."""
    vectors = {name: torch.zeros(1, width).requires_grad_() for name, width in host.widths.items()}
    with host.training():
        cond = host.encode([("a photo of a ", Slot(PLACEHOLDER))], {PLACEHOLDER: vectors})
        host.predict(picture.mean[None], host.sigmas[500:501], cond).sum().backward()


def test_a_step_calls_little_beyond_the_bare_pass(host, pictures, steps):
    (picture, *_) = dataset_of(host, pictures).pictures
    with Calls() as bare:
        bare_pass(host, picture)
    with Calls() as step:
        next(steps)
    assert step.counts.total() - bare.counts.total() <= MOST_FURTHER_CALLS


def test_no_gradient_of_a_weight_is_computed(host, steps):
    with Calls() as step:
        next(steps)
    assert step.masks == {(True, False, False)}


def test_nothing_before_the_first_cross_attention_is_kept(host, steps):
    kept, at_the_first = [], []
    first = next(part for name, part in host.unet.named_modules() if name.endswith("attn2"))
    hook = first.register_forward_pre_hook(lambda *_: at_the_first.append(len(kept)))
    entered = host.unet.register_forward_pre_hook(lambda *_: kept.clear())
    try:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
            next(steps)
    finally:
        hook.remove()
        entered.remove()
    assert at_the_first == [0]
    assert kept


def test_no_step_looks_at_every_weight(host, steps, monkeypatch):
    """A scan of all modules takes longer than a fast GPU's whole step."""
    seen = []
    monkeypatch.setattr(type(host.unet), "modules", lambda *_: seen.append(1) or iter(()))
    next(steps)
    assert not seen
