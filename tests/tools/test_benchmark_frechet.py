"""The benchmark of the Frechet distance, on few features."""

import json

import benchmark_frechet as tool
import pytest
import torch


@pytest.fixture(autouse=True)
def _threads():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_all_ways_agree(capsys):
    assert tool.main(["--features", "24", "--images", "60", "12", "--repeats", "1", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["images"] for row in rows] == [60, 12]
    for row in rows:
        assert {"img2img", "torchmetrics", "scipy"} <= set(row["ways"])
        assert all(way["difference"] < 1e-5 and way["ratio"] > 0 for way in row["ways"].values())


def test_table_and_errors(capsys):
    assert tool.main(["--features", "8", "--images", "20", "--repeats", "1"]) == 0
    assert "| 20 | img2img |" in capsys.readouterr().out
    assert tool.main(["--images", "1"]) == 1
    assert capsys.readouterr().err.startswith("benchmark_frechet: ")
