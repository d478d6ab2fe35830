"""The scripts of docs/checkpoints.md do what the page says."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from diffsplit.errors import InputError
from diffsplit.priors import GaussianPrior, card_names, load_prior

PAGE = (Path(__file__).parents[1] / "docs" / "checkpoints.md").read_text("utf-8")
NETWORKS = '''
import torch

class EDMPrecond(torch.nn.Module):
    """The denoiser of N(0, 0.25), as a network of NVlabs/edm is called."""

    def __init__(self, img_resolution, img_channels, sigma_data=0.5):
        super().__init__()
        self.img_resolution, self.img_channels = img_resolution, img_channels
        self.init_kwargs = dict(img_resolution=img_resolution, img_channels=img_channels)
        self.variance = torch.nn.Parameter(torch.tensor(0.0))

    def forward(self, x, sigma, class_labels=None):
        return x * self.variance / (self.variance + sigma.reshape(-1, 1, 1, 1) ** 2)
'''


def _script(folder: Path, name: str) -> Path:
    (found,) = re.findall(rf"```python {re.escape(name)}\n(.*?)```", PAGE, re.DOTALL)
    (folder / name).write_text(found)
    return folder / name


def test_a_pickle_of_nvidia_becomes_a_prior_by_the_two_scripts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "networks.py").write_text(NETWORKS)
    make = (
        "import pickle, torch; from training.networks import EDMPrecond; "
        "network = EDMPrecond(8, 3); network.variance.data.fill_(0.25); "
        "pickle.dump({'ema': network}, open('edm.pkl', 'wb'))"
    )
    convert = [str(_script(tmp_path, "convert.py")), "edm.pkl", "edm.safetensors"]
    use = _script(tmp_path, "edm.py").read_text() + (
        "\nimport torch; x = torch.linspace(-1, 1, 384).view(2, 3, 8, 8)"
        "\ntorch.save(prior.denoise(x, 0.5), 'clean.pt')"
    )
    package = str(Path(__file__).parents[1])
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{package}")
    for command in (["-c", make], convert, ["-c", use]):
        subprocess.run([sys.executable, *command], cwd=tmp_path, check=True, timeout=100)
    x = torch.linspace(-1, 1, 384).view(2, 3, 8, 8)
    exact = GaussianPrior((3, 8, 8), covariance=0.25).denoise(x, 0.5)
    torch.testing.assert_close(torch.load(tmp_path / "clean.pt", weights_only=True), exact)
    with pytest.raises(InputError, match=r"docs/checkpoints\.md"):
        load_prior(tmp_path / "edm.pkl")


def test_a_training_state_becomes_a_file_of_weights_by_the_script(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.arange(3)}, "options": Path("x")}, tmp_path / "state.pt")
    script = _script(tmp_path, "convert.py")
    command = [sys.executable, str(script), "state.pt", "weights.safetensors"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=100)
    assert load_file(tmp_path / "weights.safetensors")["w"].tolist() == [0, 1, 2]


def test_every_published_model_is_named_on_the_page() -> None:
    assert all(f"`{name}`" in PAGE for name in card_names())


def test_a_network_of_ncsn_becomes_an_exact_denoiser_as_the_page_has_it() -> None:
    """Of u ~ N(0.4, 0.04) on [0, 1]; the network is told an index and divides by its level."""
    import diffsplit as ds

    class Network:
        sigmas = torch.tensor([3.0, 0.5, 0.01])
        level: float

        def __call__(self, u: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
            # s(u, σ) = s(u)/σ holds exactly only at the level that the test asks for
            raw = -(u - 0.4) / (0.04 + self.level**2) * self.level
            return raw / self.sigmas[index].view(-1, 1, 1, 1)

    (block,) = re.findall(r"```py\n(def denoiser.*?)```", PAGE, re.DOTALL)
    network = Network()
    names = {"network": network, "torch": torch, "ds": ds}
    exec(block, names)
    prior = names["prior"]
    assert isinstance(prior, ds.priors.Denoiser)
    assert (prior.sigma_min, prior.sigma_max) == pytest.approx((0.02, 6.0))
    exact = GaussianPrior((3, 64, 64), mean=-0.2, covariance=0.16)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    for sigma in (0.1, 2.0):
        network.level = sigma / 2
        torch.testing.assert_close(prior.denoise(x, sigma), exact.denoise(x, sigma))
