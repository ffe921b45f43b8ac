"""Each example runs, and its loss is the formula that it says it is."""

import copy

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.models import resnet18
from torchvision.transforms.v2.functional import to_pil_image

pytest.importorskip("timm")

from examples import (
    detection,
    finetune_folder,
    multi_layer,
    pairs,
    segmentation,
    timm_network,
    vit_tokens,
    wider_teacher,
)
from tests.examples.checks import assert_program, assert_trained, batch, eq_9
from ulfd_torch import FeatureTap

PROGRAMS = (
    finetune_folder,
    timm_network,
    multi_layer,
    wider_teacher,
    vit_tokens,
    segmentation,
    detection,
)


pytestmark = pytest.mark.usefixtures("few_test_images")


def test_a_pair_is_one_image_twice():
    clean, degraded, labels = batch(torch.float32)
    assert clean.shape == degraded.shape == (4, 3, 32, 32)
    assert labels.shape == (4,)
    between = (clean[:, None] - degraded[None]).square().mean((2, 3, 4))
    assert (between.diagonal() > 0).all()
    assert torch.equal(between.argmin(0), torch.arange(4))


def test_a_loader_gives_the_same_pairs():
    images, kinds = pairs.garments()[:4]
    torch.manual_seed(0)
    clean, degraded, labels = pairs.paired([pairs.garments()[index] for index in range(4)])
    assert torch.equal(labels, kinds)
    assert torch.equal(clean, images / 255)
    torch.manual_seed(0)
    assert torch.equal(degraded, pairs.degraded(images / 255))


def test_boxes_and_classes_are_those_of_the_scene():
    ((clean, degraded, boxes, classes),) = pairs.scenes(1, 2)
    assert clean.shape == degraded.shape == (2, 3, 64, 64)
    assert torch.equal(classes > 0, clean[:, 0] > 0.1)
    for image, targets in zip(classes, boxes, strict=True):
        outside = torch.ones_like(image, dtype=torch.bool)
        for (left, top, right, bottom), label in zip(
            targets["boxes"].long().tolist(), targets["labels"].tolist(), strict=True
        ):
            inside = image[top : bottom + 1, left : right + 1]
            assert set(inside.unique().tolist()) - {0} == {label}
            for edge in (inside[0], inside[-1], inside[:, 0], inside[:, -1]):
                assert edge.any()  # the box is no larger than what it holds
            outside[top : bottom + 1, left : right + 1] = False
        assert not image[outside].any()


def test_a_folder_of_photographs(tmp_path):
    for kind in ("cat", "dog"):
        (tmp_path / "photographs" / kind).mkdir(parents=True)
        for number in range(2):
            image = torch.randint(256, (3, 40, 50), dtype=torch.uint8)
            to_pil_image(image).save(tmp_path / "photographs" / kind / f"{number}.png")
    out = tmp_path / "robust.pt"
    folder = tmp_path / "photographs"
    step = finetune_folder.main(folder, epochs=2, batch_size=4, size=96, workers=0, out=out)
    assert_trained(step)
    deployed = resnet18(num_classes=2)
    deployed.load_state_dict(torch.load(out, weights_only=True))
    assert torch.equal(deployed.fc.weight, step.model.fc.weight)


def test_any_timm_network():
    step = timm_network.main(
        "resnet18", iterations=2, batch_size=4
    )  # in the first its last norms are 0
    assert_trained(step)
    step.double()
    images = batch()
    total = timm_network.without_a_tap(step, *images)
    torch.testing.assert_close(total, step(*images).total, rtol=1e-9, atol=0)


def test_several_layers():
    model, distillation = multi_layer.main(iterations=1, batch_size=4)
    assert_trained(model, distillation)
    shapes = ((2, 128, 4, 4), (2, 256, 2, 2), (2, 512, 1, 1))
    students, teachers = (
        [torch.rand(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
        for _ in range(2)
    )
    loss = distillation.double()(students, teachers)
    layers = zip(students, teachers, distillation.uems, strict=True)
    expected = sum(eq_9(z_hat, z, uem(z_hat)) for z_hat, z, uem in layers)
    torch.testing.assert_close(loss, 0.1 / 3 * expected, rtol=1e-9, atol=0)
    loss.backward()
    assert all(
        z.grad is None and z_hat.grad is not None
        for z_hat, z in zip(students, teachers, strict=True)
    )


def small(width):
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=4),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 10),
    ).double()


def test_a_wider_teacher_that_stays_as_it_is():
    teacher = small(8)
    before = copy.deepcopy(teacher.state_dict())
    step = wider_teacher.TaughtByAnother(small(4), teacher, "2", (4, 8)).double().train()
    clean, degraded, labels = batch()
    loss = step(clean, degraded, labels)
    loss.backward()
    assert_trained(step)
    assert not any(name.startswith("_teacher") for name in step.state_dict())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name])  # the averages of its normalisation, too

    z_hat = step.project(step.student[:3](degraded))
    distillation = eq_9(z_hat, teacher[:3](clean), step.uem(z_hat))
    entropy = sum(cross_entropy(step.student(images), labels) for images in (clean, degraded))
    torch.testing.assert_close(loss, entropy + 0.1 * distillation, rtol=1e-9, atol=0)


def test_the_wider_teacher_s_program(monkeypatch):
    monkeypatch.setattr(wider_teacher, "resnet50", resnet18)
    monkeypatch.setattr(wider_teacher, "WIDTHS", (512, 512))
    assert_trained(wider_teacher.main(iterations=1, batch_size=4))


def test_tokens():
    step = vit_tokens.main(iterations=2, batch_size=4, width=48)  # in the first σ's head is 0
    assert_trained(step)
    clean, degraded, labels = batch(torch.float32)
    result = step(clean, degraded, labels)
    assert result.log_variance.shape == (4, 65, 1)
    with FeatureTap(step.model, "encoder") as tap:
        z_hat, z = ((step.model(images), tap.take())[1] for images in (degraded, clean))
    expected = 0.1 * eq_9(z_hat, z, step.uem(z_hat))
    torch.testing.assert_close(result.distillation, expected, rtol=1e-4, atol=1e-6)


def test_a_new_token_head_says_nothing():
    assert not vit_tokens.uncertainty_head(8)(torch.rand(2, 5, 8)).any()


def test_segmentation():
    model, distillation = segmentation.main(iterations=1, batch_size=2)
    assert_trained(model, distillation)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 11, 64, 64)


def test_detection():
    detector, distillation = detection.main(iterations=1, batch_size=2)
    assert_trained(distillation, detector.backbone)
    detector.eval()
    detector(list(torch.rand(1, 3, 64, 64)))
    levels = [tuple(level.shape) for level in distillation.take()]
    assert levels == [(1, 256, size, size) for size in (16, 8, 4, 2)]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)
def test_it_is_a_program_and_on_the_page(program, capsys):
    assert_program(program)
