"""The words that every file of a model should say of it, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

KEYS = {
    "model": "the name that its model is built by, or its class",
    "class": "the class of its model",
    "exit": "the cycle whose output it gives",
    "cycles": "how many cycles it was trained with",
    "distill": "the scheme they were trained by",
    "input_size": "height and width of its images",
    "mean": "the mean of its pixels",
    "std": "their deviation",
    "classes": "the names of its classes",
    "versions": "what it was made with",
}
"""Name -> what it says. Name, class and exit are plain; all else is JSON."""

WEIGHTS, RANDOM = "weights", "random"
"""The word that says which weights a file holds, and what it says of those that nobody trained."""

ASSUMED = "assumed"
"""The word that names those which are a library's defaults for the name of the model, and told of no weights."""

INSTEAD = {
    "classes": ("joints", "convention"),  # of persons; of lifted ones
    "input_size": ("frames",),
    "mean": ("convention",),
    "std": ("convention",),
}
"""Of models that take no images, or name no classes: what says the same of them."""


def missing(words: Iterable[str]) -> list[str]:
    """Which of `KEYS` a file does not say.

    Example:
        >>> missing(["model", "class", "exit", "cycles", "distill", "versions", "frames", "convention"])
        []
    """
    said = set(words)
    if isinstance(words, Mapping) and words.get(WEIGHTS) == RANDOM:  # which have no training to tell of
        said |= {"cycles", "distill"}
    return [key for key in KEYS if not said & {key, *INSTEAD.get(key, ())}]


def name_in(words: Mapping[str, str]) -> str | None:
    """The name that a model is built by; ``None`` where a file has its class alone."""
    name = words.get("model")
    return None if name == words.get("class") else name
