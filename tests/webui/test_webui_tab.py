"""The tab in a headless Chromium. WEBUI_BROWSER: its program, if Playwright shall not look for its own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image
from tab_page import RUNS_WITHIN, beside, chosen, entered, expect, fill, opened, says, shot, upload

from ti_train.formats import load_embedding

pytestmark = pytest.mark.slow


def test_upload_train_and_use_the_word(page, server, drawings):
    unknown = server.picture("a photo of a tabtoy")
    fill(page, "name", "tabtoy")
    fill(page, "init", "toy")
    upload(page, drawings)
    page.locator("#ti_train_thumbnails img").nth(1).wait_for()
    beside(page, "2 image(s).")
    folder = server.base / "ti-train" / "pictures" / "tabtoy"
    assert {path.name for path in folder.iterdir()} == {"blue.png", "red.png"}

    opened(page, "More")
    for field, value in {"steps": "6", "batch_size": "1", "resolution": "64", "preview_every": "3"}.items():
        fill(page, field, value)
    page.locator("#ti_train_start").click()
    says(page, "is training")
    bar = page.locator("#ti_train_bar .progressDiv")
    expect(bar).to_contain_text("Training 'tabtoy'", timeout=RUNS_WITHIN)
    shot(page, server, "running")
    says(page, r"is trained.*Step 6 of 6")
    expect(page.locator("#ti_train_previews img")).to_have_count(3)
    expect(page.locator("#ti_train_chart svg .measured").first).to_be_visible()
    expect(bar).to_have_count(0, timeout=30_000)
    shot(page, server, "learnt")
    assert server.picture("a photo of a tabtoy") != unknown


def test_a_mask_is_uploaded_to_its_picture_and_seen(page, server, drawings):
    before = page.locator("#ti_train_thumbnails img").first.get_attribute("src")
    mask = Path(drawings[0]).with_name("blue-mask.png")
    drawn = Image.new("L", (80, 64), "black")
    drawn.paste("white", (12, 8, 52, 48))
    drawn.save(mask)
    upload(page, [str(mask)])
    beside(page, "2 image(s), 1 with a mask")
    assert (server.base / "ti-train" / "pictures" / "tabtoy" / "blue-mask.png").is_file()
    assert page.locator("#ti_train_thumbnails img").first.get_attribute("src") != before
    shot(page, server, "masked")
    chosen(page, "mask", "none")
    beside(page, "2 image(s).")
    chosen(page, "mask", "files")
    beside(page, "1 with a mask")


def test_captions_are_edited_and_written(page, server):
    opened(page, "Captions")
    page.locator("#ti_train_captions").scroll_into_view_if_needed()  # gradio 4 draws no rows out of view
    page.locator("#ti_train_captions table").last.locator("tbody td").nth(1).dblclick()
    page.keyboard.type("on a table, blue")
    page.keyboard.press("Enter")
    page.locator("#ti_train_write_captions").click()
    expect(page.locator("#ti_train_captions_written").first).to_contain_text("1 caption(s) saved")
    beside(page, "1 with a caption")
    assert (server.base / "ti-train" / "pictures" / "tabtoy" / "blue.txt").read_text() == "on a table, blue"


def test_previews_take_the_prompt_of_txt2img(page):
    for place, value in (("prompt textarea", "a (tabtoy:1.2),\non a tabtoy-shelf"), ("neg_prompt textarea", "dark")):
        page.locator(f"#txt2img_{place}").evaluate("(box, text) => { box.value = text; }", value)
    page.locator("#txt2img_seed input").evaluate("(box) => { box.value = 77; }")
    page.locator("#ti_train_from_txt2img").click()
    prompts = page.locator("#ti_train_preview_prompts textarea")
    expect(prompts).to_have_value("a (*:1.2), on a tabtoy-shelf")
    expect(page.locator("#ti_train_preview_negative textarea")).to_have_value("dark")
    expect(page.locator("#ti_train_preview_seed input")).to_have_value("77")


def test_interrupt_and_resume_in_another_session(page, server):
    fill(page, "name", "stopped")
    fill(page, "steps", "120")
    fill(page, "preview_every", "0")
    page.locator("#ti_train_start").click()
    says(page, "stopped.*Step [1-9]")
    page.locator("#ti_train_interrupt").click()
    says(page, "stopped was interrupted.*Click Resume to continue")
    server.restart()
    entered(page, server)
    fill(page, "name", "stopped")
    page.locator("#ti_train_resume").click()
    says(page, "stopped is trained.*Step 120 of 120.*settings that this training was started with")


def test_mistakes_are_told(page):
    chosen(page, "folder", "tabtoy")
    beside(page, "2 image(s)")
    fill(page, "name", "a/b")
    page.locator("#ti_train_start").click()
    says(page, "contains a character that file names must not have")


def test_embeddings(page, server):
    page.locator("#ti_train_tabs > .tab-nav > button", has_text="Embeddings").click()
    expect(page.locator("#ti_train_embedding_table").first).to_contain_text("tabtoy")
    chosen(page, "embedding", "tabtoy.safetensors")
    page.locator("#ti_train_show_details").click()
    text = page.locator("#ti_train_details textarea")
    expect(text).to_have_value(re.compile("nearest words: toy"), timeout=RUNS_WITHIN)
    shot(page, server, "words")


def test_convert_and_merge(page, server):
    outcome, table = page.locator("#ti_train_outcome").first, page.locator("#ti_train_embedding_table").first
    chosen(page, "convert_word", "tabtoy.safetensors")
    fill(page, "convert_name", "tabtoy-pt")
    chosen(page, "convert_format", "a1111")
    page.locator("#ti_train_convert").click()
    expect(outcome).to_contain_text("Wrote tabtoy-pt.pt: 1 x 768 (emb_params), fp32, as a1111.")
    expect(table).to_contain_text("tabtoy-pt.pt")

    page.locator("#ti_train_new_files > .tab-nav > button", has_text="Merge").click()
    chosen(page, "merge_word_1", "tabtoy.safetensors")
    chosen(page, "merge_word_2", "tabtoy-pt.pt")
    fill(page, "merge_name", "two-toys")
    page.locator("#ti_train_merge").click()
    expect(outcome).to_contain_text("Wrote two-toys.safetensors: 2 x 768")
    page.locator("#ti_train_merge").click()
    expect(outcome).to_contain_text("The file 'two-toys.safetensors' exists.")
    shot(page, server, "merged")
    assert load_embedding(server.base / "embeddings" / "two-toys.safetensors").num_vectors == 2
