"""Train DeiT-Tiny and other timm classifiers with cycles, on ImageNet or on any folder of images.

The command is ``cycledistill train imagenet --help`` (through ``torchrun`` and ``accelerate launch``: the module
``cycledistill.integrations.imagenet.train``); the same run from Python is ``load_recipe`` and
:func:`cycledistill.integrations.imagenet.train.train`. Needs ``pip install cycledistill[imagenet]``.
"""

import typing

from cycledistill import lazy, versions

versions.require("timm")

if typing.TYPE_CHECKING:
    from cycledistill.recipes.errors import RecipeError as RecipeError

    from .recipe import Recipe as Recipe
    from .recipe import load_recipe as load_recipe
    from .task import CyclicTask as CyclicTask
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "CyclicTask": ".task",
            "Recipe": ".recipe",
            "RecipeError": "cycledistill.recipes.errors",
            "load_recipe": ".recipe",
        },
        requires="cycledistill[imagenet]",
    )
