"""The UEM after training as a meter of image quality: `python -m reference_training.uncertainty`.

The paper throws the UEM away at test time. Kept, it says of any image, without a clean one beside
it, how uncertain the network's feature is: Sec. 4.4's mean of θ over the feature's elements.

`meter` loads a network, `pictures` reads a folder, `scores` are the statistics (the UEM's, and
those one would take without it); `ranking` and `sheet` are what a user gets, `measure` and
`agreement` how good it is; `agreement.quality` is for any score.
"""
