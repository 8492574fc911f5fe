"""Prints what `globe logits` prints, computed by transformers: float32 on the CPU, eager attention, PIL images.

    python check_one.py CHECKPOINT IMAGE TEXT [--image MORE ...] [--system S] [--tokens 32]

IMAGE may be "-" for a prompt without images.
"""

import argparse
import json

from PIL import Image, ImageOps
from tiny_qwen import load, logits_object


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint")
    parser.add_argument("image")
    parser.add_argument("text")
    parser.add_argument("--image", dest="more", action="append", default=[], help="a further image")
    parser.add_argument("--system", help="system prompt; the template's own if absent")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--attention", default="eager", choices=["eager", "sdpa"])
    args = parser.parse_args()
    # As transformers' own loader does: turned upright before anything else.
    names = ([] if args.image == "-" else [args.image]) + args.more
    images = [ImageOps.exif_transpose(Image.open(name)) for name in names]
    loaded = load(args.checkpoint, args.attention)
    print(json.dumps(logits_object(loaded, images, args.text, args.system, args.tokens)))


if __name__ == "__main__":
    main()
