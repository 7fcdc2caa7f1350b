"""The other tools' own functions load what is written here, and what they save is read here.

COMFYUI_PATH (and COMFYUI_PYTHON), WEBUI_PATH (AUTOMATIC1111, reForge or Forge; and WEBUI_PYTHON), KOHYA_PATH
(sd-scripts) and ONETRAINER_PATH are their folders; see tool_loaders.py. diffusers runs in this process.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_files import samples, torch_saved
from tiny_pipeline import END, START, write_tokenizer
from torch import Tensor

from ti_train.editability import recorded
from ti_train.embedding import SINGLE, Embedding
from ti_train.formats import ENDINGS, PRECISIONS, read_embedding, write_embedding
from ti_train.formats.layouts import ENCODERS

ROWS, BOTH_ROWS = {SINGLE: torch.randn(2, 768)}, {"clip_l": torch.randn(2, 768), "clip_g": torch.randn(2, 1280)}
SD1 = Embedding("my-cat", ROWS, {"step": "7", "init": "cat", **recorded(ROWS)})
SDXL = Embedding("my-cat", BOTH_ROWS, {"step": "7", **recorded(BOTH_ROWS)})
WORDS = {"sd1": SD1, "sdxl": SDXL}


@dataclass(frozen=True)
class Tool:
    path: str  # the variable with its folder
    python: str
    entry: str  # a file that tells its folder
    reads: set[tuple[str, str]]  # of what is written here: (layout, family)
    saves: tuple[str, ...] = ()  # names of files, by its own functions


BOTH = {(layout, family) for layout in ("safetensors", "a1111") for family in WORDS}
WEBUI = BOTH | {("diffusers", "sd1"), ("onetrainer", "sd1"), ("onetrainer", "sdxl"), ("png", "sd1"), ("png", "sdxl")}
TOOLS = {
    "comfyui": Tool("COMFYUI_PATH", "COMFYUI_PYTHON", "comfy/sd1_clip.py", WEBUI - {("png", "sd1"), ("png", "sdxl")}),
    "webui": Tool(
        "WEBUI_PATH",
        "WEBUI_PYTHON",
        "modules/textual_inversion/textual_inversion.py",
        WEBUI,
        ("theirs.pt", "chunk.png", "panels.png"),
    ),
    "forge": Tool("WEBUI_PATH", "WEBUI_PYTHON", "backend/text_processing/textual_inversion.py", WEBUI),
    "kohya": Tool(
        "KOHYA_PATH",
        "KOHYA_PYTHON",
        "sdxl_train_textual_inversion.py",
        WEBUI - {("png", "sd1"), ("png", "sdxl")},
        ("theirs.pt", "theirs.safetensors", "theirs-sdxl.pt", "theirs-sdxl.safetensors"),
    ),
    "onetrainer": Tool(
        "ONETRAINER_PATH",
        "ONETRAINER_PYTHON",
        "modules/modelLoader/mixin/EmbeddingLoaderMixin.py",
        {("onetrainer", "sd1"), ("onetrainer", "sdxl"), ("safetensors", "sdxl"), ("a1111", "sdxl")},
        ("theirs.safetensors", "theirs-sdxl.safetensors"),
    ),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Callable[[str, list[dict[str, Any]]], list[Any]]:
    """Runs jobs of tool_loaders.py in a tool."""

    def run(name: str, jobs: list[dict[str, Any]]) -> list[Any]:
        tool, folder = TOOLS[name], tmp_path_factory.mktemp(name)
        path = os.environ.get(tool.path)
        if not path:
            pytest.skip(f"{tool.path} is not set: give the folder of the tool to run its own functions")
        if not (Path(path) / tool.entry).is_file():
            pytest.skip(f"{tool.path} '{path}' is no {name}: it has no {tool.entry}")
        (folder / "jobs.json").write_text(json.dumps(jobs), encoding="utf-8")
        command = [os.environ.get(tool.python, sys.executable), str(Path(__file__).with_name("tool_loaders.py")), name]
        command += [path, str(folder / "jobs.json"), str(folder / "results.pt")]
        environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(folder / "results.pt")

    return run


def equal(one: Any, other: dict[str, Tensor]) -> bool:
    return isinstance(one, dict) and set(one) == set(other) and all(torch.equal(one[e], other[e]) for e in other)


@pytest.mark.parametrize("name", TOOLS)
def test_a_tool_loads_what_is_written_here_to_the_bit(run, tmp_path, name):
    """And the others it does not: the table of the README says so. In fp16 and bf16, to the bits that are left."""
    written = list(product(ENDINGS, WORDS, PRECISIONS))
    jobs = []
    for layout, family, precision in written:
        path = tmp_path / f"{layout}-{family}-{precision}{ENDINGS[layout]}"
        write_embedding(WORDS[family], path, layout, PRECISIONS[precision])
        jobs.append({"do": "load", "file": str(path), "encoders": list(WORDS[family].vectors)})
    results = dict(zip(written, run(name, jobs), strict=True))
    read = {}
    for (layout, family, precision), result in results.items():
        wanted = {e: v.to(PRECISIONS[precision]).float() for e, v in WORDS[family].vectors.items()}
        same = isinstance(result, dict) and equal({e: v.float() for e, v in result.items()}, wanted)
        read.setdefault(precision, set()).update({(layout, family)} if same else ())
    assert read == dict.fromkeys(PRECISIONS, TOOLS[name].reads)


@pytest.mark.parametrize("name", [name for name, tool in TOOLS.items() if tool.saves])
def test_what_a_tool_saves_is_read_here_to_the_bit(run, tmp_path, name):
    families = {file: "sdxl" if "sdxl" in file else "sd1" for file in TOOLS[name].saves}
    for family, word in WORDS.items():
        torch.save(word.vectors, tmp_path / f"{family}.vectors")
    jobs = [
        {"do": "save", "file": str(tmp_path / file), "vectors": str(tmp_path / f"{family}.vectors")}
        for file, family in families.items()
    ]
    for (file, family), result in zip(families.items(), run(name, jobs), strict=True):
        if "panels" in file and isinstance(result, str) and "numpy" in result:
            continue  # AUTOMATIC1111 1.8 draws panels with a function that numpy 2 no longer has
        assert result is None
        read = read_embedding(tmp_path / file)
        assert equal(read.embedding.vectors, WORDS[family].vectors), read.layout
        if name == "onetrainer":
            assert equal(read.outputs, {encoder: v + 1 for encoder, v in WORDS[family].vectors.items()})
        if name == "webui":  # it too goes by the name in a picture, else by the file's
            assert read.embedding.name == ("their-word" if file.endswith(".png") else "theirs")


def test_a1111_refuses_torchs_own_zip_but_not_ours(run, tmp_path):
    """Why torch_bytes leaves entries out: see modules/safe.py."""
    data = {"string_to_param": {"*": SD1.vectors[SINGLE]}}
    (tmp_path / "torchs.pt").write_bytes(torch_saved(data))
    write_embedding(SD1, tmp_path / "ours.pt", "a1111")
    jobs = [{"do": "load", "file": str(tmp_path / file), "encoders": [SINGLE]} for file in ("torchs.pt", "ours.pt")]
    torchs, ours = run("webui", jobs)
    assert equal(ours, SD1.vectors)
    if "\ntorch.load = load" not in (Path(os.environ["WEBUI_PATH"]) / "modules/safe.py").read_text(encoding="utf-8"):
        pytest.skip("reForge and Forge have taken the check out")
    assert isinstance(torchs, str)


PLAIN = {"kohya", "kohya-pt", "kohya-sdxl", "kohya-sdxl-pt", "diffusers", "diffusers-bin", "a1111", "a1111-legacy"}
READ = {  # of the samples, by each tool
    "comfyui": PLAIN | {"comfyui", "onetrainer", "onetrainer-flux", "list", "lora", "lora-sdxl"},
    "webui": PLAIN | {"comfyui", "card", "panels", "panels-webp"},
    "forge": PLAIN | {"comfyui", "card", "panels", "panels-webp"},
    "kohya": PLAIN | {"comfyui", "onetrainer", "onetrainer-flux", "lora"},  # it takes the first tensor, whatever it is
    "onetrainer": {"kohya-sdxl", "kohya-sdxl-pt"},
}


@pytest.mark.parametrize("name", TOOLS)
def test_our_samples_are_what_the_tools_read(run, tmp_path, name):
    """The tools read from each sample what is read here, or nothing."""
    jobs = []
    for sample_name, sample in samples().items():
        path = tmp_path / f"{sample_name}.{sample.ending}"
        path.write_bytes(sample.data)
        jobs.append({"do": "load", "file": str(path), "encoders": list(sample.vectors)})
    results = dict(zip(samples(), run(name, jobs), strict=True))
    read = {
        sample_name
        for sample_name, result in results.items()
        if isinstance(result, dict)
        and equal({e: v.reshape(-1, v.shape[-1]) for e, v in result.items()}, samples()[sample_name].vectors)
    }
    assert read == READ[name], {key: results[key] for key in read ^ READ[name]}


def test_every_encoder_of_comfyui_has_its_name_here():
    """The keys of a file of several encoders are told by these names."""
    path = os.environ.get("COMFYUI_PATH")
    if not path:
        pytest.skip("COMFYUI_PATH is not set: give the folder of a ComfyUI to read its encoders' names")
    sources = [file.read_text(encoding="utf-8") for file in (Path(path) / "comfy").rglob("*.py")]
    keys = {key for text in sources for key in re.findall(r"embedding_key *= *['\"](\w+)['\"]", text)}
    assert {"clip_l", "clip_g", "clip_h", "t5xxl"} <= keys <= set(ENCODERS)


# --- diffusers ------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """A tokenizer and text encoders of the true widths with one small layer."""
    pytest.importorskip("diffusers")
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

    folder = tmp_path_factory.mktemp("encoders")
    write_tokenizer(folder / "words")

    def tokenizer() -> CLIPTokenizer:
        ends = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
        return CLIPTokenizer.from_pretrained(folder / "words", model_max_length=77, **ends)

    def encoder(kind: type, width: int) -> Any:
        size = {"hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        return kind(CLIPTextConfig(vocab_size=len(tokenizer()), projection_dim=8, **size))

    return lambda: (
        tokenizer(),
        tokenizer(),
        encoder(CLIPTextModel, 768),
        encoder(CLIPTextModelWithProjection, 1280),
    )


def rows_of(tokenizer: Any, encoder: Any, tokens: list[str]) -> Tensor:
    return encoder.get_input_embeddings().weight[tokenizer.convert_tokens_to_ids(tokens)].detach()


def text_pipeline(**parts: Any) -> Any:
    """What of a pipeline of diffusers loads a word; some versions make none of their own without a denoiser."""
    from diffusers import DiffusionPipeline
    from diffusers.loaders import TextualInversionLoaderMixin

    class TextPipeline(DiffusionPipeline, TextualInversionLoaderMixin):
        def __init__(self, text_encoder, tokenizer, text_encoder_2=None, tokenizer_2=None):
            super().__init__()
            self.register_modules(text_encoder=text_encoder, tokenizer=tokenizer)

    return TextPipeline(**parts)


@pytest.mark.parametrize("layout", ["safetensors", "diffusers", "a1111", "onetrainer"])
def test_diffusers_loads_a_word_of_one_encoder(encoders, tmp_path, layout):
    tokenizer, _, encoder, _ = encoders()
    pipe = text_pipeline(text_encoder=encoder, tokenizer=tokenizer)
    name = f"my-cat{ENDINGS[layout]}"
    write_embedding(SD1, tmp_path / name, layout)
    token = {} if layout == "diffusers" else {"token": "<my-cat>"}  # its own layout names the token
    pipe.load_textual_inversion(str(tmp_path), weight_name=name, **token)
    assert torch.equal(rows_of(tokenizer, encoder, ["<my-cat>", "<my-cat>_1"]), SD1.vectors[SINGLE])


@pytest.mark.parametrize("name", ["list", "lora", "card", "panels", "panels-webp"])
def test_diffusers_does_not_load(encoders, tmp_path, name):
    tokenizer, _, encoder, _ = encoders()
    pipe = text_pipeline(text_encoder=encoder, tokenizer=tokenizer)
    sample = samples()[name]
    (tmp_path / f"it.{sample.ending}").write_bytes(sample.data)
    with pytest.raises(
        (OSError, ValueError, AttributeError), match=r"Unable to load|is incorrect|no attribute 'items'"
    ):
        pipe.load_textual_inversion(str(tmp_path / f"it.{sample.ending}"), token="<my-cat>")


@pytest.mark.parametrize("layout", ["safetensors", "diffusers", "a1111"])
def test_diffusers_loads_a_word_of_two_encoders(encoders, tmp_path, layout):
    from safetensors.torch import load_file

    one, two, first, second = encoders()
    pipe = text_pipeline(text_encoder=first, text_encoder_2=second, tokenizer=one, tokenizer_2=two)
    paths = write_embedding(SDXL, tmp_path / f"my-cat{ENDINGS[layout]}", layout)
    if layout == "diffusers":
        given: list[Any] = [str(path) for path in paths]
    else:
        file = torch.load(paths[0]) if layout == "a1111" else load_file(paths[0])
        given = [file[encoder] for encoder in ("clip_l", "clip_g")]
    for file, tokenizer, encoder in zip(given, (one, two), (first, second), strict=True):
        pipe.load_textual_inversion(file, token="<my-cat>", tokenizer=tokenizer, text_encoder=encoder)
    tokens = ["<my-cat>", "<my-cat>_1"]
    assert torch.equal(rows_of(one, first, tokens), SDXL.vectors["clip_l"])
    assert torch.equal(rows_of(two, second, tokens), SDXL.vectors["clip_g"])
