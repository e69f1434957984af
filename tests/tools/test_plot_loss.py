"""A critic whose loss falls with the metric has a rank correlation of one; one that says the opposite, of minus one."""

import json

import plot_loss
import pytest
from PIL import Image

METRIC = "fid[pixels]"


@pytest.fixture
def runs(tmp_path):
    for name, sign in (("told", -1), ("fooled", 1)):
        lines = [{"step": 0, "images": 0, f"validation/{METRIC}": 200.0}]  # before anything was logged
        for place in range(1, 5):
            lines += [
                {"images": place * 10 + part, "discriminator/adversarial": sign * 8 / place + part} for part in (-1, 1)
            ]
            lines.append({"images": place * 10 + 1, f"validation/{METRIC}": 100.0 / place})
        (tmp_path / name).mkdir()
        (tmp_path / name / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def test_what_is_read(runs):
    found = plot_loss.track(runs / "told", METRIC)
    assert found.images.tolist() == [11, 21, 31, 41] and found.metric.tolist() == [100, 50, 100 / 3, 25]
    assert found.distance == pytest.approx([8, 4, 8 / 3, 2])
    assert found.correlation == pytest.approx(1)
    assert plot_loss.track(runs / "fooled", METRIC).correlation == pytest.approx(-1)
    with pytest.raises(ValueError, match=r"log.jsonl: 0 validations by kid with"):
        plot_loss.track(runs / "told", "kid")
    with pytest.raises(ValueError, match=r"nothing: no log.jsonl there"):
        plot_loss.track(runs / "nothing", METRIC)


def test_command_line(runs, monkeypatch, capsys):
    told = [f"{name}={runs / name}" for name in ("told", "fooled")]
    monkeypatch.setattr("sys.argv", ["plot_loss", *told, "--metric", METRIC, "-o", str(runs / "loss.png")])
    plot_loss.main()
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["correlation"] for row in rows] == [1, -1] and rows[0]["last"] == 25
    with Image.open(runs / "loss.png") as image:
        assert image.width > 1.8 * image.height
    monkeypatch.setattr("sys.argv", ["plot_loss", "told", "--metric", METRIC, "-o", str(runs / "loss.png")])
    with pytest.raises(SystemExit):
        plot_loss.main()
    assert "'told' is not NAME=RUN" in capsys.readouterr().err
