from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.scripts import load_script

pytest.importorskip("transformers")
pytest.importorskip("sklearn")
SCRIPT = Path(__file__).parents[2] / "examples" / "hf_trainer.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_example_trains_and_its_checkpoint_is_plain(tmp_path: Path, capsys: Any) -> None:
    example = load_script("examples/hf_trainer.py")
    assert example.main(["--steps", "3", "--output", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "3 cycles at inference" in printed and "the same logits at one cycle: True" in printed
    assert (tmp_path / "model.safetensors").is_file()
