"""What files are called."""

from __future__ import annotations

import pytest

from ti_train.files import file_name


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("a photo of <my-cat>!", "a-photo-of-my-cat"),
        ("../../etc", "etc"),
        ("?", "picture"),
        ("猫", "猫"),
        ("x" * 99, "x" * 60),
    ],
)
def test_pictures_are_named_by_their_prompt(prompt, name):
    assert file_name(prompt) == name
