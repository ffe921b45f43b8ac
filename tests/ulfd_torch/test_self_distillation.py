"""Eq. 10 as a module, against its parts computed one by one."""

import copy
import math
import os

import pytest
import torch
from torch import nn
from torch.nn import functional
from torchvision.models import resnet18

from tests.ulfd_torch.material import LABELS, images, network
from ulfd_torch import UEM, SelfDistillation, ULFDLoss, ulfd_loss


def by_hand(model, uem, clean, degraded, *, detach=False, teacher=None):
    """The loss of Eq. 10 with two passes, degraded first."""

    def run(x):
        feature = model[:3](x)
        return feature, model[3:](feature)

    z_hat, y_hat = run(degraded)
    z, y = run(clean)
    if teacher is not None:
        with torch.no_grad():
            z = teacher[:3](clean)
    sigma = None if uem is None else uem(z_hat)
    distillation = ulfd_loss(z_hat, z.detach() if detach else z, sigma, weight=0.1)
    classification = functional.cross_entropy(y, LABELS) + functional.cross_entropy(y_hat, LABELS)
    return classification + distillation


@pytest.mark.parametrize("with_uem", [True, False])
@pytest.mark.parametrize("teacher", ["self", "self_detached", "frozen"])
def test_is_eq_10(teacher, with_uem):
    model, (clean, degraded) = network(), images()
    uem = UEM.official(6) if with_uem else None
    twin, twin_uem = copy.deepcopy(model), copy.deepcopy(uem)
    frozen = copy.deepcopy(model).eval() if teacher == "frozen" else None
    step = SelfDistillation(model, layer="2", uem=uem, teacher=teacher)
    result = step(clean, degraded, LABELS)
    result.total.backward()
    expected = by_hand(twin, twin_uem, clean, degraded, detach=teacher != "self", teacher=frozen)
    expected.backward()
    torch.testing.assert_close(result.total, expected)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(model[1].running_mean, twin[1].running_mean)


def test_batch_norm_orders():
    clean, degraded = images()
    degraded = degraded + 3
    means = {}
    for order in ("separate", "concatenated", "clean_statistics"):
        model = network()
        SelfDistillation(model, layer="2", batch_norm=order)(clean, degraded, LABELS)
        means[order] = model[1].running_mean.clone()
    m_clean, m_degraded = (network()[0](x).mean((0, 2, 3)) for x in (clean, degraded))
    torch.testing.assert_close(means["separate"], 0.9 * 0.1 * m_degraded + 0.1 * m_clean)
    torch.testing.assert_close(means["clean_statistics"], 0.1 * m_clean)
    torch.testing.assert_close(means["concatenated"], 0.1 * (m_clean + m_degraded) / 2)


def test_clean_statistics_of_instance_normalisation():
    clean, degraded = images()
    model = network()
    model[1] = nn.InstanceNorm2d(6, track_running_stats=True)
    step = SelfDistillation(model, layer="2", batch_norm="clean_statistics")
    step(clean, degraded + 3, LABELS)
    mean = network()[0](clean).mean((0, 2, 3))
    torch.testing.assert_close(model[1].running_mean, 0.1 * mean)
    assert model[1].momentum == 0.1


def test_the_frozen_teacher_is_part_of_the_state_but_not_trained():
    """Two steps of other networks give one loss after one state was given to the other."""
    first = SelfDistillation(network(), layer="2", teacher="frozen")
    torch.manual_seed(1)
    other = nn.Sequential(*(copy.deepcopy(layer) for layer in network()))
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.2)
    second = SelfDistillation(other, layer="2", teacher="frozen")
    before = [tensor.clone() for tensor in first.frozen.state_dict().values()]
    optimizer = torch.optim.AdamW(first.parameters(), lr=0.1)
    first(*images(), LABELS).total.backward()
    optimizer.step()
    assert all(map(torch.equal, first.frozen.state_dict().values(), before))
    assert not any(parameter.requires_grad for parameter in first.frozen.parameters())
    expected = copy.deepcopy(first)(*images(), LABELS).distillation
    assert second(*images(), LABELS).distillation != expected
    second.load_state_dict(first.state_dict())
    assert second(*images(), LABELS).distillation == expected
    assert not second.train().frozen.training


def test_the_frozen_teacher_goes_where_the_step_goes():
    clean, degraded = (image.double() for image in images())
    step = SelfDistillation(network(), layer="2", teacher="frozen").double()
    assert step(clean, degraded, LABELS).total.dtype == torch.float64
    assert step.to("meta")(clean.to("meta"), degraded.to("meta"), LABELS.to("meta")).total.is_meta


def test_a_function_of_three_is_a_loss():
    clean, degraded = images()
    step = SelfDistillation(network(), layer="2", loss=lambda z_hat, z, sigma: 0 * z.sum() + 7)
    assert step(clean, degraded, LABELS).distillation == 7


def test_a_model_may_take_levels():
    class Levels(nn.Module):
        def forward(self, images):
            return images.float() / 255

    clean, degraded = images()
    step = SelfDistillation(nn.Sequential(Levels(), *network()), layer="3")
    expected = SelfDistillation(network(), layer="2")
    levels = [(255 * image).to(torch.uint8) for image in (clean, degraded)]
    torch.testing.assert_close(
        step(*levels, LABELS).total, expected(*(image / 255 for image in levels), LABELS).total
    )


@pytest.mark.parametrize("compiled", [False, True])
def test_outside_a_step_nothing_is_kept(compiled):
    """A compiled model too, whether its first pass was in a step or not."""
    model, (clean, degraded) = network(), images()
    step = SelfDistillation(model, layer="2")
    if compiled:
        torch._dynamo.reset()
        model.compile(backend="eager")
    expected = SelfDistillation(network(), layer="2")(clean, degraded, LABELS).total
    for _ in range(2):
        model(clean)
        with pytest.raises(RuntimeError, match="saw nothing"):
            step._tap.take()
        torch.testing.assert_close(step(clean, degraded, LABELS).total, expected)


def test_a_failed_pass_leaves_nothing_behind():
    model, (clean, degraded) = network(), images()
    step = SelfDistillation(model, layer="0")
    with pytest.raises(RuntimeError, match="shapes"):
        step(clean[..., :7], degraded[..., :7], LABELS)  # fails in the linear layer
    with pytest.raises(RuntimeError, match="saw nothing"):
        step._tap.take()


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning"
)
def test_a_closed_step_gives_the_model_back():
    model, (clean, degraded) = network(), images()
    step = SelfDistillation(model, layer="2", teacher="frozen")
    step.close()
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(torch.jit.script(model.eval())(clean), model(clean))
    with pytest.raises(RuntimeError, match="closed"):
        step(clean, degraded, LABELS)


def test_a_result_is_shown_in_short():
    clean, degraded = images()
    step = SelfDistillation(network(), layer="2", uem=UEM.official(6), statistics=True)
    result = step(clean, degraded, LABELS)
    shown = repr(result)
    assert f"total={result.total.item():.4g}, " in shown
    assert "log_variance=tensor(4, 6, 6, 6), clean_logits=tensor(4, 3)" in shown
    assert f"log_variance_min={result.statistics.log_variance_min.item():.4g}" in shown
    assert "statistics=None" in repr(result._replace(statistics=None, total=clean.to("meta")))


@pytest.mark.parametrize("teacher", ["self", "frozen"])
def test_a_resnet_step_compiles_into_one_graph(teacher):
    torch.manual_seed(0)
    uem = UEM.official(512, width=8, blocks=1)
    step = SelfDistillation(resnet18(num_classes=3), layer="layer4", uem=uem, teacher=teacher)
    clean, degraded = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 32, 32)
    expected = copy.deepcopy(step)(clean, degraded, LABELS[:2]).total
    actual = torch.compile(step, fullgraph=True, backend="aot_eager")(clean, degraded, LABELS[:2])
    actual.total.backward()
    torch.testing.assert_close(actual.total, expected, rtol=1e-4, atol=1e-4)
    assert step.uem.deconv.weight.grad.abs().sum() > 0


def started(**options):
    return SelfDistillation(network(), layer="2", uem=UEM(6), **options)


def differences(step, clean, degraded):
    """(z − ẑ)² in the mean, without a trace of its computation in the network."""
    twin = copy.deepcopy(step.model)
    return (twin[:3](clean) - twin[:3](degraded)).square().mean().item()


@pytest.mark.parametrize("k", [2.0, 0.5])
def test_the_first_training_step_gives_the_uem_its_start_value(k):
    step, pair = started(loss=ULFDLoss(weight=0.1, prior_weight=k)), images()
    expected = math.log(differences(step, *pair) / k)
    step.eval()(*pair, LABELS)
    with torch.no_grad():
        step.train()(*pair, LABELS)
    assert not step.uem.started
    sigma = step(*pair, LABELS).log_variance
    assert sigma.flatten().tolist() == pytest.approx([expected] * 4, rel=1e-5)
    with torch.no_grad():
        step.uem.to_map.bias += 1
    again = step(*pair, LABELS).log_variance
    torch.testing.assert_close(again, sigma - 1)


def test_a_start_value_beyond_the_clamp_would_have_no_gradient():
    step = started(loss=ULFDLoss(weight=0.1, clamp=(3.0, 5.0)))
    result = step(*images(), LABELS)
    assert (result.log_variance == 3).all()
    result.total.backward()
    assert step.uem.to_map.bias.grad.abs() > 0


def test_a_uem_that_was_trained_or_loaded_keeps_its_weights():
    pair = images()
    first = started()
    first(*pair, LABELS).total.backward()
    torch.optim.SGD(first.parameters(), lr=0.1).step()
    resumed = started()
    resumed.load_state_dict(first.state_dict())
    assert torch.equal(resumed(*pair, LABELS).total, first(*pair, LABELS).total)
    elsewhere = UEM(6)
    elsewhere(torch.rand(2, 6, 3, 3)).sum().backward()
    before = elsewhere.to_map.weight.clone()
    for uem in (elsewhere, UEM.official(6, blocks=1)):
        state = {name: tensor.clone() for name, tensor in uem.state_dict().items()}
        SelfDistillation(network(), layer="2", uem=uem)(*pair, LABELS)
        assert all(torch.equal(state[name], tensor) for name, tensor in uem.state_dict().items())
    assert torch.equal(elsewhere.to_map.weight, before)
    # Weights of the network alone say nothing about the UEM.
    network_only = started()
    state = {n: t for n, t in first.state_dict().items() if n.startswith("model.")}
    network_only.load_state_dict(state, strict=False)
    assert not network_only.uem.started


def test_a_step_with_a_start_value_compiles_into_one_graph():
    pair, step = images(), started()
    expected = copy.deepcopy(step)(*pair, LABELS).total
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    for _ in range(2):
        found = compiled(*pair, LABELS)
        torch.testing.assert_close(found.total, expected)
    assert step.uem.started
    assert not step.uem.to_map.weight.any()


@pytest.mark.parametrize("gamma", [0.0, 0.5])
def test_the_likelihood_of_a_separate_loss_does_not_reach_the_network(gamma):
    """The network's gradients are those of the weighted error, the UEM's of the likelihood."""
    pair = images()
    loss = ULFDLoss(weight=0.3, gamma=gamma)
    step = started(loss=loss)
    step.uem.started = True  # at random, so that the weights differ
    twin = copy.deepcopy(step)
    result = step(*pair, LABELS)
    result.total.backward()
    z_hat, z = twin.model[:3](pair[1]), twin.model[:3](pair[0])
    sigma = twin.uem(z_hat.detach())
    weights = (-gamma * sigma.detach()).exp()
    network_loss = 0.3 * ((weights / weights.mean()) * (z - z_hat).square()).mean()
    likelihood = ulfd_loss(z_hat.detach(), z.detach(), sigma)
    torch.testing.assert_close(result.distillation, network_loss + likelihood)
    tasks = [functional.cross_entropy(twin.model[3:](x), LABELS) for x in (z_hat, z)]
    (sum(tasks) + network_loss + likelihood).backward()
    for ours, theirs in zip(step.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad)
    assert step.uem.head.weight.grad.abs().max() > 0


def test_faithful_is_the_mse_for_the_network():
    pair = images()
    plain = SelfDistillation(network(), layer="2")
    step = started(faithful=True)
    for one in (plain, step):
        one(*pair, LABELS).total.backward()
    for ours, theirs in zip(step.model.parameters(), plain.model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-6, atol=1e-8)
    with pytest.raises(ValueError, match=r"faithful is the loss's gamma.*gamma=0\.0"):
        started(faithful=True, loss=ULFDLoss())


def test_autocast_keeps_the_loss_in_float32():
    clean, degraded = images()
    step = SelfDistillation(network(), layer="2", uem=UEM(6))
    with torch.autocast("cpu", torch.bfloat16):
        result = step(clean, degraded, LABELS)
    result.total.backward()
    assert result.distillation.dtype == torch.float32


def _worker(rank: int, port: str, results) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 3))
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    step = SelfDistillation(model, layer="1", loss=ULFDLoss(weight=0.5))
    clean, degraded = images()
    parallel = nn.parallel.DistributedDataParallel(step)
    held = SelfDistillation(copy.deepcopy(model), layer="1", teacher="frozen")
    for parameter in held.frozen.parameters():
        parameter.fill_(rank + 1.0)
    nn.parallel.DistributedDataParallel(held)
    broadcast = all((parameter == 1).all() for parameter in held.frozen.parameters())
    rows = slice(2 * rank, 2 * rank + 2)
    parallel(clean[rows], degraded[rows], LABELS[rows]).total.backward()
    shared = [parameter.grad.clone() for parameter in model.parameters()]
    step.zero_grad()
    step(clean, degraded, LABELS).total.backward()
    whole = [parameter.grad for parameter in model.parameters()]
    torch.manual_seed(rank)
    informed = SelfDistillation(model, layer="1", uem=UEM(6))
    nn.parallel.DistributedDataParallel(informed)(clean[rows], degraded[rows], LABELS[rows])
    mean = (model[:2](clean) - model[:2](degraded)).square().mean()
    best = (mean / 2).log().reshape(1)
    broadcast = broadcast and torch.allclose(informed.uem.to_map.bias, -best, rtol=1e-5)
    close = all(
        torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(shared, whole, strict=True)
    )
    results.put((rank, close and broadcast))
    torch.distributed.destroy_process_group()


def test_two_ddp_processes_give_the_gradients_of_one():
    """Both means are over equal halves, so DDP's average is the gradient of the whole batch."""
    import socket

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    context = torch.multiprocessing.get_context("spawn")
    results = context.Queue()
    workers = [context.Process(target=_worker, args=(rank, port, results)) for rank in range(2)]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=90) for _ in workers)
    for worker in workers:
        worker.join(timeout=30)
    assert found == {0: True, 1: True}


def test_another_task_loss():
    targets = functional.one_hot(LABELS, 3).float()
    task = nn.BCEWithLogitsLoss()
    step = SelfDistillation(network(), layer="2", task_loss=task)
    result = step(*images(), targets)
    torch.testing.assert_close(result.clean, task(result.clean_logits, targets))
    torch.testing.assert_close(result.total, result.clean + result.degraded + result.distillation)
    with pytest.raises(TypeError, match=r"task_loss is 0\.1"):
        SelfDistillation(network(), layer="2", task_loss=0.1)


@pytest.mark.parametrize(("layout", "sigma"), [("NHWC", (4, 6, 6, 1)), ("NTC", (4, 36, 1))])
def test_a_network_with_the_channels_last_distils(layout, sigma):
    class Permuted(nn.Module):
        def forward(self, x):
            x = x.permute(0, 2, 3, 1)
            return x.flatten(1, 2) if layout == "NTC" else x

    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3), Permuted(), nn.LayerNorm(5), nn.Flatten(), nn.Linear(5 * 36, 3)
    )
    clean, degraded = images()
    uem = UEM.for_layer(model, "2", clean, log_variance="spatial")
    assert uem.layout == layout
    result = SelfDistillation(model, layer="2", uem=uem)(clean, degraded, LABELS)
    assert tuple(result.log_variance.shape) == sigma
    result.total.backward()
    assert uem.to_map.weight.grad.abs().sum() > 1e-3
    assert model[0].weight.grad.abs().sum() > 0
