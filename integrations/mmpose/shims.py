"""What stands between mmpose 1.3 and current packages, bridged while mmpose is imported and taken away after.

- mmpose and mmdet import ``mmcv.ops``, which asks for compiled operators that mmcv-lite does not have. None of them is
  called for a pose from above; a stand-in for ``mmcv._ext`` lets the import pass, and refuses every call.
- xtcocotools is built for numpy 1. Where it does not import, pycocotools takes its place, for COCO's 17 joints.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, NoReturn

_logger = logging.getLogger(__name__)

_EXTENSION = "mmcv._ext"
_XTC = "xtcocotools"


@contextmanager
def import_shims() -> Iterator[None]:
    """Stand-ins for what mmpose imports and this environment lacks, within a ``with`` block.

    What imports here works; outside, ``mmcv._ext`` and ``xtcocotools`` are absent again, also after an error.

    Example:
        >>> with import_shims():
        ...     import mmpose.models
    """
    stand_ins: dict[str, ModuleType] = {}
    if not _imports(_EXTENSION):
        stand_ins[_EXTENSION] = _Operators(_EXTENSION)
    if not _imports(f"{_XTC}.mask"):
        stand_ins |= _pycocotools_as_xtcocotools()
    before = {name: sys.modules.get(name) for name in stand_ins}
    sys.modules.update(stand_ins)
    _logger.debug("stand-ins for %s", ", ".join(stand_ins) or "nothing")
    try:
        yield
    finally:
        # mmengine asks for the loader of mmcv._ext later on, and dies of a module that has none.
        for name, module in before.items():
            sys.modules.pop(name, None)
            if module is not None:
                sys.modules[name] = module


def _imports(name: str) -> bool:
    """Whether a module imports; what a failed try left behind is taken away."""
    known = set(sys.modules)
    try:
        importlib.import_module(name)
    except Exception:  # xtcocotools built for numpy 1 raises ValueError under numpy 2
        root = name.partition(".")[0]
        if root == _XTC:
            for left in [each for each in sys.modules if each.partition(".")[0] == root and each not in known]:
                del sys.modules[left]
        return False
    return True


class _Operators(ModuleType):
    """A module that has every name, and calls none."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*_: Any, **__: Any) -> NoReturn:
            raise RuntimeError(
                f"mmcv's compiled operator {name!r} was called, and mmcv-lite has none: this model needs mmcv itself, "
                "built from source for your PyTorch"
            )

        return refuse


def _pycocotools_as_xtcocotools() -> dict[str, ModuleType]:
    from pycocotools import coco, cocoeval, mask

    class COCOeval(cocoeval.COCOeval):
        """pycocotools' evaluation with the two further arguments of xtcocotools'."""

        def __init__(
            self, gt: Any = None, dt: Any = None, kind: str = "keypoints", sigmas: Any = None, use_area: bool = True
        ) -> None:
            if kind != "keypoints" or not use_area:
                raise NotImplementedError(
                    f"evaluating {kind!r} with use_area={use_area}: pycocotools, which takes the place of xtcocotools "
                    "here, knows COCO's persons alone; install xtcocotools built for your numpy"
                )
            super().__init__(gt, dt, kind)
            if sigmas is not None:
                self.params.kpt_oks_sigmas = sigmas

    evaluation, package = ModuleType(f"{_XTC}.cocoeval"), ModuleType(_XTC)
    evaluation.COCOeval = COCOeval  # type: ignore[attr-defined]
    package.__path__ = []
    package.coco, package.cocoeval, package.mask = coco, evaluation, mask  # type: ignore[attr-defined]
    parts = {"coco": coco, "cocoeval": evaluation, "mask": mask}
    return {_XTC: package, **{f"{_XTC}.{name}": module for name, module in parts.items()}}
