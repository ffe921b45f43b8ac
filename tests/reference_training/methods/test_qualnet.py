"""QualNet-style training: its loss, what it trains, and both of its stages on their way."""

import copy
import json
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional

from reference_training.config import SHORT, Network, Pretraining, UEMOptions
from reference_training.data import load, views
from reference_training.data.batch import Batch
from reference_training.data.pairs import Pairs, normalised
from reference_training.experiments import imagenet, stages
from reference_training.methods import METHODS
from reference_training.methods.qualnet import QualNetStep
from reference_training.networks.backbones import ARCHITECTURES
from reference_training.networks.i_revnet import CONFIGURATIONS, IRevNet, depth_to_space
from reference_training.networks.resnet import ResNet
from reference_training.presets import PRESETS
from reference_training.run import main, parse
from reference_training.runtime.errors import RunError
from reference_training.training import checkpoint, loop
from reference_training.training.checkpoint import strip_prefix
from reference_training.training.schedule import Schedule, stepwise
from scripts.make_photograph_crops import write_folder


class Link:
    """Stands for the link to the parent process; asks for an end after some iterations."""

    def __init__(self, end_after=None):
        self.count, self.end_after, self.stop = 0, end_after, self

    def is_set(self):
        return self.count == self.end_after

    def advance(self, iterations=1):
        self.count += iterations

    def skip(self, iterations):
        pass


def make(dtype=torch.float32):
    torch.manual_seed(0)
    step = METHODS["qualnet"].make_step(ResNet(Network(), 10), SHORT, UEMOptions())
    with torch.no_grad():
        for module in step.needed.modules():  # what a trained one has, no 0 and 1
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.2)
                module.running_var.uniform_(0.5, 2)
    return step.to(dtype).train()


def batch(dtype=torch.float32, side=32):
    generator = torch.Generator().manual_seed(1)
    clean, degraded = torch.rand(2, 12, 3, side, side, generator=generator).to(dtype) * 2 - 1
    return Batch(clean, degraded, torch.arange(12) % 10)


def test_the_loss_is_its_definition():
    step, pairs = make(torch.float64), batch(torch.float64)
    twin = copy.deepcopy(step)
    result = step(pairs)

    def plain(images):
        """Logits and deep feature, layer by layer."""
        net = twin.model
        feature = net.layer3(net.layer2(net.layer1(net.stem(images))))
        return net.fc(feature.mean((2, 3))), feature

    expected = 0.0
    for images in (pairs.degraded, pairs.clean):
        logits, feature = plain(images)
        expected += functional.cross_entropy(logits, pairs.labels)
        weight, bias = twin.bridge.weight, twin.bridge.bias
        code = functional.conv2d(feature, weight, bias, padding=1)
        left, right = code[:, :96], code[:, 96:]
        for block in reversed(twin.needed.blocks):  # (x', t) came from x' = S o, t = S x + F(o)
            other = depth_to_space(left, block.stride)
            x = depth_to_space(right - block.residual.eval()(other), block.stride)
            left, right = x, other
        decoded = depth_to_space(torch.cat([left, right], 1), 2)
        expected += ((decoded - pairs.clean) / 2).abs().mean()  # of images in [−1, 1]
        torch.testing.assert_close(twin.needed.encode(decoded), code, rtol=0, atol=1e-10)
    torch.testing.assert_close(result.loss, expected)
    torch.testing.assert_close(result.loss, sum(result.logs.values()))
    for part in result.logs.values():
        assert part > 0.1
    clean, degraded = (result.logs[f"reconstruction_of_{name}"] for name in ("clean", "degraded"))
    assert clean != degraded


@pytest.mark.parametrize("name", ["reconstruction_of_clean", "reconstruction_of_degraded"])
def test_gradients_flow_through_the_decoder_to_the_network(name):
    """Against finite differences: along the gradient the loss changes by its square."""
    step, pairs = make(torch.float64), batch(torch.float64)
    layers = ("stem.0", "layer1.0.conv1", "layer2.0.conv2", "layer3.0.conv2")
    weights = [step.model.get_submodule(layer).weight for layer in layers]
    for weight in (*weights, step.bridge.weight):
        (gradient,) = torch.autograd.grad(step(pairs).logs[name], weight)
        square = gradient.square().sum()
        assert square > 1e-9
        with torch.no_grad():
            size = 1e-7 / square.sqrt()
            weight += size * gradient
            above = step(pairs).logs[name]
            weight -= 2 * size * gradient
            below_ = step(pairs).logs[name]
            weight += size * gradient
        torch.testing.assert_close((above - below_) / (2 * size), square, rtol=1e-4, atol=0)
    unused = torch.autograd.grad(step(pairs).logs[name], step.model.fc.weight, allow_unused=True)
    assert unused == (None,)


def test_the_network_and_the_bridge_are_trained_and_nothing_else():
    step = make()
    assert step.uem is None
    before = copy.deepcopy(step.state_dict())
    optimizer = torch.optim.Adam(step.parameters(), lr=1e-3, weight_decay=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        step.train()(batch()).loss.backward()
        optimizer.step()
        assert step.model.training
        assert not any(module.training for module in step.needed.modules())
    for name, weight in step.named_parameters():
        assert (weight.grad is None) == name.startswith("needed.")
    for name, value in step.state_dict().items():
        assert torch.equal(value, before[name]) == name.startswith("needed."), name


def test_what_is_evaluated_is_the_plain_network():
    step = make().eval()
    plain = ResNet(Network(), 10)
    plain.load_state_dict(step.model.state_dict())
    assert step.model.__class__ is ResNet
    with torch.no_grad():
        assert torch.equal(step.model(batch().clean), plain.eval()(batch().clean))


def test_the_first_stage_is_cross_entropy_of_the_network_that_is_needed():
    torch.manual_seed(0)
    method = METHODS["i_revnet"]
    assert (method.start, method.second, method.pretrained) == (None, "clean", False)
    step = method.make_step(ResNet(Network(), 10), SHORT, UEMOptions())
    assert isinstance(step.model, IRevNet)
    clean, _, labels = batch()
    expected = functional.cross_entropy(copy.deepcopy(step).model(clean), labels)
    assert torch.equal(step(batch()).loss, expected)
    expected.detach()
    needed = make().needed
    needed.load_state_dict(step.model.state_dict())
    code = step.eval().model.encode(clean)
    torch.testing.assert_close(needed.decode(code), clean, rtol=0, atol=1e-5)


def train(folder, end_after=None):
    step = make()
    pairs = Pairs(load("digits"), batch_size=16, seed=0, second="corruption", frost="procedural")
    schedule = Schedule(6, 1e-3, stepwise((0.5,)), 1e-3)
    link = Link(end_after)
    loop.TrainingLoop(step, pairs, schedule, folder=folder, checkpoint_every=2, link=link).train()
    return step.state_dict()


def test_stopped_it_continues_bit_by_bit(tmp_path):
    whole = train(tmp_path / "whole")
    with pytest.raises(loop.Interrupted):
        train(tmp_path / "stopped", end_after=3)
    resumed = train(tmp_path / "stopped")
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    log = "metrics.jsonl"
    assert (tmp_path / "stopped" / log).read_bytes() == (tmp_path / "whole" / log).read_bytes()


def test_a_run_trains_both_stages_and_the_second_holds_the_first(tmp_path):
    run = replace(
        PRESETS["digits"],
        methods=("qualnet",),
        recipe=replace(SHORT, iterations=2, batch_size=16),
        pretraining=Pretraining(iterations=3, batch_size=16),
        out=tmp_path,
    )
    names = [one.name for one in stages.trainings_of(run)]
    assert sorted(names) == ["i_revnet", "qualnet", "vanilla"]
    assert names[-1] == "qualnet"
    link = Link()
    for name in names:
        schedule = stages.schedule_of(run, stages.training(name))
        assert schedule.iterations == (2 if name == "qualnet" else 3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stages.workers, "shared", lambda: link)
            stages.train(run, 0, name)
    first, second = (
        checkpoint.read_latest(stages.folder_of(run, 0, name)).tensors
        for name in ("i_revnet", "qualnet")
    )
    needed = strip_prefix("step.needed.", second)
    trained = strip_prefix("step.model.", first)
    assert needed.keys() == trained.keys()
    assert all(torch.equal(needed[name], trained[name]) for name in needed)
    one = stages.trained(run, 0, "qualnet")
    assert isinstance(one.model, ResNet)
    vanilla = strip_prefix(
        "step.model.", checkpoint.read_latest(stages.folder_of(run, 0, "vanilla")).tensors
    )
    moved = [
        not torch.equal(value, vanilla[name]) for name, value in one.model.state_dict().items()
    ]
    assert all(moved)


def test_grey_levels_are_the_images_whatever_normalised_them():
    images = torch.arange(256, dtype=torch.uint8).repeat(12).view(1, 3, 32, 32)
    for name, seen in (
        (None, normalised(images)),
        ("resnet8", (images / 255 - torch.tensor(views.MEAN).view(3, 1, 1))
         / torch.tensor(views.STD).view(3, 1, 1)),
    ):  # fmt: skip
        step = QualNetStep(ResNet(Network(), 10) if name is None else ARCHITECTURES[name].make(10))
        steps = seen.diff() * step.std  # the mean drops out
        torch.testing.assert_close(steps, (images / 255).diff(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet50", "resnext101_32x8d"])
def test_the_papers_networks_fit_their_decoder(name):
    with torch.device("meta"):
        step = QualNetStep(ARCHITECTURES[name].make(1000))
    assert (step.bridge.in_channels, step.bridge.out_channels) == (2048, 3072)
    assert step.bridge.kernel_size == (3, 3)
    # layer4 halves a side five times, rounding up; the decoder doubles it five times.
    assert step.model.downsampling == step.needed.downsampling == 32
    assert (step.model.mean, step.model.std) == (views.MEAN, views.STD)


@pytest.mark.parametrize("side", [224, 64])
def test_a_step_of_the_papers_network(side):
    with torch.device("meta"):
        step = QualNetStep(ARCHITECTURES["resnet50"].make(1000)).eval()
        images = torch.empty(1, 3, side, side)
        with torch.no_grad():
            result = step(Batch(images, images.clone(), torch.zeros(1, dtype=torch.int64)))
    assert result.loss.shape == ()


def test_a_crop_that_does_not_fit_is_named():
    with pytest.raises(RunError, match=r"\(40, 40\).*\(36, 36\).*--crop.*multiple of 8"):
        make()(batch(side=36))


# Both stages on photographs, as full-scale runs are made.

SMALL = (
    "--arch resnet8 --crop 32 --resize 36 --recipe.batch-size 8 --recipe.iterations 4 "
    "--numerics.precision float32 --workers 0 --checkpoint-every 2 --device cpu"
).split()
STAGE, QUALNET = ["--experiment", "stages/i_revnet"], ["--experiment", "table1/qualnet"]


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    root = tmp_path_factory.mktemp("crops")
    write_folder(root, each=8, broken=0)
    return [*SMALL, "--data-root", str(root)]


def test_both_stages_at_full_scale(crops, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([*QUALNET, *crops, "--weights", "random"]) == 1
    assert re.search(
        r"needs a trained i_revnet, and runs/stages-i_revnet-resnet8-seed-0/export/\S+ "
        r"is not there.*--experiment stages/i_revnet --arch resnet8 --seed 0.*--needed",
        capsys.readouterr().err,
    )
    assert main([*STAGE, *crops]) == 0  # random weights without being told
    assert main([*QUALNET, *crops, "--weights", "random"]) == 0

    exported = tmp_path / "runs/stages-i_revnet-resnet8-seed-0/export/model.safetensors"
    second = tmp_path / "runs/table1-qualnet-resnet8-seed-0"
    stage = load_file(exported)
    IRevNet(CONFIGURATIONS[8], 8).load_state_dict(stage)
    needed = strip_prefix("step.needed.", load_file(second / "00000004.safetensors"))
    assert all(torch.equal(needed[name], stage[name]) for name in stage)
    ARCHITECTURES["resnet8"].make(8).load_state_dict(load_file(second / "export/model.safetensors"))
    told = json.loads((second / "run.json").read_text())["dataset"]
    assert re.fullmatch(r"[0-9a-f]{64}", told["needed_sha256"])
    row = json.loads((second / "metrics.jsonl").read_text().splitlines()[-1])
    assert 0 < row["reconstruction_of_clean"] < 1

    # Another first stage is another run; a network that is none is named.
    other = {name: value + 0 for name, value in stage.items()}
    other["fc.bias"] = other["fc.bias"] + 1
    imagenet.export.write_atomically(tmp_path / "other", imagenet.export.save(other))
    (tmp_path / "other").rename(tmp_path / "other.safetensors")
    capsys.readouterr()
    assert main([*QUALNET, *crops, "--weights", "random", "--needed", "other.safetensors"]) == 1
    assert "holds another run" in capsys.readouterr().err
    wrong = str(second / "export/model.safetensors")
    again = ["--weights", "random", "--out", "again", "--needed", wrong]
    assert main([*QUALNET, *crops, *again]) == 1
    assert re.search(
        r"(?s)does not hold the weights of a trained i_revnet with 8 classes.*--needed",
        capsys.readouterr().err,
    )


def test_the_first_stage_has_no_pretrained_weights(crops, tmp_path, capsys):
    assert parse(STAGE).weights == "random"
    assert parse(QUALNET).weights == "pretrained"
    given = ["--weights", "pretrained", "--out", str(tmp_path / "run")]
    assert main([*STAGE, *crops, *given]) == 1
    assert "stages/i_revnet starts from random weights; leave it out" in capsys.readouterr().err
