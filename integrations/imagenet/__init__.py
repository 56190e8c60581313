"""Train DeiT-Tiny and other timm classifiers with cycles, on ImageNet or on any folder of images.

The command is ``python -m cycledistill.integrations.imagenet.train --help`` (also through ``torchrun`` and
``accelerate launch``); the same run from Python is ``load_recipe`` and
:func:`cycledistill.integrations.imagenet.train.train`. Needs ``pip install cycledistill[imagenet]``.
"""

try:
    from .recipe import Recipe, RecipeError, load_recipe
    from .task import CyclicTask
except ModuleNotFoundError as error:
    if error.name and error.name.startswith("cycledistill"):
        raise
    raise ModuleNotFoundError(
        f"cycledistill.integrations.imagenet needs {error.name}: pip install 'cycledistill[imagenet]'", name=error.name
    ) from error

__all__ = ["CyclicTask", "Recipe", "RecipeError", "load_recipe"]
