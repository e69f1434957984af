"""How results are judged: (output, target) -> one value per sample."""

from img2img.metrics.perceptual import perceptual_distance
from img2img.metrics.psnr import psnr
from img2img.metrics.ssim import ssim

__all__ = ["perceptual_distance", "psnr", "ssim"]
