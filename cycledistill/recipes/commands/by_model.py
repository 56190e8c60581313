"""``cycledistill predict MODEL ...`` and ``cycledistill evaluate MODEL ...``: whose the model is says which command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cycledistill.recipes.errors import CheckpointError


@dataclass(frozen=True)
class ByModel:
    """A verb of several commands, named as those that train; see :class:`cycledistill.commands.frame.Chooser`.

    Attributes:
        verb: The word.
        help: What it does, in one line.
    """

    verb: str
    help: str
    requires: str = "cycledistill[all]"

    @property
    def epilog(self) -> str:
        """What stands under the help."""
        return (
            f"cycledistill {self.verb} MODEL ...: MODEL comes first, and says by itself which of these commands is "
            "meant. It is a run, a checkpoint, a file of weights, a folder of save_pretrained, or USER/NAME on the hub."
        )

    def choose(self, words: Sequence[str], known: Sequence[str]) -> str:
        """The command of the model that is typed first.

        Raises:
            CheckpointError: There is no such model, nothing says whose it is, or its command has no such verb.
        """
        from cycledistill.recipes.commands.held import command_of  # they need more than help may load
        from cycledistill.recipes.config.overrides import did_you_mean

        model = words[0]
        if not os.path.exists(model) and os.sep not in model:
            near = did_you_mean(model, list(known))
            raise CheckpointError(f"{model} is no run and no file, nor one of the commands {', '.join(known)}.{near}")
        command = command_of(model, _option(words, "--config"))
        if command not in known:
            raise CheckpointError(
                f"{model} was trained by `cycledistill train {command}`, and `cycledistill {self.verb}` takes models "
                f"of: {', '.join(known)}"
            )
        return command


def _option(words: Sequence[str], name: str) -> str | None:
    """The value of an option, as it was typed."""
    for place, word in enumerate(words):
        if word == name and place + 1 < len(words):
            return words[place + 1]
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return None


PREDICT = ByModel("predict", "poses in pictures and videos, or 3D poses of keypoints, by a trained model")
EVALUATE = ByModel("evaluate", "measure a trained model at every exit")
