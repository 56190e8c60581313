"""Classes of what a user has, a picture after the other: folders, zip files, videos, cameras; and the files of them."""

import typing

from cycledistill import lazy, versions

versions.require("numpy")

if typing.TYPE_CHECKING:
    from .models import open_model as open_model
    from .sources import open_source as open_source
    from .stream import Predicted as Predicted
    from .stream import predict_stream as predict_stream
    from .written import open_outputs as open_outputs
else:
    __all__, __getattr__, __dir__ = lazy.hand_on(
        __name__,
        {
            "Predicted": ".stream",
            "open_model": ".models",
            "open_outputs": ".written",
            "open_source": ".sources",
            "predict_stream": ".stream",
        },
        requires="cycledistill[imagenet]",
    )
