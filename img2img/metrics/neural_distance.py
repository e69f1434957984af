"""Neural-net distance: how well can a small network, trained for it, tell outputs from real images?"""

import torch
from torch import Tensor, nn

from img2img.metrics.distribution import SetMetric, enough


def neural_distance(x: Tensor, y: Tensor, *, width: int = 64, steps: int = 200, seed: int = 0) -> float:
    """Return E D(x) - E D(y) on held-out vectors, of the network D into [0, 1] that was trained to make it large.

    Arora et al. 2017, https://arxiv.org/abs/1703.00573, the F-distance with phi(t) = t: 0 for equal distributions and 1
    for those that the network tells apart, at most their total variation. Every second vector trains, the others
    judge, so that what the network learnt by heart does not count; the estimate may be a little under 0. The same
    arguments give the same figure on one machine, and no random state is touched.

    Args:
        x: Features (N, D).
        y: Features (M, D).
        width: Of the two hidden layers.
        steps: Of Adam, on all training vectors or 512 drawn from them.
        seed: Of weights and draws.

    Raises:
        ValueError: Fewer than four vectors in one of them.
    """
    for each in (x, y):
        enough(each, 4, "the neural-net distance")
    x, y = x.float().cpu(), y.float().cpu()
    known = torch.cat([x[::2], y[::2]])
    mean, spread = known.mean(0), known.std(0).clamp(min=1e-6)
    x, y = (x - mean) / spread, (y - mean) / spread
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seed)
        critic = nn.Sequential(
            nn.Linear(x.shape[1], width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Linear(width, 1),
            nn.Sigmoid(),
        )
        optimizer = torch.optim.AdamW(critic.parameters(), lr=3e-3, weight_decay=0.1)
        for _ in range(steps):
            real, fake = (
                part[torch.randint(len(part), (512,), generator=generator)] if len(part) > 512 else part
                for part in (x[::2], y[::2])
            )
            loss = critic(fake).mean() - critic(real).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        return float(critic(x[1::2]).double().mean() - critic(y[1::2]).double().mean())


class NeuralDistance(SetMetric):
    """How well a small network tells outputs from real images, 0 to 1; lower is better. See `neural_distance`.

    Args:
        network: What it sees: efficientnet_lite0, inception, digits, stacked_digits, or pixels; see `Embedding`.
        width: Of its hidden layers.
        steps: Of its training.
    """

    def __init__(self, *, network: str | nn.Module = "efficientnet_lite0", width: int = 64, steps: int = 200):
        super().__init__(network)
        self.width, self.steps = width, steps

    def compute(self) -> float:
        """Return the distance.

        Raises:
            ValueError: Fewer than four outputs or real images.
        """
        return neural_distance(self.real, self.outputs, width=self.width, steps=self.steps)
