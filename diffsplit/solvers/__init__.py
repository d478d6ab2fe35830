"""Solvers: one algorithm a file, all called as ``solver(problem, y, prior, generator=)``."""

from diffsplit.solvers.base import Solver
from diffsplit.solvers.diff_ep import DiffEP
from diffsplit.solvers.guidance.dps import DPS
from diffsplit.solvers.guidance.mcg import MCG
from diffsplit.solvers.guidance.pigdm import PiGDM
from diffsplit.solvers.guidance.qcs_sgm import QCSSGM
from diffsplit.solvers.guidance.sim_dmis import SIMDMIS
from diffsplit.solvers.latent.dcdp_latent import LatentDCDP
from diffsplit.solvers.latent.latent_dps import LatentDPS
from diffsplit.solvers.latent.psld import PSLD
from diffsplit.solvers.latent.resample import ReSample
from diffsplit.solvers.linear.simple import BackProjection, Bicubic, MeanFill, linear_baseline
from diffsplit.solvers.linear.wiener import Wiener
from diffsplit.solvers.linear_model import read_as_linear
from diffsplit.solvers.message_passing.message_passing import MessagePassing
from diffsplit.solvers.purify import purification_grid, purify
from diffsplit.solvers.recovery import Answer, Recovery, State, Step, Trace
from diffsplit.solvers.reverse import reverse_diffusion, sample
from diffsplit.solvers.spectral.consistency_editing import ConsistencyEditing
from diffsplit.solvers.spectral.ddnm import DDNMPlus
from diffsplit.solvers.spectral.ddrm import DDRM
from diffsplit.solvers.spectral.renoising import Renoising
from diffsplit.solvers.splitting.daps import DAPS
from diffsplit.solvers.splitting.dcdp import DCDP
from diffsplit.solvers.splitting.diff_onebit import DiffOneBit
from diffsplit.solvers.splitting.diffpir import DiffPIR
from diffsplit.solvers.splitting.pnp_admm import PnPADMM
from diffsplit.solvers.splitting.red_diff import RedDiff

__all__ = [
    "DAPS",
    "DCDP",
    "DDRM",
    "DPS",
    "MCG",
    "PSLD",
    "QCSSGM",
    "SIMDMIS",
    "SOLVERS",
    "Answer",
    "BackProjection",
    "Bicubic",
    "ConsistencyEditing",
    "DDNMPlus",
    "DiffEP",
    "DiffOneBit",
    "DiffPIR",
    "LatentDCDP",
    "LatentDPS",
    "MeanFill",
    "MessagePassing",
    "PiGDM",
    "PnPADMM",
    "ReSample",
    "Recovery",
    "RedDiff",
    "Renoising",
    "Solver",
    "State",
    "Step",
    "Trace",
    "Wiener",
    "linear_baseline",
    "purification_grid",
    "purify",
    "read_as_linear",
    "reverse_diffusion",
    "sample",
]

SOLVERS: dict[str, type[Solver]] = {
    "diffep": DiffEP,
    "diff-onebit": DiffOneBit,
    "dcdp": DCDP,
    "dcdp-latent": LatentDCDP,
    "ddrm": DDRM,
    "ddnm": DDNMPlus,
    "cm-editing": ConsistencyEditing,
    "qcs-sgm": QCSSGM,
    "sim-dmis": SIMDMIS,
    "latent-dps": LatentDPS,
    "psld": PSLD,
    "resample": ReSample,
    "dps": DPS,
    "mcg": MCG,
    "pigdm": PiGDM,
    "diffpir": DiffPIR,
    "daps": DAPS,
    "pnp-admm": PnPADMM,
    "red-diff": RedDiff,
    "wiener": Wiener,
    "bicubic": Bicubic,
    "mean-fill": MeanFill,
    "back-projection": BackProjection,
}
"""Every algorithm by its name on the command line; a new one is a line here."""
