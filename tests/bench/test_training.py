"""The loops that are compared take the same steps: else the comparison of their speed means nothing."""

from dataclasses import replace

import numpy as np
import pytest

from bench.training import CASES, train


@pytest.mark.parametrize("size", CASES)
def test_our_loop_has_the_loss_curve_of_the_bare_loop(size):
    case = replace(CASES[size], steps=4, batch_size=4)
    seconds, bare = train("bare", case)
    assert len(bare) == 4 and min(seconds) > 0
    assert len(set(bare)) == 4  # it learns: no step sees the loss of the one before
    np.testing.assert_allclose(train("ours", case)[1], bare, rtol=1e-4)


@pytest.mark.parametrize(("loop", "package"), [("lightning", "pytorch_lightning"), ("keras", "keras")])
def test_the_peers_have_it_too(loop, package, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    pytest.importorskip(package, reason="make peers installs it")
    case = replace(CASES["mlp"], steps=6)
    np.testing.assert_allclose(train(loop, case)[1], train("bare", case)[1], rtol=1e-3)
