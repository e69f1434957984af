"""The projector of CUT: patches of feature maps as vectors of unit length (Park et al. 2020, arXiv:2007.15651)."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class PatchFeatures(nn.Module):
    """Feature maps, each (N, C_l, H_l, W_l), at sampled places to unit vectors, each (N, P_l, width).

    Section 3.2's H_l (https://arxiv.org/abs/2007.15651): for every map a perceptron of two layers, applied to the
    channels of one place. The same places of two images must be compared, so they are drawn once::

        places = projector.places(features_of_input)
        loss = patch_nce(projector(features_of_output, places), projector(features_of_input, places))

    Args:
        inputs: channels of each map, e.g. ``generator.feature_channels()``.
        width: numbers of a vector.
        patches: places drawn of each map; all of them where it has fewer.
    """

    def __init__(self, inputs: tuple[int, ...] = (3, 128, 256, 256, 256), width: int = 256, patches: int = 256) -> None:
        super().__init__()
        if not inputs or min(*inputs, width, patches, 1) < 1:
            raise ValueError(
                f"network patch_features: inputs {list(inputs)}, width {width} and patches {patches} must all be "
                "1 or more"
            )
        self.patches = patches
        self.projections = nn.ModuleList(
            nn.Sequential(nn.Linear(count, width), nn.ReLU(), nn.Linear(width, width)) for count in inputs
        )
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.normal_(layer.weight, 0, 0.02)
                nn.init.zeros_(layer.bias)

    def places(self, features: list[Tensor]) -> list[Tensor]:
        """Draw places of each map, without repetition, from torch's generator: each (P_l,), counted row by row."""
        return [torch.randperm(each.shape[2] * each.shape[3], device=each.device)[: self.patches] for each in features]

    def forward(self, features: list[Tensor], places: list[Tensor]) -> list[Tensor]:
        if not len(features) == len(places) == len(self.projections):
            raise ValueError(
                f"network patch_features: made for {len(self.projections)} feature maps, "
                f"not {len(features)} and {len(places)} sets of places"
            )
        found = []
        for each, at, projection in zip(features, places, self.projections, strict=True):
            patches = each.flatten(2)[:, :, at].transpose(1, 2)
            # In float32: under autocast a vector's length would be off by its few bits.
            found.append(functional.normalize(projection(patches).float(), dim=2))
        return found
