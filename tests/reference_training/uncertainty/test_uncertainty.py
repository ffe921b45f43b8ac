"""The UEM as a quality meter: its numbers against other implementations, its command as used."""

import csv
import html
import json
import math
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage, special, stats

from reference_training.config import Network, PaperRun, Run, UEMOptions
from reference_training.corruptions import SEEN, SEVERITIES, UNSEEN, corrupt
from reference_training.data import load
from reference_training.evaluation.corruption_error import rank_correlation
from reference_training.evaluation.trained import test_images as chosen_images
from reference_training.experiments import stages
from reference_training.methods.trainings import training
from reference_training.networks.resnet import ResNet
from reference_training.runtime.errors import RunError
from reference_training.runtime.files import write_json
from reference_training.training import checkpoint, export
from reference_training.training.record import plain
from reference_training.uncertainty import meter as meters
from reference_training.uncertainty.__main__ import main
from reference_training.uncertainty.agreement import auroc, quality, same_image_correlation
from reference_training.uncertainty.meter import load_meter
from reference_training.uncertainty.pictures import View, list_pictures, open_rgb, read
from reference_training.uncertainty.scores import STATISTICS, Observed

SMALL = Run(
    dataset="digits",
    network=Network(widths=(4, 6, 8)),
    uem=UEMOptions(width=3, blocks=2, output="linear"),
)
# Whole numbers, so that there are ties.
SCORES = st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=12)


def networks(name="ulfd", seed=0):
    """The step of a training whose weights are all random, batch normalisation's too."""
    torch.manual_seed(seed)
    step = training(name).make_step(ResNet(SMALL.network, 10), SMALL.recipe, SMALL.uem)
    for key, value in step.state_dict().items():
        if key.endswith("running_mean"):
            value.normal_()
        elif key.endswith("running_var"):
            value.uniform_(0.5, 2)
    return step.eval()


@pytest.fixture
def run(tmp_path):
    """A run's folder with two trainings of one iteration: ulfd with options, and vanilla."""
    write_json(tmp_path / "run.json", {"config": plain(SMALL), "dataset": {"name": "digits"}})
    for name in ("ulfd", "vanilla"):
        tensors = {f"step.{key}": value for key, value in networks(name).state_dict().items()}
        checkpoint.write(tmp_path / "seed-0" / name, checkpoint.Checkpoint(1, tensors, {}))
    return tmp_path / "seed-0"


@pytest.fixture
def exported(tmp_path):
    """The export of a full-scale training with a crop smaller than its resize."""
    paper = PaperRun(arch="resnet8", resize=40, crop=32, uem=SMALL.uem, out=tmp_path / "paper")
    torch.manual_seed(1)
    step = stages.training("ulfd").make_step(ResNet(Network(), 7), paper.recipe, paper.uem).eval()
    about = {
        "dataset": {"train": 5, "classes": 7, "weights_sha256": "random"},
        "frost": "none",
        "git": None,
        "command": "python",
    }
    export.write(
        paper.folder / "export", step, paper, about, export.Heading("ulfd", "ULFD", "Ours")
    )
    return paper.folder / "export", step


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Ten images of the digits' size, two of another, one broken, and no image."""
    root = tmp_path_factory.mktemp("pictures")
    (root / "deep/er").mkdir(parents=True)
    for number, image in enumerate(load("digits").test_images[:10]):
        Image.fromarray(image.movedim(0, -1).numpy()).save(root / f"deep/{number}.png")
    Image.new("RGB", (50, 40), (200, 30, 30)).save(root / "deep/er/large.jpg")
    Image.new("L", (8, 9), 99).save(root / "<b>small & dark.webp")
    (root / "broken.png").write_bytes((root / "deep/0.png").read_bytes()[:100])
    (root / "notes.txt").write_text("no image")
    return root


def by_pairs(clean, degraded):
    """AUROC from its definition."""
    wins = [(d > c) + (d == c) / 2 for c in clean for d in degraded]
    return sum(wins) / len(wins)


@given(SCORES, SCORES)
def test_auroc_is_the_chance_of_the_right_order(clean, degraded):
    expected = by_pairs(clean, degraded)
    assert auroc(clean, degraded) == pytest.approx(expected, abs=1e-12)
    assert auroc([-c for c in clean], [-d for d in degraded]) == pytest.approx(1 - expected)


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=2, max_size=30))
def test_rank_correlation_as_scipy_has_it(pairs):
    first, second = zip(*pairs, strict=True)
    found = rank_correlation(first, second)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert math.isnan(found)
    else:
        expected = stats.spearmanr(first, second).statistic
        assert found == pytest.approx(expected, abs=1e-12)


@given(st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=1, max_size=8))
def test_same_image_correlation_is_the_mean_of_scipys(rows):
    each = [stats.spearmanr(row, SEVERITIES).statistic for row in rows if len(set(row)) > 1]
    found = same_image_correlation(rows)
    if each:
        assert found == pytest.approx(np.mean(each), abs=1e-12)
    else:
        assert math.isnan(found)


def scored(names, images=6, seed=0):
    generator = np.random.default_rng(seed)
    sets = {(name, s): generator.normal(s / 3, 1, images) for name in names for s in SEVERITIES}
    return generator.normal(0, 1, images), sets


def test_quality_of_each_corruption_and_of_the_groups():
    names = (*SEEN[:3], *UNSEEN[:2])
    clean, sets = scored(names)
    found = quality(clean, sets)
    assert found["images"] == 6
    assert set(found["corruptions"]) == set(names)
    for name in names:
        rows = [sets[name, severity] for severity in SEVERITIES]
        one = found["corruptions"][name]
        assert one["auroc"] == pytest.approx([by_pairs(clean, row) for row in rows])
        assert one["auroc_pooled"] == pytest.approx(by_pairs(clean, np.concatenate(rows)))
        expected = stats.spearmanr(np.concatenate(rows), np.repeat(SEVERITIES, 6)).statistic
        assert one["spearman"] == pytest.approx(expected)
        each = [stats.spearmanr(row, SEVERITIES).statistic for row in zip(*rows, strict=True)]
        assert one["spearman_same_image"] == pytest.approx(np.mean(each))
    for group, members in (("seen", SEEN[:3]), ("unseen", UNSEEN[:2])):
        for key in ("auroc_pooled", "spearman", "spearman_same_image"):
            expected = np.mean([found["corruptions"][name][key] for name in members])
            assert found[group][key] == pytest.approx(expected)
        rows = [found["corruptions"][name]["auroc"] for name in members]
        assert found[group]["auroc"] == pytest.approx(np.mean(rows, axis=0))
    json.dumps(found, allow_nan=False)


def test_quality_of_a_perfect_a_reversed_and_a_constant_score():
    perfect = {("fog", s): np.full(4, float(s)) for s in SEVERITIES}
    found = quality(np.zeros(4), perfect)
    fog = found["corruptions"]["fog"]
    assert fog["auroc"] == [1.0] * 5
    assert fog["spearman"] == pytest.approx(1)
    assert fog["spearman_same_image"] == pytest.approx(1)
    assert found["unseen"] is None
    wrong = quality(np.zeros(4), {key: -row for key, row in perfect.items()})["seen"]
    assert wrong["auroc_pooled"] == 0
    assert wrong["spearman"] == pytest.approx(-1)
    nothing = quality(np.ones(4), {key: np.ones(4) for key in perfect})["seen"]
    assert nothing["auroc_pooled"] == 0.5
    assert nothing["spearman"] is nothing["spearman_same_image"] is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sets: sets.pop(("fog", 3)), "lacks severity 3"),
        (lambda sets: sets.update({("fog", 3): [1.0]}), "1 scores, but there are 6"),
        (lambda sets: sets.update({("fog", 3): [math.nan] * 6}), "6 that are not"),
        (lambda sets: sets.clear(), "no degraded images"),
    ],
)
def test_quality_refuses(change, message):
    clean, sets = scored(["fog"])
    change(sets)
    with pytest.raises(ValueError, match=message):
        quality(clean, sets)


def test_statistics_by_their_definitions():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (3, 3, 7, 9), generator=generator, dtype=torch.uint8)
    logits, feature, sigma, other = (
        torch.randn(3, *shape, generator=generator) for shape in ((5,), (4, 2, 2), (4, 2, 2), (1,))
    )
    seen = Observed(images, logits, feature, sigma, other)
    found = {name: one.of(seen).numpy() for name, one in STATISTICS.items()}
    grey = images.numpy().astype(float).mean(1)
    laplacian = np.stack([ndimage.laplace(one)[1:-1, 1:-1] for one in grey])
    expected = {
        "theta": np.sqrt(np.exp(sigma.double().numpy())).mean((1, 2, 3)),
        "log_variance": sigma.double().numpy().mean((1, 2, 3)),
        "untrained": np.sqrt(np.exp(other.double().numpy())).mean(1),
        "confidence": 1 - special.softmax(logits.double().numpy(), axis=1).max(1),
        "activation": -feature.double().numpy().mean((1, 2, 3)),
        "smoothness": -np.abs(laplacian).mean((1, 2)),
    }
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


def expected_scores(step, x, layer="layer3"):
    """θ and 1 − confidence of normalised images, by another way through the network."""
    modules = dict(step.model.named_children())
    feature = x
    for name in ("stem", "layer1", "layer2", "layer3"):
        feature = modules[name](feature)
        if name == layer:
            tapped = feature
    logits = step.model.fc(feature.mean((2, 3)))
    theta = (step.uem(tapped).double() / 2).exp().flatten(1).mean(1)
    return theta, 1 - logits.double().softmax(1).amax(1)


@torch.no_grad()
def test_a_runs_network_scores_as_it_was_trained(run):
    images = load("digits").test_images[:5]
    found = load_meter(run / "ulfd").score(images)
    theta, doubt = expected_scores(networks(), images.float() / 127.5 - 1)
    assert theta.std() > 1e-4  # or any order would do
    torch.testing.assert_close(torch.tensor(found["theta"]), theta.float(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        torch.tensor(found["confidence"]), doubt.float(), rtol=1e-5, atol=1e-6
    )
    assert set(found) == set(STATISTICS) - {"untrained"}
    assert set(load_meter(run / "vanilla").score(images)) == {
        "confidence",
        "activation",
        "smoothness",
    }


@torch.no_grad()
def test_a_trainings_name_says_what_it_changed(run):
    name = "ulfd@layer=shallow,uem.blocks=1"
    step = networks(name)
    tensors = {f"step.{key}": value for key, value in step.state_dict().items()}
    checkpoint.write(run / name, checkpoint.Checkpoint(1, tensors, {}))
    images = load("digits").test_images[:3]
    theta, _ = expected_scores(step, images.float() / 127.5 - 1, "stem")
    found = torch.tensor(load_meter(run / name).score(images)["theta"])
    torch.testing.assert_close(found, theta.float(), rtol=1e-5, atol=1e-6)


@torch.no_grad()
def test_an_export_is_enough(exported):
    folder, step = exported
    meter = load_meter(folder)
    assert load_meter(folder.parent).identity["uem_sha256"] == meter.identity["uem_sha256"]
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))
    pixels, done = meter.view(image)
    assert done == "shrunk to 40x40, of which the central 32x32"
    whole = np.asarray(image.resize((40, 40), Image.Resampling.BILINEAR))
    assert np.array_equal(pixels.movedim(0, -1).numpy(), whole[4:36, 4:36])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    theta, _ = expected_scores(step, ((pixels / 255 - mean) / std)[None])
    assert meter.score(pixels[None])["theta"] == pytest.approx(theta.tolist(), rel=1e-5)


def test_the_untrained_uem_is_another_one(run):
    loaded = load_meter(run / "ulfd")
    before = torch.get_rng_state()
    meter = loaded.beside_untrained()
    assert torch.equal(torch.get_rng_state(), before)
    found = meter.score(load("digits").test_images[:5])
    assert np.abs(np.subtract(found["theta"], found["untrained"])).min() > 1e-6
    again = load_meter(run / "ulfd").beside_untrained().score(load("digits").test_images[:5])
    assert found == again


def test_damaged_and_foreign_models_are_named(run, exported, tmp_path):
    folder, _ = exported
    with pytest.raises(RunError, match=r"several trainings; give one[\s\S]*seed-0/ulfd"):
        load_meter(run.parent)
    with pytest.raises(RunError, match="neither an export"):
        load_meter(tmp_path / "none")
    weights = run / "ulfd" / "00000001.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(RunError, match="damaged"):
        load_meter(run / "ulfd")
    (folder / "uem.safetensors").write_bytes(pickle.dumps(print))
    with pytest.raises(RunError, match=r"uem.safetensors is not readable as weights"):
        load_meter(folder)
    write_json(folder / "config.json", {"arch": "resnet8"})
    with pytest.raises(RunError, match=r"config.json does not describe .*'classes'"):
        load_meter(folder)
    (folder / "config.json").unlink()
    with pytest.raises(RunError, match=r"has no config.json"):
        load_meter(folder)


def test_every_kind_of_picture(tmp_path):
    levels = np.arange(0, 65536, 1024, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "sixteen.png")
    assert np.array_equal(np.asarray(open_rgb(tmp_path / "sixteen.png"))[..., 1], levels >> 8)
    for mode, ending in (
        ("RGBA", "png"),
        ("P", "png"),
        ("CMYK", "jpg"),
        ("1", "png"),
        ("LA", "png"),
    ):
        path = tmp_path / f"{mode}.{ending}"
        Image.new(mode, (5, 6)).save(path)
        assert open_rgb(path).mode == "RGB"
    turned = Image.new("RGB", (5, 6))
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert open_rgb(tmp_path / "turned.jpg", upright=True).size == (6, 5)
    Image.fromarray(levels.astype(np.float32)).save(tmp_path / "float.tif")
    assert "no fixed range" in read(tmp_path, "float.tif", View(8, 8)).error


def test_postscript_is_never_run(tmp_path):
    Image.new("RGB", (5, 6)).save(tmp_path / "page.eps")
    (tmp_path / "page.png").write_bytes((tmp_path / "page.eps").read_bytes())
    assert list_pictures(tmp_path) == ["page.png"]
    assert "no image of a known format" in read(tmp_path, "page.png", View(8, 8)).error


def test_views():
    white = Image.new("RGB", (4, 2), "white")
    padded, done = View(8, 8, pads=True)(white)
    assert done == "put on black of 8x8"
    assert padded[:, 3:5, 2:6].min() == 255
    assert int(padded.long().sum()) == 3 * 8 * 255
    assert View(8, 8)(white)[1] == "enlarged to 8x8"
    assert View(8, 8, pads=True)(Image.new("RGB", (9, 2)))[1] == "enlarged to 8x8"
    assert View(4, 4)(Image.new("RGB", (4, 4)))[1] == "taken as they are"


def test_ranks_a_folder(run, pictures, tmp_path, capsys):
    out, sheet = tmp_path / "found/scores.csv", tmp_path / "sheet.html"
    command = [str(run / "ulfd"), str(pictures), "--out", str(out), "--sheet", str(sheet)]
    assert main([*command, "--batch-size", "5", "--sheet-images", "4"]) == 0
    told = capsys.readouterr()
    assert "skipped broken.png" in told.err
    assert "12 images" in told.out
    assert "1 files could not be read" in told.out
    assert "10 taken as they are; 1 put on black of 32x32; 1 shrunk to 32x32" in told.out
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows if row["error"]] == ["broken.png"]
    read_rows = [row for row in rows if not row["error"]]
    theta = [float(row["theta"]) for row in read_rows]
    assert theta == sorted(theta, reverse=True)
    assert len(set(theta)) == 12
    meter = load_meter(run / "ulfd")
    for row in read_rows:
        pixels, _ = meter.view(open_rgb(pictures / row["file"]))
        assert float(row["theta"]) == pytest.approx(meter.score(pixels[None])["theta"][0], rel=1e-5)
    page = sheet.read_text()
    assert page.count("<figure") == 8
    first, last = (html.escape(read_rows[at]["file"]) for at in (0, -1))
    assert page.index("Most degraded") < page.index(first) < page.index("Least degraded")
    assert page.index("Least degraded") < page.index(last)
    assert "<b>small" not in page
    assert not out.with_name("scores.csv.unfinished").exists()


def test_a_killed_ranking_continues(run, pictures, tmp_path, monkeypatch, capsys):
    whole, out = tmp_path / "whole.json", tmp_path / "scores.json"
    command = [str(run / "ulfd"), str(pictures), "--batch-size", "4"]
    assert main([*command, "--out", str(whole)]) == 0
    score, calls = meters.Meter.score, []

    def killed(self, images):
        calls.append(len(images))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(self, images)

    monkeypatch.setattr(meters.Meter, "score", killed)
    assert main([*command, "--out", str(out)]) == 130
    assert not out.exists()
    other = [str(run / "ulfd"), str(pictures), "--batch-size", "3", "--out", str(out)]
    capsys.readouterr()
    assert main(other) == 1
    assert "unfinished part of another computation" in capsys.readouterr().err
    assert main([*command, "--out", str(out)]) == 0
    assert sum(calls[2:]) == 12 - calls[0]  # what was scored is not scored again
    assert json.loads(out.read_text()) == json.loads(whole.read_text())


def test_nothing_readable_is_an_error(run, tmp_path, capsys):
    (tmp_path / "a").mkdir()
    assert main([str(run / "ulfd"), str(tmp_path / "a")]) == 1
    assert "no file below" in capsys.readouterr().err
    (tmp_path / "a/one.png").write_bytes(b"no image")
    assert main([str(run / "ulfd"), str(tmp_path / "a")]) == 1
    assert "none of the 1 images" in capsys.readouterr().err


def test_measures_what_it_says(run, tmp_path, capsys):
    out = tmp_path / "quality.json"
    command = [str(run / "ulfd"), "--measure", "--images", "20", "--out", str(out)]
    chosen = ["--corruptions", "gaussian_blur", "contrast", "--frost", "procedural"]
    assert main([*command, *chosen]) == 0
    result = json.loads(out.read_text())
    assert result["clean"]["dataset"] == "digits"
    meter = load_meter(run / "ulfd")
    clean, _ = chosen_images(load("digits"), 20)
    for name in ("theta", "smoothness"):
        scores = meter.score(clean)[name]
        for corruption in ("contrast", "gaussian_blur"):
            rows = [
                meter.score(corrupt(clean, corruption, severity, seeds=torch.arange(20)))[name]
                for severity in SEVERITIES
            ]
            found = result["statistics"][name]["corruptions"][corruption]
            assert found["auroc"] == pytest.approx([by_pairs(scores, row) for row in rows])
    # The direction: blurred images are the smoother ones, the more so the stronger the blur.
    blur = result["statistics"]["smoothness"]["corruptions"]["gaussian_blur"]
    assert blur["auroc"][-1] == 1.0
    assert blur["spearman_same_image"] == pytest.approx(1)
    assert set(result["statistics"]) == set(STATISTICS)
    told = capsys.readouterr().out
    assert "mean, seen" in told
    assert "θ, untrained" in told


def test_measures_on_a_folder(run, pictures, tmp_path, capsys):
    out = tmp_path / "quality.json"
    command = [str(run / "vanilla"), str(pictures), "--measure", "--statistic", "confidence"]
    for most, images in ((20, 12), (7, 7)):  # all of 13, one of them broken; every second
        chosen = ["--corruptions", "fog", "--images", str(most), "--out", str(out)]
        assert main([*command, *chosen]) == 0
        result = json.loads(out.read_text())
        assert result["clean"]["images"] == images
    assert set(result["statistics"]) == {"confidence", "activation", "smoothness"}
    assert result["statistics"]["confidence"]["unseen"] is None
    assert "skipped broken.png" in capsys.readouterr().err


BAD = {
    "statistic": (["--statistic", "entropy"], "--statistic is 'entropy'"),
    "top": (["--top", "0"], "--top is 0"),
    "out": (["--out", "scores.txt"], "must end in .csv or .json"),
    "sheet": (["--sheet", "sheet.pdf"], "must end in .html"),
    "dataset": (["--dataset", "digits"], "--dataset goes with --measure"),
    "untrained": (["--statistic", "untrained"], "does not give 'untrained'"),
    "measured sheet": (["--measure", "--sheet", "a.html"], "--sheet shows a ranking"),
    "measured csv": (["--measure", "--out", "a.csv"], "must end in .json"),
    "corruption": (["--measure", "--corruptions", "fogg"], "did you mean 'fog'"),
    "parameters": (["--measure", "--parameters", "x"], "x"),
    "device": (["--device", "nonsense"], "--device nonsense is not available"),
}


@pytest.mark.parametrize(("arguments", "message"), BAD.values(), ids=BAD)
def test_mistakes_are_named(arguments, message, run, pictures, capsys):
    assert main([str(run / "ulfd"), str(pictures), *arguments]) == 1
    assert message in capsys.readouterr().err


def test_mistakes_about_the_model_are_named(run, pictures, capsys):
    assert main([str(run / "vanilla"), str(pictures)]) == 1
    assert "does not give 'theta'" in capsys.readouterr().err
    assert main([str(run / "ulfd")]) == 1
    assert "give the FOLDER" in capsys.readouterr().err


def test_scores_that_are_no_numbers_end_it(run):
    meter = load_meter(run / "ulfd")
    with torch.no_grad():
        meter.uem.deconv.bias.fill_(math.nan)
    with pytest.raises(RunError, match="not a finite number"):
        replace(meter).score(load("digits").test_images[:2])
