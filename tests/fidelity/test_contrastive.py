"""PatchNCE against explicit loops over places, and its projector."""

import math

import pytest
import torch
from torch.nn import functional

from img2img.fidelity.contrastive import patch_nce
from img2img.networks.patch_features import PatchFeatures
from img2img.networks.resnet import ResNet


def vectors(*shape, seed=0):
    torch.manual_seed(seed)
    return functional.normalize(torch.randn(shape, dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_against_loops(temperature):
    output = [vectors(2, 5, 4), vectors(2, 3, 6, seed=1)]
    target = [vectors(2, 5, 4, seed=2), vectors(2, 3, 6, seed=3)]
    wanted = []
    for image in range(2):
        layers = []
        for query, key in zip(output, target, strict=True):
            losses = []
            for place in range(query.shape[1]):
                scores = torch.stack([query[image, place].dot(other) for other in key[image]]) / temperature
                losses.append(functional.cross_entropy(scores[None], torch.tensor([place])))
            layers.append(sum(losses) / len(losses))
        wanted.append(sum(layers) / len(layers))
    found = patch_nce(output, target, temperature=temperature)
    assert found.shape == (2,) and torch.allclose(found, torch.stack(wanted), rtol=1e-12)


def test_closed_forms():
    same = vectors(1, 1, 8).expand(3, 16, 8)
    assert torch.allclose(patch_nce([same], [same]), torch.full((3,), math.log(16), dtype=torch.float64))
    apart = torch.eye(16, dtype=torch.float64)[None]
    wanted = math.log(math.exp(1 / 0.07) + 15) - 1 / 0.07
    assert patch_nce([apart], [apart]).item() == pytest.approx(wanted, rel=1e-9)
    assert patch_nce([apart], [apart.roll(1, 1)]).item() == pytest.approx(wanted + 1 / 0.07, rel=1e-9)


def test_gradient_reaches_the_output_only():
    output, target = vectors(1, 4, 3).requires_grad_(), vectors(1, 4, 3, seed=1).requires_grad_()
    patch_nce([output], [target]).sum().backward()
    assert output.grad.abs().max() > 0 and target.grad is None
    fixed = vectors(1, 4, 3, seed=1)
    assert torch.autograd.gradcheck(lambda x: patch_nce([x], [fixed]), vectors(1, 4, 3).requires_grad_())


def test_precision_is_kept_under_autocast():
    output, target = vectors(1, 64, 32).float(), vectors(1, 64, 32, seed=1).float()
    exact = patch_nce([output], [target])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(patch_nce([output], [target]), exact)


def test_what_cannot_be_compared():
    with pytest.raises(ValueError, match="output has 1 layers and target 2"):
        patch_nce([vectors(1, 2, 3)], [vectors(1, 2, 3)] * 2)
    with pytest.raises(ValueError, match="layer 0: output"):
        patch_nce([vectors(1, 2, 3)], [vectors(1, 2, 4)])
    with pytest.raises(ValueError, match="with P > 1"):
        patch_nce([vectors(1, 1, 3)], [vectors(1, 1, 3)])


def test_projector_takes_the_vector_at_each_place():
    torch.manual_seed(0)
    projector = PatchFeatures((3, 5), width=7, patches=6)
    features = [torch.randn(2, 3, 4, 5), torch.randn(2, 5, 2, 2)]
    places = projector.places(features)
    assert [len(each) for each in places] == [6, 4]
    assert [len(each.unique()) for each in places] == [6, 4]
    assert places[0].max() < 20 and sorted(places[1].tolist()) == [0, 1, 2, 3]
    found = projector(features, places)
    assert [tuple(each.shape) for each in found] == [(2, 6, 7), (2, 4, 7)]
    for each, at, mine, layers in zip(features, places, found, projector.projections, strict=True):
        assert torch.allclose(mine.norm(dim=2), torch.ones(mine.shape[:2]))
        first, _, second = layers
        for index, place in enumerate(at.tolist()):
            patch = each[1, :, place // each.shape[3], place % each.shape[3]]
            hidden = (first.weight @ patch + first.bias).clamp(min=0)
            vector = second.weight @ hidden + second.bias
            assert torch.allclose(mine[1, index], vector / vector.norm(), atol=1e-5)


def test_projector_is_built_for_given_channels():
    generator = ResNet(width=2, blocks=6)
    projector = PatchFeatures(tuple(generator.feature_channels()), width=4, patches=8)
    features = generator.features(torch.randn(1, 3, 32, 32))
    loss = patch_nce(*[projector(features, projector.places(features))] * 2)
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in projector.parameters())
    with pytest.raises(ValueError, match="made for 5 feature maps, not 1"):
        projector(features[:1], projector.places(features[:1]))
    with pytest.raises(ValueError, match="must all be 1 or more"):
        PatchFeatures((3, 0))


def test_vectors_that_are_trained_come_to_tell_places_apart():
    torch.manual_seed(0)
    projector, features = PatchFeatures((8,), width=16, patches=32), [torch.randn(2, 8, 8, 8)]
    optimizer = torch.optim.Adam(projector.parameters(), lr=0.01)
    losses = []
    for _ in range(60):
        places = projector.places(features)
        loss = patch_nce(projector(features, places), projector(features, places)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] / 3
