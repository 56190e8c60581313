"""``cycledistill predict MODEL ...`` and ``cycledistill evaluate MODEL ...``: whose the model is says which command."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from cycledistill.recipes.errors import CheckpointError
from cycledistill.terminal.flags import MEASURED, TRAINED
from cycledistill.terminal.loading import say_loading
from cycledistill.terminal.logs import log_to_stderr
from cycledistill.terminal.parser import Parser


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
    def measures(self) -> bool:
        """Whether it needs the recipe of a run, and not the model alone."""
        return self.verb == "evaluate"

    @property
    def epilog(self) -> str:
        """What stands under the help."""
        return (
            f"cycledistill {self.verb} MODEL ...: MODEL comes first, and says by itself which of these commands is "
            f"meant. It is {MEASURED if self.measures else TRAINED}. Options: cycledistill {self.verb} COMMAND --help."
        )

    def choose(self, words: Sequence[str], known: Sequence[str]) -> str:
        """The command of the model that is typed first.

        Raises:
            CheckpointError: There is no such model, nothing says whose it is, or its command has no such verb.
        """
        from cycledistill.recipes.commands.held import command_of  # they need more than help may load
        from cycledistill.recipes.config.overrides import did_you_mean

        log_to_stderr()
        model = words[0]
        if not os.path.exists(model) and os.sep not in model:
            near = did_you_mean(model, list(known))
            raise CheckpointError(f"{model} is no run and no file, nor one of the commands {', '.join(known)}.{near}")
        if self.measures and not os.path.exists(model):
            _refuse_hub(model, self.verb)
        command = command_of(model, _config(words[1:]))
        if command not in known:
            raise CheckpointError(
                f"{model} was trained by `cycledistill train {command}`, and `cycledistill {self.verb}` takes models "
                f"of: {', '.join(known)}"
            )
        return command


def _refuse_hub(model: str, verb: str) -> None:
    say_loading()
    from cycledistill.recipes.hub.files import can_be_on_hub

    if can_be_on_hub(model):
        raise CheckpointError(
            f"{model} is not here: {verb} takes {MEASURED}. A model on the hub is downloaded first, by its "
            "from_pretrained and save_pretrained, and its model.safetensors measured by a recipe (--config NAME)"
        )


def _config(words: Sequence[str]) -> str | None:
    """What ``--config`` names, as the command that is chosen will read it."""
    parser = Parser(add_help=False)
    parser.add_argument("--config", nargs="?")  # without a value: the command's own parser says so
    config: str | None = parser.parse_known_args(words)[0].config
    return config


PREDICT = ByModel("predict", "classes of pictures, poses in them, or 3D poses of keypoints, by a trained model")
EVALUATE = ByModel("evaluate", "measure a trained model at every exit")
