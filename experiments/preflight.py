"""What cannot run is refused before anything is started or written."""

import torch

from core import build
from core.any_trainer import check_classes, check_enough
from core.data.images import check_levels
from core.measurements import check, check_features
from experiments.execute import Task


def preflight(tasks: list[Task], here: bool = True) -> None:
    """Refuses features, data, sizes and a device that are not there, or do not fit one another.

    here: on this machine, rather than on one of another kind.
    """
    checked = set()

    def once(*key) -> bool:
        new = key not in checked
        checked.add(key)
        return new

    for task in tasks:  # first what takes no time: images may take minutes to read
        for asked in task.missing:
            check_features(asked.settings, task.housekeeping)
    for task in tasks:
        config, housekeeping = task.config, task.housekeeping
        form = config.unet, config.gan, config.objective.name
        if once(config.data, config.optim.batch_size, *form):
            if here:
                build.device(housekeeping)
            data = config.data
            images = build.training_images(data, housekeeping.data_path or None)
            if config.source == "here":
                check_enough(images, config.optim.batch_size)
                check_levels(images)
                check_classes(images, config.unet.class_conditional)
            with torch.device("meta"):
                build.network(config, images.channels, images.size, images.classes)
        for asked in task.missing:
            if once(config.data, asked.settings):
                check(config, asked.settings, housekeeping)
