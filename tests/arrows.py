"""Who may import whom, what may be imported from outside, and how large files, folders and functions may be.

These tables are the rules: a change that needs another arrow, or another package from outside, changes them too.
"""

from __future__ import annotations

LIBRARY, INTEGRATIONS = "cycledistill", "cycledistill.integrations"
Arrows = dict[str, set[str]]


def layers(*floors: set[str]) -> Arrows:
    """Each name may import the names of all floors below its own, and not its siblings."""
    return {name: set().union(*floors[:number]) for number, floor in enumerate(floors) for name in floor}


def more(arrows: Arrows, extra: Arrows) -> Arrows:
    return {name: targets | extra.get(name, set()) for name, targets in arrows.items()}


# The library. `__init__` is the face: names that are handed on, and nothing else.
LIBRARY_ARROWS = more(
    layers(
        {"announced", "terminal", "plugin", "errors", "files", "lazy", "versions"}
        | {"output", "presets", "distill", "inert", "loss"},
        {"stack"},
        {"cycle", "prune", "inputs"},
        {"hourglass", "cost", "metadata", "exporter"},
        {"adaptive", "insight", "verification", "saved"},
        {"__init__", "__main__", "commands"},
        {"recipes"},
    ),
    {
        "announced": {"lazy", "versions"},
        "plugin": {"errors", "files", "versions"},
        "output": {"plugin"},  # private names of torch stand there
        "loss": {"output", "inert", "plugin"},
        "distill": {"output", "plugin", "presets"},  # without torch, for the help of commands
        "exporter": {"metadata"},
        "commands": {"__init__"},
        "__main__": {"__init__", "commands"},
    },
)
LIBRARY_ARROWS["hourglass"] -= {"prune"}


RECIPES_ARROWS = layers(
    {"__init__", "errors", "progress"}, {"reading"}, {"config", "weights", "prediction"}, {"run", "hub"}, {"commands"}
)


# The integrations. At the root of each stand the front doors, behind them the rooms.
_ROOMS = {"errors", "data", "models", "evaluation", "weights", "trained"}


_DOORS = {"predict", "lift", "convert", "decoded", "deploy", "draw", "detector"}


_PREDICTION = _ROOMS | {"predict", "detector", "draw", "recipe", "training"}  # by the run's own settings


INTEGRATION = more(
    layers(
        {"errors"},
        {"data", "models"},
        {"losses", "evaluation", "weights", "recipe", "task"},
        {"training"},
        {"trained"},
        {"train", "insight", "exportable"},
    )
    | dict.fromkeys(_DOORS, _ROOMS)
    | {"commands": set()},  # their arguments, which help loads
    {
        "weights": {"losses"},  # a flow's are in the file of its model
        "lift": {"draw"},
        "insight": {"lift"},  # the report is shown what is lifted
    },
)


INTEGRATION_ARROWS = {
    "coco": INTEGRATION | {"__init__": {"data", "models", "losses", "weights"}, "prediction": _PREDICTION},
    "human36m": more(
        INTEGRATION,
        {
            "exportable": {"lifting"},
            "lift": {"lifting", "written"},
        },
    )
    | {
        "__init__": {"models", "weights"},
        "lifting": _ROOMS | {"recipe", "training", "written"},  # by the run's own settings
        "multiview": {"errors", "data", "models"},
        "triangulate": {"errors", "data", "multiview", "written"},
        "written": {"errors", "data"},
    },
    "imagenet": more(INTEGRATION, {"trained": {"published"}, "predict": {"prediction"}})
    | {
        "__init__": {"recipe", "task"},
        "published": {"recipe", "training"},
        "prediction": {"commands", "data", "evaluation", "recipe", "trained"},  # by the run's own settings
    },
    "multiview": more(INTEGRATION, {"predict": {"prediction", "recipe", "training"}})  # by the run's own settings
    | {"__init__": {"prediction"}, "prediction": {"data", "evaluation"}},
}


# What may be used of another integration. `mmpose` and `transformers` are small: inside, only circles are forbidden.
BETWEEN = {
    "human36m.multiview": {"coco.models", "coco.weights.key_map"},
    "mmpose": {"coco.models"},
    # Pictures of people from the one, cameras and the network from the other.
    "multiview": {"human36m.data", "human36m.errors", "human36m.multiview"},
    "multiview.data": {"coco.data.images"},
    "multiview.commands": {"human36m.commands"},
    "multiview.evaluation": {"coco.evaluation.decode"},
    "multiview.training": {"coco.losses"},
    "multiview.prediction": {
        "coco.data.detections", "coco.prediction.boxes", "coco.prediction.sources",
    },
    "multiview.predict": {
        "coco.detector", "coco.prediction.box_files", "coco.prediction.boxes", "human36m.written",
    },
}  # fmt: skip


_PICTURES = {"coco.data", "coco.prediction"}


_DETECTING = _PICTURES | {"coco.detector"}


_GEOMETRY = {
    "human36m.multiview", "human36m.data", "human36m.errors", "coco.models", "coco.weights", "coco.losses",
}  # fmt: skip


MAY_LOAD = {
    "coco.weights.key_map": {"coco.weights", "coco.models", "coco.losses"},
    "coco.data.images": {"coco.data"},
    "coco.data.detections": {"coco.data"},
    "coco.detector": _DETECTING,
    "coco.evaluation.decode": {"coco.evaluation", "coco.data"},
    "coco.losses": {"coco.losses", "coco.models"},
    "coco.prediction.box_files": _DETECTING,
    "coco.prediction.boxes": _DETECTING,
    "coco.prediction.sources": _PICTURES,
    "human36m.data": {"human36m.data", "human36m.errors"},
    "human36m.multiview": _GEOMETRY,
    "human36m.written": {"human36m.written", "human36m.data", "human36m.errors"},
}


# Models are what others build on, so they stand on little: torch, the library, and how models are published.
MODELS_MAY_USE_RECIPES = {"hub", "errors", "reading"}


# What a file of the library imports from outside, beside torch. Nothing else may be needed without a line here.
THIRD_PARTY = {
    "commands/calibration.py": {"PIL", "numpy"},
    "exporter/onnx_files.py": {"onnx", "onnxruntime"},
    "exporter/quantize.py": {"onnxruntime"},
    "exporter/formats.py": {"onnx_ir", "onnxruntime", "onnxscript", "safetensors"},
    "insight/pages.py": {"jinja2"},
    "insight/pictures.py": {"matplotlib"},
    "insight/plots.py": {"matplotlib"},
    "metadata/read.py": {"safetensors"},
    "plugin/saved.py": {"safetensors"},
    "saved/rewrap.py": {"safetensors"},
    "recipes/reading/pixels.py": {"PIL", "numpy"},
    "recipes/config/printed.py": {"yaml"},
    "recipes/reading/texts.py": {"yaml"},
    "recipes/reading/videos.py": {"cv2"},
    "recipes/hub/download.py": {"huggingface_hub"},
    "recipes/prediction/frames.py": {"numpy"},
    "recipes/prediction/sources.py": {"numpy"},
    "recipes/prediction/videos.py": {"cv2"},
    "recipes/hub/files.py": {"huggingface_hub"},
    "recipes/hub/model.py": {"huggingface_hub"},
    "recipes/run/accelerator.py": {"accelerate"},
    "recipes/run/batches.py": {"numpy"},
    "recipes/run/graph/baked.py": {"numpy"},
    "recipes/progress.py": {"tqdm"},
    "recipes/run/seeding.py": {"numpy"},
    "recipes/run/session.py": {"timm"},
    "recipes/weights/files.py": {"safetensors"},
}


# The same of the integrations, each as a whole.
THIRD_PARTY_OF_INTEGRATIONS = {
    "coco": {"PIL", "cv2", "faster_coco_eval", "numpy", "pycocotools", "torchvision"},
    "human36m": {"PIL", "cv2", "h5py", "matplotlib", "numpy", "scipy"},
    "imagenet": {"PIL", "numpy", "pyarrow", "timm", "torchcodec", "torchvision"},
    "mmpose": {"mmengine", "mmpose", "pycocotools"},
    "multiview": {"cv2", "numpy"},
}


# Who imports by a name that is made up as it runs, which no rule here can follow, and what.
BY_NAME = {
    "cycledistill.lazy",  # what a face hands on; type checkers, and so these rules, see the same imports there
    "cycledistill.recipes.run.command",  # the recipe, the training and the trained models of the command's integration
    "cycledistill.commands.verb",  # the work of a command
    "cycledistill.commands.named.models",  # the library that builds the model a command was asked for
    f"{INTEGRATIONS}.mmpose.loading",  # mmpose's own modules, and those of this integration that register themselves
    f"{INTEGRATIONS}.mmpose.shims",  # packages that may not import here
}


# What every module of a kind has, by these names: what is called when it is run, or by the command's frame.
HAD_BY_EACH = {"cycledistill.commands": {"add_arguments", "run"}}


MOST_FLOORS = 6


MOST_FILES = 13


MOST_LINES = 350


MOST_LINES_OF_A_FUNCTION = 60
