"""The 15 + 4 corruptions of ImageNet-C, batched, on any device.

    from reference_training.corruptions import corrupt
    degraded = corrupt(images, "fog", 3, seeds=torch.arange(len(images)))

Families: noise, blur, weather, frost, spatter, digital. `parameters` holds the severities,
`registry` the names, `random` the draws, `filters` what the families share.
"""

from .batch import corrupt
from .frost import frost_source
from .registry import CORRUPTIONS, SEEN, SEVERITIES, UNSEEN

__all__ = ["CORRUPTIONS", "SEEN", "SEVERITIES", "UNSEEN", "corrupt", "frost_source"]
