"""The LightningModule trains by Eq. 10, in DDP too, and logs what a logger asks for, unread."""

import csv
import os
from unittest import mock

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from torchvision.models import resnet18

pytest.importorskip("lightning", reason="needs pip install 'lightning>=2.6.6'")

import lightning
from lightning.pytorch.loggers import CSVLogger

from examples import lightning_module, pairs
from tests.examples.checks import assert_program, assert_trained, batch, eq_9
from ulfd_torch import FeatureTap

pytestmark = [
    pytest.mark.usefixtures("few_test_images"),
    pytest.mark.filterwarnings("ignore:.*does not have many workers"),
]


@pytest.fixture(autouse=True)
def _environment_as_it_was():
    """Lightning sets MASTER_ADDR and others, from which the next library concludes DDP."""
    with mock.patch.dict(os.environ):
        yield


@pytest.mark.parametrize("strategy", ["auto", "ddp"])
def test_it_trains_and_saves_the_plain_network(strategy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "robust.pt"
    averaged = []
    forward = DistributedDataParallel.forward

    def spied(parallel, *arguments):
        averaged.append({id(weight) for weight in parallel.parameters()})
        return forward(parallel, *arguments)

    monkeypatch.setattr(DistributedDataParallel, "forward", spied)
    module, trainer = lightning_module.main(2, 4, strategy=strategy, workers=0, out=out)
    trained = {id(weight) for weight in trainer.optimizers[0].param_groups[0]["params"]}
    assert trained == {id(weight) for weight in module.parameters()}
    assert averaged == ([trained] * 2 if strategy == "ddp" else [])
    if strategy == "ddp":
        torch.distributed.destroy_process_group()
    assert_trained(module)
    assert sum(name.startswith("step.uem.") for name in module.state_dict()) > 0
    assert list(tmp_path.iterdir()) == [out]
    deployed = resnet18(num_classes=10)
    deployed.load_state_dict(torch.load(out, weights_only=True))
    for name, weight in deployed.state_dict().items():
        assert torch.equal(weight, module.step.model.state_dict()[name]), name

    # Outside `fit`, which is over: 2 steps are not the 49 after which the default logs.
    module.double().train()
    clean, degraded, labels = batch()
    with FeatureTap(module.step.model, "layer4") as tap:
        (y_hat, z_hat), (y, z) = (
            (module.step.model(images), tap.take()) for images in (degraded, clean)
        )
    expected = cross_entropy(y, labels) + cross_entropy(y_hat, labels)
    expected = expected + 0.1 * eq_9(z_hat, z, module.step.uem(z_hat))
    found = module.training_step((clean, degraded, labels), 0)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=0)


def test_statistics_are_computed_where_the_logger_asks_and_not_read(tmp_path, monkeypatch):
    module = lightning_module.RobustClassifier(resnet18(num_classes=10), "layer4", 512)
    results = []
    module.step.register_forward_hook(lambda step, inputs, result: results.append(result))
    step = module.training_step

    def unread(*arguments):
        def refuse(tensor, *rest):
            raise AssertionError("a tensor was read: on a GPU the step would wait for it")

        with monkeypatch.context() as patched:
            for name in ("item", "tolist", "numpy", "cpu", "__bool__", "__float__", "__int__"):
                patched.setattr(torch.Tensor, name, refuse)
            return step(*arguments)

    module.training_step = unread
    logger = CSVLogger(tmp_path)
    trainer = lightning.Trainer(
        max_steps=4,
        log_every_n_steps=2,
        logger=logger,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, DataLoader(pairs.garments(), 4, collate_fn=pairs.paired))

    assert [result.statistics is not None for result in results] == [False, True, False, True]
    with open(f"{logger.log_dir}/metrics.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2
    for row, result in zip(rows, results[1::2], strict=True):
        assert float(row["loss"]) == pytest.approx(result.total.item(), rel=1e-6)
        for name, value in result.statistics.as_dict().items():
            assert float(row[name]) == pytest.approx(value, rel=1e-6)


def test_it_is_a_program_and_on_the_page(capsys):
    assert_program(lightning_module)
