"""Which MODEL and CLIP belong together, by what ComfyUI's objects tell of themselves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ti_train.errors import UserError
from ti_train.formats import reads_syntax
from ti_train.hosts.comfy.fitting import check_latents, remarks_on


def clip_of(layer: str | list[int] = "last", kind: type = SimpleNamespace, /, **encoders: int) -> Any:
    """A CLIP of a class with these encoders, each of a width, whose conditioning has these of their layers."""

    def tokenizer(name: str) -> Any:
        folders = [] if reads_syntax([name]) else None
        return SimpleNamespace(embedding_key=name, embedding_directory=folders, _try_get_embedding=None)

    def module(width: int) -> Any:
        table = SimpleNamespace(weight=torch.empty(1, width))
        return SimpleNamespace(layer=layer, transformer=SimpleNamespace(get_input_embeddings=lambda: table))

    return SimpleNamespace(
        tokenizer=SimpleNamespace(**{name: tokenizer(name) for name in encoders}),
        cond_stage_model=kind(**{name: module(width) for name, width in encoders.items()}),
    )


def model_of(family: str, **unet_config: Any) -> Any:
    config = type(family, (), {"unet_config": unet_config})()
    return SimpleNamespace(model=SimpleNamespace(model_config=config, diffusion_model=SimpleNamespace()))


class SD3ClipModel(SimpleNamespace): ...


class HiDreamTEModel(SimpleNamespace): ...


class SD3ClipModel_(SD3ClipModel): ...  # noqa: N801 - ComfyUI's own name, of the class with the chosen encoders


CLIP_L, CLIP_G, T5 = {"clip_l": 768}, {"clip_g": 1280}, {"t5xxl": 4096}
Z_IMAGE = {"cap_feat_dim": 2560}
OVIS = {"context_in_dim": 2048, "yak_mlp": True}
KLEIN_4B, KLEIN_9B = {"context_in_dim": 3 * 2560}, {"context_in_dim": 3 * 4096}
TAPS = [9, 18, 27]


@pytest.mark.parametrize(
    ("model", "clip"),
    [
        (model_of("SDXL"), clip_of(**CLIP_L, **CLIP_G)),
        (model_of("SDXLRefiner"), clip_of(**CLIP_G)),
        (model_of("SD3"), clip_of("last", SD3ClipModel_, **CLIP_G)),
        (model_of("Chroma"), clip_of("last", SD3ClipModel_, **T5)),
        (model_of("Flux", context_in_dim=4096), clip_of(**CLIP_L, **T5)),
        (model_of("Flux", context_in_dim=4096), clip_of(**T5)),
        (model_of("HiDream"), clip_of("last", HiDreamTEModel, llama=4096)),
        (model_of("ZImage", **Z_IMAGE), clip_of("hidden", qwen3_4b=2560)),
        (model_of("Flux2", **KLEIN_4B), clip_of(TAPS, qwen3_4b=2560)),
        (model_of("Flux2", **KLEIN_9B), clip_of(TAPS, qwen3_8b=4096)),
    ],
)
def test_a_model_and_its_own_encoders_are_taken_without_a_remark(model, clip):
    assert remarks_on(model, clip, 0.0) == ()


@pytest.mark.parametrize(
    ("model", "clip", "message"),
    [
        (model_of("SDXL"), clip_of(**CLIP_L), r"encoder\(s\) clip_l, and .* needs clip_l \+ clip_g"),
        (model_of("SDXL"), clip_of(**CLIP_G), r"encoder\(s\) clip_g, and .* needs clip_l \+ clip_g"),
        (model_of("SD15"), clip_of(**CLIP_L, **CLIP_G), r"needs clip_l"),
        (model_of("Flux", context_in_dim=4096), clip_of(**CLIP_L), r"needs clip_l \+ t5xxl"),
        (model_of("SD3"), clip_of(**CLIP_L, **CLIP_G), r"clip_l \+ clip_g, and .* needs SD3ClipModel with any of"),
        (model_of("SD3"), clip_of("last", HiDreamTEModel, **T5), r"is HiDreamTEModel with .* needs SD3ClipModel"),
        (model_of("HiDream"), clip_of(**CLIP_L, **T5), r"needs HiDreamTEModel with any of clip_l"),
        (model_of("SDXL"), clip_of("last", SD3ClipModel_, **CLIP_L, **CLIP_G), r"is SD3ClipModel with .* needs clip_l"),
        (model_of("Flux"), clip_of("last", SD3ClipModel_, **CLIP_L, **T5), r"is SD3ClipModel with .* needs clip_l"),
        (model_of("HunyuanDiT"), clip_of(mt5xl=2048), r"needs chinese_roberta \+ mt5xl"),
        (model_of("ZImage", **Z_IMAGE), clip_of(TAPS, qwen3_4b=2560), r"qwen3_4b.* 7680 .*\(Z-Image.* reads 2560"),
        (model_of("Flux2", **KLEIN_4B), clip_of("hidden", qwen3_4b=2560), r"qwen3_4b.* 2560 .* reads 7680"),
        (model_of("FluxSchnell", **OVIS), clip_of(**CLIP_L, **T5), r"\(Ovis-Image\) needs qwen3_2b"),
        (model_of("FluxSchnell"), clip_of(qwen3_2b=2048), r"\(Flux.1 schnell\) needs clip_l \+ t5xxl"),
        (model_of("Flux2", **KLEIN_4B), clip_of(TAPS, qwen3_8b=4096), r"qwen3_8b.* 12288 .* reads 7680"),
        (model_of("Flux2", **KLEIN_9B), clip_of(TAPS, qwen3_4b=2560), r"qwen3_4b.* 7680 .* reads 12288"),
    ],
)
def test_encoders_of_another_model_are_refused_with_what_both_have(model, clip, message):
    with pytest.raises(UserError, match=message):
        remarks_on(model, clip, 0.0)


def test_a_family_that_comfyui_has_as_another_is_told_by_its_layers():
    (remark,) = remarks_on(model_of("FluxSchnell", **OVIS), clip_of(qwen3_2b=2048), 0.0)
    assert "no embedding:name" in remark


def test_an_encoder_of_a_relative_is_tried_and_named():
    (remark,) = remarks_on(model_of("Flux2", context_in_dim=3 * 5120), clip_of(TAPS, mistral3_24b=5120), 0.0)
    assert "not been tried with this model family (Flux2, mistral3_24b)" in remark


@pytest.mark.parametrize("family", ["HiDreamO1", "CosmosT2IPredict2"])
def test_a_family_that_cannot_be_trained_says_why_whatever_its_clip_is(family):
    with pytest.raises(UserError, match="No embedding can be trained for"):
        remarks_on(model_of(family), clip_of(), 0.0)


@pytest.mark.parametrize(
    ("model", "shape", "message"),
    [
        ((4, 2), (1, 16, 8, 8), "image latents with 16 channels, and .* reads image latents with 4 channels"),
        ((16, 2), (1, 16, 1, 8, 8), "video latents with 16 channels, and .* reads image latents with 16 channels"),
        ((16, 3), (1, 16, 8, 8), "image latents with 16 channels, and .* reads video latents with 16 channels"),
    ],
)
def test_latents_that_the_model_does_not_read_are_refused(model, shape, message):
    channels, dimensions = model
    wanted = model_of("Unheard").model
    wanted.latent_format = SimpleNamespace(latent_channels=channels, latent_dimensions=dimensions)
    check_latents(wanted, torch.empty(1, channels, *[8] * dimensions))
    with pytest.raises(UserError, match=message):
        check_latents(wanted, torch.empty(shape))
