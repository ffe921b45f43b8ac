"""A network with another module after one of its layers."""

from torch import Tensor, nn

from reference_training.networks.resnet import Classifier


class Inserted(Classifier):
    """Images (B, 3, H, W) to logits (B, classes), through a module after `layer`.

    `FeatureTap(model, "inserted")` sees what the module makes of the layer's output; the names that
    `tapped` returns are the network's own layers, whose output is what the module is given.

    Args:
        network: runs its children one after another, in the order of their definition, and
            flattens before the last, as those of `networks` and `architectures` do.
        layer: the name of one of these children, not the last.
        inserted: from the layer's output to something of the same shape.
    """

    def __init__(self, network: Classifier, layer: str, inserted: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.layer = layer
        self.inserted = inserted
        self.feature_layer = f"network.{network.feature_layer}"
        self.shallow_layer = f"network.{network.shallow_layer}"
        self.shallow_channels = network.shallow_channels

    @property
    def fc(self) -> nn.Linear:  # type: ignore[override]
        """The network's last layer."""
        return self.network.fc

    def _halves(self) -> tuple[list[nn.Module], list[nn.Module]]:
        children = dict(self.network.named_children())
        split = list(children).index(self.layer) + 1
        modules = list(children.values())
        return modules[:split], modules[split:]

    def before(self, images: Tensor) -> Tensor:
        """The layer's own output: what the inserted module is given."""
        x = images
        for module in self._halves()[0]:
            x = module(x)
        return x

    def after(self, feature: Tensor) -> Tensor:
        """The logits that follow from a feature in the layer's place."""
        *rest, last = self._halves()[1]
        x = feature
        for module in rest:
            x = module(x)
        return last(x.flatten(1))

    def forward(self, images: Tensor) -> Tensor:
        return self.after(self.inserted(self.before(images)))
