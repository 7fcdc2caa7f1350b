"""Transformers of a U-Net: tokens stay in the layout of the channels-last image, and sums are computed by the norms."""

from __future__ import annotations

import functools
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from .tokens import AddedNorm, Projections


def fuse_projections(transformer: Any) -> None:
    """Replaces what it does before its blocks, and behind them, where diffusers copies to PyTorch's usual layout."""
    transformer._operate_on_continuous_inputs = functools.partial(to_tokens, transformer)
    transformer._get_output_for_continuous_inputs = functools.partial(to_image, transformer)


def to_tokens(transformer: Any, hidden_states: Tensor) -> tuple[Tensor, int]:
    """hidden_states: [B, C, H, W]. Returns [B, H W, D], and D."""
    normal = transformer.norm(hidden_states).permute(0, 2, 3, 1).flatten(1, 2)
    tokens = projected(transformer.proj_in, normal)
    return tokens, tokens.shape[-1]


def to_image(transformer: Any, hidden_states: Tensor, residual: Tensor, height: int, width: int, **_: int) -> Tensor:
    """hidden_states: [B, H W, D]. residual: [B, C, H, W], as is what it returns."""
    image: Tensor = projected(transformer.proj_out, hidden_states).unflatten(1, (height, width))
    return image.permute(0, 3, 1, 2) + residual


def projected(layer: nn.Conv2d | nn.Linear, tokens: Tensor) -> Tensor:
    """By a convolution of 1 x 1 as well."""
    return F.linear(tokens, layer.weight.flatten(1), layer.bias)


def is_usual(block: Any) -> bool:
    """Whether it computes what Stable Diffusion's do."""
    plain = block.norm_type == "layer_norm" and block.pos_embed is None and not hasattr(block, "fuser")
    return plain and not block.only_cross_attention and is_attention(block.attn1) and is_attention(block.attn2)


def is_attention(layer: Any) -> bool:
    """Whether PyTorch's attention computes it, of projections without biases."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    if layer is None or type(layer.processor) is not AttnProcessor2_0:
        return False
    return all(projection.bias is None for projection in (layer.to_q, layer.to_k, layer.to_v))


def transformed(
    block: Any,
    x: Tensor,
    attention_mask: Tensor | None = None,
    encoder_hidden_states: Tensor | None = None,
    *others: Any,
    **named: Any,
) -> Tensor:
    """x: [B, T, C]. encoder_hidden_states: the text, [B, L, D]. With masks or anything else, as diffusers does."""
    if any(given is not None for given in (attention_mask, *others, *named.values())):
        own: Tensor = type(block).forward(block, x, attention_mask, encoder_hidden_states, *others, **named)
        return own
    x, normal = added_norm(block.norm1, x, None)
    x, normal = added_norm(block.norm2, x, attended(block.attn1, normal, normal))
    x, normal = added_norm(block.norm3, x, attended(block.attn2, normal, encoder_hidden_states))
    fed: Tensor = block.ff(normal)
    return x + fed


def added_norm(layer: nn.LayerNorm, x: Tensor, added: Tensor | None) -> tuple[Tensor, Tensor]:
    """The sum, and its norm."""
    found: tuple[Tensor, Tensor] = AddedNorm.apply(x, added, layer.weight, layer.bias, layer.eps)
    return found


def attended(layer: Any, x: Tensor, context: Tensor | None) -> Tensor:
    """x: [B, T, C]. context: what its keys and values are made of, [B, L, D]."""
    if x is context:
        query, key, value = Projections.apply(x, layer.to_q.weight, layer.to_k.weight, layer.to_v.weight)
    else:
        query = layer.to_q(x)
        key, value = Projections.apply(context, layer.to_k.weight, layer.to_v.weight)
    heads = (states.unflatten(-1, (layer.heads, -1)).transpose(1, 2) for states in (query, key, value))
    found: Tensor = layer.to_out[0](F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2))
    return found
