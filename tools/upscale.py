"""Enlarge images: the same as ``img2img upscale``."""

import sys

from img2img.cli import main

if __name__ == "__main__":
    sys.exit(main(["upscale", *sys.argv[1:]]))
