from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("transformers")
pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parents[2] / "examples" / "hf_trainer.py"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_example_trains_and_its_checkpoint_is_plain(tmp_path: Path, capsys: Any) -> None:
    spec = importlib.util.spec_from_file_location("hf_trainer", SCRIPT)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    assert example.main(["--steps", "3", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "3 cycles at inference" in printed and "the same logits at one cycle: True" in printed
    assert (tmp_path / "model.safetensors").is_file()
