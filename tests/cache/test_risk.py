"""The model of the risk, and the prior it begins with."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from chainops.cache.evidence import NAMES
from chainops.cache.risk import Model, Prior, fit, shipped


def test_the_shipped_priors_precision_is_one_of_a_normal_distribution():
    matrix = shipped().matrix()
    assert matrix.shape == (len(NAMES) + 1, len(NAMES) + 1)
    assert np.array_equal(matrix, matrix.T)
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_without_labels_the_model_is_the_prior():
    prior = shipped()
    nothing = np.empty(0)
    model, _ = fit(prior, np.empty((0, len(NAMES))), nothing, nothing)
    assert np.allclose(model.weights, prior.mean)
    assert np.allclose(model.covariance, Model.before(prior).covariance)


def test_a_prior_of_other_features_is_refused():
    plain = dataclasses.asdict(shipped()) | {"names": NAMES[1:]}
    with pytest.raises(ValueError, match="other features"):
        Prior.of(plain)
