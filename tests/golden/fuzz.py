"""Compares `globe logits` with transformers on randomly drawn checkpoints.

    python fuzz.py GLOBE_BINARY [--seeds 0:20] [--shape tiny] [--device auto] [--tokens 32]

Prints one line per checkpoint and exits 1 if any differs: ids and grid exactly, logits within 2e-3 of the largest,
every greedy token.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
TEXT = "Where was this photo taken?"
LOGIT_TOL = 2e-3


def run(command: list) -> dict:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]} exited {done.returncode}: {done.stderr.strip()[-400:]}")
    return json.loads(done.stdout)


def compare(got: dict, expected: dict) -> tuple[bool, str]:
    for field in ("input_ids", "image_grid_thw"):
        a, b = got[field], expected[field]
        if a != b and a != b[0]:  # one image may be given flat or as a list of one
            return False, f"{field} differs"
    largest = max(abs(x) for x in expected["last_logits"])
    error = max(abs(a - b) for a, b in zip(got["last_logits"], expected["last_logits"], strict=True)) / largest
    pairs = list(zip(got["greedy"], expected["greedy"], strict=True))
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
    ok = error <= LOGIT_TOL and same == len(pairs)
    return ok, f"logits {error:.1e}, {same} of {len(pairs)} tokens"


def one(args: argparse.Namespace, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, HERE / "random_checkpoint.py", "--out", folder, "--seed", seed, "--shape", args.shape]
        subprocess.run([str(word) for word in make], check=True, capture_output=True)
        image = Path(folder) / "image.png"
        expected = run([sys.executable, HERE / "check_one.py", folder, image, TEXT, "--tokens", args.tokens])
        got = run([args.globe, "logits", "--model", folder, "--image", image, "--prompt", TEXT,
                   "--tokens", args.tokens, "--device", args.device, "--json"])
        ok, message = compare(got, expected)
        spec = (Path(folder) / "spec.json").read_text()
        print(f"{args.shape} {seed:4} {'ok  ' if ok else 'DIFFERS'} {message}", "" if ok else spec, flush=True)
        return ok


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("globe")
    parser.add_argument("--seeds", default="0:20", help="first:end")
    parser.add_argument("--shape", default="tiny")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--tokens", type=int, default=32)
    args = parser.parse_args()
    first, end = map(int, args.seeds.split(":"))
    results = [one(args, seed) for seed in range(first, end)]
    print(f"{sum(results)} of {len(results)} agree")
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
