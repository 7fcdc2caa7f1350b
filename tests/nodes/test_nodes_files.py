"""The names that are free in ComfyUI's embeddings folders."""

from __future__ import annotations

import sys
import unicodedata

import pytest


@pytest.mark.parametrize("there", ["café.pt", unicodedata.normalize("NFD", "pets/Café.safetensors")])
@pytest.mark.parametrize("listed", [True, False])
def test_a_name_is_taken_in_every_letter_case_and_unicode_form(load_in_comfyui, tmp_path, there, listed):
    """On macOS they are one file."""
    files = load_in_comfyui("nodes.files")
    sys.modules["folder_paths"].get_filename_list.return_value = [there] if listed else []
    (tmp_path / "pets").mkdir()
    if not listed:
        (tmp_path / there).touch()
    folder = there.rpartition("/")[0]
    assert files.free_name(tmp_path / folder, "café") == "café-2"
    assert files.free_name(tmp_path / folder, "dog") == "dog"
