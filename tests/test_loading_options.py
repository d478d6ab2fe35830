"""How a prior computes: half precision, memory layout, compilation, device, revision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_networks import tiny_edm, tiny_kl, tiny_unet, tiny_vq
from torch import Tensor

from diffsplit.errors import InputError
from diffsplit.priors import ConsistencyPrior, Denoiser, GaussianPrior, LatentPrior, load_prior

TOLERANCE = {torch.float16: 2**-8, torch.bfloat16: 2**-5}
"""Some ten roundings in each precision, for answers about as large as 1."""


def _noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _models(folder: Path) -> dict[str, Any]:
    """One source for each kind of prior."""
    import diffusers as d

    tiny_edm().save(folder / "own", half=False)
    fourier = tiny_unet(3, 16, time_embedding_type="fourier")
    latents = d.LDMPipeline(tiny_vq(0.3), tiny_unet(3, 8), d.DDIMScheduler())
    consistency = tiny_unet(3, 16), d.CMStochasticIterativeScheduler()
    return {
        "own": folder / "own",
        "preserving": (tiny_unet(3, 16), d.DDPMScheduler()),
        "flow": (tiny_unet(3, 16), d.FlowMatchEulerDiscreteScheduler()),
        "EDM": (tiny_unet(3, 16), d.EDMEulerScheduler()),
        "score": (fourier, d.ScoreSdeVeScheduler()),
        "consistency": consistency,
        "latent": latents,
    }


KINDS = ("own", "preserving", "flow", "EDM", "score", "consistency", "latent")


def _answer(prior: Any) -> Tensor:
    """What the network of a prior says at a level as high as images vary."""
    core = prior.latent if isinstance(prior, LatentPrior) else prior
    function = core.denoise if isinstance(core, Denoiser) else core.consistency
    with torch.no_grad():
        answer: Tensor = function(_noise(2, *core.shape), 0.5)
    return answer


@pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_stays_within_its_rounding_and_returns_the_precision_of_the_images(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    source = _models(tmp_path)[kind]
    exact, lowered = _answer(load_prior(source)), load_prior(source, dtype=dtype)
    close = _answer(lowered)
    assert close.dtype == torch.float32
    assert 0 < (close - exact).abs().max() < TOLERANCE[dtype]
    assert next(lowered.networks[0].parameters()).dtype == torch.float32


def test_a_pipeline_in_half_precision_is_used_as_it_is() -> None:
    from diffusers import DDPMScheduler

    exact = _answer(load_prior((tiny_unet(3, 16), DDPMScheduler())))
    unet = tiny_unet(3, 16).bfloat16()
    prior = load_prior((unet, DDPMScheduler()))
    assert unet.dtype == torch.bfloat16
    close = _answer(prior)
    assert close.dtype == torch.float32
    assert 0 < (close - exact).abs().max() < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("kind", KINDS)
def test_the_memory_layout_of_the_weights_changes_no_answer(kind: str, tmp_path: Path) -> None:
    source = _models(tmp_path)[kind]
    exact, other = _answer(load_prior(source)), load_prior(source, channels_last=True)
    core = other.latent if isinstance(other, LatentPrior) else other
    weight = core.networks[0].conv_in.weight
    assert isinstance(weight, Tensor)
    assert weight.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(_answer(other), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_compile_compiles_the_network_that_is_evaluated(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self: compiled.append(self))
    prior = load_prior(_models(tmp_path)[kind], compile=True)
    core = prior.latent if isinstance(prior, LatentPrior) else prior
    assert compiled == list(core.networks)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dtype": torch.float64}, "half precision"),
        ({"dtype": torch.bfloat16}, "half precision"),
        ({"channels_last": True}, "no network, and channels_last is"),
        ({"compile": True}, "no network, and compile is"),
        ({"class_label": 3}, "knows no classes; leave class_label out"),
        ({"prompt": "a cat"}, "told no text; leave prompt out"),
        ({"config": {}}, "for guided-diffusion"),
        ({"revision": "main"}, "only models of the hub have revisions"),
        ({"device": "gpu-7"}, "no device"),
    ],
    ids=str,
)
def test_what_a_closed_form_has_no_use_for_is_refused(options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_prior(GaussianPrior((4,)), **options)


def test_a_folder_has_no_revision(tmp_path: Path) -> None:
    tiny_unet(3, 16).save_pretrained(tmp_path / "unet")
    for source in (tmp_path, "cats-64"):
        with pytest.raises(InputError, match="only models of the hub have revisions"):
            load_prior(source, revision="v2")


def _cached(cache: Path, revision: str, commit: str, unet: Any) -> None:
    """A download as the client of the hub keeps it."""
    from diffusers import DDPMPipeline, DDPMScheduler

    model = cache / "models--an-org--a-model"
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(model / "snapshots" / commit)
    (model / "refs").mkdir(exist_ok=True)
    (model / "refs" / revision).write_text(commit)


def test_each_revision_is_found_in_the_cache_without_a_network_and_another_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    _cached(tmp_path, "main", "0123", tiny_unet(3, 16))
    _cached(tmp_path, "v2", "4567", tiny_unet(1, 8))
    assert load_prior("an-org/a-model").shape == (3, 16, 16)
    assert load_prior("an-org/a-model", revision="main").shape == (3, 16, 16)
    assert load_prior("an-org/a-model", revision="v2").shape == (1, 8, 8)
    words = rf"at revision v3: .*HF_HUB_OFFLINE is set.*models--an-org--a-model .* into {tmp_path}"
    with pytest.raises(InputError, match=words):
        load_prior("an-org/a-model", revision="v3")


def test_a_revision_reaches_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, **options: Any) -> str:
        asked.append(options.get("revision"))
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    info: Callable[..., None] = lambda *_, **options: asked.append(options.get("revision"))  # noqa: E731
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", info)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    tiny_unet(3, 16).save_pretrained(tmp_path / "unet")
    assert load_prior("an-org/a-model", revision="v2").shape == (3, 16, 16)
    assert asked == ["v2"] * 3


def test_the_weights_of_a_text_encoder_are_downloaded_and_those_of_a_safety_checker_are_not() -> (
    None
):
    from fnmatch import fnmatch

    from diffsplit.priors.hub import DESCRIPTIONS, WEIGHTS

    files = {
        "unet/diffusion_pytorch_model.safetensors": True,
        "unet/diffusion_pytorch_model.fp16.safetensors": False,
        "text_encoder/model.safetensors": True,
        "text_encoder/model.fp16.safetensors": False,
        "safety_checker/model.safetensors": False,
        "tokenizer/merges.txt": True,
        "v1-5-pruned.safetensors": False,
        "unet/diffusion_pytorch_model.bin": False,
    }
    for file, wanted in files.items():
        assert any(fnmatch(file, pattern) for pattern in DESCRIPTIONS + WEIGHTS) == wanted, file


def test_gray_and_many_channels_make_priors_of_every_layout(tmp_path: Path) -> None:
    from diffusers import DDPMScheduler

    for channels in (1, 5):
        unet = tiny_unet(channels, 16)
        x = _noise(2, channels, 16, 16)
        prior = load_prior((unet, DDPMScheduler()))
        assert prior.denoise(x, 0.5).shape == x.shape
        consistency = ConsistencyPrior(unet)
        assert consistency.consistency(x, 0.5).shape == x.shape
        coder = tiny_kl(in_channels=channels, out_channels=channels)
        for part, model in (("vae", coder), ("unet", tiny_unet(4, 8))):
            model.save_pretrained(tmp_path / str(channels) / part)
        latent = load_prior(tmp_path / str(channels))
        assert latent.shape == (channels, 16, 16)
        assert latent.decode(latent.encode(x)).shape == x.shape
        with pytest.raises(InputError, match="takes batches of shape"):
            prior.denoise(_noise(2, 3, 16, 16), 0.5)


@pytest.mark.slow
def test_a_compiled_network_answers_as_before() -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    exact = _answer(load_prior((tiny_unet(3, 16), scheduler)))
    compiled = load_prior((tiny_unet(3, 16), scheduler), compile=True, channels_last=True)
    torch.testing.assert_close(_answer(compiled), exact, rtol=1e-4, atol=1e-4)
