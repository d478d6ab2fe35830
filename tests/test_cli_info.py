"""`diffsplit info`: what a file or a prior is, whatever its writer says of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from command_line import refused, run

from diffsplit import Problem, measurement_file
from diffsplit.channels import OneBit
from diffsplit.operators import Identity


def test_facts_cannot_pass_for_what_the_file_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    problem = Problem(Identity((1, 2, 2)), OneBit(0.5))
    facts = {"kind": "a poem", "images": 1000, "deep": [[{"a": [1]}]]}
    measurement_file.save(tmp_path / "y", problem, torch.ones(3, 1, 2, 2), facts)
    assert run("info", tmp_path / "y") == 0
    lines = capsys.readouterr().out.splitlines()
    shown = {line.strip().split("  ")[0]: line for line in lines}
    assert "measurements, format version 1" in shown["kind"]
    assert shown["images"].split()[-1] == "3"
    assert "a poem" in shown["added by its writer"]


def test_info_describes_a_prior_and_refuses_other_files(
    tmp_path: Path, cat: Path, prior: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("info", prior) == 0
    assert "EDMPrior" in capsys.readouterr().out
    assert "not a measurement file" in refused(capsys, tmp_path, "info", cat)
    assert "no such measurement file or prior" in refused(capsys, tmp_path, "info", "nobody")
