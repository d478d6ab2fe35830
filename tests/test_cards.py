"""Cards of published models, where their files belong, and `diffsplit priors`."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from adm_networks import WORDS, backbone, state_of
from command_line import refused, run
from pydantic import ValidationError
from tiny_networks import tiny_unet

from diffsplit.cli.main import PRIORS
from diffsplit.errors import InputError
from diffsplit.priors import bundled_priors, card_names, load_prior, model_card, models_folder
from diffsplit.priors.adm_config import adm_config
from diffsplit.priors.cards import Card


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder of downloaded models."""
    monkeypatch.setenv("DIFFSPLIT_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "models").mkdir(parents=True)
    return tmp_path / "home" / "models"


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A hub that accepts connections and never answers; the empty cache."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", place)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield tmp_path / "cache"


def _tiny_card(sha256: str | None = None, **changes: Any) -> Card:
    facts = model_card("ffhq-256-adm").model_dump()
    facts |= {"file": "tiny.pt", "resolution": 16, "config": WORDS, "sha256": sha256}
    return Card.model_validate(facts | changes)


@pytest.mark.parametrize("name", card_names())
def test_the_facts_on_a_card_agree_with_each_other(name: str) -> None:
    from diffusers import DDPMScheduler

    card = model_card(name)
    assert card.name == name
    assert name not in bundled_priors()
    if card.config is not None:
        config = adm_config(card.config)
        assert config.image_size == card.resolution
        assert config.class_cond == (card.classes is not None)
        assert config.learn_sigma
    if card.schedule is not None and card.sigma_range is not None:
        beta = card.schedule
        scheduler = DDPMScheduler(beta.steps, beta.beta_start, beta.beta_end, beta.name)
        alphas = scheduler.alphas_cumprod.double()
        levels = ((1 - alphas) / alphas).sqrt()[[0, -1]]
        expected = torch.tensor(card.sigma_range, dtype=torch.float64)
        torch.testing.assert_close(levels, expected, rtol=2e-3, atol=0)
        if card.config is not None:
            alphas = adm_config(card.config).alphas_cumprod()[[0, -1]]
            levels = ((1 - alphas) / alphas).sqrt()
            torch.testing.assert_close(levels, expected, rtol=2e-3, atol=0)


def test_a_card_has_one_source_and_no_unknown_field() -> None:
    facts = model_card("ffhq-256-adm").model_dump()
    for change in ({"hub": "a/b"}, {"file": None}, {"get": None}, {"sha256": "abc"}, {"x": 1}):
        with pytest.raises(ValidationError):
            Card.model_validate(facts | change)


def test_a_published_checkpoint_is_loaded_by_its_name_where_its_file_lies(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("azula")
    torch.save(backbone().state_dict(), home / "tiny.pt")
    digest = hashlib.sha256((home / "tiny.pt").read_bytes()).hexdigest()
    monkeypatch.setattr("diffsplit.priors.load.model_card", lambda _: _tiny_card(digest))
    assert load_prior("ffhq-256-adm").shape == (3, 16, 16)


def test_a_file_that_is_missing_or_another_one_is_named_with_what_to_do(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"ffhq_10m\.pt is not in .*home/models; download"):
        load_prior("ffhq-256-adm")
    monkeypatch.setattr("diffsplit.priors.load.model_card", lambda _: _tiny_card("0" * 64))
    torch.save(state_of(), home / "tiny.pt")
    with pytest.raises(InputError, match=r"is not the published file .* download it again"):
        load_prior("ffhq-256-adm")


def test_the_size_of_a_published_model_is_compared_before_its_file_is_looked_for() -> None:
    for name in ("ffhq-256-adm", "celebahq-256-ddpm"):
        with pytest.raises(InputError, match=r"\(3, 256, 256\), and \(3, 64, 64\) is wanted"):
            load_prior(name, shape=(3, 64, 64))


def test_a_published_model_of_the_hub_is_that_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def download(name: str, **_: object) -> str:
        asked.append(name)
        return str(tmp_path / "unet")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    tiny_unet(3, 16).save_pretrained(tmp_path / "unet")
    assert load_prior("church-256-ddpm").shape == (3, 16, 16)
    assert set(asked) == {"google/ddpm-ema-church-256"}


def test_a_pull_without_weights_does_not_look_like_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(tmp_path))
    (tmp_path / "config.json").write_text('{"_class_name": "UNet2DModel"}')
    assert "neither safetensors nor .bin" in refused(
        capsys, tmp_path, "priors", "pull", "an-org/a-model"
    )
    (tmp_path / "diffusion_pytorch_model.safetensors").write_bytes(b"")
    assert run("priors", "pull", "an-org/a-model") == 0
    assert f"is in {tmp_path}" in capsys.readouterr().out


def test_files_of_models_belong_below_the_home_that_is_set(
    monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    assert models_folder() == home
    monkeypatch.delenv("DIFFSPLIT_HOME")
    assert models_folder() == Path.home() / ".cache" / "diffsplit" / "models"


@pytest.mark.parametrize("command", [(), *((name,) for name in PRIORS)])
def test_help_of_the_priors_commands_explains_and_shows_examples(
    command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("priors", *command, "--help") == 0
    out = capsys.readouterr().out
    assert "Examples" in out
    assert f"diffsplit priors {' '.join(command)}".rstrip() in out


def test_the_list_names_every_prior_and_what_is_missing(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    (home / "ffhq_10m.pt").write_bytes(b"")
    assert run("priors", "list") == 0
    out = capsys.readouterr().out
    lines = {line.split()[1]: line for line in out.splitlines() if line.startswith("│")}
    assert set(lines) == {*bundled_priors(), *card_names()}
    assert "it is bundled" in lines["cats-64"]
    assert "ffhq_10m.pt (is there)" in lines["ffhq-256-adm"]
    assert "not there yet" in lines["imagenet-256-adm"]
    assert "google/ddpm-celebahq-256" in lines["celebahq-256-ddpm"]
    assert str(home) in out
    assert run("priors") == 0
    assert "Commands" in capsys.readouterr().out


def test_names_in_the_list_are_whole_in_a_narrow_terminal(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run("priors", "list") == 0
    out = capsys.readouterr().out
    names = {line.split()[1] for line in out.splitlines() if line.startswith("│")}
    assert {*bundled_priors(), *card_names()} <= names
    assert "…" not in out


def test_a_card_is_shown_with_what_is_not_known(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    for name in card_names():
        assert run("priors", "show", name) == 0
        out = capsys.readouterr().out
        assert model_card(name).title in out
        assert model_card(name).source in out
    assert run("priors", "show", "ffhq-256-adm") == 0
    out = capsys.readouterr().out
    assert out.count("not known") == 2
    assert "num_channels 128" in out
    assert run("priors", "show", "cats-64") == 0
    assert "cc-by-nc-4.0" in capsys.readouterr().out


def test_what_is_here_is_found_by_pull(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "ffhq_10m.pt").write_bytes(b"")
    assert run("priors", "pull", "ffhq-256-adm") == 0
    assert str(home / "ffhq_10m.pt") in capsys.readouterr().out
    assert run("priors", "pull", "cats-64") == 0
    assert "cats-64 is in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("pull", "ffhq-256-adm"), "put it there"),
        (("pull", "celebahq-256-ddpm"), "could not be reached"),
        (("pull", "an-org/a-model"), "could not be reached"),
        (("pull", "nothing"), "priors list"),
        (("show", "nothing"), "priors list"),
        (("nonsense",), "No such command"),
    ],
    ids=str,
)
def test_what_cannot_be_pulled_or_shown_is_refused_in_one_sentence_at_once(
    arguments: tuple[str, ...],
    reason: str,
    no_hub: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    start = time.perf_counter()
    assert reason in refused(capsys, tmp_path, "priors", *arguments)
    assert time.perf_counter() - start < 2


def test_the_command_line_refuses_a_checkpoint_with_the_same_sentences(
    tmp_path: Path,
    measured: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "azula.plugins.adm", None)
    torch.save(state_of(), tmp_path / "model.pt")
    for name, words in (("good", WORDS), ("bad", {**WORDS, "num_channel": 3})):
        (tmp_path / name).mkdir()
        torch.save(state_of(), tmp_path / name / "model.pt")
        (tmp_path / name / "config.json").write_text(json.dumps(words))
    torch.save({"weight": Path("code")}, tmp_path / "code.pt")
    recover = ("recover", measured, "-o", tmp_path / "x.png", "--prior")
    for prior, reason in (
        (tmp_path / "good", "pip install 'diffsplit[azula]'"),
        (tmp_path / "bad", "write num_channels"),
        (tmp_path / "model.pt", "comes without a configuration"),
        (tmp_path / "code.pt", "could run code"),
        (tmp_path / "network.pkl", "can run code"),
        (tmp_path / "no.pt", "no such file"),
        ("ffhq-256-adm", "(3, 256, 256), and (3, 16, 16) is wanted"),
    ):
        start = time.perf_counter()
        assert reason in refused(capsys, tmp_path, *recover, prior)
        assert time.perf_counter() - start < 2


@pytest.mark.parametrize("label", [None, 2])
def test_a_checkpoint_in_a_folder_recovers_a_picture_on_the_command_line(
    label: int | None, tmp_path: Path, measured: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("azula")
    (tmp_path / "prior").mkdir()
    network = backbone() if label is None else backbone(num_classes=4)
    torch.save(network.state_dict(), tmp_path / "prior" / "model.pt")
    words = {**WORDS, "class_cond": label is not None}
    (tmp_path / "prior" / "config.json").write_text(json.dumps(words))
    recover = ("recover", measured, "-o", tmp_path / "x.png", "--prior", tmp_path / "prior")
    if label is not None:
        assert "give the index of one as --class-label" in refused(capsys, tmp_path, *recover)
        recover = (*recover, "--class-label", label)
    assert run(*recover, "--steps", 2) == 0
    assert (tmp_path / "x.png").is_file()


def test_a_class_for_a_prior_without_classes_or_for_no_prior_is_refused(
    tmp_path: Path, measured: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    recover = ("recover", measured, "-o", tmp_path / "x.png", "--class-label", 3)
    assert "knows no classes" in refused(capsys, tmp_path, *recover, "--prior", prior)
    error = refused(capsys, tmp_path, *recover, "--solver", "back-projection")
    assert "needs no prior; leave out --class-label" in error
