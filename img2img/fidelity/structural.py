"""Structural similarity, https://doi.org/10.1109/TIP.2003.819861 (Wang et al. 2004)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from img2img.fidelity.pixel import difference


def similarity(output: Tensor, target: Tensor, *, window: int = 11, sigma: float = 1.5) -> Tensor:
    """Mean SSIM index of each sample, in [-1, 1], 1 for equal images; differentiable.

    Statistics are taken under a Gaussian window, where it fits into the image as a whole, and
    averaged over places and channels; K1 = 0.01, K2 = 0.03. These are Wang's choices, and
    scikit-image's with `gaussian_weights=True, use_sample_covariance=False`. Computed in
    float32 (float64 stays) whatever autocast says: variances are small differences of squares.

    Args:
        output: (N, C, H, W) in [0, 1].
        target: The same shape and range.
        window: Side of the window in pixels, odd.
        sigma: Standard deviation of the window in pixels.

    Returns:
        (N,)

    Raises:
        ValueError: The shapes differ, the window is even, or it does not fit into the image.
    """
    wide = difference(output, target).dtype
    if window % 2 == 0 or window < 1:
        raise ValueError(f"ssim: window = {window} must be odd")
    if min(output.shape[-2:]) < window:
        size = "x".join(map(str, reversed(output.shape[-2:])))
        raise ValueError(f"ssim: an image of {size} pixels is smaller than the window of {window}")
    x, y = output.to(wide), target.to(wide)
    channels = x.shape[1]
    offsets = torch.arange(window, dtype=wide, device=x.device) - window // 2
    weights = torch.softmax(-(offsets**2) / (2 * sigma**2), 0)

    with torch.autocast(x.device.type, enabled=False):
        # All five maps in one batch, and the window as a row, then as a column: 11 + 11 products, not 121.
        maps = torch.cat([x, y, x * x, y * y, x * y])
        for shape in ((1, 1, 1, window), (1, 1, window, 1)):
            maps = F.conv2d(maps, weights.view(shape).expand(channels, -1, -1, -1), groups=channels)
        mean_x, mean_y, xx, yy, xy = maps.chunk(5)
        variances, covariance = xx - mean_x**2 + yy - mean_y**2, xy - mean_x * mean_y
        c1, c2 = 0.01**2, 0.03**2
        luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
        structure = (2 * covariance + c2) / (variances + c2)
    return (luminance * structure).flatten(1).mean(1)


def ssim(
    output: Tensor,
    target: Tensor,
    *,
    window: int = 11,
    sigma: float = 1.5,
    range: tuple[float, float] = (0.0, 1.0),  # noqa: A002
) -> Tensor:
    """Dissimilarity 1 - SSIM of each sample, in [0, 2]: two (N, C, H, W) in ``range``, to (N,). See `similarity`."""
    low, high = range
    wide = difference(output, target).dtype
    output, target = ((images.to(wide) - low) / (high - low) for images in (output, target))
    return 1 - similarity(output, target, window=window, sigma=sigma)
