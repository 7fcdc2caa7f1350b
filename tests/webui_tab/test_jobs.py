"""How a job ends, with a small real model; no WebUI is needed."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
from tiny_host import TinyHost

from ti_train.host import Slot


class Host(TinyHost):
    """As a WebUI's, which has a few things more."""

    Interrupted = KeyboardInterrupt

    def encode(self, prompts: Any, embeddings: Any, sizes: Any = ()) -> Any:
        """The slots' class is the one of the pack as the WebUI imports it."""
        ours = [tuple(p if isinstance(p, str) else Slot(p.name) for p in prompt) for prompt in prompts]
        return super().encode(ours, embeddings, sizes)

    def release_weights(self) -> None: ...

    def reload_embeddings(self) -> None: ...


@pytest.fixture
def jobs(load_in_webui, monkeypatch, tmp_path) -> Any:
    """The module, in a WebUI whose queue is empty and whose checkpoint is tiny."""
    webui = sys.modules["modules"]
    webui.paths_internal.data_path = str(tmp_path)
    webui.call_queue.queue_lock = nullcontext()
    webui.shared.opts = SimpleNamespace(ti_train_folder="", ti_train_records=False)
    webui.shared.cmd_opts = SimpleNamespace(
        embeddings_dir=str(tmp_path / "embeddings"),
        textual_inversion_templates_dir=str(tmp_path),
        webui_is_non_local=False,
        hide_ui_dir_config=False,
    )
    webui.shared.state = SimpleNamespace(
        interrupted=False, stopping_generation=False, begin=lambda job: None, end=lambda: None, interrupt=lambda: None
    )
    webui.progress.create_task_id = lambda name: f"task({name})"
    webui.progress.pending_tasks = {}
    webui.sd_samplers.samplers = [SimpleNamespace(name="Euler")]
    (tmp_path / "embeddings").mkdir()
    module = load_in_webui("webui_tab.jobs")
    monkeypatch.setattr(module, "connect", Host)
    return module


@pytest.fixture
def begun(jobs, load_in_webui, pictures, monkeypatch) -> Callable[..., Any]:
    """Starts a job of six steps; at(step, job) is called after each step."""
    request = load_in_webui("webui_tab.request").TrainRequest

    def begun(at: Callable[[int, Any], None] = lambda step, job: None, **given: Any) -> Any:
        show = jobs._show

        def seen(job: Any, event: Any) -> None:
            show(job, event)
            at(getattr(event, "step", 0), job)

        monkeypatch.setattr(jobs, "_show", seen)
        settings = {"name": "toy", "init": "toy", "pictures": str(pictures), "steps": 6, "batch_size": 1} | given
        job = jobs.start(request(**settings))
        assert job.ended.wait(60)
        monkeypatch.setattr(jobs, "_show", show)
        return job

    return begun


def at_step_3(end: Callable[[Any], None]) -> Callable[[int, Any], None]:
    return lambda step, job: end(job) if step == 3 else None


def test_stop_and_keep_ends_a_training_as_if_it_were_complete(jobs, begun, tmp_path):
    file = tmp_path / "embeddings" / "toy.safetensors"
    assert begun().state == jobs.DONE
    before = file.read_bytes()
    job = begun(at_step_3(jobs.stop_and_keep), overwrite=True, seed=1)
    assert (job.state, job.session.done.complete, job.session.steps[-1].step) == (jobs.DONE, False, 3)
    assert file.read_bytes() != before
    again = jobs.resume(jobs.request_of(job.id))
    assert again.ended.wait(60)
    assert again.session.done.complete
    assert [step.step for step in again.session.steps] == [4, 5, 6]


def test_a_training_that_ends_before_it_has_saved_a_step_leaves_an_interrupted_one_its_settings(
    jobs, begun, load_in_webui
):
    begun(at_step_3(jobs.interrupt), seed=5)
    failed = begun(lambda step, job: jobs.interrupt(job), overwrite=True, seed=6)
    assert not failed.session.trained
    kept = load_in_webui("webui_tab.unfinished").of_embedding("toy")
    assert kept.seed == 5
    resumed = jobs.resume(kept)
    assert resumed.ended.wait(60)
    assert (resumed.state, [step.step for step in resumed.session.steps]) == (jobs.DONE, [4, 5, 6])
    assert load_in_webui("webui_tab.unfinished").of_embedding("toy") is None


def test_what_a_training_remarks_is_among_the_messages_of_its_job(begun):
    assert any("'red toy' is 2 tokens of this model" in message for message in begun(init="red toy", steps=1).messages)


def test_a_preview_that_cannot_be_kept_for_the_page_ends_no_training(jobs, begun, tmp_path):
    jobs.shared.state.assign_current_image = lambda image: None
    (tmp_path / "ti-train").mkdir()
    (tmp_path / "ti-train" / "previews").write_text("no folder")
    job = begun(preview_every=2, preview_prompts=["a *"])
    assert (job.state, job.error, job.previews.seen) == (jobs.DONE, "", 0)
    assert len([message for message in job.messages if "Previews are missing here" in message]) == 1


def test_the_last_jobs_that_have_ended_are_known_and_no_earlier_ones(jobs, begun, monkeypatch):
    numbers = itertools.count()
    sys.modules["modules"].progress.create_task_id = lambda name: f"task({name}-{next(numbers)})"
    monkeypatch.setattr(jobs, "KEPT", 2)
    started = [begun(name=f"toy{number}", steps=1).id for number in range(4)]
    assert [jobs.find(job) is not None for job in started] == [False, True, True, True]


def test_what_waits_in_the_queue_is_called_off_and_has_nothing_to_keep(jobs, load_in_webui, pictures, monkeypatch):
    queue = threading.Lock()
    monkeypatch.setattr(jobs.call_queue, "queue_lock", queue)
    request = load_in_webui("webui_tab.request").TrainRequest
    with queue:
        job = jobs.start(request(name="toy", init="toy", pictures=str(pictures), steps=6))
        with pytest.raises(ValueError, match="'toy' has not begun: there is nothing to keep yet"):
            jobs.stop_and_keep(job)
        jobs.interrupt(job)
        assert (job.state, job.ended.is_set()) == (jobs.INTERRUPTED, True)


def test_reload_ui_interrupts_a_training_though_the_webui_takes_its_own_interruption_back(jobs, begun):
    def reload(step: int, job: Any) -> None:
        if step == 3:
            jobs.interrupt_running()
            jobs.shared.state.interrupted = False

    job = begun(reload)
    assert (job.state, job.session.steps[-1].step) == (jobs.INTERRUPTED, 3)


def test_an_interrupted_training_says_once_how_it_goes_on(jobs, begun, load_in_webui):
    job = begun(at_step_3(jobs.interrupt))
    assert job.state == jobs.INTERRUPTED
    summary = load_in_webui("webui_tab.chart").summary(job)
    assert "Continue from step 3 with Resume" in summary
    assert summary.count("Resume") == 1


def test_a_training_that_was_kept_says_which_step_and_that_it_can_go_on(jobs, begun, load_in_webui):
    job = begun(at_step_3(jobs.stop_and_keep))
    summary = load_in_webui("webui_tab.chart").summary(job)
    assert "Step 3 is kept, the last one" in summary
    assert "It was stopped before its last step: Resume continues it." in summary
    assert "in any prompt as <code>toy</code>" in summary


def test_a_resumed_training_fills_the_fields_with_its_own_settings(jobs, begun, load_in_webui, pictures):
    """In a WebUI that was started anew, whose fields have their defaults."""
    begun(at_step_3(jobs.interrupt), learning_rate="0.02", preset="Style", seed=7)
    tab = load_in_webui("webui_tab.tab")
    names = ["name", "steps", "learning_rate", "templates", "seed", "pictures", "preset"]
    sys.modules["gradio"].update = lambda value=None: value
    shown = tab.beginning(tab.resume_job, names, filled=True)("toy", 120, "0.01", "object", 0, "", "Balanced")
    assert [*shown[-8:]] == ["toy", 6, "0.02", "style", 7, str(pictures), "Style", "Style"]
    assert jobs.find(shown[1]).ended.wait(60)


def test_only_so_many_wait_and_those_that_are_called_off_count_until_they_are_gone(
    jobs, load_in_webui, pictures, monkeypatch
):
    monkeypatch.setattr(jobs, "_places", threading.BoundedSemaphore(2))
    monkeypatch.setattr(jobs.call_queue, "queue_lock", threading.Lock())
    numbers = itertools.count()
    sys.modules["modules"].progress.create_task_id = lambda name: f"task({name}-{next(numbers)})"
    request = load_in_webui("webui_tab.request").TrainRequest

    def start(name: str) -> Any:
        return jobs.start(request(name=name, init="toy", pictures=str(pictures), steps=1))

    with jobs.call_queue.queue_lock:
        for name in ("toy1", "toy2"):
            jobs.interrupt(start(name))
        with pytest.raises(ValueError, match="trainings wait"):
            start("toy3")
    for thread in threading.enumerate():
        if thread.name.startswith("task("):
            thread.join(20)
    assert start("toy3").ended.wait(60)


def test_no_list_is_longer_than_any_use_needs(load_in_webui):
    request = load_in_webui("webui_tab.request").TrainRequest
    merge = load_in_webui("webui_tab.exports")
    long = ["a"] * 101
    with pytest.raises(ValueError, match="'preview_prompts' has 101 entries; 100 are possible"):
        request(name="toy", pictures="toys", preview_prompts=long).config()
    with pytest.raises(ValueError, match="'words' has 101 entries"):
        merge.merged(merge.MergeRequest(words=long, name="all"))
