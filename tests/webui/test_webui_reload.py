"""A page that is closed or loaded anew, and "Reload UI", while the tab's trainings run."""

from __future__ import annotations

import re

import pytest
from tab_page import RUNS_WITHIN, entered, expect, fill, new_page, opened, reload_ui, says, shot, summary, upload

pytestmark = pytest.mark.slow
STEPS = "150"


@pytest.fixture(scope="module")
def watched(browser, server, drawings):
    """The tab, with pictures and options for short steps and previews."""
    page = new_page(browser, server)
    fill(page, "name", "watched")
    fill(page, "init", "toy")
    upload(page, drawings)
    page.locator("#ti_train_thumbnails img").nth(1).wait_for()
    opened(page, "More")
    options = {"batch_size": "1", "resolution": "64", "preview_every": "5", "preview_steps": "1", "seed": "7"}
    for field, value in options.items():
        fill(page, field, value)
    return page


def test_a_page_that_is_loaded_anew_shows_the_running_training_and_its_fields(server, watched):
    fill(watched, "steps", STEPS)
    watched.locator("#ti_train_start").click()
    says(watched, "watched is training.*Step [1-9]")
    entered(watched, server)
    says(watched, "watched is training")
    expect(watched.locator("#ti_train_summary .progressDiv").first).to_contain_text("%", timeout=RUNS_WITHIN)
    expect(watched.locator("#ti_train_previews img").nth(1)).to_be_visible()
    for field, value in {"name": "watched", "init": "toy", "steps": STEPS, "seed": "7"}.items():
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
    says(another, "watched is training")
    reload_ui(another, server)
    another.close()


def test_the_ui_reloads_while_a_training_is_watched(browser, server, watched):
    """It is interrupted, and nothing of it is lost."""
    page = new_page(browser, server)
    says(page, "watched was interrupted")
    page.locator("#ti_train_resume").click()
    says(page, "watched is training.*Step [1-9]")
    reload_ui(page, server)
    page.close()
    again = new_page(browser, server)
    says(again, "watched was interrupted.*Continue from step [0-9]+ with Resume")
    step = re.search("Continue from step ([0-9]+)", summary(again).inner_text())[1]
    again.locator("#ti_train_resume").click()
    says(again, "watched is training.*Step [1-9]")
    again.locator("#ti_train_keep").click()
    says(again, "watched is trained")
    assert int(re.search("Step ([0-9]+) of", summary(again).inner_text())[1]) >= int(step)
