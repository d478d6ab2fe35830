"""Models whose weights are in ``.bin`` files alone, as older ones of the hub have them."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import run
from tiny_networks import tiny_unet, tiny_vq
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors import Denoiser, LatentPrior, load_prior

BIN = "diffusion_pytorch_model.bin"
SAFE = "diffusion_pytorch_model.safetensors"
OLD_NAMES = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""Of the weights of self-attention, in today's models and in those of 2022."""


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _answer(prior: Any) -> Tensor:
    answer: Tensor = prior.denoise(_noise(2, *prior.shape), 0.7)
    return answer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network and its scheduler, with ``.bin`` weights."""
    from diffusers import DDPMPipeline, DDPMScheduler

    pipeline = DDPMPipeline(tiny_unet(3, 16), DDPMScheduler())
    pipeline.save_pretrained(tmp_path / "model", safe_serialization=False)
    assert (tmp_path / "model" / "unet" / BIN).is_file()
    assert not list((tmp_path / "model").rglob("*.safetensors"))
    return tmp_path / "model"


def _expected() -> Tensor:
    from diffusers import DDPMScheduler

    return _answer(load_prior((tiny_unet(3, 16), DDPMScheduler())))


def _in_the_older_format(folder: Path) -> None:
    file = folder / "unet" / BIN
    torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)


def _in_shards(folder: Path) -> None:
    (folder / "unet" / BIN).unlink()
    model = tiny_unet(3, 16)
    model.save_pretrained(folder / "unet", safe_serialization=False, max_shard_size="20KB")
    assert len(list((folder / "unet").glob("diffusion_pytorch_model-*.bin"))) > 1


def _beside_another_precision(folder: Path) -> None:
    model = tiny_unet(3, 16).half()
    model.save_pretrained(folder / "unet", variant="fp16")
    assert (folder / "unet" / "diffusion_pytorch_model.fp16.safetensors").is_file()


@pytest.mark.parametrize(
    "change", [None, _in_the_older_format, _in_shards, _beside_another_precision]
)
def test_bin_weights_give_the_same_prior_as_safetensors(
    folder: Path, change: Callable[[Path], None] | None
) -> None:
    if change is not None:
        change(folder)
    torch.testing.assert_close(_answer(load_prior(folder)), _expected())


def test_loading_bin_weights_says_nothing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    from diffusers.utils import logging

    logging.enable_propagation()
    try:
        with caplog.at_level("WARNING"):
            load_prior(folder)
    finally:
        logging.disable_propagation()
    assert not caplog.records


def test_the_names_that_attention_had_in_2022_are_understood(tmp_path: Path) -> None:
    """Files of google/ddpm-* have them, and lie in the folder itself with their scheduler."""
    from diffusers import DDPMScheduler, UNet2DModel

    options = dict(tiny_unet(3, 16).config)
    options |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D")}
    options |= {"up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    torch.manual_seed(0)
    unet = UNet2DModel.from_config(options).eval()
    unet.save_config(tmp_path)
    DDPMScheduler(beta_end=0.01).save_pretrained(tmp_path)
    old = {}
    for name, value in unet.state_dict().items():
        for today, then in OLD_NAMES.items():
            name = name.replace(f".{today}.", f".{then}.")
        old[name] = value
    assert old.keys() != unet.state_dict().keys()
    torch.save(old, tmp_path / BIN)
    expected = load_prior((unet, DDPMScheduler(beta_end=0.01)))
    torch.testing.assert_close(_answer(load_prior(tmp_path)), _answer(expected))
    DDPMScheduler(beta_end=0.01).save_pretrained(tmp_path / "scheduler")
    (tmp_path / "scheduler_config.json").unlink()
    torch.testing.assert_close(_answer(load_prior(tmp_path)), _answer(expected))


def test_a_latent_model_in_bin_files_loads(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler, LDMPipeline

    pipeline = LDMPipeline(tiny_vq(0.3), tiny_unet(3, 8), DDIMScheduler())
    pipeline.save_pretrained(tmp_path / "latent", safe_serialization=False)
    x = _noise(2, 3, 16, 16)
    folder, memory = load_prior(tmp_path / "latent"), load_prior(pipeline)
    assert isinstance(folder, LatentPrior)
    assert isinstance(memory, LatentPrior)
    torch.testing.assert_close(folder.encode(x), memory.encode(x))
    torch.testing.assert_close(_answer(folder.latent), _answer(memory.latent))


def test_a_text_encoder_in_a_bin_file_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFSPLIT_TRAP", str(tmp_path / "sprung"))
    pytest.importorskip("transformers")
    from tiny_text import tiny_stable_diffusion

    pipeline, target = tiny_stable_diffusion(tmp_path), tmp_path / "model"
    pipeline.save_pretrained(target)
    (target / "text_encoder" / "model.safetensors").unlink()
    file = target / "text_encoder" / "pytorch_model.bin"
    torch.save(pipeline.text_encoder.state_dict(), file)
    folder, memory = load_prior(target, prompt="cat"), load_prior(pipeline, prompt="cat")
    assert isinstance(folder, LatentPrior)
    assert isinstance(memory, LatentPrior)
    torch.testing.assert_close(_answer(folder.latent), _answer(memory.latent))
    file.write_bytes(_trap())
    with pytest.raises(InputError, match=r"pytorch_model\.bin.*could run code"):
        load_prior(target)
    assert not (tmp_path / "sprung").exists()


class Code:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["DIFFSPLIT_TRAP"],))


def _trap() -> bytes:
    return pickle.dumps({"conv_in.weight": Code()}, protocol=2)


def test_code_in_a_bin_file_is_refused_and_not_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFSPLIT_TRAP", str(tmp_path / "sprung"))
    file = folder / "unet" / BIN
    file.write_bytes(_trap())
    with pytest.raises(InputError, match="could run code") as caught:
        load_prior(folder)
    assert str(file) in str(caught.value)
    torch.save({"conv_in.weight": Code()}, file)
    with pytest.raises(InputError, match="could run code"):
        load_prior(folder)
    assert not (tmp_path / "sprung").exists()
    file.write_bytes(b"PK nothing")
    with pytest.raises(InputError, match=rf"{BIN}: .*download it again"):
        load_prior(folder)


def test_where_there_are_both_the_pickle_is_not_opened(folder: Path) -> None:
    (folder / "unet" / BIN).write_bytes(b"not weights")
    tiny_unet(3, 16).save_pretrained(folder / "unet")
    torch.testing.assert_close(_answer(load_prior(folder)), _expected())


class Hub:
    """A hub with one model, and a cache that its files are copied to."""

    def __init__(self, model: Path, cache: Path) -> None:
        self.model, self.cache = model, cache

    def snapshot_download(self, _: str, allow_patterns: list[str], **__: Any) -> str:
        from huggingface_hub.utils import filter_repo_objects

        files = [str(f.relative_to(self.model)) for f in self.model.rglob("*") if f.is_file()]
        for file in filter_repo_objects(files, allow_patterns=allow_patterns):
            (self.cache / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(self.model / file, self.cache / file)
        return str(self.cache)

    def weights(self) -> list[str]:
        """What was downloaded beside descriptions."""
        files = (f for f in self.cache.rglob("*.*") if f.suffix in (".bin", ".safetensors"))
        return sorted(str(f.relative_to(self.cache)) for f in files)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    hub = Hub(tmp_path / "model", tmp_path / "cache")
    hub.cache.mkdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    return hub


def test_of_a_hub_model_bin_weights_are_downloaded_where_there_are_no_others(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("diffusion_pytorch_model.fp16.bin", "optimizer.bin"):
        (folder / "unet" / name).write_bytes(b"")
    assert run("priors", "pull", "an-org/a-model") == 0
    assert f"is in {hub.cache}" in capsys.readouterr().out
    assert hub.weights() == [f"unet/{BIN}"]
    prior = load_prior("an-org/a-model")
    assert isinstance(prior, Denoiser)
    torch.testing.assert_close(_answer(prior), _expected())


def test_of_a_hub_model_in_its_own_folder_the_bin_weights_are_found(hub: Hub) -> None:
    tiny_unet(3, 16).save_pretrained(hub.model, safe_serialization=False)
    assert load_prior("an-org/a-model").shape == (3, 16, 16)
    assert hub.weights() == [BIN]


def test_each_part_of_a_hub_model_is_downloaded_in_one_kind_of_file(hub: Hub, folder: Path) -> None:
    tiny_unet(3, 16).save_pretrained(folder / "unet")
    tiny_vq(0.3).save_pretrained(folder / "vqvae", safe_serialization=False)
    assert isinstance(load_prior("an-org/a-model"), LatentPrior)
    assert hub.weights() == [f"unet/{SAFE}", f"vqvae/{BIN}"]
