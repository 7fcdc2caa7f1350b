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
        shared.OptionInfo("", "Folder for training images and run records").info(
            "empty: ti-train in the WebUI's data folder; put each set of images in a folder in its pictures/"
        ),
    )
    add(
        "ti_train_records",
        shared.OptionInfo(True, "Save the loss table, loss plot and previews of each run").info(
            "in runs/NAME/ of that folder"
        ),
    )
