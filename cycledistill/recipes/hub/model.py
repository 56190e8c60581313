"""Models that are saved, loaded and published the way the Hugging Face hub expects."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import torch
from huggingface_hub import ModelCard, ModelCardData, PyTorchModelHubMixin
from torch import nn

import cycledistill
from cycledistill.files import atomic_write
from cycledistill.metadata.model import words_of
from cycledistill.plugin.swap import Swapped, recipe_of
from cycledistill.recipes.errors import CheckpointError, RecipeError
from cycledistill.recipes.hub.card import ModelFacts, card_body
from cycledistill.recipes.hub.card_fields import card_fields
from cycledistill.recipes.hub.config import check_names, contradictions, describe, take
from cycledistill.recipes.hub.files import CARD, CONFIG, WEIGHTS, find_files
from cycledistill.recipes.reading.guard import first_line
from cycledistill.recipes.weights.checkpoint import load_weights
from cycledistill.recipes.weights.files import read_weights, write_weights

_logger = logging.getLogger(__name__)

M = TypeVar("M", bound="HubModel")

_ABOUT = ("library", "version", "model_class", "name", "note")
"""What stands in ``config.json`` beside what the model is built from."""


class HubModel(nn.Module, PyTorchModelHubMixin, library_name="cycledistill"):
    """A model with ``from_pretrained``, ``save_pretrained`` and ``push_to_hub``.

    A published model is a folder: ``model.safetensors``, under the names of the plain architecture, wrapped or not;
    ``config.json``, all that the model is built from, its cycles and its pruning included, as plain data; and
    ``README.md``, the model card. A subclass says how it is described and built.

    Attributes:
        name: What it was built as, where it has a name.
        note: Where that comes from.
    """

    name: str | None = None
    note: str = ""
    hub_options: ClassVar[tuple[str, ...]] = ()
    """Fields of the config that `from_pretrained` takes as arguments."""

    def hub_config(self) -> dict[str, Any]:
        """What the model is built from, plug-ins included, as plain data.

        Raises:
            RecipeError: No config can say it.
        """
        raise NotImplementedError

    @classmethod
    def from_hub_config(cls: type[M], config: dict[str, Any]) -> M:
        """The model of a config, with fresh weights.

        Raises:
            ValueError: A field that is missing or unknown, or a value out of its range.
        """
        raise NotImplementedError

    def hub_facts(self) -> ModelFacts:
        """What the model card says of the model itself."""
        raise NotImplementedError

    def own_class(self: M) -> type[M]:
        """The class of the model itself, without what wrapping put in front of it."""
        return cast("type[M]", recipe_of(self)[0])

    @classmethod
    def from_pretrained(
        cls: type[M],
        pretrained_model_name_or_path: str | Path,
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **options: Any,
    ) -> M:
        """A published model, in eval mode, on the CPU: pruned and wrapped for cycles as it was saved.

        Args:
            pretrained_model_name_or_path: A folder that `save_pretrained` wrote, or a name on the hub, ``"user/name"``.
            force_download: Download although the cache holds it.
            token: Of a user who may read it; default, the one that ``hf auth login`` stored.
            cache_dir: Where downloads are kept.
            local_files_only: Use the cache alone.
            revision: A branch, tag or commit.
            **options: Instead of what the config says: ``cycles=None`` gives the plain model, ``cycles=3,
                distill="elt"`` another training. Which there are says ``hub_options``.

        Raises:
            CheckpointError: Neither such a folder nor a repository that can be read, files that are missing, a config
                of another model or with a field that is wrong, weights that are not of that model.
            RecipeError: An option that does not exist.

        Example:
            >>> model = TokenPose.from_pretrained("user/sdpose")
            >>> unwrap_cyclic(model)   # the plain model; its weights are those of the file
        """
        check_names(options, list(cls.hub_options))
        files = find_files(
            pretrained_model_name_or_path,
            force_download=force_download,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            revision=revision,
        )
        config = dict(files.config)
        try:
            chosen = class_named(cls, config)
            about = {name: config.pop(name, None) for name in _ABOUT}
            model = chosen.from_hub_config(config | options)
            model.name, model.note = _words(about)
        except Exception as error:  # of a size that is out of reach PyTorch says so by errors of many types
            given = f", with {', '.join(f'{name}={value!r}' for name, value in options.items())}" if options else ""
            raise CheckpointError(f"{files.source}, {CONFIG}{given}: {first_line(error)}") from error
        advice = f"{CONFIG} and {WEIGHTS} do not belong together"
        if options:
            advice += f", or the options {', '.join(options)} ask for another model than these weights are of"
        load_weights(model, read_weights(files.weights), files.weights, advice)
        return model.eval()

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: Any = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Write the folder that `from_pretrained` reads: weights, config, and a model card where there is none yet.

        Args:
            save_directory: The folder; made if need be. A ``README.md`` in it stays as it is.
            config: Nothing: the config is made from the model.
            repo_id: With ``push_to_hub``, the name on the hub; default, the folder's.
            push_to_hub: Upload it too.
            model_card_kwargs: What to say on the card, see `CardFields`: ``results``, ``license``, ...
            **push_to_hub_kwargs: As `push_to_hub` takes them.

        Returns:
            The URL of the commit, if uploaded.

        Raises:
            RecipeError: The model was changed into something that no config describes, or a field of the card is wrong.
                Nothing is written.
            OSError: It cannot be written.

        Example:
            >>> model.save_pretrained("sdpose", model_card_kwargs={"license": "apache-2.0"})
        """
        described, folder = self._described(config), Path(save_directory)
        kept = (folder / CARD).exists()
        if kept:
            card_fields(model_card_kwargs)
            _logger.warning(
                "%s is kept as it is: delete it for a card with the present costs and results", folder / CARD
            )
        card = None if kept else self._card(described, model_card_kwargs)
        folder.mkdir(parents=True, exist_ok=True)
        write_weights(self.state_dict(), folder / WEIGHTS, {**words_of(self), "format": "pt"})
        text = json.dumps(described, indent=2) + "\n"
        atomic_write(folder / CONFIG, lambda file: file.write_text(text, encoding="utf-8"))
        if card is not None:
            atomic_write(folder / CARD, lambda file: file.write_text(str(card), encoding="utf-8"))
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def push_to_hub(
        self, repo_id: str, *, model_card_kwargs: dict[str, Any] | None = None, config: Any = None, **kwargs: Any
    ) -> str:
        """Upload the model to the Hugging Face hub: weights, config and model card.

        Args:
            repo_id: Its name there, ``"user/name"``; the repository is made if need be.
            model_card_kwargs: What to say on the card, see `CardFields`: ``results``, ``license``, ...
            config: Nothing: the config is made from the model.
            **kwargs: ``commit_message``, ``private``, ``token``, ``branch``, ``create_pr``, ... as for
                ``PyTorchModelHubMixin.push_to_hub``.

        Returns:
            The URL of the commit.

        Raises:
            RecipeError: As for `save_pretrained`; nothing is uploaded.

        Example:
            >>> model.push_to_hub("user/sdpose", model_card_kwargs=recorded_card("runs/a") | {"license": "apache-2.0"})
        """
        owned = {"model_id": repo_id if "/" in repo_id else f"USER/{repo_id}"}
        self._card(self._described(config), owned | (model_card_kwargs or {}))  # before there is a repository
        return super().push_to_hub(repo_id, model_card_kwargs=owned | (model_card_kwargs or {}), **kwargs)

    def generate_model_card(self, *args: Any, **kwargs: Any) -> ModelCard:
        """The model card, with costs counted at the model's own input size; ``kwargs`` are `CardFields`."""
        return self._card(self._described(None), kwargs)

    def _card(self, described: dict[str, Any], given: Mapping[str, Any] | None) -> ModelCard:
        fields = card_fields(given)
        data = ModelCardData(**self._hub_mixin_info.model_card_data.to_dict())
        for name, value in fields.hub_fields.items():
            setattr(data, name, sorted({*(data.tags or ()), *value}) if name == "tags" else value)
        body = card_body(self, described, self.hub_facts(), fields)
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}")

    def _described(self, config: Any) -> dict[str, Any]:
        """What goes into ``config.json``; refused where a model built from it would be another than this one."""
        if config is not None:
            raise RecipeError("config=...: the config is made from the model itself; leave it out")
        own = self.own_class()
        built_from = json.loads(json.dumps(self.hub_config()))  # as it is read again: tuples are lists
        with torch.device("meta"):
            copy = own.from_hub_config(dict(built_from))
        wrong = contradictions(describe(self), describe(copy))
        if wrong:
            raise RecipeError(
                f"this {own.__name__} is no longer what its config describes: {wrong}. Publish the model before a "
                "backbone is taken off, layers are folded or adapters are put in, and wrapped as the library's models "
                "are; unwrap_cyclic(model) takes cycles off and leaves the weights as they are"
            )
        about = ("cycledistill", cycledistill.__version__, own.__name__, self.name, self.note)
        return dict(zip(_ABOUT, about, strict=True)) | built_from


def class_named(asked: type[M], config: dict[str, Any]) -> type[M]:
    """The class that a config is of, among the one that was asked for and those derived from it."""
    if config.get("library") != "cycledistill":
        raise RecipeError(
            f'the config of no model of this library ("library": "cycledistill" is missing); it holds: '
            f"{', '.join(list(config)[:6]) or 'nothing'}"
        )
    name = take(dict(config), "model_class")
    known = {each.__name__: each for each in reversed(list(_with_subclasses(asked)))}
    if name not in known:
        raise RecipeError(
            f"the model is a {name}, and {asked.__name__}.from_pretrained reads: {', '.join(sorted(known))}. Call the "
            "from_pretrained of its own class"
        )
    return known[name]


def _words(about: dict[str, Any]) -> tuple[str | None, str]:
    name, note = about["name"], about["note"] or ""
    if not isinstance(name, (str, type(None))) or not isinstance(note, str):
        raise RecipeError(f"name={name!r}, note={note!r}: words, or null, are expected")
    return name, note


def _with_subclasses(cls: type[M]) -> Iterator[type[M]]:
    yield cls
    for each in cls.__subclasses__():
        # wrapped models' classes have the names of their own, and some kinds are made from a model and never published
        if not issubclass(each, Swapped) and vars(each).get("is_published", True):
            yield from _with_subclasses(each)
