"""Uses of σ at test time against closed forms: a weight with the wrong sign fails each of them."""

from math import log

import pytest
import torch
from torch import nn

from reference_training.evaluation import test_time
from reference_training.evaluation.calibration import risks
from reference_training.evaluation.sets import SETS
from reference_training.evaluation.test_time import averaged, least, moved, of_two, pooled, say
from reference_training.evaluation.trained import Trained
from reference_training.runtime.errors import RunError
from ulfd_torch import UEM

SHAPES = {"element": (2, 5, 3, 3), "spatial": (2, 1, 3, 3), "sample": (2, 1, 1, 1)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("gamma", test_time.POOLINGS.values())
def test_pooling_by_a_constant_variance_is_the_mean_bit_for_bit(shape, gamma):
    feature = torch.rand(2, 5, 3, 3)
    constant = torch.full(shape, 7.3) + torch.arange(2).view(2, 1, 1, 1)  # within an image
    assert torch.equal(pooled(feature, constant, gamma), feature)


def test_pooling_weighs_by_precision():
    feature = torch.tensor([[[[1.0, 5.0]]]])
    log_variance = torch.tensor([[[[0.0, log(9)]]]])
    assert pooled(feature, log_variance, 1.0).mean() == pytest.approx((1 + 5 / 9) / (1 + 1 / 9))
    assert pooled(feature, log_variance, 0.5).mean() == pytest.approx((1 + 5 / 3) / (1 + 1 / 3))
    assert pooled(feature, log_variance - 500, 1.0).isfinite().all()


def test_pooling_by_element_weighs_each_channel_by_itself():
    feature = torch.tensor([1.0, 5.0]).expand(1, 2, 1, 2)
    log_variance = torch.tensor([[[[0.0, log(3)]], [[log(3), 0.0]]]])
    means = pooled(feature, log_variance, 1.0).mean((2, 3))
    torch.testing.assert_close(means, torch.tensor([[2.0, 4.0]]))


def test_views_are_weighed_and_chosen_by_precision():
    logits = torch.tensor([1.0, 5.0]).view(2, 1, 1)
    log_variance = torch.tensor([[0.0], [log(3)]])
    assert averaged(logits, log_variance) == pytest.approx(2)
    assert averaged(logits, torch.zeros(2, 1)) == 3
    assert least(logits, log_variance) == 1
    assert least(logits, -log_variance) == 5


def test_the_network_that_doubts_less_is_taken():
    unsure, sure = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 3.0]])
    first = test_time.Said(unsure[None], torch.zeros(1), torch.tensor([2.0]))
    other = test_time.Said(sure[None], torch.zeros(1), torch.tensor([3.0]))
    found = of_two((first, other), (1.0, 4.0))
    assert torch.equal(found["two θ"], unsure)
    assert torch.equal(found["two relative θ"], sure)  # 2/1 > 3/4
    assert torch.equal(found["two max-softmax"], sure)
    assert torch.equal(found["two average"], (unsure + sure) / 2)


def test_the_edge_is_repeated_where_an_image_is_moved():
    image = torch.tensor([[1, 2, 3], [4, 5, 6], [7, 8, 9]])
    assert moved(image, 1).tolist() == [[1, 1, 2], [1, 1, 2], [4, 4, 5]]
    assert moved(image, -1).tolist() == [[5, 6, 6], [8, 9, 9], [8, 9, 9]]


def test_risk_and_coverage_by_hand():
    curve = risks([0.3, 0.1, 0.4, 0.2], [0, 0, 1, 1])
    assert curve.tolist() == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert curve.mean() == pytest.approx(1 / 3)
    # Equal doubts in any order: first one of two, of which one is wrong.
    assert risks([1, 1, 2], [1, 0, 0]).tolist() == pytest.approx([1 / 2, 1 / 2, 1 / 3])


def test_the_measures_of_a_network_by_hand():
    right = torch.tensor([True, True, True, True, False]).numpy()
    good, bad = (torch.tensor(doubts).numpy() for doubts in ([1, 2, 3, 4, 5], [5, 4, 3, 2, 1]))
    scores = {"θ": bad, "max-softmax": good, "entropy": good}
    found = {
        name: [(which, value) for which in SETS]
        for name, value in {"pooling mean": right, **scores}.items()
    }
    measured = test_time.measures(found)
    assert measured["pooling mean @ unseen"] == pytest.approx(80)
    assert measured["kept max-softmax @ seen"] == pytest.approx(100)
    assert measured["kept θ @ seen"] == pytest.approx(75)
    assert measured["AURC max-softmax @ clean"] == pytest.approx(100 * (1 / 5) / 5)
    assert measured["AURC θ @ clean"] == pytest.approx(20 * (1 + 1 / 2 + 1 / 3 + 1 / 4 + 1 / 5))
    assert measured["AURC both @ clean"] == pytest.approx(20)  # ranks that cancel are no order


def network(pool: nn.Module) -> Trained:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 5))
    uem = UEM(4, log_variance="spatial")
    nn.init.normal_(uem.head.weight)  # which starts at 0
    return Trained("ulfd/0", layers.eval(), uem.eval(), "1")


def test_a_network_says_what_it_says_without_the_hook():
    trained = network(nn.AdaptiveAvgPool2d(1))
    images = torch.randint(256, (6, 3, 32, 32), dtype=torch.uint8)
    said = say(trained, images)
    plain = trained.model(test_time.normalised(images))
    torch.testing.assert_close(said.logits[0], plain)
    feature = trained.model[:2](test_time.normalised(images))
    weight = (-trained.uem(feature)).exp()
    mean = (weight * feature).sum((2, 3)) / weight.sum((2, 3))
    torch.testing.assert_close(said.logits[1], trained.model[-1](mean))
    assert not torch.allclose(said.logits[1], plain)
    torch.testing.assert_close(
        said.theta, (trained.uem(feature).double() / 2).exp().mean((1, 2, 3))
    )


def test_a_network_that_does_not_average_over_places_is_refused():
    images = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    with pytest.raises(RunError, match="does not average"):
        say(network(nn.AdaptiveMaxPool2d(1)), images)
