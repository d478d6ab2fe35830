"""Loading priors: from folders, from memory, from the hub, and what is said where that fails."""

import json
import logging
import math
import socket
import sys
import time

import pytest
import torch
from folders import contents
from tiny_networks import tiny_edm, tiny_kl, tiny_unet, tiny_vq

from diffsplit.errors import InputError, MissingDependencyError
from diffsplit.priors import (
    ConsistencyPrior,
    DiffusersPrior,
    GaussianPrior,
    LatentPrior,
    from_callable,
    load_prior,
)


@pytest.fixture(scope="module")
def unet():
    return tiny_unet(3, 16)


@pytest.fixture
def edm():
    return tiny_edm()


def _noise(*shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_a_saved_diffusers_pipeline_and_a_bare_model_folder_load(unet, tmp_path):
    from diffusers import DDPMPipeline, DDPMScheduler

    scheduler = DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
    DDPMPipeline(unet, scheduler).save_pretrained(tmp_path / "pipeline")
    unet.save_pretrained(tmp_path / "model")
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        pipeline = load_prior(tmp_path / "pipeline")
        expected = DiffusersPrior(unet, scheduler.alphas_cumprod, "v_prediction")
        torch.testing.assert_close(pipeline.denoise(x, 0.7), expected.denoise(x, 0.7))
        plain = DiffusersPrior(unet, DDPMScheduler().alphas_cumprod)
        bare = load_prior(tmp_path / "model")
        torch.testing.assert_close(bare.denoise(x, 0.7), plain.denoise(x, 0.7))


def test_a_saved_edm_prior_comes_back_the_same_to_half_precision(edm, tmp_path):
    edm.save(tmp_path / "prior", half=True)
    loaded = load_prior(tmp_path / "prior")
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(loaded.denoise(x, 0.8), edm.denoise(x, 0.8), rtol=1e-2, atol=1e-2)
    assert loaded.curve == edm.curve
    assert loaded.facts == {"name": "tiny"}
    from diffusers import UNet2DModel

    assert UNet2DModel.from_pretrained(tmp_path / "prior" / "unet").config.in_channels == 12


def test_a_folder_comes_before_a_bundled_prior_of_its_name(edm, tmp_path, monkeypatch):
    assert load_prior("cats-64").shape == (3, 64, 64)
    edm.save(tmp_path / "cats-64")
    monkeypatch.chdir(tmp_path)
    assert load_prior("cats-64").shape == (3, 16, 16)
    (tmp_path / "cats-64" / "prior.json").unlink()
    assert load_prior("cats-64").shape == (3, 64, 64)


def test_loading_says_nothing_and_saving_forgets_where_the_weights_came_from(edm, tmp_path, caplog):
    import diffusers

    edm.save(tmp_path / "secret")
    diffusers.utils.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING):
            loaded = load_prior(tmp_path / "secret")
    finally:
        diffusers.utils.logging.disable_propagation()
    assert not caplog.records
    loaded.save(tmp_path / "copy")
    assert "secret" not in (tmp_path / "copy" / "unet" / "config.json").read_text()


def test_a_save_that_fails_leaves_the_earlier_prior(edm, tmp_path, monkeypatch):
    edm.save(tmp_path)
    before = contents(tmp_path)
    torch.nn.init.ones_(edm.unet.conv_out.weight)

    def broken(*_, **__):
        raise OSError("the disk is full")

    monkeypatch.setattr("diffusers.EDMEulerScheduler.save_pretrained", broken)
    with pytest.raises(OSError, match="full"):
        edm.save(tmp_path)
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["dogs-9000", "./nothing", "/no/where", "a/b/c", "-x/y", "", "x" * 5000, "\0"], ids=repr
)
def test_a_path_that_is_not_there_is_no_hub_id(name):
    with pytest.raises(InputError, match="no such prior"):
        load_prior(name)


def test_a_torchvision_that_does_not_fit_pytorch_is_named_instead_of_the_prior(monkeypatch):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError("look up:\noperator torchvision::nms does not exist")

    monkeypatch.setitem(sys.modules, "diffusers", Broken())
    with pytest.raises(MissingDependencyError, match=r"nms does not exist.*uninstall torchvision"):
        load_prior("cats-64")


def _pipelines():
    from diffusers import (
        CMStochasticIterativeScheduler,
        ConsistencyModelPipeline,
        DDIMScheduler,
        DDPMPipeline,
        DDPMScheduler,
        LDMPipeline,
    )

    velocity = DDPMScheduler(prediction_type="v_prediction", beta_schedule="squaredcos_cap_v2")
    scaled = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    return {
        "pixels": (DDPMPipeline(tiny_unet(3, 16), velocity), DiffusersPrior),
        "consistency": (
            ConsistencyModelPipeline(tiny_unet(3, 16), CMStochasticIterativeScheduler()),
            ConsistencyPrior,
        ),
        "latents": (LDMPipeline(tiny_vq(0.3), tiny_unet(3, 8), scaled), LatentPrior),
    }


@pytest.mark.parametrize("case", ["pixels", "consistency", "latents"])
def test_a_pipeline_in_memory_is_the_same_prior_as_from_its_folder(case, tmp_path):
    pipeline, kind = _pipelines()[case]
    pipeline.save_pretrained(tmp_path)
    pipeline.unet.train()
    priors = [load_prior(pipeline), load_prior(tmp_path)]
    if case != "latents":
        priors.append(load_prior((pipeline.unet, pipeline.scheduler)))
    assert not pipeline.unet.training
    x, answers = _noise(2, 3, 16, 16), []
    for prior in priors:
        assert type(prior) is kind
        if kind is LatentPrior:
            z = prior.latent.denoise(prior.encode(x), 0.7)
            answers.append(torch.cat([z.flatten(), prior.decode(z).flatten()]))
        else:
            answer = prior.consistency if kind is ConsistencyPrior else prior.denoise
            answers.append(answer(x, torch.tensor([0.7, 3.0])))
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0], rtol=1e-5, atol=1e-5)


def test_a_class_conditional_network_answers_for_the_class_that_was_chosen():
    from diffusers import DDPMScheduler

    pair = tiny_unet(3, 16, num_class_embeds=4), DDPMScheduler()
    x = _noise(2, 3, 16, 16)
    prior = load_prior(pair, class_label=2)
    t, alpha = prior.timestep(torch.tensor([0.5, 0.5])), 1 / math.sqrt(1.25)
    noise = pair[0](alpha * x, t, class_labels=torch.tensor([2, 2])).sample
    torch.testing.assert_close(prior.denoise(x, 0.5), x - 0.5 * noise)
    for label, words in ((None, "knows 4 classes"), (4, "class 4 does not exist")):
        with pytest.raises(InputError, match=words):
            load_prior(pair, class_label=label)
    with pytest.raises(InputError, match="knows no classes"):
        load_prior((tiny_unet(3, 16), DDPMScheduler()), class_label=0)


def test_a_prior_comes_back_as_it_is():
    prior = GaussianPrior((4,))
    assert load_prior(prior) is prior
    assert load_prior(prior, device="cpu") is prior


def _wrong_things():
    from diffusers import AmusedScheduler, DDPMScheduler

    network = tiny_unet(3, 16)
    return {
        "nothing": (None, "not NoneType"),
        "a number": (3, "not int"),
        "weights": (network.state_dict(), "not OrderedDict"),
        "a network alone": (network, r"pair \(network, scheduler\)"),
        "another network": (torch.nn.Linear(2, 2), "from_callable"),
        "a function": (lambda x, s: x, "from_callable"),
        "a swapped pair": ((DDPMScheduler(), network), "in this order"),
        "another network and a scheduler": ((tiny_kl(), DDPMScheduler()), "a UNet2DModel"),
        "a network and a number": ((network, 3), "its scheduler"),
        "a scheduler without betas": ((network, AmusedScheduler(0)), "has no betas"),
        "three things": ((network, DDPMScheduler(), 3), "not tuple"),
    }


def test_what_is_no_prior_is_refused_with_what_to_give_instead():
    for source, words in _wrong_things().values():
        with pytest.raises(InputError, match=words):
            load_prior(source)


@pytest.mark.parametrize("make", [lambda d: load_prior("cats-64", device=d), None])
def test_a_device_that_is_not_there_is_refused(make):
    make = make or GaussianPrior((4,)).to
    with pytest.raises(InputError, match="no device"):
        make("gpu-7")
    if not torch.cuda.is_available():
        for call in (make, lambda d: from_callable(lambda x, s: x, (4,), device=d)):
            with pytest.raises(InputError, match="sees 0 CUDA devices"):
                call("cuda")


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub that accepts connections and never answers, and an empty cache."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"http://127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", place)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        yield tmp_path / "cache"


@pytest.mark.parametrize("refuses", [False, True])
def test_a_hub_that_cannot_be_reached_is_given_up_within_two_seconds(hub, refuses, monkeypatch):
    if refuses:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(InputError, match=r"an-org/a-model: .*could not be reached.*downloaded"):
        load_prior("an-org/a-model")
    assert time.monotonic() - start < 2


def test_an_earlier_download_is_used_where_the_hub_is_silent_or_not_asked(hub, unet, monkeypatch):
    from diffusers import DDPMPipeline, DDPMScheduler

    model = hub / "models--an-org--a-model"
    DDPMPipeline(unet, DDPMScheduler()).save_pretrained(model / "snapshots" / "0123")
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text("0123")
    assert load_prior("an-org/a-model").shape == (3, 16, 16)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert load_prior("an-org/a-model").shape == (3, 16, 16)
    with pytest.raises(InputError, match="HF_HUB_OFFLINE is set"):
        load_prior("an-org/another")


def test_a_hub_model_of_another_kind_is_refused_before_its_weights_are_downloaded(
    tmp_path, monkeypatch
):
    asked = []

    def download(name, allow_patterns, local_files_only):
        asked.append(allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    tiny_unet(3, 16).save_pretrained(tmp_path / "unet")
    assert load_prior("an-org/a-model").shape == (3, 16, 16)
    assert len(asked) == 2
    with pytest.raises(InputError, match=r"\(3, 16, 16\), and \(3, 64, 64\) is wanted"):
        load_prior("an-org/a-model", shape=(3, 64, 64))
    assert asked[2:] == [["*.json"]]
    asked.clear()
    config = tmp_path / "unet" / "config.json"
    config.write_text(config.read_text().replace("UNet2DModel", "UNet2DConditionModel"))
    with pytest.raises(InputError, match="is a UNet2DConditionModel"):
        load_prior("an-org/a-model")
    assert asked == [["*.json"]]


def test_the_shape_that_is_wanted_is_compared_for_every_source(tmp_path):
    tiny_unet(3, 16).save_pretrained(tmp_path / "unet")
    assert load_prior(tmp_path, shape=(3, 16, 16)).shape == (3, 16, 16)
    for source in (tmp_path, "cats-64"):
        with pytest.raises(InputError, match="load a prior of that size"):
            load_prior(source, shape=(1, 8, 8))


MALFORMED = {
    "list": "[1]",
    "nothing": "",
    "no text": b"\xff\xfe{",
    "deep": "[" * 100_000,
    "empty": "{}",
    "long format": {"format": "x" * 10_000},
    "no patch": {"patch": 0},
    "patch of another network": {"patch": 3},
    "levels in the wrong order": {"sigma_min": 3.0, "sigma_max": 1.0},
    "endless level": {"sigma_max": 10**400},
    "level of none": {"sigma_max": None},
    "negative data": {"sigma_data": -0.5},
    "facts": {"facts": 3},
    "curve of words": {"error_curve": {"sigma": ["a", "b"], "mse": [1, 2]}},
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_description_of_a_prior_is_refused(edm, tmp_path, case):
    edm.save(tmp_path)
    file, change = tmp_path / "prior.json", MALFORMED[case]
    if isinstance(change, dict):
        change = json.dumps(json.loads(file.read_text()) | change)
    file.write_bytes(change if isinstance(change, bytes) else change.encode())
    with pytest.raises(InputError, match=tmp_path.name) as caught:
        load_prior(tmp_path)
    assert len(str(caught.value)) < 600


@pytest.mark.parametrize(
    "change",
    [
        "5",
        {"sample_size": None},
        {"sample_size": [16]},
        {"block_out_channels": None},
        {"norm_num_groups": 0},
        {"down_block_types": ["NoSuchBlock", "DownBlock2D"]},
        {"in_channels": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["ours", "diffusers"])
def test_a_malformed_network_is_refused(edm, tmp_path, kind, change):
    edm.save(tmp_path)
    if kind == "diffusers":
        (tmp_path / "prior.json").unlink()
        (tmp_path / "scheduler" / "scheduler_config.json").unlink()
    file = tmp_path / "unet" / "config.json"
    if isinstance(change, dict):
        change = json.dumps(json.loads(file.read_text()) | change)
    file.write_text(change)
    with pytest.raises(InputError, match=tmp_path.name):
        load_prior(tmp_path)


def test_an_unreadable_schedule_is_not_taken_for_a_missing_one(unet, tmp_path):
    unet.save_pretrained(tmp_path / "unet")
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler" / "scheduler_config.json").write_text("{")
    with pytest.raises(InputError, match=r"scheduler_config\.json: not readable"):
        load_prior(tmp_path)


def test_an_empty_folder_is_no_prior(tmp_path):
    with pytest.raises(InputError, match="no readable diffusers model"):
        load_prior(tmp_path)
