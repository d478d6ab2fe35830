"""Checkpoints of guided-diffusion: the right network, the right levels, and what is refused."""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from adm_networks import WORDS, backbone, state_of
from safetensors import safe_open
from safetensors.torch import save_file

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors import ADMPrior, load_prior
from diffsplit.priors.adm_config import adm_config

SHARED = Path(os.environ.get("DIFFSPLIT_SHARED", Path(__file__).parents[2] / "shared"))
GOLDEN = SHARED / "golden" / "adm-ffhq-style.safetensors"


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _saved(folder: Path, network: torch.nn.Module) -> Path:
    torch.save(network.state_dict(), folder / "model.pt")
    return folder / "model.pt"


@pytest.mark.skipif(
    not GOLDEN.is_file(), reason="needs the reference tensors, see DIFFSPLIT_SHARED"
)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_the_network_answers_as_the_reference_implementation_did(
    suffix: str, tmp_path: Path
) -> None:
    pytest.importorskip("azula")
    with safe_open(GOLDEN, "pt") as opened:
        held = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        metadata = opened.metadata()
    state = {k.removeprefix("model."): v for k, v in held.items() if k.startswith("model.")}
    file, config = tmp_path / f"model{suffix}", json.loads(metadata["config"])
    if suffix == ".pt":
        torch.save(state, file)
        prior = load_prior(file, config=config)
    else:
        save_file(state, file, metadata)
        prior = load_prior(file)
    assert isinstance(prior, ADMPrior)
    with torch.no_grad():
        output = prior.unet(held["input.x"], held["input.t"])[0]
    torch.testing.assert_close(output, held["output"], rtol=0, atol=1e-5)
    levels = (
        (1 - adm_config(config).alphas_cumprod()) / adm_config(config).alphas_cumprod()
    ).sqrt()
    sigma = levels[held["input.t"]].float()
    s = sigma.view(-1, 1, 1, 1)
    x = held["input.x"] * (1 + s.square()).sqrt()  # what it sees is x/√(1 + σ²)
    with torch.no_grad():
        clean = prior.denoise(x, sigma)
    torch.testing.assert_close((x - clean) / s, held["output"][:, :3], rtol=1e-4, atol=1e-4)


def test_a_checkpoint_comes_from_a_file_a_folder_and_metadata_alike(tmp_path: Path) -> None:
    pytest.importorskip("azula")
    network, x = backbone(), _noise(2, 3, 16, 16)
    file = _saved(tmp_path, network)
    priors = [load_prior(file, config=WORDS)]
    (tmp_path / "config.yaml").write_text("\n".join(f"{k}: {v!r}" for k, v in WORDS.items()))
    priors.append(load_prior(tmp_path))
    priors.append(load_prior(str(file), config=tmp_path / "config.yaml"))
    (tmp_path / "config.yaml").unlink()
    (tmp_path / "config.json").write_text(json.dumps(WORDS))
    priors.append(load_prior(tmp_path))
    save_file(network.state_dict(), tmp_path / "m.safetensors", {"config": json.dumps(WORDS)})
    priors.append(load_prior(tmp_path / "m.safetensors"))
    sigma = torch.tensor([0.3, 7.0])
    expected = priors[0].denoise(x, sigma)  # type: ignore[attr-defined]
    for prior in priors:
        assert type(prior) is ADMPrior
        assert prior.shape == (3, 16, 16)
        assert not any(p.requires_grad for p in prior.unet.parameters())
        torch.testing.assert_close(prior.denoise(x, sigma), expected, rtol=0, atol=0)


def test_the_pullback_is_the_transposed_derivative_of_the_denoiser(tmp_path: Path) -> None:
    pytest.importorskip("azula")
    prior: Any = load_prior(_saved(tmp_path, backbone()), config=WORDS)
    x, u, v = _noise(3, 2, 3, 16, 16)
    clean, pullback = prior.vjp(x, 0.5)
    torch.testing.assert_close(clean, prior.denoise(x, 0.5))
    step = 3e-3  # the network computes in float32
    slope = (prior.denoise(x + step * v, 0.5) - prior.denoise(x - step * v, 0.5)) / (2 * step)
    torch.testing.assert_close((pullback(u) * v).sum(), (u * slope).sum(), rtol=2e-3, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({"dtype": torch.bfloat16}, 1e-6, 2**-5),
        ({"dtype": torch.float16}, 1e-6, 2**-8),
        ({"channels_last": True}, 0.0, 1e-5),
    ],
    ids=str,
)
def test_half_precision_and_another_memory_layout_change_answer_and_pullback_by_rounding(
    options: dict[str, Any], least: float, most: float, tmp_path: Path
) -> None:
    pytest.importorskip("azula")
    file = _saved(tmp_path, backbone())
    x, answers = _noise(2, 3, 16, 16), []
    for changes in ({}, options):
        prior = load_prior(file, config=WORDS, **changes)
        assert isinstance(prior, ADMPrior)
        clean, pullback = prior.vjp(x, 0.5)
        answers.append((clean, pullback(torch.ones_like(x))))
    for exact, other in zip(*answers, strict=True):
        assert other.dtype == torch.float32
        assert least <= (other - exact).abs().max() / exact.abs().max() <= most


def test_a_class_conditional_checkpoint_answers_for_the_class_that_was_chosen(
    tmp_path: Path,
) -> None:
    pytest.importorskip("azula")
    network, words = backbone(num_classes=5), {**WORDS, "class_cond": True}
    file, x = _saved(tmp_path, network), _noise(2, 3, 16, 16)
    prior: Any = load_prior(file, config=words, class_label=3)
    t, alpha = prior.timestep(torch.tensor([0.5, 0.5])), 1 / math.sqrt(1.25)
    noise = network(alpha * x, t, y=torch.tensor([3, 3]))[:, :3]
    torch.testing.assert_close(prior.denoise(x, 0.5), x - 0.5 * noise)
    for label, reason in ((None, "knows 5 classes.*class_label"), (5, "class 5 does not exist")):
        with pytest.raises(InputError, match=rf"model\.pt: .*{reason}"):
            load_prior(file, config=words, class_label=label)
    file = _saved(tmp_path, backbone())
    with pytest.raises(InputError, match="knows no classes"):
        load_prior(file, config=WORDS, class_label=0)


def test_one_channel_no_variance_and_another_prediction_are_read_from_the_checkpoint(
    tmp_path: Path,
) -> None:
    pytest.importorskip("azula")
    network = backbone(image_channels=1, learn_var=False)
    words = {
        **WORDS,
        "learn_sigma": False,
        "predict_xstart": True,
        "diffusion_steps": 4000,
        "rescale_timesteps": True,
        "noise_schedule": "cosine",
    }
    prior: Any = load_prior(_saved(tmp_path, network), config=words, shape=(1, 16, 16))
    x, sigma = _noise(2, 1, 16, 16), torch.tensor([0.5, 2.0])
    t = prior.timestep(sigma)
    assert float(t.max()) > 1000  # of 4000 steps, which the network knows as 1000
    clean = network(x * (1 + sigma.view(-1, 1, 1, 1) ** 2).rsqrt(), t / 4)
    torch.testing.assert_close(prior.denoise(x, sigma), clean)


@pytest.mark.parametrize("words", [{}, {"beta_schedule": "squaredcos_cap_v2"}], ids=str)
def test_the_noise_schedules_are_those_of_diffusers(words: dict[str, str]) -> None:
    from diffusers import DDPMScheduler

    name = "cosine" if words else "linear"
    expected = DDPMScheduler(**words).alphas_cumprod.double()
    found = adm_config({"image_size": 64, "noise_schedule": name}).alphas_cumprod()
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-9)


def test_lists_may_be_written_as_on_the_command_line_of_guided_diffusion() -> None:
    config = adm_config({"image_size": 256, "attention_resolutions": 16, "channel_mult": ""})
    assert config.attention_resolutions == (16,)
    assert config.multipliers == (1, 1, 2, 2, 4, 4)
    other = adm_config({"image_size": 512, "attention_resolutions": "32,16", "learn_sigma": "True"})
    assert other.attention_resolutions == (32, 16)
    assert other.multipliers[0] == 0.5
    assert other.learn_sigma


class Code:
    """What a hostile pickle holds."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (os.environ["DIFFSPLIT_TRAP"],))


def _pickles(folder: Path) -> dict[str, Path]:
    torch.save({"weight": Code()}, folder / "archive.pt")
    (folder / "bare.pt").write_bytes(pickle.dumps({"weight": Code()}, protocol=2))
    (folder / "modern.pth").write_bytes(pickle.dumps(Code(), protocol=4))
    (folder / "network.pkl").write_bytes(pickle.dumps({"ema": Code()}))
    torch.save({"args": argparse.Namespace(lr=1), "model": state_of()}, folder / "options.ckpt")
    return {path.name: path for path in folder.iterdir()}


def test_a_pickle_with_code_in_it_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFSPLIT_TRAP", str(tmp_path / "sprung"))
    files = _pickles(tmp_path)
    assert len(files) == 5
    for file in files.values():
        with pytest.raises(InputError, match=r"could run code|can run code") as caught:
            load_prior(file, config=WORDS)
        assert str(file) in str(caught.value)
        assert "docs/checkpoints.md" in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def _files(folder: Path) -> None:
    torch.save(state_of(), folder / "model.pt")
    torch.save(state_of(4, 4), folder / "four.pt")
    torch.save({**state_of(), "label_emb.weight": torch.zeros(10, 128)}, folder / "classes.pt")
    torch.save({"conv.weight": torch.zeros(2)}, folder / "other.pt")
    torch.save({"model": state_of(), "step": 3}, folder / "nested.pt")
    torch.save([1], folder / "list.pt")
    (folder / "cut.pt").write_bytes((folder / "model.pt").read_bytes()[:500])
    (folder / "junk.safetensors").write_bytes(b"junk")
    (folder / "picture.png").write_bytes(b"\x89PNG")
    (folder / "words.yaml").write_text("[1, 2]")
    (folder / "broken.yaml").write_text("{")
    (folder / "two").mkdir()
    (folder / "none").mkdir()
    for name in ("a", "b"):
        torch.save(state_of(), folder / "two" / f"{name}.pt")


REFUSED: dict[str, tuple[str, Any, str]] = {
    "no file": ("no.pt", WORDS, "no such file"),
    "no configuration": ("model.pt", None, "without a configuration.*config.yaml"),
    "cut off": ("cut.pt", WORDS, "not a readable checkpoint.*download it again"),
    "junk": ("junk.safetensors", WORDS, "not a readable checkpoint"),
    "a picture": ("picture.png", WORDS, "not a file of weights"),
    "another network": ("other.pt", WORDS, "no weights of a guided-diffusion.*from_callable"),
    "a training state": ("nested.pt", WORDS, "more than the weights.*model, step"),
    "a list": ("list.pt", WORDS, "more than the weights"),
    "an unknown word": (
        "model.pt",
        {**WORDS, "num_channel": 3},
        "'num_channel'; write num_channels",
    ),
    "a far word": ("model.pt", {**WORDS, "xyzzy": 3}, "'xyzzy'; leave it out"),
    "no size": ("model.pt", {"num_channels": 32}, "image_size is missing"),
    "no number": ("model.pt", {**WORDS, "num_heads": "many"}, "num_heads should be.*'many'"),
    "a schedule": ("model.pt", {**WORDS, "noise_schedule": "x"}, "noise_schedule should be"),
    "an odd size": ("model.pt", {**WORDS, "image_size": 17}, "cannot be halved 1 times"),
    "no multipliers": ("model.pt", {"image_size": 16}, "give channel_mult"),
    "a number for a configuration": ("model.pt", 3, "not a mapping"),
    "a list for a configuration": ("model.pt", "words.yaml", "not a mapping"),
    "broken YAML": ("model.pt", "broken.yaml", r"broken\.yaml: not a readable configuration"),
    "no variance": ("model.pt", {**WORDS, "learn_sigma": False}, "set learn_sigma to True"),
    "four channels": ("four.pt", WORDS, "from 4 to 4 channels.*learn_sigma to False"),
    "hidden classes": ("classes.pt", WORDS, "set class_cond to True"),
    "no classes": ("model.pt", {**WORDS, "class_cond": True}, "set class_cond to False"),
    "two files": ("two", WORDS, "holds 2 files of weights"),
    "an empty folder": ("none", WORDS, "holds 0 files of weights"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_a_prior_is_refused_in_one_sentence_at_once(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, config, reason = REFUSED[case]
    _files(tmp_path)
    monkeypatch.chdir(tmp_path)
    start = time.perf_counter()
    with pytest.raises(InputError, match=reason) as caught:
        load_prior(name, config=config)
    assert time.perf_counter() - start < 2
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_the_shape_that_is_wanted_is_compared_before_the_network_is_built(tmp_path: Path) -> None:
    torch.save(state_of(), tmp_path / "model.pt")
    for shape in ((3, 64, 64), (1, 16, 16)):
        with pytest.raises(InputError, match=r"\(3, 16, 16\), and .* load a prior of that size"):
            load_prior(tmp_path / "model.pt", config=WORDS, shape=shape)


def test_without_azula_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "azula.plugins.adm", None)
    torch.save(state_of(), tmp_path / "model.pt")
    with pytest.raises(MissingDependencyError, match=r"pip install 'diffsplit\[azula\]'"):
        load_prior(tmp_path / "model.pt", config=WORDS)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_channels": 64}, r"do not fit .*time_embed\.0\.weight is \(128, 32\)"),
        ({"num_res_blocks": 2}, "do not fit the configuration"),
        ({"attention_resolutions": "16"}, "do not fit .* is missing"),
        ({"resblock_updown": False}, "do not fit .* differences"),
        ({"num_channels": 33}, "no network can be built"),
        ({"num_head_channels": 7}, "no network can be built"),
    ],
    ids=str,
)
def test_weights_that_do_not_fit_the_configuration_are_refused(
    change: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    pytest.importorskip("azula")
    file = _saved(tmp_path, backbone())
    with pytest.raises(InputError, match=reason) as caught:
        load_prior(file, config={**WORDS, **change})
    assert len(str(caught.value)) < 400


def test_a_configuration_for_what_needs_none_is_refused() -> None:
    for name in ("cats-64", "an-org/a-model"):
        with pytest.raises(InputError, match="config is for guided-diffusion checkpoints"):
            load_prior(name, config=WORDS)


def test_a_wrapped_score_network_denoises_a_gaussian_exactly() -> None:
    """D = x + σ² s(x, σ), and for a network of images on [0, 1] as docs/checkpoints.md has it."""
    from diffsplit.priors import GaussianPrior, from_callable

    mean, variance = 0.2, 0.09

    def score(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return -(x - mean) / (variance + sigma.view(-1, 1, 1, 1) ** 2)

    prior = from_callable(
        lambda x, sigma: x + sigma.view(-1, 1, 1, 1) ** 2 * score(x, sigma), (3, 8, 8)
    )
    exact = GaussianPrior((3, 8, 8), mean=mean, covariance=variance)
    x, sigma = _noise(2, 3, 8, 8), torch.tensor([0.1, 2.0])
    torch.testing.assert_close(prior.denoise(x, sigma), exact.denoise(x, sigma))

    def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        u, level = (x + 1) / 2, sigma / 2
        return 2 * (u + level.view(-1, 1, 1, 1) ** 2 * score(u, level)) - 1

    exact = GaussianPrior((3, 8, 8), mean=2 * mean - 1, covariance=4 * variance)
    prior = from_callable(denoiser, (3, 8, 8))
    torch.testing.assert_close(prior.denoise(x, sigma), exact.denoise(x, sigma))
