"""The three parameter sets against the published tables, typed a second time from another source.

Five columns, severity 1 to 5; K is the image's side (244 for ImageNet-C, whose slip it is); w and m
stand for spatter's water and mud, and a zoom blur's factors are given as NumPy's arange.
"""

import numpy as np
import pytest

from reference_training.corruptions.registry import SEMANTICS

IMAGENET224 = """
gaussian_noise .08 | .12 | .18 | .26 | .38
shot_noise 60 | 25 | 12 | 5 | 3
impulse_noise .03 | .06 | .09 | .17 | .27
speckle_noise .15 | .2 | .35 | .45 | .6
gaussian_blur 1 | 2 | 3 | 4 | 6
glass_blur .7,1,2 | .9,2,1 | 1,2,3 | 1.1,3,2 | 1.5,4,2
defocus_blur 3,.1 | 4,.5 | 6,.5 | 8,.5 | 10,.5
motion_blur 10,3 | 15,5 | 15,8 | 15,12 | 20,15
zoom_blur 1.11,.01 | 1.16,.01 | 1.21,.02 | 1.26,.02 | 1.31,.03
fog 1.5,2 | 2,2 | 2.5,1.7 | 2.5,1.5 | 3,1.4
frost 1,.4,1 | .8,.6,1 | .7,.7,1 | .65,.7,1 | .6,.75,1
snow .1,.3,3,.5,10,4,.8 | .2,.3,2,.5,12,4,.7 | .55,.3,4,.9,12,8,.7 | .55,.3,4.5,.85,12,8,.65 \
| .55,.3,2.5,.85,12,12,.55
spatter .65,.3,4,.69,.6,w | .65,.3,3,.68,.6,w | .65,.3,2,.68,.5,w | .65,.3,1,.65,1.5,m \
| .67,.4,1,.65,1.5,m
contrast .4 | .3 | .2 | .1 | .05
brightness .1 | .2 | .3 | .4 | .5
saturate .3,0 | .1,0 | 2,0 | 5,.1 | 20,.2
jpeg_compression 25 | 18 | 15 | 10 | 7
pixelate .6 | .5 | .4 | .3 | .25
elastic_transform 2K,.7K,.1K | 2K,.08K,.2K | .05K,.01K,.02K | .07K,.01K,.02K | .12K,.01K,.02K
"""
TINY64 = """
gaussian_noise .04 | .08 | .12 | .15 | .18
shot_noise 250 | 100 | 50 | 30 | 15
impulse_noise .01 | .02 | .05 | .08 | .14
speckle_noise .15 | .2 | .25 | .3 | .35
gaussian_blur .5 | .75 | 1 | 1.25 | 1.5
glass_blur .1,1,1 | .5,1,1 | .6,1,2 | .7,2,1 | .9,2,2
defocus_blur .5,.6 | 1,.1 | 1.5,.1 | 2.5,.01 | 3,.1
motion_blur 10,1 | 10,1.5 | 10,2 | 10,2.5 | 12,3
zoom_blur 1.06,.01 | 1.11,.01 | 1.16,.01 | 1.21,.01 | 1.26,.01
fog .4,3 | .7,3 | 1,2.5 | 1.5,2 | 2,1.75
frost 1,.3,.3 | .9,.4,.3 | .8,.45,.3 | .75,.5,.3 | .7,.55,.3
snow .1,.2,1,.6,8,3,.8 | .1,.2,1,.5,10,4,.8 | .15,.3,1.75,.55,10,4,.7 | .25,.3,2.25,.6,12,6,.65 \
| .3,.3,1.25,.65,14,12,.6
spatter .62,.1,.7,.7,.6,w | .65,.1,.8,.7,.6,w | .65,.3,1,.69,.6,w | .65,.1,.7,.68,.6,m \
| .65,.1,.5,.67,.6,m
contrast .4 | .3 | .2 | .1 | .05
brightness .1 | .2 | .3 | .4 | .5
saturate .3,0 | .1,0 | 2,0 | 5,.1 | 30,.2
jpeg_compression 65 | 58 | 50 | 40 | 25
pixelate .9 | .8 | .7 | .6 | .5
elastic_transform 0,0,.08K | .05K,.3K,.06K | .1K,.08K,.06K | .1K,.03K,.03K | .16K,.03K,.02K
"""
CIFAR32 = """
gaussian_noise .04 | .06 | .08 | .09 | .10
shot_noise 500 | 250 | 100 | 75 | 50
impulse_noise .01 | .02 | .03 | .05 | .07
speckle_noise .06 | .1 | .12 | .16 | .2
gaussian_blur .4 | .6 | .7 | .8 | 1
glass_blur .05,1,1 | .25,1,1 | .4,1,1 | .25,1,2 | .4,1,2
defocus_blur .3,.4 | .4,.5 | .5,.6 | 1,.2 | 1.5,.1
motion_blur 6,1 | 6,1.5 | 6,2 | 8,2 | 9,2.5
zoom_blur 1.06,.01 | 1.11,.01 | 1.16,.01 | 1.21,.01 | 1.26,.01
fog .2,3 | .5,3 | .75,2.5 | 1,2 | 1.5,1.75
frost 1,.2,.2 | 1,.3,.2 | .9,.4,.2 | .85,.4,.2 | .75,.45,.2
snow .1,.2,1,.6,8,3,.95 | .1,.2,1,.5,10,4,.9 | .15,.3,1.75,.55,10,4,.9 | .25,.3,2.25,.6,12,6,.85 \
| .3,.3,1.25,.65,14,12,.8
spatter .62,.1,.7,.7,.5,w | .65,.1,.8,.7,.5,w | .65,.3,1,.69,.5,w | .65,.1,.7,.69,.6,m \
| .65,.1,.5,.68,.6,m
contrast .75 | .5 | .4 | .3 | .15
brightness .05 | .1 | .15 | .2 | .3
saturate .3,0 | .1,0 | 1.5,0 | 2,.1 | 2.5,.2
jpeg_compression 80 | 65 | 58 | 50 | 40
pixelate .95 | .9 | .85 | .75 | .65
elastic_transform 0,0,.08K | .05K,.2K,.07K | .08K,.06K,.06K | .1K,.04K,.05K | .1K,.03K,.03K
"""
TABLES = {
    "imagenet224": (IMAGENET224, 244),
    "tiny64": (TINY64, 64),
    "cifar32": (CIFAR32, 32),
}


def number(text, side):
    return float(text[:-1]) * side if text.endswith("K") else float(text)


@pytest.mark.parametrize("name", TABLES)
def test_parameters(name):
    table, side = TABLES[name]
    rows = SEMANTICS["imagenet_c"].parameter_sets[name].rows
    typed = dict(line.split(" ", 1) for line in table.strip().splitlines())
    assert set(typed) == set(rows)
    for corruption, line in typed.items():
        cells = [cell.strip().split(",") for cell in line.split("|")]
        liquids = {"w": "water", "m": "mud"}
        expected = [
            tuple(liquids.get(text) or pytest.approx(number(text, side)) for text in cell)
            for cell in cells
        ]
        assert list(rows[corruption]) == expected, corruption


@pytest.mark.parametrize(
    ("name", "counts", "last"),
    [
        ("imagenet224", [12, 16, 11, 13, 11], [1.11, 1.15, 1.20, 1.24, 1.30]),
        ("tiny64", [7, 12, 16, 21, 26], [1.06, 1.11, 1.15, 1.20, 1.25]),
        ("cifar32", [7, 12, 16, 21, 26], [1.06, 1.11, 1.15, 1.20, 1.25]),
    ],
)
def test_zoom_factors(name, counts, last):
    rows = SEMANTICS["imagenet_c"].parameter_sets[name].rows["zoom_blur"]
    factors = [np.arange(1, *row) for row in rows]
    assert [len(each) for each in factors] == counts
    assert [each[-1] for each in factors] == pytest.approx(last)
