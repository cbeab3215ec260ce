"""Runs of a head that is not trained."""

import dataclasses

import numpy as np
import pytest
from small_runs import settings_of

from longreel.errors import LongreelError
from longreel.experiments.runs import read_config, read_scores
from longreel.experiments.train import train_run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_neighbours_are_not_trained_and_vote_for_the_test_clips(made, tmp_path):
    """The scores are those of a loop over the training clips' mean rows, standardised, in plain NumPy."""
    settings = dataclasses.replace(settings_of(made), head="knn:neighbours=3,temperature=1")
    trained = train_run(tmp_path / "run", settings)
    assert (trained.epoch, trained.selection) == (0, "not trained")
    config = read_config(tmp_path / "run")
    rows = {row["path"]: row for row in made.rows}
    everything = np.concatenate([made.features[path].astype(float) for path in rows if rows[path]["split"] == "train"])
    mean, deviation = everything.mean(axis=0), everything.std(axis=0)

    def embed(path: str) -> np.ndarray:
        row = ((made.features[path].astype(float) - mean) / deviation).mean(axis=0)
        return row / np.linalg.norm(row)

    train = {path: embed(path) for path, row in rows.items() if row["split"] == "train"}
    scores, ids = read_scores(tmp_path / "run" / "scores-val.safetensors")
    for score, path in zip(scores, ids, strict=True):
        nearest = sorted(train, key=lambda other, path=path: -float(train[other] @ embed(path)))[:3]
        votes = np.exp([train[other] @ embed(path) for other in nearest])
        expected = np.zeros(4)
        for vote, other in zip(votes / votes.sum(), nearest, strict=True):
            for label in rows[other]["label"].split(";"):
                expected[config["classes"].index(label)] += vote
        np.testing.assert_allclose(score, expected, atol=1e-5)


@pytest.mark.parametrize(
    "asked",
    [{"balance": "crt"}, {"balance": "focal"}, {"loss": "bce"}, {"mixer": "mixup"}, {"adjustment": "tau-norm"}],
    ids=str,
)
def test_neighbours_refuse_what_would_have_no_part_before_a_folder_is_made(asked, made, tmp_path):
    settings = dataclasses.replace(settings_of(made), head="knn", **asked)
    with pytest.raises(LongreelError, match=f"knn is not trained, so {next(iter(asked.values()))} has no part in it"):
        train_run(tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
