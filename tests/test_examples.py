"""Every example runs as it stands, prints numbers and writes its one picture."""

from __future__ import annotations

import ast
import importlib.util
import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.py"))
NEEDS = {"spectrum": "matplotlib", "deepinv_side_by_side": "deepinv"}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_prints_numbers_and_writes_its_picture(
    path: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = NEEDS.get(path.stem)
    if package is not None and importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    assert re.search(r"\d\.\d", capsys.readouterr().out)
    (picture,) = tmp_path.glob("*.png")
    assert picture.stem == path.stem.replace("_", "-")
    with Image.open(picture) as image:
        low, high = image.convert("L").getextrema()
    assert low < 50
    assert high > 200


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_and_says_what_it_shows_and_writes(path: Path) -> None:
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 60
    doc = ast.get_docstring(ast.parse(text)) or ""
    assert f"{path.stem.replace('_', '-')}.png" in " ".join(doc.split())


@pytest.mark.parametrize("kind", ["npz", "npy", "safetensors"])
def test_the_single_pixel_camera_reads_what_it_wrote_in_every_format(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import numpy as np
    import torch
    from safetensors.numpy import save_file

    monkeypatch.chdir(tmp_path)
    (path,) = (path for path in EXAMPLES if path.stem == "single_pixel_camera")
    camera = runpy.run_path(str(path))
    camera["simulated"]()
    with np.load("camera.npz") as file:
        stored = {name: file[name] for name in ("patterns", "y")}
    save_file(stored, "camera.safetensors")
    for name, array in stored.items():
        np.save(f"{name}.npy", array)
    names = ["patterns.npy", "y.npy"] if kind == "npy" else [f"camera.{kind}"]
    patterns, y = camera["read"]([Path(name) for name in names])
    assert torch.equal(patterns, torch.from_numpy(stored["patterns"]))
    assert torch.equal(y, torch.from_numpy(stored["y"]))
