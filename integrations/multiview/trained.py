"""What a run left behind: its model, ready to use or to measure; and models from files and from the hub."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch

from cycledistill.integrations.human36m.multiview.config import MultiViewConfig
from cycledistill.integrations.human36m.multiview.hub import add_pruning
from cycledistill.integrations.human36m.multiview.model import MultiViewPPT, create_multiview
from cycledistill.integrations.human36m.multiview.weights import load_multiview_weights
from cycledistill.recipes.errors import CheckpointError
from cycledistill.recipes.hub.config import read_fields
from cycledistill.recipes.hub.files import is_published, published_beside
from cycledistill.recipes.run.session import wanted_exits
from cycledistill.recipes.run.trained import find_weights, measure_trained, recipe_of_run, refuse_average
from cycledistill.recipes.weights import read_weights
from cycledistill.recipes.weights.checkpoint import load_weights
from cycledistill.recipes.weights.files import stored_network

from .data.layout import check_layout, layout_in
from .data.moments import MultiViewSet
from .evaluation.measure import evaluate
from .recipe import Recipe, load_recipe
from .training.build import create_model, eval_settings
from .training.session import ADVICE
from .training.sources import open_set


def load_trained(path: str | Path, ema: bool = False, recipe: Recipe | None = None) -> MultiViewPPT:
    """A multi-view model in eval mode, on the CPU; that of a run wrapped as it was trained.

    Args:
        path: A run's folder, a checkpoint, a file of weights (ours says itself how its model is built, the authors' is
            taken for the published one), a folder that ``save_pretrained`` wrote, or a name on the hub.
        ema: The average of the weights instead of the weights.
        recipe: Replaces the recipe stored in the checkpoint.

    Raises:
        CheckpointError: Missing, damaged, of another model, or holding pickled code; ``ema`` of what has one set of
            weights.

    Example:
        >>> model = load_trained("runs/a")
    """
    if Path(path).is_file() and recipe is None:
        refuse_average(path, ema)
        folder = published_beside(path)
        return _of_file(Path(path)) if folder is None else MultiViewPPT.from_pretrained(folder)
    if is_published(path):
        refuse_average(path, ema)
        return MultiViewPPT.from_pretrained(path)
    file, stored = find_weights(path, ema, recipe)
    state = read_weights(file)
    token = state.get("keypoint_token")
    joints = token.shape[1] if token is not None and token.ndim == 3 else MultiViewConfig.num_keypoints
    model = create_model(recipe or stored_recipe(path), joints)
    if stored:
        load_weights(model, state, file, ADVICE)
    else:
        load_multiview_weights(model, file)
    return model.eval()


def _of_file(path: Path) -> MultiViewPPT:
    """The model that a file of weights says it is of, with these weights."""
    stored = stored_network(path)
    try:
        config = read_fields(MultiViewConfig, stored)
        with torch.random.fork_rng(devices=[]):
            model = add_pruning(MultiViewPPT(config), config) if stored else create_multiview()
    except ValueError as error:
        raise CheckpointError(f"{path} is of no multi-view model: {error}") from error
    load_multiview_weights(model, path)
    return model.eval()


def stored_recipe(path: str | Path) -> Recipe:
    """The recipe that a run or checkpoint was trained by.

    Raises:
        CheckpointError: There is no checkpoint, or it holds no recipe of this command.
    """
    return recipe_of_run(path, load_recipe, "multiview")


def evaluate_trained(recipe: Recipe, path: str) -> dict[str, Any]:
    """Figures of a checkpoint or file of weights on the recipe's test set, at every exit.

    Returns:
        ``weights`` (what was measured), ``moments``, ``exits`` and, where there is an average, ``ema_exits``.

    Raises:
        DataError: The data cannot be read.
        CheckpointError: See :func:`load_trained`; it was trained on the joints of another layout.
    """
    file = Path(path)
    check_layout(layout_in(file) if file.is_file() else stored_recipe(path).data.layout, recipe.data.layout, file)

    @cache
    def moments() -> MultiViewSet:
        return open_set(recipe.data, "test")

    def measure(model: MultiViewPPT, accelerator: Any) -> tuple[Any, dict[str, Any]]:
        figures = evaluate(
            model,
            moments(),
            eval_settings(recipe),
            wanted_exits(model, recipe.evaluate.exits),
            progress=recipe.run.progress and accelerator.is_main_process,
        )
        return figures, {"moments": len(moments())}

    return measure_trained(
        recipe,
        path,
        measure,
        load_trained=load_trained,
        stored_recipe=stored_recipe,
        measured_by=("model", "cyclic", "evaluate", "data.source", "data.padding", "data.cameras", "data.layout"),
    )
