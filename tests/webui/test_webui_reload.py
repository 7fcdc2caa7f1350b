"""A page that is closed or loaded anew, and "Reload UI", while the tab's trainings run."""

from __future__ import annotations

import pytest
from tab_page import RUNS_WITHIN, entered, expect, fill, new_page, opened, reload_ui, says, shot, summary, upload

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def watched(browser, server, drawings):
    """The tab, with pictures and options for short steps."""
    page = new_page(browser, server)
    fill(page, "name", "watched")
    fill(page, "init", "toy")
    upload(page, drawings)
    page.locator("#ti_train_thumbnails img").nth(1).wait_for()
    opened(page, "More")
    for field, value in {"batch_size": "1", "resolution": "64", "preview_every": "5", "seed": "7"}.items():
        fill(page, field, value)
    return page


def test_a_page_that_is_loaded_anew_shows_the_running_training_and_its_fields(server, watched):
    fill(watched, "steps", "80")
    watched.locator("#ti_train_start").click()
    says(watched, "watched is training.*Step [1-9]")
    entered(watched, server)
    says(watched, "watched is training")
    expect(watched.locator("#ti_train_bar .progressDiv")).to_contain_text("Training 'watched'", timeout=RUNS_WITHIN)
    expect(watched.locator("#ti_train_previews img").nth(1)).to_be_visible()
    for field, value in {"name": "watched", "init": "toy", "steps": "80", "seed": "7"}.items():
        box = watched.locator(f"#ti_train_{field} input, #ti_train_{field} textarea").first
        expect(box).to_have_value(value)
    watched.locator("#ti_train_thumbnails img").nth(1).wait_for()
    shot(watched, server, "loaded-anew")
    watched.locator("#ti_train_interrupt").click()
    says(watched, "watched was interrupted")


def test_the_ui_reloads_after_a_training_was_watched_in_a_page_that_is_closed(browser, server, watched):
    other = new_page(browser, server)
    fill(other, "name", "watched")
    other.locator("#ti_train_resume").click()
    says(other, "watched is training.*Step [1-9]")
    other.close()
    another = new_page(browser, server)
    reload_ui(another, server)
    another.close()


def test_the_ui_reloads_while_a_training_is_watched(browser, server, watched):
    """The WebUI may interrupt what runs; nothing of it is lost."""
    page = new_page(browser, server)
    says(page, "watched (is training|was interrupted)")
    if "was interrupted" in summary(page).inner_text():
        page.locator("#ti_train_resume").click()
    says(page, "watched is training.*Step [1-9]")
    reload_ui(page, server)
    page.close()
    again = new_page(browser, server)
    says(again, "watched (is training|was interrupted|is trained)")
    if "was interrupted" in summary(again).inner_text():
        again.locator("#ti_train_resume").click()
    says(again, "watched is trained.*Step 80 of 80")
