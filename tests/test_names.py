"""Names of embeddings and placeholders: what is accepted, and the nearest good name.

That hosts read exactly what is accepted here is tried in the hosts themselves: tests/comfyui/test_comfyui_inside.py and
tests/webui/test_webui_inside.py run NAMES and REFUSED through their tokenizers and prompt parsers.
"""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prompt_names import NAMES, REFUSED

from ti_train.errors import UserError
from ti_train.names import bare_name, check_name, check_placeholder, file_names, nearest_name


@pytest.mark.parametrize("name", [*NAMES, "pets/cat", "a/b/c", "console", "com", "x" * 120])
def test_names_that_every_host_can_use(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("word.safetensors", "word"),
        ("word.PT", "word"),
        ("word.pt.safetensors", "word"),
        ("embedding:pets/cat", "pets/cat"),
        ("pets/cat.bin", "pets/cat"),
        (" cat ", "cat"),
        (unicodedata.normalize("NFD", "café"), "café"),
    ],
)
def test_what_can_be_meant_in_one_way_only_is_used(typed, name):
    assert check_name(typed) == name


@pytest.mark.parametrize(("name", "near"), REFUSED.items())
def test_what_prompts_cannot_express_is_refused_with_the_nearest_name(name, near):
    with pytest.raises(UserError, match=r"cannot be used: .+\. Use a name such as ") as refusal:
        check_name(name)
    assert str(refusal.value).endswith(f" such as {near}.")
    assert check_name(near) == near


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("", "my-cat"),
        ("...", "my-cat"),
        (".cat", "cat"),
        ("cat.", "cat"),
        ("../cat", "cat"),
        ("pets/../../cat", "pets/cat"),
        ("/etc/cat", "etc/cat"),
        ("pets//cat", "pets/cat"),
        ("pets/", "pets"),
        ("pets\\cat", "pets/cat"),
        ("C:\\cat", "C/cat"),
        ("C:cat", "C-cat"),
        ("<cat>", "cat"),
        ("cat\n2", "cat-2"),
        ("CON", "my-CON"),
        ("nul.cat", "my-nul.cat"),
        ("pets/com1", "pets/my-com1"),
        (".safetensors", "my-cat"),
    ],
)
def test_what_files_cannot_be_called_or_leads_elsewhere_is_refused(name, near):
    with pytest.raises(UserError) as refusal:
        check_name(name)
    assert str(refusal.value).endswith(f" such as {near}.")
    assert check_name(near) == near


@pytest.mark.parametrize("name", ["x" * 121, "猫" * 100])
def test_long_names_are_refused(name):
    with pytest.raises(UserError, match="at most 120 are allowed"):
        check_name(name)


PIECES = st.sampled_from([".safetensors", ".PT", "embedding:", "/", ".", "_", "0", "AND", "con"]) | st.text(max_size=4)


@given(st.text(max_size=20) | st.lists(PIECES, max_size=6).map("".join))
@example("\ufb2a")  # its composed form is a letter and a mark
@example("\ufb2a0")
@example(".¡")
@example("_AND")
@example("A.SAFETENSORS")
@example("0.pt")
@example("a.pt-.bin(")
def test_any_text_has_a_nearest_name(text):
    assert check_name(nearest_name(text)) == nearest_name(text)


def test_the_webuis_use_a_name_without_its_folders():
    assert bare_name("pets/my/cat") == "cat"


@pytest.mark.parametrize("text", ["*", "<my-cat>", "my-cat", "a cat of mine", "<42>", "猫", "x2", "@"])
def test_placeholders(text):
    assert check_placeholder(f" {text} ") == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("42", "numbers are weights"),
        ("1.5", "numbers are weights"),
        (".", "numbers are weights"),
        ("inf", "numbers are weights"),
        ("(x)", r"'\(' is part of the syntax"),
        (":", "':' is part of the syntax"),
        ("a{b}", "'{' is part of the syntax"),
        ("embedding", "ComfyUI's own syntax"),
    ],
)
def test_placeholders_that_would_match_in_a_prompts_syntax_are_refused(text, why):
    with pytest.raises(UserError, match=why):
        check_placeholder(text)


def test_a_prompts_name_may_leave_out_the_extension_of_its_file():
    assert "pets/cat.safetensors" in file_names("Embedding:pets/cat")
    assert file_names("embedding: cat.pt") == file_names("cat.pt") == ["cat.pt"]
