import cv2
import numpy as np
import upscale_video as tool


def test_a_video_is_translated(tmp_path, trained):
    source, target = tmp_path / "in.avi", tmp_path / "out.avi"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 5, (32, 16))
    for place in range(3):
        writer.write(np.full((16, 32, 3), 60 * place + 40, np.uint8))
    writer.release()
    options = ["--model", str(trained["translator"]), "--device", "cpu", "--precision", "fp32"]
    assert tool.main([str(source), "-o", str(target), *options]) == 0
    capture = cv2.VideoCapture(str(target))
    assert [capture.get(key) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)] == [32, 16]
    assert sum(capture.read()[0] for _ in range(5)) == 3
