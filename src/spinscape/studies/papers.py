"""`reproduce`: a study a paper, which tests each claim of its abstract."""

import os
from typing import Any

from spinscape.clusters import Workers
from spinscape.store import Run
from spinscape.studies.asymmetry_study import Li2024Asymmetry
from spinscape.studies.barney2024 import Barney2024
from spinscape.studies.conducting import Conducted, Progress, conduct, study_of
from spinscape.studies.liao2024 import Liao2024
from spinscape.studies.mining_study import Li2024Mining
from spinscape.studies.sources import DataLike

__all__ = ["PAPERS", "reproduce"]

PAPERS: dict[str, type[Conducted]] = {
    study.name: study for study in (Liao2024, Barney2024, Li2024Mining, Li2024Asymmetry)
}


def reproduce(
    paper: str,
    data: DataLike = "digits",
    *,
    preset: str = "quick",
    seed: int = 0,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = 1,
    backend: str = "loky",
    address: str | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> Run:
    """Test the claims of a paper's abstract, each by findings with an interval and a null.

    Parameters
    ----------
    paper : {"liao2024", "barney2024", "li2024-mining", "li2024-asymmetry"}
        arXiv 2407.20724, 2408.06421, 2405.12493 or 2405.12489.
    data, preset, seed, out, workers, backend, address, progress
        As in `explore`; the same call resumes.
    **settings
        Any field of the paper's settings (`liao2024.LiaoSettings`,
        `spin_settings.SpinSettings`, `valley_settings.MiningSettings`,
        `valley_settings.AsymmetrySettings`).

    Returns
    -------
    Run
        Its findings, and the page at ``run.path / "page.html"``, which begins with the claims.

    Raises
    ------
    ValueError, TypeError
        If the paper is not known, an argument does not fit, or `out` holds a run of another
        configuration.
    """
    if paper not in PAPERS:
        raise ValueError(f"paper={paper!r}: expected one of {', '.join(PAPERS)}")
    study = study_of(PAPERS[paper], data, preset=preset, seed=seed, **settings)
    study.workers, study.progress = Workers(workers, backend, address), progress
    return conduct(study, preset, out)
