"""The settings page of TI Train."""

from __future__ import annotations

from modules import shared

SECTION = ("ti_train", "TI Train")


def add_settings() -> None:
    def add(key: str, option: shared.OptionInfo) -> None:
        option.section = SECTION
        shared.opts.add_option(key, option)

    add(
        "ti_train_folder",
        shared.OptionInfo("", "Folder for training pictures and records of runs").info(
            "empty: the folder ti-train in the WebUI's data folder; pictures go into folders below its pictures/"
        ),
    )
    add(
        "ti_train_records",
        shared.OptionInfo(True, "Keep a table and a plot of the loss and the previews of each run").info(
            "in its runs/NAME/"
        ),
    )
