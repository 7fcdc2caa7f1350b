"""A tiny model of each family that ComfyUI loads, drawn from a seed with ComfyUI's own classes; nothing is stored.

The tokenizers are ComfyUI's. Where its files have none (Gemma, mT5, Llama 3), a tiny one stands in. Vision towers of
language models are left out: prompts have no images.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from importlib.util import find_spec
from typing import Any

import torch

WIDTH = 64
CLIP = {"hidden_size": WIDTH, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 3}
CLIP_L = {"clip_l_model_config": CLIP}
CLIPS = CLIP_L | {"clip_g_model_config": CLIP}
T5 = {"d_model": WIDTH, "d_ff": 128, "d_kv": 32, "num_heads": 2, "num_layers": 2}
LLM = {
    "hidden_size": WIDTH, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1,
}  # fmt: skip
UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1],
    "channel_mult": [1, 2], "transformer_depth": [0, 1], "transformer_depth_output": [0, 0, 1, 1],
    "transformer_depth_middle": 1, "use_spatial_transformer": True, "use_linear_in_transformer": True, "legacy": False,
    "num_classes": "sequential", "num_heads": -1, "num_head_channels": 32,
}  # fmt: skip
SDXL = UNET | {"context_dim": 2 * WIDTH, "adm_in_channels": WIDTH + 6 * 256}
FLUX = {
    "in_channels": 16, "out_channels": 16, "vec_in_dim": WIDTH, "context_in_dim": WIDTH, "hidden_size": 64,
    "mlp_ratio": 2.0, "num_heads": 2, "depth": 2, "depth_single_blocks": 2, "axes_dim": [8, 12, 12], "theta": 10000,
    "patch_size": 2, "qkv_bias": True, "txt_ids_dims": [],
}  # fmt: skip
OVIS = FLUX | {"vec_in_dim": None, "guidance_embed": False, "yak_mlp": True, "txt_norm": True, "txt_ids_dims": [1, 2]}
CHROMA = {name: value for name, value in FLUX.items()} | {
    "in_channels": 64, "out_channels": 64, "in_dim": 64, "out_dim": 64, "hidden_dim": 64, "n_layers": 1,
}  # fmt: skip
FLUX2 = FLUX | {
    "in_channels": 128, "out_channels": 128, "vec_in_dim": None, "context_in_dim": 3 * WIDTH, "patch_size": 1,
    "axes_dim": [8, 8, 8, 8], "theta": 2000, "global_modulation": True, "mlp_silu_act": True, "qkv_bias": False,
    "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0, "txt_ids_dims": [3],
    "guidance_embed": False,
}  # fmt: skip
LUMINA = {
    "patch_size": 2, "in_channels": 16, "dim": 96, "cap_feat_dim": WIDTH, "n_layers": 2, "n_refiner_layers": 1,
    "qk_norm": True, "n_heads": 2, "axes_dims": [16, 16, 16], "axes_lens": [300, 64, 64],
    "ffn_dim_multiplier": 1.0, "multiple_of": 32,
}  # fmt: skip
PREDICT2 = {
    "max_img_h": 64, "max_img_w": 64, "max_frames": 8, "in_channels": 16, "out_channels": 16, "patch_spatial": 2,
    "patch_temporal": 1, "concat_padding_mask": True, "model_channels": 96, "num_blocks": 2, "num_heads": 2,
    "crossattn_emb_channels": 1024, "pos_emb_cls": "rope3d", "pos_emb_learnable": True, "use_adaln_lora": True,
    "adaln_lora_dim": 16, "extra_per_block_abs_pos_emb": False, "rope_enable_fps_modulation": False,
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """What a family consists of in ComfyUI, with the sizes of the tiny model."""

    model: str  # the class in comfy.supported_models
    unet: dict[str, Any]
    text: Callable[[], tuple[Any, Any]]  # the classes of the tokenizer and of the encoders
    encoders: dict[str, Any]  # model_options of the encoders
    vae: int | str = 16  # latent channels of TAESD, or "wan", "cascade"
    weights: dict[str, Any] = field(default_factory=dict)  # keys of the file by which the host tells the family
    tokenizer_data: Callable[[], dict[str, Any]] = dict
    side: int = 64  # pixels of the images to train


def sdxl(model: str = "SDXL", unet: dict[str, Any] | None = None, **more: Any) -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.sdxl_clip as c

        return c.SDXLTokenizer, c.SDXLRefinerClipModel if model == "SDXLRefiner" else c.SDXLClipModel

    return Family(model, unet or SDXL, text, CLIPS, 4, **more)


def shallow(depth: int, middle: int) -> dict[str, Any]:
    """XL with fewer transformer blocks. middle: of the middle part; -1: it has none, -2: there is no such part."""
    output = [0, 0, depth, depth]
    return SDXL | {
        "transformer_depth": [0, depth],
        "transformer_depth_output": output,
        "transformer_depth_middle": middle,
    }


def sd1(unet: dict[str, Any]) -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.sd1_clip as c

        return c.SD1Tokenizer, c.SD1ClipModel

    plain = {name: value for name, value in UNET.items() if name != "num_classes"}
    return Family("SD15", plain | {"context_dim": WIDTH, "adm_in_channels": None} | unet, text, CLIP_L, 4)


def sd3(t5: bool) -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.sd3_clip as c

        return c.SD3Tokenizer, c.sd3_clip(clip_l=True, clip_g=True, t5=t5)

    unet = {
        "in_channels": 16, "patch_size": 2, "depth": 2, "input_size": None, "adm_in_channels": 2048,
        "context_embedder_config": {
            "target": "torch.nn.Linear", "params": {"in_features": 4096, "out_features": 128},
        },
        "pos_embed_max_size": 64, "pos_embed_scaling_factor": None, "qk_norm": "rms", "num_patches": 64 * 64,
    }  # fmt: skip
    true = {"num_hidden_layers": 3, "intermediate_size": 128}  # the widths are those that ComfyUI's class assumes
    encoders = {"clip_l_model_config": true, "clip_g_model_config": true, "t5xxl_model_config": T5 | {"d_model": 4096}}
    return Family("SD3", unet, text, encoders)


def flux(model: str, guidance: bool, unet: dict[str, Any] = FLUX) -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.flux as c

        return c.FluxTokenizer, c.flux_clip()

    return Family(model, unet | {"guidance_embed": guidance}, text, CLIP_L | {"t5xxl_model_config": T5})


def with_t5(model: str, unet: dict[str, Any], vae: int, side: int = 64) -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.pixart_t5 as c

        return c.PixArtTokenizer, c.pixart_te()

    return Family(model, unet, text, {"t5xxl_model_config": T5}, vae, side=side)


def auraflow() -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.aura_t5 as c

        return c.AuraT5Tokenizer, c.AuraT5Model

    unet = {"dim": 64, "n_layers": 3, "n_double_layers": 1, "n_heads": 2, "global_conddim": 64, "cond_seq_dim": WIDTH}
    return Family("AuraFlow", unet | {"max_seq": 64}, text, {"pile_t5xl_model_config": T5}, 4)


def cascade() -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.sdxl_clip as c

        return c.StableCascadeTokenizer, c.StableCascadeClipModel

    unet = {
        "stable_cascade_stage": "c", "c_cond": 64, "c_hidden": [64, 64], "nhead": [2, 2],
        "blocks": [[1, 1], [1, 1]], "c_clip_text": WIDTH, "c_clip_text_pooled": WIDTH,
    }  # fmt: skip
    return Family("Stable_Cascade_C", unet, text, CLIPS, "cascade", side=192)


def llm(
    model: str, unet: dict[str, Any], module: str, names: tuple[str, str], encoder: str, vae: int | str = 16,
    tokenizer_data: Callable[[], dict[str, Any]] = dict, **sizes: Any,
) -> Family:  # fmt: skip
    """A family with one language model. names: of the tokenizer's class, and of the function that makes the model's."""

    def text() -> tuple[Any, Any]:
        import importlib

        found = importlib.import_module(f"comfy.text_encoders.{module}")
        return getattr(found, names[0]), getattr(found, names[1])()

    encoders = {f"{encoder}_model_config": LLM | sizes}
    return Family(model, unet, text, encoders, vae, tokenizer_data=tokenizer_data)


def klein_9b() -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.flux as c

        return c.KleinTokenizer8B, c.klein_te(model_type="qwen3_8b")

    wide = WIDTH + 32
    encoders = {"qwen3_8b_model_config": LLM | {"hidden_size": wide, "num_hidden_layers": 28}}
    return Family("Flux2", FLUX2 | {"context_in_dim": 3 * wide}, text, encoders, 128)


def cosmos() -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.cosmos as c

        return c.CosmosT5Tokenizer, c.te()

    return Family("CosmosT2IPredict2", PREDICT2, text, {"t5xxl_model_config": T5}, "wan")


def hidream_o1() -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.hidream_o1 as c

        return c.HiDreamO1Tokenizer, c.HiDreamO1TE

    vision = {"hidden_size": 64, "intermediate_size": 64, "depth": 1, "num_heads": 2}
    unet = {"text_config_overrides": LLM, "vision_config_overrides": vision}
    return Family("HiDreamO1", unet, text, {})


def hidream() -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.hidream as c
        import comfy.text_encoders.hunyuan_video as video

        video.LlamaTokenizerFast = Letters
        return c.HiDreamTokenizer, c.hidream_clip()

    unet = {
        "patch_size": 2, "in_channels": 16, "out_channels": 16, "num_layers": 1, "num_single_layers": 1,
        "attention_head_dim": 32, "num_attention_heads": 2, "caption_channels": [WIDTH, WIDTH],
        "text_emb_dim": 2 * WIDTH, "num_routed_experts": 2, "num_activated_experts": 1,
        "axes_dims_rope": [16, 8, 8], "max_resolution": [64, 64], "llama_layers": [1, 2],
    }  # fmt: skip
    encoders = CLIPS | {"t5xxl_model_config": T5, "llama_model_config": LLM}
    return Family("HiDream", unet, text, encoders)


def hunyuan_dit(model: str = "HunyuanDiT", kind: str = "hydit") -> Family:
    def text() -> tuple[Any, Any]:
        import comfy.text_encoders.hydit as c

        return c.HyditTokenizer, c.HyditModel

    unet = {
        "image_model": kind, "hidden_size": 64, "depth": 4, "num_heads": 2, "text_states_dim": WIDTH,
        "text_states_dim_t5": WIDTH,
    }  # fmt: skip
    bert = {"hidden_size": WIDTH, "intermediate_size": 128, "num_attention_heads": 2, "num_hidden_layers": 2}
    encoders = {"hydit_clip_model_config": bert, "mt5xl_model_config": T5}
    return Family(model, unet, text, encoders, 4, tokenizer_data=lambda: {"mt5xl.spiece_model": sentencepieces()})


PIXART = {
    "hidden_size": 64, "depth": 2, "num_heads": 2, "caption_channels": WIDTH, "model_max_length": 300,
    "micro_condition": False, "pe_interpolation": 2,
}  # fmt: skip
ALPHA = {"micro_condition": True, "hidden_size": 96, "input_size": 64}
OMNIGEN = {
    "hidden_size": 96, "num_layers": 2, "num_refiner_layers": 1, "num_attention_heads": 4, "num_kv_heads": 2,
    "multiple_of": 32, "axes_dim_rope": (8, 8, 8), "text_feat_dim": WIDTH, "timestep_scale": 1000.0,
}  # fmt: skip
QWEN_IMAGE = {
    "in_channels": 64, "num_layers": 2, "attention_head_dim": 32, "num_attention_heads": 2,
    "joint_attention_dim": WIDTH, "axes_dims_rope": (8, 12, 12),
}  # fmt: skip
KREA2 = {
    "features": 128, "heads": 2, "kvheads": 1, "layers": 2, "multiplier": 2, "txtlayers": 12, "txtdim": WIDTH,
    "txtheads": 2, "txtkvheads": 2,
}  # fmt: skip
V_PREDICTION = {"v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}
KLEIN = ("flux", ("KleinTokenizer", "klein_te"))
Z_IMAGE = LUMINA | {
    "dim": 256, "n_heads": 4, "n_kv_heads": 4, "axes_dims": [16, 24, 24], "z_image_modulation": True,
    "time_scale": 1000.0, "pad_tokens_multiple": 32,
}  # fmt: skip

FAMILIES: dict[str, Callable[[], Family]] = {
    "sd1-inpainting": lambda: sd1({"in_channels": 9}),
    "sdxl-vpred": lambda: sdxl(weights=V_PREDICTION),
    "sdxl-inpainting": lambda: sdxl(unet=SDXL | {"in_channels": 9}),
    "ssd-1b": lambda: sdxl("SSD1B", shallow(2, -1) | {"transformer_depth_output": [0, 0, 2, 1]}),
    "vega": lambda: sdxl("Segmind_Vega", shallow(1, -1)),
    "koala-700m": lambda: sdxl("KOALA_700M", shallow(2, -2)),
    "koala-1b": lambda: sdxl("KOALA_1B", shallow(2, 2)),
    "sdxl-refiner": lambda: sdxl("SDXLRefiner", SDXL | {"context_dim": WIDTH, "adm_in_channels": WIDTH + 5 * 256}),
    "playground": lambda: sdxl(weights={"edm_mean": torch.zeros(4), "edm_std": torch.ones(4)}),
    "sd3": lambda: sd3(True),
    "sd3-without-t5": lambda: sd3(False),
    "flux": lambda: flux("Flux", True),
    "flux-fill": lambda: flux("FluxInpaint", True, FLUX | {"in_channels": 96}),
    "flux-schnell": lambda: flux("FluxSchnell", False),
    "ovis": lambda: llm("FluxSchnell", OVIS, "ovis", ("OvisTokenizer", "te"), "qwen3_2b"),
    "stable-cascade": cascade,
    "chroma": lambda: with_t5("Chroma", CHROMA, 16),
    "pixart-alpha": lambda: with_t5("PixArtAlpha", PIXART | ALPHA, 4, side=272),
    "pixart-sigma": lambda: with_t5("PixArtSigma", PIXART, 4, side=272),  # its positions divide by zero below
    "auraflow": auraflow,
    "z-image": lambda: llm("ZImage", Z_IMAGE, "z_image", ("ZImageTokenizer", "te"), "qwen3_4b"),
    "flux2-klein": lambda: llm("Flux2", FLUX2, *KLEIN, "qwen3_4b", 128, num_hidden_layers=28),
    "flux2-klein-9b": lambda: klein_9b(),
    "lumina2": lambda: llm("Lumina2", LUMINA | {"n_kv_heads": 1}, "lumina2", ("LuminaTokenizer", "te"), "gemma2_2b",
                           tokenizer_data=lambda: {"spiece_model": sentencepieces(bos=2, eos=1, unk=3)},
                           vocab_size=1024),
    "omnigen2": lambda: llm("Omnigen2", OMNIGEN, "omnigen2", ("Omnigen2Tokenizer", "te"), "qwen25_3b"),
    "hidream": hidream,
    "qwen-image": lambda: llm("QwenImage", QWEN_IMAGE, "qwen_image", ("QwenImageTokenizer", "te"), "qwen25_7b", "wan"),
    "krea2": lambda: llm("Krea2", KREA2, "krea2", ("Krea2Tokenizer", "te"), "qwen3vl_4b", "wan", num_hidden_layers=36),
    "anima": lambda: llm("Anima", PREDICT2, "anima", ("AnimaTokenizer", "te"), "qwen3_06b", "wan", hidden_size=1024),
    "hunyuan-dit": hunyuan_dit,
    "hunyuan-dit-1.0": lambda: hunyuan_dit("HunyuanDiT1", "hydit1"),
    "longcat": lambda: llm("LongCatImage", FLUX | {"vec_in_dim": None, "guidance_embed": False, "txt_ids_dims": []},
                           "longcat_image", ("LongCatImageTokenizer", "te"), "qwen25_7b"),
    "cosmos-predict2": cosmos,
    "hidream-o1": hidream_o1,
}  # fmt: skip


def lacks(name: str) -> bool:
    """Whether this ComfyUI is older than a family."""
    import comfy.supported_models

    family = FAMILIES[name]()
    if not hasattr(comfy.supported_models, family.model):
        return True
    try:
        family.text()  # a model's class may be older than what its text encoder needs
    except ModuleNotFoundError:
        return True
    return False


def draw(name: str, folders: list[str]) -> tuple[Any, Any, Any]:
    """A tiny MODEL, CLIP and VAE of a family, fp32 on the CPU. folders: of embeddings."""
    import comfy.sd

    family = FAMILIES[name]()
    torch.manual_seed(0)
    with torch.inference_mode():
        with new_memory_as_nan():
            model, clip = models(family, folders)
            channels = {"tae_latent_channels": family.vae} if isinstance(family.vae, int) else None
            vae = comfy.sd.VAE(sd=vae_weights(family.vae), dtype=torch.float32, metadata=channels)
        for module in (model.model, clip.cond_stage_model, vae.first_stage_model):
            fill(module)
            assert not undrawn(module), undrawn(module)
    return model, clip, vae


@contextmanager
def new_memory_as_nan() -> Iterator[None]:
    """What ComfyUI's classes leave undrawn holds NaN, whatever the process had in that memory before."""
    torch.use_deterministic_algorithms(True)  # PyTorch fills new memory only then
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def undrawn(module: torch.nn.Module) -> list[str]:
    """The names of the tensors with values that nothing has set."""
    tensors = [*module.named_parameters(), *module.named_buffers()]
    return [name for name, tensor in tensors if tensor.isnan().any()]


def known_here(family: Family) -> dict[str, Any]:
    """A configuration without what an older ComfyUI does not know, and has no need of."""
    from comfy.ldm.chroma.model import ChromaParams
    from comfy.ldm.flux.model import FluxParams

    known = fields(ChromaParams if family.model == "Chroma" else FluxParams)
    newer = {"txt_ids_dims", "vec_in_dim"} - {field.name for field in known}
    return {name: value for name, value in family.unet.items() if name not in newer}


def models(
    family: Family, folders: list[str], stored: torch.dtype = torch.float32, cast: torch.dtype | None = None,
    operations: Any = None, load: str = "cpu", text: dict[str, Any] | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """A MODEL and a CLIP without values, on the CPU. stored: the weights' dtype; cast: that in which the model
    computes, if it is another; operations: the classes of the layers; load: the device to compute on; text:
    the weights of the text encoders, if they have any."""
    import comfy.model_patcher
    import comfy.sd
    import comfy.supported_models
    import comfy.supported_models_base as base

    without_vision_towers()
    config = getattr(comfy.supported_models, family.model)(known_here(family))
    config.set_inference_dtype(stored, cast)
    config.custom_operations = operations
    cpu, device = torch.device("cpu"), torch.device(load)
    network = config.get_model(dict(family.weights), "")
    patcher = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)  # 0.3: the latter
    model = patcher(network, load_device=device, offload_device=cpu)
    options = {
        **family.encoders,
        "dtype": stored,
        "load_device": device,
        "offload_device": cpu,
        "initial_device": cpu,
    }
    options |= {"custom_operations": operations} if operations else {}
    tokenizer, encoders = family.text()
    data = family.tokenizer_data()
    target = base.ClipTarget(tokenizer, encoders)
    given = {"state_dict": text} if text else {}  # ComfyUI 0.3 has no such argument
    clip = comfy.sd.CLIP(target, folders, tokenizer_data=data, model_options=options, **given)
    return model, clip


@torch.no_grad()
def fill(module: torch.nn.Module) -> None:
    """Matrices of a gain of one, tables of a spread like CLIP's (T5's: like T5's), norms that do little.

    Buffers keep what their constructors have set; a file has those that these leave undrawn, SD3's positions.
    """
    left = set(undrawn(module))
    buffers = [(name, buffer) for name, buffer in module.named_buffers() if name in left]
    for name, tensor in [*module.named_parameters(), *buffers]:
        short = name.rsplit(".", 2)
        if not tensor.is_floating_point() or tensor.ndim == 0:
            continue
        if "shared.weight" in name:
            tensor.normal_(0, 10)
        elif "embed" in name and tensor.ndim == 2 and tensor.shape[0] > 500:
            tensor.normal_(0, 0.02)
        elif tensor.ndim >= 2:
            tensor.normal_(0, tensor[0].numel() ** -0.5)
        elif short[-1] in ("weight", "scale", "gamma"):
            tensor.normal_(1, 0.1)
        else:
            tensor.normal_(0, 0.1)


def vae_weights(kind: int | str) -> dict[str, Any]:
    """Of TAESD with that many channels; of a narrow Wan 2.1 VAE; of Stable Cascade's encoder and previewer."""
    if kind == "wan":
        from comfy.ldm.wan.vae import WanVAE

        sizes = {"dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": [], "dropout": 0.0}
        narrow = find_spec("comfy.text_encoders.qwen3vl")  # ComfyUI 0.3 takes the width of the released one for given
        return WanVAE(dim=16 if narrow else 96, z_dim=16, temperal_downsample=[False, True, True], **sizes).state_dict()
    if kind == "cascade":
        from comfy.ldm.cascade.stage_c_coder import StageC_coder

        return StageC_coder().state_dict()
    from comfy.taesd.taesd import TAESD

    return TAESD(latent_channels=kind).state_dict()


def without_vision_towers() -> None:
    import comfy.text_encoders.qwen_vl as qwen_vl

    class NoVision(torch.nn.Module):
        def __init__(self, *_: Any, **__: Any) -> None:
            super().__init__()

    qwen_vl.Qwen2VLVisionTransformer = NoVision
    if find_spec("comfy.text_encoders.qwen3vl"):  # not in ComfyUI 0.3
        import comfy.text_encoders.qwen3vl as qwen3vl

        qwen3vl.Qwen3VLVisionModel = NoVision


class Letters:
    """A tokenizer of bytes with a start token, in place of Llama 3's, which is no file of ComfyUI."""

    START = 128000

    @classmethod
    def from_pretrained(cls, *_: Any, **__: Any) -> Letters:
        return cls()

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [self.START, *text.encode()]}

    def get_vocab(self) -> dict[str, int]:
        return {f"<{byte}>": byte for byte in range(256)}


def sentencepieces(bos: int = -1, eos: int = 1, unk: int = 2) -> torch.Tensor:
    """A small sentencepiece model, as the tensor of bytes that ComfyUI's files hold."""
    import sentencepiece

    written = io.BytesIO()
    text = [
        f"a photo of a {word} in the rain, a rendering of the {word}" for word in ("toy", "cat", "red", "small dog")
    ]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text * 20), model_writer=written, vocab_size=300, hard_vocab_limit=False,
        model_type="bpe", pad_id=0, bos_id=bos, eos_id=eos, unk_id=unk, byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    return torch.frombuffer(bytearray(written.getvalue()), dtype=torch.uint8)
