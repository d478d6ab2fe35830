"""Training: what it leaves behind can be used and resumed, and nothing of the user is harmed."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from folders import contents
from tiny_training import LICENSE, TINY, accelerator, zip_of_pictures

from diffsplit import load_prior
from diffsplit.errors import DivergenceError, InputError
from diffsplit.io.images import load_image
from diffsplit.training import TrainConfig, train
from diffsplit.training.card import nearest_images
from diffsplit.training.denoiser import DenoiserRun, draw_sigma

pytest.importorskip("accelerate")
yaml = pytest.importorskip("yaml")
pytestmark = pytest.mark.usefixtures("few_sampling_steps")


@pytest.fixture
def started(trained, tmp_path):
    """A trained denoiser to resume."""
    return shutil.copytree(trained, tmp_path / "prior")


def read_state(out):
    return torch.load(out / "training" / "checkpoint.pt", weights_only=True)


def new_run(config, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (8, 3, 16, 16), generator=generator, dtype=torch.uint8)
    return DenoiserRun(config, images[:6], images[6:], accelerator())


def test_a_trained_folder_holds_a_prior_a_card_pictures_and_its_history(trained):
    prior = load_prior(trained)
    assert prior.error(1.0) is not None
    assert prior.describe()["training_images"] == 11  # one of twelve was held out
    for name in ("samples.png", "training/samples.png", "training/loss.png"):
        assert (trained / name).stat().st_size > 0
    assert load_image(trained / "samples.png").shape[-2:] == (2 * 16 + 2, 8 * 18 - 2)
    state = read_state(trained)
    assert [row["images"] for row in state["history"]] == [4, 8]
    json.dumps(state["history"])


def test_the_model_card_has_a_valid_header_and_says_how_to_load_the_prior(trained):
    card = (trained / "README.md").read_text("utf-8")
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header) == {"license": LICENSE, "library_name": "diffsplit"}
    assert "ds.load_prior(" in body
    assert "| σ | v(σ) |" in body
    assert "Changed on the way" not in body
    distances = body.split("distances on [-1, 1]: ")[1].rstrip(".\n").split(", ")
    assert len(distances) == 8
    assert all(0 < float(distance) <= 2 for distance in distances)


def test_a_few_steps_of_training_lower_the_denoising_error(pictures, tmp_path):
    config = replace(TINY, checkpoint_minutes=60.0)
    short = train(pictures, tmp_path / "a", replace(config, images=4), cpu=True)
    longer = train(pictures, tmp_path / "b", replace(config, images=200), cpu=True)
    assert longer.error(1.0) < 0.8 * short.error(1.0)


@pytest.mark.parametrize(
    "option", [{"size": 32}, {"batch": 2}, {"channels": (32, 32)}, {"sigma_max": 80.0}, {"seed": 1}]
)
def test_another_network_or_other_data_are_not_resumed_and_no_image_is_read(
    option, started, tmp_path
):
    (name, value), before = *option.items(), contents(started)
    value = list(value) if isinstance(value, tuple) else value
    was = TINY.options()[name]
    with pytest.raises(InputError) as error:
        train(tmp_path / "none", started, replace(TINY, **option), cpu=True, resume=True)
    assert str(error.value).startswith(f"{name} is {value}, but the run was started with {was};")
    assert contents(started) == before


def test_options_that_change_on_resume_take_effect_and_are_on_record(pictures, started):
    config = replace(TINY, images=10, lr=1e-3, ema=0.5, log_sigma_mean=0.5, checkpoint_minutes=9.0)
    prior = train(pictures, started, config, cpu=True, resume=True)
    changes = [
        {
            "images_seen": 8,
            "options": {
                "images": [8, 10],
                "lr": [0.003, 0.001],
                "ema": [0.9995, 0.5],
                "log_sigma_mean": [-0.4, 0.5],
            },
        }
    ]
    state = read_state(started)
    assert state["changes"] == prior.facts["recipe_changes"] == changes
    assert state["ema"]["decay"] == 0.5
    assert state["optimizer"][0]["param_groups"][0]["lr"] < 1e-3
    card = (started / "README.md").read_text("utf-8")
    assert "- after 8 images: images 8 → 10, lr 0.003 → 0.001, ema 0.9995 → 0.5" in card
    assert prior.facts["license"] == LICENSE  # kept, since it was not given again
    again = train(pictures, started, replace(config, images=14), cpu=True, resume=True)
    assert [row["images_seen"] for row in again.facts["recipe_changes"]] == [8, 12]


def test_a_run_is_not_resumed_on_other_images(started, tmp_path):
    before = contents(started)
    darker = zip_of_pictures(tmp_path / "darker.zip", brightness=0.3)
    with pytest.raises(InputError, match="on other data"):
        train(darker, started, replace(TINY, images=12), cpu=True, resume=True)
    assert contents(started) == before


def test_a_run_starts_from_the_weights_and_network_of_another_prior(trained, pictures, tmp_path):
    wide = replace(TINY, channels=(32, 32, 32), images=4, lr=1e-9)
    prior = train(pictures, tmp_path / "new", wide, cpu=True, init=trained)
    for a, b in zip(prior.unet.parameters(), load_prior(trained).unet.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-4)
    assert prior.facts["recipe"]["channels"] == list(TINY.channels)
    assert prior.facts["started_from"] == trained.name
    with pytest.raises(InputError, match="training starts from a prior"):
        train(pictures, tmp_path / "other", replace(TINY, size=32), cpu=True, init=trained)


def test_files_of_the_user_are_not_overwritten_and_no_image_is_read(tmp_path, trained):
    out = tmp_path / "mine"
    (out / "deep").mkdir(parents=True)
    (out / "deep" / "README.md").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        train(tmp_path / "none", out, TINY, cpu=True)
    with pytest.raises(InputError, match="is a file"):
        train(tmp_path / "none", out / "deep" / "README.md", TINY, cpu=True)
    with pytest.raises(InputError, match="--resume"):
        train(tmp_path / "none", trained, TINY, cpu=True)
    assert list(contents(out).values()) == [b"mine"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="none: no such"):
        train(tmp_path / "none", tmp_path / "empty", TINY, cpu=True)


def test_what_is_no_checkpoint_is_not_resumed(tmp_path, started):
    with pytest.raises(InputError, match="no checkpoint to resume"):
        train(tmp_path / "none", tmp_path / "new", TINY, cpu=True, resume=True)
    assert not (tmp_path / "new").exists()
    checkpoint = started / "training" / "checkpoint.pt"
    incomplete = read_state(started)
    del incomplete["config"]
    torch.save(incomplete, checkpoint)
    with pytest.raises(InputError, match="cannot be resumed"):
        train(tmp_path / "none", started, TINY, cpu=True, resume=True)
    checkpoint.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="cannot be resumed"):
        train(tmp_path / "none", started, TINY, cpu=True, resume=True)


def test_a_diverged_run_says_so_and_leaves_the_last_checkpoint_and_prior(pictures, started):
    before = contents(started)
    config = replace(TINY, images=40, lr=1e30)
    with pytest.raises(DivergenceError, match="a loss or weight left"):
        train(pictures, started, config, cpu=True, resume=True)
    assert contents(started) == before


def test_a_denoiser_whose_output_is_not_finite_has_diverged():
    run = new_run(TINY)
    run.prior.sigma_data = math.nan
    with pytest.raises(DivergenceError, match="positive and finite"):
        run.error((0.5, 1.0))


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e5])
def test_a_weight_or_loss_that_cannot_be_stored_is_found(value):
    run = new_run(TINY)
    run.check_finite([torch.tensor(1.0)])
    if value != 1e5:  # as a loss that is nothing
        with pytest.raises(DivergenceError):
            run.check_finite([torch.tensor(1.0), torch.tensor(value)])
    run.ema.shadow_params[3].view(-1)[0] = -value
    with pytest.raises(DivergenceError):
        run.check_finite([])


def test_training_leaves_the_global_generator_alone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)
        state = torch.get_rng_state()
        new_run(TINY).update()
        assert torch.equal(torch.get_rng_state(), state)
        torch.manual_seed(54321)
        same = new_run(TINY).network
    first, other = new_run(TINY).network, new_run(replace(TINY, seed=1)).network
    assert torch.equal(first.conv_in.weight, same.conv_in.weight)
    assert not torch.equal(first.conv_in.weight, other.conv_in.weight)


def test_images_of_one_color_are_refused():
    gray = torch.full((8, 3, 16, 16), 90, dtype=torch.uint8)
    with pytest.raises(InputError, match="one color"):
        DenoiserRun(TINY, gray, gray, accelerator())


@pytest.mark.parametrize(
    "option",
    [
        {"batch": 0},
        {"batch": 2.5},
        {"lr": math.nan},
        {"cooldown": 0.0},
        {"ema": 1.0},
        {"sigma_min": 200.0},
        {"log_sigma_mean": None},
        {"channels": 64},
        {"channels": (24, 32)},
        {"channels": ()},
        {"patch": 0},
    ],
)
def test_an_option_out_of_range_is_refused(option):
    (name,) = option
    with pytest.raises(InputError, match=f"^{name} is .* must be"):
        TrainConfig(**option)


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    config = TrainConfig(images=1000, batch=1, cooldown=0.4)
    assert config.lr_scale(0, 0) == 0.01
    assert config.lr_scale(300, 300) == 1
    assert math.isclose(config.lr_scale(800, 800), 0.5)
    assert config.lr_scale(1000, 1000) == 0


def test_too_few_images_are_refused(pictures, tmp_path):
    with pytest.raises(InputError, match="too few"):
        train(pictures, tmp_path / "x", replace(TINY, batch=32), cpu=True)


def test_training_levels_cover_the_whole_range_and_dwell_where_solvers_ask():
    sigma = draw_sigma(TrainConfig(), 50_000, torch.Generator().manual_seed(0))
    assert sigma.min() >= 0.01 * 0.999
    assert sigma.max() <= 160 * 1.001
    assert (sigma > 40).float().mean() > 0.01
    assert ((sigma > 0.2) & (sigma < 4)).float().mean() > 0.6


def test_the_nearest_image_is_found_also_as_its_mirror_image():
    generator = torch.Generator().manual_seed(0)
    train_images = torch.randint(0, 256, (5, 3, 8, 8), generator=generator, dtype=torch.uint8)
    pictures = (train_images[[3, 1]].float() / 127.5 - 1).clone()
    pictures[1] = pictures[1].flip(-1)
    nearest, distance = nearest_images(pictures, train_images)
    torch.testing.assert_close(nearest, pictures)
    assert max(distance) < 1e-3
