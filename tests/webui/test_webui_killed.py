"""A WebUI that is killed in mid-run: nothing is lost, and the continued run ends in the very files of a whole one."""

from __future__ import annotations

from contextlib import closing

import pytest

from benchmarks.abuse_parts.in_webui import InWebUI
from benchmarks.abuse_parts.kill import killed
from ti_train.reproducible import EPOCH

pytestmark = pytest.mark.slow
SEED = 11  # draws moments in the middle of the run


def test_a_run_whose_server_is_killed_again_and_again_ends_in_the_files_of_a_whole_one(
    webui, checkpoint, hub, pictures, tmp_path, monkeypatch
):
    monkeypatch.setenv(EPOCH, "86400")
    with closing(InWebUI(webui, tmp_path / "webui", pictures)) as training:
        found = killed(training, tmp_path / "whole", times=3, seed=SEED)
    assert found.wrong == []
    assert found.kills == 3
    assert found.resumable == 3
