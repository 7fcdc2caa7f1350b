"""Prompts: templates, captions, what people type, and where the word stands in them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ti_train.errors import UserError
from ti_train.host import Prompt, Slot
from ti_train.prompts import (
    BUILT_IN,
    NAME,
    PLACEHOLDER,
    Templates,
    fill,
    latest_slot,
    mentions,
    parse,
    slots,
    text_of,
    vary_tags,
    with_name_last,
)

STAR = Slot(PLACEHOLDER)


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_built_in_template_has_the_word_exactly_once(name):
    for line in Templates.load(name).lines:
        assert [p for p in fill(line, "a caption") if isinstance(p, Slot)] == [STAR]


def test_the_papers_template_counts():
    assert (len(BUILT_IN["object"]), len(BUILT_IN["style"])) == (27, 19)


@pytest.mark.parametrize(
    ("line", "caption", "prompt"),
    [
        ("a photo of a [name]", "", ("a photo of a ", STAR)),
        ("a photo of a [name]", "on a table", ("a photo of a ", STAR)),
        ("a photo of a [name], [filewords]", "on a table", ("a photo of a ", STAR, ", on a table")),
        ("a photo of a [name], [filewords]", "", ("a photo of a ", STAR)),
        ("[filewords], in the style of [name]", "", ("in the style of ", STAR)),
        ("[name] and [name]", "", (STAR, " and ", STAR)),
    ],
)
def test_a_template_and_a_caption_make_a_prompt(line, caption, prompt):
    assert fill(line, caption) == prompt


def test_a_caption_that_says_the_name_itself_is_the_whole_prompt():
    prompts = Templates.load("captions").prompts("two [name] on a table")
    assert prompts == (("two ", STAR, " on a table"),)


def test_a_template_of_captions_alone_wants_the_name_in_them(tmp_path):
    (tmp_path / "lines.txt").write_text("[filewords]\na [name] with [filewords]", encoding="utf-8")
    templates = Templates.load(str(tmp_path / "lines.txt"))
    assert templates.prompts("two [name]") == (("two ", STAR),)
    assert templates.prompts("a table") == (("a ", STAR, " with a table"),)
    assert Templates(("[filewords]",)).prompts("a table") == ()


def test_a_template_file_has_one_template_a_line(tmp_path):
    file = tmp_path / "my templates.txt"
    file.write_bytes("\ufeffa [name]\r\n\r\n  my [name], [filewords]  \r\n".encode())
    assert Templates.load(str(file)).lines == ("a [name]", "my [name], [filewords]")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"a [name]\na cat\n", "Template 2 of .* is 'a cat', which lacks \\[name\\]"),
        (b"\n \n", "is empty"),
        (b"caf\xe9 [name]", "neither a readable file in UTF-8 or UTF-16 nor one of object, style, captions"),
    ],
)
def test_a_template_file_that_cannot_teach_is_refused(tmp_path, content, why):
    (tmp_path / "bad.txt").write_bytes(content)
    with pytest.raises(UserError, match=why):
        Templates.load(str(tmp_path / "bad.txt"))


@pytest.mark.parametrize("source", ["", "objects", "no/such/file.txt"])
def test_templates_that_are_not_there_are_answered_with_the_names_there_are(source):
    with pytest.raises(UserError, match="object, style, captions, style-captions"):
        Templates.load(source)


def test_drawing_is_by_the_generator_and_reaches_every_template():
    templates = Templates.load("style")
    drawn = [templates.draw("", torch.Generator().manual_seed(seed)) for seed in range(400)]
    assert set(drawn) == set(templates.prompts(""))
    assert drawn[7] == templates.draw("", torch.Generator().manual_seed(7))


# --- Tags -----------------------------------------------------------------------

TAGS = st.lists(st.text("abc ", min_size=1).filter(str.strip).map(str.strip), max_size=6)


def varied(caption: str, shuffle: bool = True, drop: float = 0.0, keep: int = 0, seed: int = 0) -> list[str]:
    text = vary_tags(caption, torch.Generator().manual_seed(seed), shuffle, drop, keep)
    return text.split(", ") if text else []


@given(TAGS, st.integers(0, 8), st.integers(0, 1000))
def test_shuffled_tags_are_the_same_tags_and_the_first_stay(tags, keep, seed):
    result = varied(", ".join(tags), keep=keep, seed=seed)
    assert result[:keep] == tags[:keep]
    assert sorted(result) == sorted(tags)


def test_every_order_and_every_choice_comes():
    assert len({tuple(varied("a, b, c", seed=seed)) for seed in range(200)}) == 6
    assert len({tuple(varied("a, b, c", shuffle=False, drop=0.5, seed=seed)) for seed in range(200)}) == 8
    dropped = sum(3 - len(varied("a, b, c", drop=0.2, seed=seed)) for seed in range(2000))
    assert dropped / 6000 == pytest.approx(0.2, abs=0.02)


def test_a_tag_with_the_word_and_the_first_ones_are_never_left_out():
    for seed in range(100):
        left = varied("first, a, [name] toy, b", drop=0.9, keep=1, seed=seed)
        assert left[0] == "first"
        assert "[name] toy" in left


def test_without_variation_a_caption_is_itself_and_draws_nothing():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert vary_tags("a ,b,, c ", generator, False, 0.0, 0) == "a ,b,, c "
    assert torch.equal(generator.get_state(), before)


@given(TAGS, st.integers(0, 8), st.integers(0, 1000))
def test_no_order_of_tags_has_the_word_later_than_the_one_that_is_checked(tags, keep, seed):
    caption = ", ".join([*tags[:2], NAME, *tags[2:]])
    checked = with_name_last(caption, keep)
    assert ", ".join(varied(caption, keep=keep, seed=seed)).index(NAME) <= checked.index(NAME)


@pytest.mark.parametrize(
    ("caption", "says_it"),
    [
        ("a photo of my-cat", True),
        ("My-Cat, red", True),
        ("a photo of my-cats", False),
        ("tommy-cat", False),
        ("[name] the my-cat", False),
        ("", False),
    ],
)
def test_a_caption_may_call_the_word_by_its_name(caption, says_it):
    assert mentions(caption, "my-cat") == says_it


# --- What people type -----------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words", "prompt"),
    [
        ("a photo of *", ["cat"], ("a photo of ", Slot("cat"))),
        ("a photo of <cat>", ["cat"], ("a photo of ", Slot("cat"))),
        ("<cat> and <dog>", ["cat", "dog"], (Slot("cat"), " and ", Slot("dog"))),
        ("<cat><cat>", ["cat"], (Slot("cat"), Slot("cat"))),
        ("5 * 3 <cat>", ["cat", "dog"], ("5 * 3 ", Slot("cat"))),
        ("<catfish> <cat>", ["cat"], ("<catfish> ", Slot("cat"))),
        ("<a.b> <axb>", ["a.b"], (Slot("a.b"), " <axb>")),
        ("<(c|t)+> x", ["(c|t)+", "c"], (Slot("(c|t)+"), " x")),
        ("a photo", ["cat"], ("a photo",)),
        ("a photo of * <cat>", [], ("a photo of * <cat>",)),
    ],
)
def test_typed_prompts(text, words, prompt):
    assert parse(text, words) == prompt


def test_of_two_marks_the_longer_wins():
    assert slots("catfish cat", {"cat": "a", "catfish": "b"}) == (Slot("b"), " ", Slot("a"))


PLAIN = st.text(st.characters(blacklist_characters="<>*", blacklist_categories=("Cs",)), min_size=1)
WORDS = st.text(st.characters(blacklist_characters="<>", blacklist_categories=("Cs",)), min_size=1)


@given(
    data=st.data(), words=st.lists(WORDS.filter(lambda word: word != PLACEHOLDER), min_size=1, max_size=4, unique=True)
)
def test_a_prompt_survives_being_read_by_people(data, words):
    texts = data.draw(st.lists(PLAIN, min_size=1, max_size=4))
    named = data.draw(st.lists(st.sampled_from(words), min_size=len(texts), max_size=len(texts)))
    prompt = tuple(piece for text, word in zip(texts, named, strict=True) for piece in (text, Slot(word)))
    assert parse(text_of(prompt), words) == prompt


@given(PLAIN, PLAIN)
def test_the_word_being_learnt_is_read_as_a_star(before, after):
    prompt = (before, STAR, after)
    assert text_of(prompt) == f"{before}*{after}"
    assert slots(text_of(prompt), {PLACEHOLDER: PLACEHOLDER}) == prompt


@given(st.text(), st.lists(WORDS, max_size=3, unique=True))
def test_parsing_loses_no_text(text, words):
    marks = {f"<{word}>": word for word in words}
    spelt = "".join(f"<{p.name}>" if isinstance(p, Slot) else p for p in slots(text, marks))
    assert spelt == text


def letters(prompt: Prompt) -> int:
    return len(text_of(prompt))


def test_the_prompt_with_the_most_text_before_its_last_word_is_the_first_not_to_fit():
    early = fill(f"{NAME} is followed by a great deal of text", "")
    late, twice = fill(f"a photo of a {NAME}", ""), fill(f"{NAME} and also that {NAME}", "")
    assert latest_slot([early, late], letters) == late
    assert latest_slot([early, late, twice], letters) == twice


@pytest.mark.parametrize("written", ["cafe\u0301", "caf\u00e9"])
@pytest.mark.parametrize("name", ["cafe\u0301", "caf\u00e9"])
def test_a_name_is_the_same_in_every_unicode_form(name, written):
    """macOS' file names are decomposed, what is typed is composed."""
    assert parse(f"a <{written}>", [name]) == ("a ", Slot(name))
    assert mentions(f"a {written}", name)
