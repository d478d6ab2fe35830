"""Configurations of benchmarks: what is wrong is named with its file, line and field."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsplit.bench.cells import expand
from diffsplit.bench.config import METRICS, Method, Priors
from diffsplit.bench.methods import prior_of
from diffsplit.bench.shipped import CUTS, find_config, names_of_configs
from diffsplit.errors import InputError

GOOD = """\
title: Cats
data: cats
images: 4
size: 64
priors: {denoiser: cats-64}
rows:
  - {label: "×4", task: super-resolution, sigma: 0.05}
  - label: bits
    task: onebit-cs
    ratio: 1/16
solvers:
  - {label: DiffEP, solver: diffep, settings: {samples: 2}}
  - label: DCDP
    solver: dcdp
    purifier: ddim
"""


def written(folder: Path, text: str) -> str:
    (folder / "bench.yaml").write_text(text, "utf-8")
    return str(folder / "bench.yaml")


def test_a_configuration_is_read_with_its_defaults(tmp_path: Path) -> None:
    config = find_config(written(tmp_path, GOOD))
    assert config.rows[1].parameters == {"ratio": 1 / 16}
    assert config.solvers[1].all_settings == {"purifier": "ddim"}
    assert (config.seeds, config.metrics) == ([0], ["psnr", "ssim", "lpips"])


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("images: 4", "images: four", 3, "images: .*integer.*four"),
        ("images: 4", "imges: 4", 3, "imges: there is no such field"),
        ("sigma: 0.05", "sigma: -1", 7, r"rows\.0\.sigma: .*greater.*-1"),
        ("ratio: 1/16", "ratio: 1/0", 10, r"rows\.1\.ratio"),
        ("ratio: 1/16", "bits: 3", 8, r"rows\.1: the task onebit-cs has no bits"),
        ("task: onebit-cs", "task: onebits", 9, r"rows\.1\.task: there is no task 'onebits'"),
        ("{samples: 2}", "{smples: 2}", 12, "diffep has no setting 'smples', only .*samples"),
        ("purifier: ddim", "purifer: ddim", 15, r"solvers\.1\.purifer: there is no such field"),
        ("title: Cats\n", "", 1, "title: this field is missing"),
        ("label: bits", "label: ×4", 1, "two rows have the label '×4'"),
        ("size: 64", "size: 64\nsize: 32", 5, "the field 'size' is there twice"),
        ("  - label: bits", " - label: bits", 8, "not valid YAML"),
        ("priors: {denoiser: cats-64}", "priors: {denoiser: ", 6, "not valid YAML"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(
    tmp_path: Path, old: str, new: str, line: int, words: str
) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=words) as error:
        find_config(written(tmp_path, GOOD.replace(old, new)))
    assert f"bench.yaml, line {line}:" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "just words", "- a list", "\0", "a: &a [*a]", "{" * 2000])
def test_what_is_no_configuration_is_refused_with_one_line(tmp_path: Path, text: str) -> None:
    with pytest.raises(InputError, match=r"bench\.yaml") as error:
        find_config(written(tmp_path, text))
    assert len(str(error.value)) < 500


def test_yaml_builds_no_objects(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not valid YAML"):
        find_config(written(tmp_path, GOOD + "x: !!python/object/apply:os.getcwd []\n"))


def test_fields_are_set_from_outside_and_named_so_when_they_are_wrong(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD)
    changes = ["images=2", "rows.0.sigma=0.1", "solvers.0.settings.samples=4", "seeds=[1, 2]"]
    config = find_config(path, changes)
    assert (config.images, config.rows[0].sigma, config.seeds) == (2, 0.1, [1, 2])
    assert config.solvers[0].settings == {"samples": 4}
    for change in ("images=none", "rows.7.sigma=1", "images", "rows.0.sigma=[", "nothing=1"):
        with pytest.raises(InputError, match="--set"):
            find_config(path, [change])


def test_a_solver_that_does_not_exist_yet_is_no_mistake(tmp_path: Path) -> None:
    text = GOOD.replace("solver: dcdp\n    purifier: ddim", "solver: of-next-year")
    assert find_config(written(tmp_path, text)).solvers[1].solver == "of-next-year"


@pytest.mark.parametrize("cut", ["", *(f"@{cut}" for cut in CUTS)])
@pytest.mark.parametrize("name", names_of_configs())
def test_every_table_of_the_papers_is_valid_and_its_printed_values_have_their_rows(
    name: str, cut: str
) -> None:
    config = find_config(name + cut)
    labels = {method.label for method in config.solvers}
    for row, columns in config.printed.items():
        assert row in {row.label for row in config.rows}
        if not cut:
            assert set(columns) <= labels
    if cut:
        assert config.data == CUTS[cut[1:]]["data"]
        assert all(row.data is None and row.priors == type(row.priors)() for row in config.rows)


@pytest.mark.parametrize("name", names_of_configs())
def test_the_bundled_cats_suffice_for_every_cut_to_them(name: str) -> None:
    plan = expand(find_config(f"{name}@cats"))
    assert plan.units
    assert [entry.reason for entry in plan.known] == []


def test_an_unknown_benchmark_is_answered_with_those_that_there_are() -> None:
    for name in ("dcdp/table-99", "dcdp/table-1@dogs", "nowhere.yaml"):
        with pytest.raises(InputError, match=r"dcdp/table-1.*@cats"):
            find_config(name)


def test_a_cut_to_cats_does_not_call_its_rows_faces() -> None:
    config = find_config("diff-onebit/table-1@cats")
    labels = [row.label for row in config.rows]
    assert labels == ["1-bit CS, σ 0.5", "1-bit CS, σ 1.5"]
    assert set(config.printed) == set(labels)
    assert "here on cats" in config.title


def test_the_kind_of_prior_is_known_of_settings_that_need_the_preset_of_a_task() -> None:
    priors = Priors(denoiser="pixels", latent="latents", consistency="few")
    steps = Method(label="a", solver="dcdp-latent", settings={"consistency": "latent"})
    assert prior_of(steps, priors) == "latents"  # a step size comes from the preset
    for purifier, name in (("ddim", "pixels"), ("consistency", "few")):
        assert prior_of(Method(label="b", solver="dcdp", purifier=purifier), priors) == name


def test_the_benchmark_that_the_documents_show_is_valid_and_all_metrics_are_listed(
    tmp_path: Path,
) -> None:
    page = Path(__file__).parents[1] / "docs" / "benchmarks" / "README.md"
    text = page.read_text("utf-8")
    block = text.split("```yaml\n")[1].split("```")[0]
    config = find_config(written(tmp_path, block))
    assert config.solvers[2].calibration is not None
    assert [method.label for method in config.solvers if not method.serves("a blur, 4 bits")]
    for metric, words in METRICS.items():
        assert f"| `{metric}` | {words} |" in text
