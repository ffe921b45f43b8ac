"""Networks by name and weights from files."""

import hashlib
import pickle
import re

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

from reference_training.config import SHORT, Network, UEMOptions
from reference_training.methods import METHODS
from reference_training.networks import models as networks
from reference_training.networks.backbones import ARCHITECTURES, load_weights
from reference_training.networks.models import load_model
from reference_training.networks.preprocessing import Preprocessing
from reference_training.networks.resnet import ResNet
from reference_training.networks.weights import find_weights, read_tensors
from reference_training.runtime.errors import RunError

NAME = "shufflenet_v2_x0_5"


def random_weights(classes: int = 1000) -> dict[str, torch.Tensor]:
    torch.manual_seed(classes)
    return models.get_model(NAME, weights=None, num_classes=classes).state_dict()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """torchvision's cache, empty; and no way to the network."""

    def refuse(*arguments, **options):
        raise AssertionError("asked for the network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def same(model, weights) -> bool:
    own = model.state_dict()
    return own.keys() == weights.keys() and all(torch.equal(own[k], weights[k]) for k in own)


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
@pytest.mark.parametrize("prefix", ["", "step.model.", "module."])
@pytest.mark.parametrize("classes", [1000, 7])
def test_weights_from_a_file_with_its_number_of_classes(tmp_path, ending, prefix, classes):
    weights = random_weights(classes)
    path = tmp_path / f"mine{ending}"
    content = {prefix + name: value for name, value in weights.items()}
    if prefix == "step.model.":  # as this project's checkpoints, which hold more
        content |= {"step.uem.weight": torch.zeros(1), "optimizer.0.exp_avg": torch.zeros(1)}
    if ending == ".pth":
        torch.save({"epoch": 3, "state_dict": content}, path)
    else:
        save_file(content, path)
    loaded = load_model(NAME, checkpoint=path)
    assert same(loaded.model, weights)
    assert loaded.classes == classes
    assert loaded.model(torch.zeros(1, 3, 32, 32)).shape == (1, classes)
    assert not loaded.model.training
    assert loaded.preprocessing.mean == (0.485, 0.456, 0.406)
    assert loaded.preprocessing.input_size is None
    assert loaded.name == f"{NAME} ({path.name})"


def test_weights_that_are_there_twice_are_chosen_by_their_prefix(tmp_path):
    path = tmp_path / "two.pth"
    plain, averaged = random_weights(), random_weights()
    averaged["fc.bias"] = averaged["fc.bias"] + 1
    torch.save({"model": plain, "model_ema": averaged}, path)
    with pytest.raises(RunError, match=r"more than once, below 'model\.', 'model_ema\.'"):
        load_model(NAME, checkpoint=path)
    loaded = load_model(NAME, checkpoint=path, checkpoint_prefix="model_ema.")
    assert same(loaded.model, averaged)
    with pytest.raises(RunError, match=r"lacks .* as 'nothing\.conv1"):
        load_model(NAME, checkpoint=path, checkpoint_prefix="nothing.")


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "mine.safetensors"
    save_file(random_weights(), path)
    with pytest.raises(RunError, match=r"lacks .* of the network's .* tensors"):
        load_model("squeezenet1_1", checkpoint=path)
    with pytest.raises(RunError, match=r"another architecture: size mismatch for .*shape"):
        load_model("shufflenet_v2_x1_0", checkpoint=path)
    save_file(random_weights() | {"more.weight": torch.zeros(1)}, path)
    with pytest.raises(RunError, match=r"another architecture: it has 1 more, as \['more"):
        load_model(NAME, checkpoint=path)


class Trap:
    def __reduce__(self):
        return (open, ("pwned", "w"))


def test_nothing_is_ever_unpickled(tmp_path, cache, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trapped = {"fc.weight": torch.zeros(1), "trap": Trap()}
    for path in (tmp_path / "evil.pth", tmp_path / "evil.safetensors", tmp_path / "plain.pth"):
        if path.name == "plain.pth":
            path.write_bytes(pickle.dumps(trapped))
        else:
            torch.save(trapped, path)
        with pytest.raises(RunError, match=rf"{path.name} is not readable as weights"):
            load_model(NAME, checkpoint=path)
    weights = models.get_model_weights(NAME).IMAGENET1K_V1
    torch.save(trapped, cache / weights.url.rpartition("/")[2])
    with pytest.raises(RunError, match="SHA-256 is not the one in its name"):
        load_model(NAME)
    monkeypatch.setattr(networks, "check_name", lambda path: None)
    with pytest.raises(RunError, match=r"weights .* cannot be loaded .*--download"):
        load_model(NAME)
    assert not (tmp_path / "pwned").exists()


OWN = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("scale", "names", "prefix"),
    [(1, ("0.mean", "0.std"), "1."), (255, ("normalize.mu", "normalize.sigma"), "model.")],
)
def test_a_checkpoint_s_own_normalisation_is_used(tmp_path, scale, names, prefix):
    """As torch.nn.Sequential(Normalize(mean, std), network) saves it."""
    own = {name: part.view(3, 1, 1) * scale for name, part in zip(names, OWN, strict=True)}
    weights = models.resnet18(num_classes=4).state_dict()
    path = tmp_path / "mine.pth"
    torch.save({prefix + name: value for name, value in weights.items()} | own, path)
    loaded = load_model("resnet18", checkpoint=path)
    assert same(loaded.model, weights)
    assert loaded.preprocessing.mean == pytest.approx((0.1, 0.2, 0.3))
    assert loaded.preprocessing.std == pytest.approx((0.4, 0.5, 0.6))
    begun = ARCHITECTURES["resnet18"].make(4)
    with pytest.raises(RunError, match=r"it normalises images by .* but here they are by .*0\.485"):
        load_weights(begun, "resnet18", str(path))
    torch.save({prefix + n: v for n, v in weights.items()} | {names[0]: own[names[0]]}, path)
    with pytest.raises(RunError, match="1 means and 0 deviations"):
        load_model("resnet18", checkpoint=path)


@pytest.mark.parametrize("mean", [(123.7, 116.3, 103.5), (-0.1, 0.5, 0.5), (float("nan"),) * 3])
def test_a_normalisation_on_another_scale_is_refused(mean):
    for numbers in ({"mean": mean, "std": (0.2,) * 3}, {"mean": (0.5,) * 3, "std": mean}):
        with pytest.raises(RunError, match="divide those of 0 to 255 by 255"):
            Preprocessing(**numbers)


@pytest.mark.parametrize("prefix", ["", "step.model."])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_run_begins_from_the_files_that_are_evaluated(tmp_path, prefix, ending):
    torch.manual_seed(3)
    tensors = models.resnet18(num_classes=4).state_dict()
    path = tmp_path / f"mine{ending}"
    save = save_file if ending == ".safetensors" else torch.save
    save({prefix + name: value for name, value in tensors.items()}, path)
    begun = ARCHITECTURES["resnet18"].make(4)
    digest = load_weights(begun, "resnet18", str(path))
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert same(begun, load_model("resnet18", checkpoint=path).model.state_dict())
    assert same(begun, tensors)


def test_a_file_with_any_flipped_bit_is_read_or_named(tmp_path):
    """Decoders raise UnicodeDecodeError, KeyError, IndexError, AssertionError and others."""
    path = tmp_path / "mine.pth"
    torch.save({"fc.weight": torch.ones(2), "epoch": 3, "names": ["a", "b"]}, path)
    content = path.read_bytes()
    refused = []
    for place in range(0, len(content), 3):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except RunError as error:
            refused.append(str(error))
    assert len(refused) > 50
    assert all("mine.pth is not readable as weights" in message for message in refused)


def test_damaged_and_missing_files_are_named(tmp_path):
    path = tmp_path / "cut.safetensors"
    save_file(random_weights(), path)
    path.write_bytes(path.read_bytes()[:10_000])
    with pytest.raises(RunError, match=r"cut.safetensors is not readable as weights"):
        load_model(NAME, checkpoint=path)
    with pytest.raises(RunError, match="are not there; check the file"):
        load_model(NAME, checkpoint=tmp_path / "no.pth")


def test_torchvisions_weights_come_from_its_cache_alone(cache, monkeypatch):
    monkeypatch.setattr(networks, "check_name", lambda path: None)  # random ones stand there
    with pytest.raises(RunError, match=r"not on this machine .*--download") as caught:
        load_model(NAME)
    entry = models.get_model_weights(NAME).IMAGENET1K_V1
    assert entry.url in str(caught.value)
    weights = random_weights()
    torch.save(weights, cache / entry.url.rpartition("/")[2])
    for options in (
        {},
        {"weights": "DEFAULT"},
        {"weights": f"{type(entry).__name__}.{entry.name}"},
    ):
        loaded = load_model(NAME, **options)
        assert same(loaded.model, weights)
        assert loaded.name == f"{NAME} (IMAGENET1K_V1)"
        assert loaded.preprocessing.input_size == 224
    with pytest.raises(RunError, match=r"no weights 'V9'.*IMAGENET1K_V1"):
        load_model(NAME, weights="V9")


def test_unknown_names_get_a_guess():
    with pytest.raises(RunError, match=r"torchvision has no network 'resnet5'; did you mean .*"):
        load_model("torchvision:resnet5")
    with pytest.raises(RunError, match="unknown library 'keras'"):
        load_model("keras:resnet50")
    with pytest.raises(RunError, match=r"unknown network 'resnt50'.*resnet50"):
        load_model("resnt50")


def test_the_network_of_a_run(tmp_path):
    from reference_training.presets import PRESETS

    network = ResNet(PRESETS["digits"].network, 10)
    path = tmp_path / "00000100.safetensors"
    save_file({f"step.model.{k}": v for k, v in network.state_dict().items()}, path)
    loaded = load_model("run:digits", checkpoint=path)
    assert same(loaded.model, network.state_dict())
    assert loaded.preprocessing.mean == (0.5, 0.5, 0.5)
    with pytest.raises(RunError, match="no published weights"):
        load_model("run:digits")


def test_without_timm_the_message_has_the_pip_line(monkeypatch):
    import ulfd.extras

    original = ulfd.extras.find_spec
    monkeypatch.setattr(ulfd.extras, "find_spec", lambda m: None if m == "timm" else original(m))
    with pytest.raises(ImportError, match=re.escape("pip install 'ulfd[timm]'")):
        load_model("timm:resnet10t")
    with pytest.raises(RunError, match=re.escape("pip install 'ulfd[timm]'")):
        load_model("a_network_of_neither")


def test_timms_networks(tmp_path, monkeypatch):
    timm = pytest.importorskip("timm")
    constants = pytest.importorskip("huggingface_hub").constants
    torch.manual_seed(3)
    network = timm.create_model("resnet10t", num_classes=7)
    path = tmp_path / "mine.safetensors"
    save_file(network.state_dict(), path)
    for name in ("timm:resnet10t", "resnet10t"):  # torchvision has none of this name
        loaded = load_model(name, checkpoint=path)
        assert loaded.classes == 7
        assert same(loaded.model, network.state_dict())
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(RunError, match=r"resnet10t.c3_in1k are not on this machine.*--download"):
        load_model("timm:resnet10t")
    place = tmp_path / "cache" / "models--timm--resnet10t.c3_in1k"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    weights = timm.create_model("resnet10t").state_dict()
    save_file(weights, snapshot / "model.safetensors")
    loaded = load_model("timm:resnet10t")
    assert same(loaded.model, weights)
    assert loaded.name == "timm resnet10t.c3_in1k"
    assert (loaded.classes, loaded.preprocessing.input_size) == (1000, 176)
    with pytest.raises(RunError, match="leave --weights out"):
        load_model("timm:resnet10t", weights="DEFAULT")


@pytest.mark.parametrize("method", ["urie", "ddp"])
def test_a_backbone_is_not_taken_out_of_a_larger_network(method):
    step = METHODS[method].make_step(ResNet(Network(), 10), SHORT, UEMOptions())
    tensors = {f"step.{name}": value for name, value in step.state_dict().items()}
    with pytest.raises(RunError, match="more than its backbone"):
        find_weights(ResNet(Network(), 10), tensors, None)
    assert find_weights(step.model, tensors, None).keys() == step.model.state_dict().keys()
