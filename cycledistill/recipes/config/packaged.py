"""Recipes that a package brings along, in its folder ``configs``; a file of its own, for it needs no PyYAML."""

from __future__ import annotations

from importlib import resources
from typing import Any

from cycledistill.announced import announced


def packaged_names(package: str) -> list[str]:
    """Names of the recipes in the folder ``configs`` of ``package``: of its YAML files, without their ending."""
    folder = resources.files(package) / "configs"
    return sorted(item.name.removesuffix(".yaml") for item in folder.iterdir() if item.name.endswith(".yaml"))


def training_commands() -> dict[str, Any]:
    """The commands that train, by the word that calls them."""
    return {name: command for name, command in announced("train").items() if hasattr(command, "package")}


def commands_with(recipe: str) -> list[str]:
    """The commands that train by a packaged recipe of this name."""
    name = recipe.removesuffix(".yaml")
    return [command for command, each in training_commands().items() if name in packaged_names(each.package)]
