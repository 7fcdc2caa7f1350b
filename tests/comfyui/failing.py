"""A training inside of ComfyUI's process, of which each call into ComfyUI fails in turn: what is left behind.

usage: failing.py FAMILY CHECKPOINTING FOLDER     prints one line of JSON: see `failed`
CHECKPOINTING: 0 or 1
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from inside import ROOT, enter_comfyui, make_host, pack, same, weights_of
from PIL import Image
from tiny_families import FAMILIES, draw

sys.path.insert(0, str(ROOT / "tests"))
from failing_calls import ERRORS, FailingCalls, Place, first_of_each, to_fail

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
PLAIN = int | float | str | bool | None
SET_ANEW = {"execution_device", "current_patcher"}  # by ComfyUI, each time when it encodes or samples


class Run:
    """The training of a node, with a host of its own each time; returns the losses."""

    def __init__(self, family: str, checkpointing: bool, folder: Path) -> None:
        self.model, self.clip, self.vae = draw(family, [str(folder)])
        self.side, self.checkpointing = FAMILIES[family]().side, checkpointing

    def __call__(self, folder: Path) -> list[tuple[float | None, float | None]]:
        from pack.nodes.files import Place as PlaceOfRun
        from pack.nodes.run import run_training
        from pack.ti_train.data.dataset import encode_pictures
        from pack.ti_train.data.picture import Picture
        from pack.ti_train.training.config import TrainConfig

        host, size = make_host(self.model, self.clip, self.vae), (self.side, self.side)
        pictures = [Picture.cropped(name, Image.new("RGB", size, name), size) for name in ("red", "blue")]
        dataset = encode_pictures(host, pictures)
        every = {"evaluate_every": 1, "preview_every": 2, "preview_steps": 1}
        config = TrainConfig(
            "word",
            "toy",
            steps=2,
            batch_size=2,
            **every,
            resolution=self.side,
            gradient_checkpointing=self.checkpointing,
        )
        node, place = SimpleNamespace(unique_id="1"), PlaceOfRun(folder, config.name)
        _, session, _ = run_training(host, dataset, config, place, node, {}, [])
        return [(step.loss, step.validation_loss) for step in session.steps]

    @property
    def modules(self) -> dict[str, torch.nn.Module]:
        return {"model": self.model.model, "clip": self.clip.cond_stage_model, "vae": self.vae.first_stage_model}


def places(run: Run) -> Iterator[Place]:
    """The functions of ComfyUI that the adapter and the node's run call."""
    import comfy.model_management as management
    import comfy.sample
    import comfy.samplers
    import comfy.utils
    from pack.ti_train.hosts.comfy.encoders import encoders, tokenizers

    yield from ((management, name) for name in ("load_models_gpu", "unload_all_models", "soft_empty_cache"))
    yield management, "throw_exception_if_processing_interrupted"
    yield from ((type(run.model), name) for name in ("clone", "get_model_object", "partially_load"))
    yield from ((type(run.model), name) for name in ("pre_run", "cleanup", "patch_model", "load"))
    yield from ((type(run.model.model), name) for name in ("apply_model", "extra_conds", "process_latent_in"))
    yield type(run.model.model.diffusion_model), "forward"
    yield from ((type(run.clip), name) for name in ("clone", "tokenize", "encode_from_tokens", "load_model"))
    yield type(run.clip.tokenizer), "tokenize_with_weights"
    yield from ((type(part), "tokenize_with_weights") for part in tokenizers(run.clip.tokenizer).values())
    yield type(run.clip.cond_stage_model), "encode_token_weights"
    yield from ((type(encoder.module), "forward") for encoder in encoders(run.clip).values())
    yield from ((type(run.vae), name) for name in ("encode", "decode"))
    yield from ((type(run.vae.first_stage_model), name) for name in ("encode", "decode"))
    yield from ((comfy.samplers, name) for name in ("encode_model_conds", "cond_cat", "cond_equal_size"))
    yield from ((comfy.sample, name) for name in ("fix_empty_latent_channels", "prepare_noise", "sample"))
    yield comfy.utils.ProgressBar, "update_absolute"


def surroundings(run: Run) -> dict[str, Any]:
    """All that an error could leave behind, besides the weights: of the model, of ComfyUI, of PyTorch, of the page."""
    import comfy.model_management as management
    import comfy.utils
    from pack.nodes.page import answers, live
    from torch.overrides import _get_current_function_mode_stack

    patchers = {"model": run.model, "clip": run.clip.patcher, "vae": run.vae.patcher}
    management.load_models_gpu([*patchers.values()])  # as the next prompt does: what fails within it is left half done
    found: dict[str, Any] = {}
    for part, module in run.modules.items():
        for name, each in module.named_modules():
            found[f"hooks of {part}.{name}"] = [[*getattr(each, hooks)] for hooks in HOOKS]
            found[f"forward of {part}.{name}"] = "forward" in vars(each)
            found[f"attributes of {part}.{name}"] = plain(each)
    for name, each in patchers.items():
        found[f"patcher of {name}"] = [
            plain(each), shape(each.model_options), len(each.patches), [*each.object_patches], [*each.backup],
            [*each.object_patches_backup],
        ]  # fmt: skip
    found["clip"], found["vae"] = plain(run.clip), plain(run.vae)
    tokenizer = run.clip.tokenizer
    for name, each in [("", tokenizer), *vars(tokenizer).items()]:
        found[f"tokenizer {name}"] = [id(each), type(each).__name__, plain(each)]
    return found | {
        "flags": [getattr(management, "in_training", None), management.interrupt_processing],
        "progress": id(comfy.utils.PROGRESS_BAR_HOOK),
        "modes": [torch.is_inference_mode_enabled(), torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")],
        "function modes": len(_get_current_function_mode_stack()),
        "saved tensors": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "default dtype": str(torch.get_default_dtype()),
        "page": [sum(each.status == "running" for each in live.runs), len(answers.kept)],
    }


def plain(thing: Any) -> dict[str, Any]:
    """Its attributes that are numbers, texts or None."""
    attributes = getattr(thing, "__dict__", {}).items()
    return {name: value for name, value in attributes if isinstance(value, PLAIN) and name not in SET_ANEW}


def shape(options: Any) -> Any:
    """The keys of nested dictionaries, and the types of what is in them."""
    if isinstance(options, dict):
        return {str(key): shape(value) for key, value in options.items()}
    return type(options).__name__


def failed(run: Run, folder: Path) -> dict[str, Any]:
    """The kinds of calls; which calls failed with which error, what each one changed, and how the run ended."""
    whole = run(folder / "warm")
    weights, before = weights_of(*run.modules.values()), surroundings(run)
    calls = FailingCalls(places(run))
    with contextlib.closing(calls):
        assert run(folder / "whole") == whole  # after a loading of all parts, as each of the others
        kinds = calls.kinds
        tried = []
        for number in to_fail(kinds):
            for error in ERRORS:
                calls.restart(number, error)
                ended = ending(run, folder / f"{error}-{number}")
                made = len(calls.kinds) >= number
                calls.restart()
                now = surroundings(run)
                changed = [name for name in before.keys() | now if before.get(name) != now.get(name)]
                changed += [] if same(weights, weights_of(*run.modules.values())) else ["weights"]
                tried.append([kinds[number - 1], error, made, ended, sorted(changed)])
        calls.restart()
        return {"kinds": len(first_of_each(kinds)), "tried": tried, "again": run(folder / "again") == whole}


def ending(run: Run, folder: Path) -> str:
    """How a run of which a call fails has ended: the exception's type and message, or nothing."""
    try:
        run(folder)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def main(family: str, checkpointing: str, folder: str) -> None:
    enter_comfyui("--cpu")
    pack()
    import folder_paths

    folder_paths.set_user_directory(folder)  # the pages' records of runs
    run = Run(family, checkpointing == "1", Path(folder))
    with torch.inference_mode(), torch.inference_mode(False):  # as in a node
        print("\n" + json.dumps(failed(run, Path(folder))))


if __name__ == "__main__":
    main(*sys.argv[1:])
