"""The tab in a headless Chromium. WEBUI_BROWSER: its program, if Playwright shall not look for its own."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tab_page import RUNS_WITHIN, beside, chosen, entered, expect, fill, new_page, opened, says, shot, summary, upload

from ti_train.editability import initial_of
from ti_train.formats import config_of, load_embedding

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
    options = {"steps": "6", "batch_size": "1", "resolution": "64", "preview_every": "3", "copy_every": "2"}
    for field, value in options.items():
        fill(page, field, value)
    page.locator("#ti_train_start").click()
    says(page, "is training")
    bar = page.locator("#ti_train_summary .progressDiv")
    expect(bar.first).to_contain_text("%", timeout=RUNS_WITHIN)
    shot(page, server, "running")
    says(page, r"is trained.*Step 6 of 6")
    expect(page.locator("#ti_train_previews img")).to_have_count(3)
    expect(page.locator("#ti_train_chart svg .measured").first).to_be_visible()
    expect(bar).to_have_count(0, timeout=30_000)
    shot(page, server, "learnt")
    assert server.picture("a photo of a tabtoy") != unknown
    copies = sorted(path.name for path in (server.base / "embeddings" / "tabtoy-steps").glob("*.safetensors"))
    assert copies == [f"tabtoy-{step:06d}.safetensors" for step in (2, 4, 6)]


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


def test_further_pictures_join_the_chosen_folder_and_one_is_removed(page, server, tmp_path):
    folder = server.base / "ti-train" / "pictures" / "tabtoy"
    before = {path.name for path in folder.iterdir()}
    drawn = Image.new("RGB", (80, 64), "green")
    drawn.save(tmp_path / "green.png")
    upload(page, [str(tmp_path / "green.png")])
    beside(page, "3 image(s)")
    done = page.locator("#ti_train_pictures_done").first
    expect(done).to_contain_text("Added 1 file(s) to 'tabtoy'.")
    assert {path.name for path in folder.iterdir()} == before | {"green.png"}
    page.locator("#ti_train_thumbnails img").nth(1).click()
    page.locator("#ti_train_remove_picture").click()
    expect(done).to_contain_text("Moved green.png to 'tabtoy/removed'.")
    beside(page, "2 image(s)")
    assert (folder / "removed" / "green.png").is_file()
    assert not (folder / "green.png").exists()
    entered(page, server)
    beside(page, "2 image(s)")
    expect(page.locator("#ti_train_name textarea, #ti_train_name input").first).to_have_value("tabtoy")


def test_the_images_of_another_embedding_get_a_new_folder_when_it_is_asked_for(page, server, drawings):
    fill(page, "name", "other-toy")
    upload(page, drawings[:1])
    done = page.locator("#ti_train_pictures_done").first
    expect(done).to_contain_text("to 'tabtoy'. 'tabtoy' holds the images of another embedding")
    page.locator("#ti_train_new_folder").click()
    expect(page.locator("#ti_train_thumbnails").first).to_be_hidden()
    upload(page, drawings[:1])
    beside(page, "1 image(s)")
    expect(done).to_contain_text("Added 1 file(s) to 'other-toy'.")
    assert [path.name for path in (server.base / "ti-train" / "pictures" / "other-toy").iterdir()] == ["blue.png"]
    fill(page, "name", "tabtoy")
    chosen(page, "folder", "tabtoy")
    beside(page, "2 image(s)")


def test_on_ones_own_computer_a_whole_path_is_read_and_written(page, server, drawings, tmp_path):
    shutil.copy(drawings[0], tmp_path / "blue.png")
    chosen(page, "folder", str(tmp_path))
    beside(page, "1 image(s)")
    upload(page, drawings[1:])
    beside(page, "2 image(s)")
    assert {path.name for path in tmp_path.iterdir()} == {"blue.png", "red.png"}
    chosen(page, "folder", "tabtoy")
    beside(page, "2 image(s)")


def steps_field(page) -> Any:
    return page.locator("#ti_train_steps input").first


def test_a_preset_shows_its_numbers_but_not_over_what_was_entered(page):
    steps, rate = (
        steps_field(page),
        page.locator("#ti_train_learning_rate input, #ti_train_learning_rate textarea").first,
    )
    fill(page, "steps", "120")
    chosen(page, "preset", "Paper")
    expect(steps).to_have_value("5000")
    expect(rate).to_have_value("0.005")
    fill(page, "steps", "321")
    chosen(page, "preset", "Balanced")
    expect(rate).to_have_value("0.01")
    expect(steps).to_have_value("321")
    opened(page, "More")
    fill(page, "batch_size", "1")  # short trainings below
    fill(page, "copy_every", "0")


def test_captions_are_edited_and_written(page, server):
    opened(page, "Captions")
    page.locator("#ti_train_captions").scroll_into_view_if_needed()  # gradio 4 draws no rows out of view
    page.locator("#ti_train_captions table").last.locator("tbody td").nth(1).dblclick()
    page.keyboard.type("on a table, blue")
    page.keyboard.press("Enter")
    page.locator("#ti_train_write_captions").click()
    expect(page.locator("#ti_train_captions_written").first).to_contain_text("1 caption(s) saved")
    beside(page, "1 with a caption.")
    beside(page, "1 image(s) have a caption, which the templates 'object' do not use.")
    chosen(page, "templates", "captions")
    expect(page.locator("#ti_train_pictures_note").first).not_to_contain_text("a caption, which the templates")
    chosen(page, "templates", "object")
    assert (server.base / "ti-train" / "pictures" / "tabtoy" / "blue.txt").read_text() == "on a table, blue"


def test_the_webuis_interrogator_captions_the_other_images(page, server):
    server.post("/ti-train-test/draw-deepbooru")
    server.post("/sdapi/v1/options", {"interrogate_deepbooru_score_threshold": 0})
    chosen(page, "interrogator", "DeepBooru")
    page.locator("#ti_train_caption_all").click()
    written = page.locator("#ti_train_captions_written").first
    expect(written).to_contain_text("1 caption(s) written", timeout=RUNS_WITHIN)
    folder = server.base / "ti-train" / "pictures" / "tabtoy"
    assert (folder / "red.txt").read_text() in ("drawn toy", "drawn_toy")
    assert (folder / "blue.txt").read_text() == "on a table, blue"
    beside(page, "2 with a caption")
    page.locator("#ti_train_caption_all").click()
    expect(written).to_contain_text("All images of 'tabtoy' have captions.")
    shot(page, server, "captioned")


def test_previews_take_the_prompt_of_txt2img(page):
    for place, value in (("prompt textarea", "a (tabtoy:1.2),\non a tabtoy-shelf"), ("neg_prompt textarea", "dark")):
        page.locator(f"#txt2img_{place}").evaluate("(box, text) => { box.value = text; }", value)
    for place, number in {"seed": 77, "steps": 9, "cfg_scale": 4.5, "width": 72, "height": 64}.items():
        page.locator(f"#txt2img_{place} input").first.evaluate("(box, n) => { box.value = n; }", number)
    name = page.locator("#ti_train_name input, #ti_train_name textarea").first
    prompts = page.locator("#ti_train_preview_prompts textarea")
    fill(page, "preview_every", "0")
    fill(page, "name", "")
    page.locator("#ti_train_from_txt2img").click()
    expect(prompts).to_have_value("a (tabtoy:1.2), on a tabtoy-shelf")
    name.fill("tabtoy")
    page.locator("#ti_train_from_txt2img").click()
    expect(prompts).to_have_value("a (*:1.2), on a tabtoy-shelf")
    expect(page.locator("#ti_train_preview_negative textarea")).to_have_value("dark")
    for field, value in {"seed": "77", "steps": "9", "cfg": "4.5", "width": "72", "height": "64"}.items():
        expect(page.locator(f"#ti_train_preview_{field} input")).to_have_value(value)
    expect(page.locator("#ti_train_preview_every input")).to_have_value("25")
    sampler = page.locator("#txt2img_sampling input").input_value()
    expect(page.locator("#ti_train_preview_sampler input")).to_have_value(sampler)


def test_preview_prompts_that_are_typed_before_a_click_are_used(page):
    fill(page, "preview_every", "0")
    fill(page, "name", "typedtoy")
    fill(page, "steps", "1")
    page.locator("#ti_train_preview_prompts textarea").fill("a * on a shelf")
    page.locator("#ti_train_start").click()
    says(page, "typedtoy is trained")
    expect(page.locator("#ti_train_preview_every input")).to_have_value("25")
    expect(page.locator("#ti_train_previews img").first).to_be_visible()


def test_interrupt_and_resume_in_another_session(page, server):
    fill(page, "name", "stopped")
    fill(page, "steps", "60")
    fill(page, "preview_every", "0")
    page.locator("#ti_train_start").click()
    says(page, "stopped.*Step [1-9]")
    page.locator("#ti_train_interrupt").click()
    says(page, "stopped was interrupted.*Continue from step [0-9]+ with Resume")
    assert summary(page).inner_text().count("Resume") == 1
    server.restart()
    entered(page, server)
    expect(steps_field(page)).to_have_value("120")
    fill(page, "name", "stopped")
    page.locator("#ti_train_resume").click()
    expect(steps_field(page)).to_have_value("60")
    beside(page, "2 image(s)")
    says(page, "stopped is trained.*Step 60 of 60.*settings that this training was started with")


def test_stop_and_keep(page, server):
    unknown = server.picture("a photo of an early-toy")
    fill(page, "name", "early-toy")
    fill(page, "steps", "400")
    page.locator("#ti_train_start").click()
    says(page, "early-toy is training.*Step [1-9]")
    page.locator("#ti_train_keep").click()
    says(page, "early-toy is trained.*Step [0-9]+ (of [0-9]+ )?is kept")
    says(page, "It was stopped before its last step: Resume continues it.")
    assert server.picture("a photo of an early-toy") != unknown
    page.locator("#ti_train_keep").click()
    expect(page.locator("#ti_train_problem").first).to_contain_text("This page shows no training that runs")


def test_mistakes_are_told_and_the_shown_training_stays(page):
    told = page.locator("#ti_train_problem").first
    chosen(page, "folder", "tabtoy")
    beside(page, "2 image(s)")
    fill(page, "name", "a b")
    page.locator("#ti_train_start").click()
    expect(told).to_contain_text("Use a name such as a-b")
    fill(page, "name", "never-begun")
    page.locator("#ti_train_resume").click()
    expect(told).to_contain_text("There is nothing to resume: no training of 'never-begun' was interrupted.")
    fill(page, "preview_steps", "999")
    page.locator("#ti_train_start").click()
    expect(told).to_contain_text(re.compile("Preview steps is '999': .*150"))
    expect(told).not_to_contain_text("TrainRequest")
    says(page, "early-toy is trained")
    fill(page, "preview_steps", "0")


def test_a_training_continues_from_a_listed_embedding(page):
    listed = page.locator("#ti_train_continue_from [role=option], #ti_train_continue_from li")
    for _ in range(5):  # a list that is brought up to date meanwhile shows what was not typed
        page.locator("#ti_train_continue_from input").fill("")
        page.locator("#ti_train_continue_from input").click()
        page.keyboard.type("tabtoy.safetensors")  # leaves one, which then stays in place
        with suppress(AssertionError):
            expect(listed).to_have_text("tabtoy.safetensors", timeout=10_000)
            break
    listed.click()
    expect(page.locator("#ti_train_init textarea, #ti_train_init input").first).to_have_value("tabtoy.safetensors")


def test_interrupt_ends_the_shown_training_and_no_other(browser, page, server):
    """Of two pages, each of which has started one."""
    opened(page, "More")
    for field, value in {"steps": "400", "batch_size": "1", "resolution": "64"}.items():
        fill(page, field, value)
    fill(page, "name", "first-page")
    page.locator("#ti_train_start").click()
    says(page, "first-page is training")
    other = new_page(browser, server)
    fill(other, "name", "second-page")
    other.locator("#ti_train_start").click()
    says(other, "second-page is queued")
    other.locator("#ti_train_interrupt").click()
    says(other, "second-page was interrupted")
    other.close()
    says(page, "first-page is training")
    page.locator("#ti_train_interrupt").click()
    says(page, "first-page was interrupted")


def test_what_is_entered_reaches_the_training(browser, server):
    """Of fields with choices, what is not among them too."""
    page = new_page(browser, server)
    opened(page, "More")
    fill(page, "name", "entered")
    chosen(page, "folder", "tabtoy")
    typed = {"timesteps": "500-899 .1", "weighting": "sigma 0.5"}
    picked = {"optimizer": "sphere", "initial_vectors": "condensed", "schedule": "constant", "square": "square"}
    filled = {"steps": 4, "early_stop": 9, "pull": 0.25, "average": 0.5, "context": 0.001, "num_vectors": 1}
    filled |= {"batch_size": 1, "resolution": 64}  # short steps
    for field, text in (typed | picked).items():
        chosen(page, field, text)
    for field, number in filled.items():
        fill(page, field, str(number))
    fill(page, "init", "red toy")
    page.locator("#ti_train_start").click()
    says(page, "entered is trained")
    config = config_of(load_embedding(server.base / "embeddings" / "entered.safetensors"))
    assert config.items() >= (typed | picked | filled | {"square": True, "init": "red toy"}).items()
    entered(page, server)
    for field, text in typed.items():
        expect(page.locator(f"#ti_train_{field} input").first).to_have_value(text)
    page.close()


def test_embeddings(page, server):
    page.locator("#ti_train_tabs > .tab-nav > button", has_text="Embeddings").click()
    expect(page.locator("#ti_train_embedding_table").first).to_contain_text("tabtoy")
    chosen(page, "embedding", "tabtoy.safetensors")
    page.locator("#ti_train_show_details").click()
    text = page.locator("#ti_train_details textarea")
    expect(text).to_have_value(re.compile("nearest words: toy"), timeout=RUNS_WITHIN)
    shot(page, server, "words")
    page.locator("#ti_train_embedding_table tr", has_text="stopped.safetensors").click()
    expect(page.locator("#ti_train_embedding input")).to_have_value("stopped.safetensors")
    expect(text).to_have_value(re.compile("^stopped: 1 vector"), timeout=RUNS_WITHIN)


def test_convert_and_merge(page, server):
    outcome, table = page.locator("#ti_train_outcome").first, page.locator("#ti_train_embedding_table").first
    chosen(page, "convert_word", "tabtoy.safetensors")
    fill(page, "convert_name", "tabtoy-pt")
    chosen(page, "convert_format", "a1111")
    page.locator("#ti_train_convert").click()
    expect(outcome).to_contain_text("Wrote tabtoy-pt.pt: 1 x 768 (emb_params), fp32, as a1111.")
    expect(table).to_contain_text("tabtoy-pt.pt")
    fill(page, "convert_name", "editable")
    chosen(page, "convert_format", "safetensors")
    fill(page, "convert_editability", "1")
    page.locator("#ti_train_convert").click()
    expect(outcome).to_contain_text("Wrote editable.safetensors")
    trained, editable = (
        load_embedding(server.base / "embeddings" / f"{n}.safetensors") for n in ("tabtoy", "editable")
    )
    assert torch.allclose(editable.vectors["emb_params"], initial_of(trained)["emb_params"], atol=1e-5)

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
