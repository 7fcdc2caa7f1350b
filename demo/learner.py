"""The demo model's text encoder and denoiser, their sizes and their common loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from .tokenizer import CONTEXT

BF16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported() and torch.cpu._is_avx512_bf16_supported())
BATCH, DROP_CAPTION = 32, 0.1
PEAK_RATE, TEXT_RATE, TABLE_RATE = 1e-3, 4e-4, 1e-4  # denoiser, text layers, embedding table
WORD_NOISE = 0.15  # of a word vector's length: neighbouring vectors must mean nearly the same
# Latents of unit spread would show large colours through the noise of even the last step, and a
# denoiser that can see them does not learn to read them in the caption.
LATENT_SCALE = 0.5
HIDDEN, LAYERS, HEADS = 192, 3, 4
EMBEDDING_STD = 0.028  # gives word vectors the length they have in CLIP, about 0.4
BRANCH = 0.02  # scale of what a text layer adds at first: a word's own vector stays dominant


def scheduler() -> DDIMScheduler:
    """The noise schedule of Stable Diffusion; clipping is off as latents exceed one."""
    return DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", num_train_timesteps=1000,
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
    )  # fmt: skip


def new_text_encoder(words: CLIPTokenizer) -> CLIPTextModel:
    """A small CLIP text encoder that at first adds little to the words' own vectors."""
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=HIDDEN, intermediate_size=288, projection_dim=HIDDEN,
        num_hidden_layers=LAYERS, num_attention_heads=HEADS, max_position_embeddings=CONTEXT,
        bos_token_id=words.bos_token_id, eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )  # fmt: skip
    model = CLIPTextModel(config)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "token_embedding" in name:
                weight.normal_(0, EMBEDDING_STD)
            elif "position_embedding" in name:
                weight.normal_(0, EMBEDDING_STD / 3)
            elif weight.dim() == 2:
                branch = name.endswith(("out_proj.weight", "fc2.weight"))
                weight.normal_(0, weight.shape[1] ** -0.5 * (BRANCH if branch else 1.0))
    return model


def new_denoiser() -> UNet2DConditionModel:
    """A two-level U-Net that reads the caption at its 8x8 level, both on the way down and up."""
    return UNet2DConditionModel(
        sample_size=16, block_out_channels=(64, 128), layers_per_block=1, norm_num_groups=16,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), mid_block_type=None,
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=HIDDEN, attention_head_dim=4,
    )  # fmt: skip


class Learner(nn.Module):
    """The text encoder and the denoiser, trained together."""

    def __init__(self, words: CLIPTokenizer) -> None:
        super().__init__()
        self.text = new_text_encoder(words)
        self.unet = new_denoiser().to(memory_format=torch.channels_last)

    def forward(self, noisy: Tensor, t: Tensor, ids: Tensor) -> Tensor:
        """Guesses the noise in latents, given their captions' token ids."""
        context = self.text(ids).last_hidden_state
        return self.unet(noisy.to(memory_format=torch.channels_last), t, context).sample

    def rates(self) -> list[dict[str, object]]:
        """Parameter groups; the word table moves slowly, without decay, to keep CLIP's scale."""
        table = self.text.get_input_embeddings().weight
        layers = [p for p in self.text.parameters() if p is not table]
        return [
            {"params": list(self.unet.parameters()), "peak": PEAK_RATE, "weight_decay": 1e-2},
            {"params": layers, "peak": TEXT_RATE, "weight_decay": 1e-2},
            {"params": [table], "peak": TABLE_RATE, "weight_decay": 0.0},
        ]


def blur_words(module: nn.Module, _: object, vectors: Tensor) -> Tensor:
    """A forward hook that adds noise to word vectors while training."""
    if not module.training:
        return vectors
    scale = vectors.detach().norm(dim=-1, keepdim=True) * (WORD_NOISE / HIDDEN**0.5)
    return vectors + scale * torch.randn_like(vectors)


def batch_loss(learner: Learner, latents: Tensor, ids: Tensor, empty: Tensor, alphas: Tensor) -> Tensor:
    """The noise-prediction error of a random batch, noisy steps counting more."""
    picks = torch.randint(0, len(latents), (BATCH,))
    x, tokens = LATENT_SCALE * latents[picks].float(), ids[picks].clone()
    tokens[torch.rand(BATCH) < DROP_CAPTION] = empty
    t, noise = torch.randint(0, len(alphas), (BATCH,)), torch.randn_like(x)
    a = alphas[t]
    noisy = a.sqrt()[:, None, None, None] * x + (1 - a).sqrt()[:, None, None, None] * noise
    # On a CPU the backward pass of the fused attention costs more than the plain one's.
    with torch.autocast("cpu", torch.bfloat16, enabled=BF16), sdpa_kernel(SDPBackend.MATH):
        guess = learner(noisy, t, tokens)
    error = F.mse_loss(guess.float(), noise, reduction="none").mean((1, 2, 3))
    ratio = LATENT_SCALE**2 * a / (1 - a)
    # What only the caption can tell, such as a large even colour, matters at the noisiest steps.
    weight = (5 / ratio).clamp(max=1) * ratio.clamp(max=1) ** -0.6
    return (error * weight).mean()
