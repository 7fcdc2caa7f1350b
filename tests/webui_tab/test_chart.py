"""What the tab says about a job; no WebUI is needed."""

from __future__ import annotations

from pathlib import Path

import torch


def ended_job(load, file: Path):
    """A job whose training is complete, with its embedding in `file`."""
    jobs, request = load("webui_tab.jobs"), load("webui_tab.request")
    config = load("ti_train.training.config").TrainConfig("cat", "toy")
    session = load("ti_train.training.session").Session(config, file.parent)
    embedding = load("ti_train.embedding").Embedding("cat", {"emb_params": torch.zeros(1, 4)}, {})
    session.done = load("ti_train.events").Done(embedding, file, 1.0, 120, "Step 120 of 120 is kept.", False)
    asked = request.TrainRequest(name="cat", pictures="cats")
    return jobs.Job("task(1)", asked, config, file, session, None, jobs.DONE)


def test_a_training_that_was_put_beside_a_better_embedding_is_used_by_its_own_name(load_in_webui, tmp_path):
    job = ended_job(load_in_webui, tmp_path / "cat-worse.safetensors")
    assert "in any prompt as <code>cat-worse</code>" in load_in_webui("webui_tab.chart").summary(job)


def test_the_chart_costs_as_much_after_a_hundred_thousand_steps_as_at_first(load_in_webui, tmp_path):
    """Each open page asks for it every second: the steps are not gone through each time."""

    class Steps(list):
        def __iter__(self):
            raise AssertionError("all steps are read")

    job, step = ended_job(load_in_webui, tmp_path / "cat.safetensors"), load_in_webui("ti_train.events").Step
    job.session.steps = Steps(step(number, 0.5, None, 0.01, 1.0, 1.0, 0.0) for number in range(1, 4))
    for number in range(1, 4):
        job.session.curves.add(job.session.steps[number - 1])
    assert "<polyline" in load_in_webui("webui_tab.chart").chart(job)


def test_the_page_is_told_when_to_ask_again_and_how_far_a_running_job_is(load_in_webui, tmp_path):
    job, chart = ended_job(load_in_webui, tmp_path / "cat.safetensors"), load_in_webui("webui_tab.chart")
    jobs, step = load_in_webui("webui_tab.jobs"), load_in_webui("ti_train.events").Step
    assert "progressDiv" not in chart.summary(job)
    job.state, job.doing, job.session.done = jobs.RUNNING, "Encoding the images", None
    said = chart.summary(job, 2.5)
    assert "data-again='2.50'" in said
    assert "ti-train-unfinished" in said
    assert "width: 0.0%'>0%" in said
    assert "Encoding the images ..." in said
    job.session.steps = [step(job.config.steps // 4, 0.5, None, 0.01, 1.0, 1.0, 0.0)]
    assert "width: 25.0%'>25%" in chart.summary(job)
    assert "Encoding" not in chart.summary(job)


def test_the_table_of_embeddings_says_after_which_step_one_was_saved_if_that_is_known(load_in_webui):
    known = {"name": "cat", "file": "cat.pt", "vectors": 2, "widths": [768], "step": 500, "layout": "AUTOMATIC1111"}
    of_another_tool = known | {"name": "dog", "step": None}
    table = load_in_webui("webui_tab.chart").embedding_table([known, of_another_tool])
    assert "<td>768</td><td>500</td><td>AUTOMATIC1111</td>" in table
    assert "<td>768</td><td></td><td>AUTOMATIC1111</td>" in table
