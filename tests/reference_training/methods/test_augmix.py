"""AugMix's loss against its definition in NumPy, its batches and what trains."""

import math

import numpy as np
import torch
from scipy.special import log_softmax, rel_entr
from torch.nn import functional

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.data import load
from reference_training.data.batch import Batch
from reference_training.data.pairs import Pairs
from reference_training.data.second_images import SECOND_IMAGES
from reference_training.experiments import plan
from reference_training.experiments.job import resolve
from reference_training.methods.augmix import jensen_shannon
from reference_training.methods.trainings import training
from reference_training.networks.resnet import ResNet
from reference_training.run import parse


def make(seed=0):
    torch.manual_seed(seed)
    return training("augmix").make_step(ResNet(Network(), 10), SHORT, UEMOptions())


def batch():
    generator = torch.Generator().manual_seed(1)
    return Batch(
        torch.randn(8, 3, 32, 32, generator=generator),
        torch.randn(8, 2, 3, 32, 32, generator=generator),
        torch.arange(8),
    )


def divergence(logits: np.ndarray) -> float:
    """The mean of KL(p_v ‖ M) over images and views, in float64."""
    p = np.exp(log_softmax(logits.astype(np.float64), axis=2))
    mixture = np.clip(p.mean(0), 1e-7, 1)
    return rel_entr(p, np.broadcast_to(mixture, p.shape)).sum(2).mean()


def test_the_divergence_is_jensens_and_shannons():
    generator = torch.Generator().manual_seed(0)
    for scale in (0.1, 1.0, 30.0):
        logits = torch.randn(3, 16, 10, generator=generator) * scale
        expected = divergence(logits.numpy())
        assert math.isclose(jensen_shannon(logits).item(), expected, rel_tol=1e-4, abs_tol=1e-7)
    assert jensen_shannon(logits[:1].expand(3, -1, -1)).abs() < 1e-6
    # Three views, each sure of another class, have the most there can be: log 3.
    apart = 100 * torch.eye(3)[:, None].requires_grad_()
    found = jensen_shannon(apart)
    assert math.isclose(found.item(), math.log(3), rel_tol=1e-6)
    found.backward()  # probabilities that are 0 in float32 make no NaN of the gradient


def test_its_gradient_is_that_of_the_difference_quotient():
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(2)).requires_grad_()
    (gradient,) = torch.autograd.grad(jensen_shannon(logits), logits)
    values, step = logits.detach().double().numpy(), 1e-5
    for place in np.ndindex(*values.shape):
        change = np.zeros_like(values)
        change[place] = step
        slope = (divergence(values + change) - divergence(values - change)) / (2 * step)
        assert math.isclose(gradient[place].item(), slope, rel_tol=1e-3, abs_tol=1e-6)


def test_the_loss_is_ce_plus_twelve_times_the_divergence_in_one_pass():
    step, twin, pairs = make(), make(), batch()
    first, second = pairs.degraded.unbind(1)
    logits = twin.model(torch.cat([pairs.clean, first, second])).view(3, 8, 10)
    expected = functional.cross_entropy(logits[0], pairs.labels) + 12 * divergence(
        logits.detach().numpy()
    )
    result = step(pairs)
    torch.testing.assert_close(result.loss, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sum(result.logs.values()), result.loss)
    assert result.logs["consistency"] > 0.01
    # All three images stand in one batch for batch normalisation, which counts it once.
    norm = step.model.stem[1]
    assert norm.num_batches_tracked == 1
    assert torch.equal(norm.running_mean, twin.model.stem[1].running_mean)
    result.loss.backward()
    assert all(weight.grad.abs().max() > 0 for weight in step.parameters())


def test_views_of_any_second_image_reach_the_step():
    dataset = load("digits")
    for kind in sorted(SECOND_IMAGES):
        one = training(f"augmix@second={kind}")
        assert one.method.second_views == 2
        options = {"batch_size": 4, "seed": 0, "second": one.second, "frost": "procedural"}
        pairs = Pairs(dataset, second_views=2, **options)
        found = next(iter(pairs.batches(3, 4)))
        assert found.degraded.shape == (4, 2, 3, 32, 32)
        assert torch.isfinite(make()(found).loss)
        single = next(iter(Pairs(dataset, **options).batches(3, 4)))
        assert torch.equal(found.degraded[:, 0], single.degraded)
        assert torch.equal(found.clean, single.clean)
        late = next(iter(Pairs(dataset, second_views=2, **options).batches(2, 4)))
        assert late.degraded.shape == found.degraded.shape


def test_augmented_pairs_are_the_same_wherever_a_run_continues():
    options = {"batch_size": 8, "seed": 1, "frost": "procedural", "second_views": 2}
    for kind in sorted(SECOND_IMAGES):
        pairs = Pairs(load("fashion-mnist-subset"), second=kind, **options)
        whole, later = list(pairs.batches(0, 20)), list(pairs.batches(13, 20))
        for one, other in zip(whole[13:], later, strict=True):
            assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
        assert max(batch.degraded.abs().max() for batch in whole) <= 1 + 1e-6


def test_the_plan_counts_three_passes():
    small = ("--arch", "resnet18", "--crop", "64", "--resize", "73")
    three = plan.cost(resolve(parse(["--experiment", "table3/augmix", *small])))
    two = plan.cost(resolve(parse(["--experiment", "table5/cross_entropy", *small])))
    assert math.isclose(three.forward_flops / two.forward_flops, 3 / 2, rel_tol=1e-3)
