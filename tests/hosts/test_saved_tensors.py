"""Tensors that are changed in place after autograd has kept them: the gradient is that of what was kept."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from ti_train.hosts.saved_tensors import copied_before_changes


def doubled(x: Tensor) -> None:
    x.mul_(2)


def through_a_view(x: Tensor) -> None:
    x.view(-1)[:1].zero_()


def by_out(x: Tensor) -> None:
    torch.add(x.detach(), 1, out=x.detach())


def in_a_list(x: Tensor) -> None:
    torch._foreach_add_([x], 1.0)


@pytest.mark.parametrize("change", [doubled, through_a_view, by_out, in_a_list])
def test_the_gradient_is_that_of_the_tensor_as_it_was_kept(change):
    leaf = torch.arange(1.0, 5.0).view(2, 2).requires_grad_()
    with copied_before_changes():
        x = leaf * 1
        squares = x.pow(2)
        change(x)
        squares.sum().backward()
    assert torch.equal(leaf.grad, 2 * leaf.detach())


def test_a_tensor_in_the_place_of_one_that_is_gone_has_its_own_gradient():
    """Its id and address are those of a tensor that was kept and changed; with PyTorch's own context it fails."""
    leaves = [torch.full((4096,), float(number), requires_grad=True) for number in range(300)]
    squares: list[Tensor] = []
    with copied_before_changes():
        for leaf in leaves:
            x = leaf * 1
            squares.append(x.pow(2).sum())
            x.zero_()
            del x
        torch.stack(squares).sum().backward()
    assert [float(leaf.grad[0]) for leaf in leaves] == [2.0 * number for number in range(300)]


def test_a_pass_without_a_backward_pass_leaves_nothing_in_memory():
    """A card that is full in the forward pass. Autograd keeps the result of attention itself."""
    with copied_before_changes():
        x = torch.randn(1, 2, 8, 8, requires_grad=True) * 2
        output = torch.nn.functional.scaled_dot_product_attention(x, x, x)
        memory = weakref.ref(output)
        del x, output
    assert memory() is None


def test_what_is_not_changed_is_not_copied_and_nothing_stays_after_backward():
    leaf = torch.ones(3, requires_grad=True)
    with copied_before_changes():
        x = leaf * 1
        if x.untyped_storage() is not x.untyped_storage():
            pytest.skip("this PyTorch makes a new object for a tensor's memory each time")
        memory = weakref.ref(x.untyped_storage())
        squares = x.pow(2)
        (saved,) = (squares.grad_fn._saved_self,)
        assert saved.data_ptr() == x.data_ptr()
        squares.sum().backward()
        del x, squares, saved
        gc.collect()
    assert memory() is None
