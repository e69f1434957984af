"""Enlarge or translate a video: frames in batches through a model, the sound copied where ffmpeg is installed."""

import argparse
import sys
from collections.abc import Sequence

import numpy as np

import img2img


def main(argv: Sequence[str] | None = None) -> int:
    """Run the tool; return 0, or 1 after a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", metavar="IN", help="a video that OpenCV reads")
    parser.add_argument("-o", "--out", required=True, help="the video to write: .mp4, .mkv, .mov or .avi")
    parser.add_argument("--model", help="upscaler or translator; default: the fast upscaler for the scale")
    parser.add_argument("--direction", choices=("ab", "ba"), help="of a model that translates both ways (default ab)")
    parser.add_argument("--scale", type=float, help="output side / input side, e.g. 2 or 1.5; default: the model's own")
    parser.add_argument("--tile", type=int, help="side of the tiles in input pixels; 0: none; default: by free memory")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; default: the best here")
    parser.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default: bf16 where native and faithful")
    parser.add_argument("--batch", type=int, default=4, help="frames read at a time (default 4)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    options = parser.parse_args(argv)
    try:
        count = enlarge(options)
    except KeyboardInterrupt:
        print("upscale_video: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"upscale_video: {error}", file=sys.stderr)
        return 1
    print(f"{count} frames written to {options.out}", file=sys.stderr)
    return 0


def enlarge(options: argparse.Namespace) -> int:
    """Run the video through the model and return the number of frames."""
    from img2img import engine
    from img2img.imaging.video import process_video

    engine.keep_memory()
    model = options.model or img2img.upscaler_for(options.scale)
    controls = {"direction": options.direction} if options.direction else {}
    pipe = img2img.load(model, device=options.device, precision=options.precision, **controls)
    if pipe.verb == "synthesize":
        raise ValueError(f"{model} makes images of noise (task {pipe.task}), not of frames; see: img2img models")
    return process_video(
        options.source,
        options.out,
        lambda frames: [
            # A translator to grey gives one channel, and a video has three.
            np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame
            for frame in pipe(frames, channels="bgr", scale=options.scale, tile=options.tile)
        ],
        batch=options.batch,
        overwrite=options.overwrite,
    )


if __name__ == "__main__":
    sys.exit(main())
