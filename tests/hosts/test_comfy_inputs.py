"""Empty inputs of ComfyUI's nodes."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ti_train.errors import UserError
from ti_train.hosts.comfy.inputs import check_inputs
from ti_train.hosts.comfy.placeholders import encoders


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"model": None}, "model .* a valid diffusion model"),
        ({"clip": None}, "clip .* a valid clip or text encoder model"),
        ({"vae": None}, "vae .* a valid VAE"),
        ({"vae": SimpleNamespace(first_stage_model=None)}, "vae .* a valid VAE"),
    ],
    ids=["model", "clip", "vae", "a VAE without weights"],
)
def test_a_part_that_the_checkpoint_lacks_is_told_as_comfyuis_own_nodes_do(given, part):
    with pytest.raises(UserError, match=r"ERROR: (model|clip|vae) input is invalid: None"):
        check_inputs(**given)
    with pytest.raises(UserError, match=f"If the {part}"):
        check_inputs(**given)


def test_inputs_that_are_there_are_not_looked_into():
    check_inputs(model=object(), clip=object(), vae=object())


def test_every_node_with_a_clip_says_so():
    with pytest.raises(UserError, match="clip input is invalid: None"):
        encoders(None)
