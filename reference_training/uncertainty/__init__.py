"""The UEM after training as a meter of image quality: `python -m reference_training.uncertainty`.

The paper throws the UEM away at test time. Kept, it says of any image, without a clean one beside
it, how uncertain the network's feature is: Sec. 4.4's mean of θ over the feature's elements.
"""
