"""Makes the golden files of globe-image from Pillow and transformers.

Run:  python make.py   (writes next to itself; the output is deterministic)
Pinned: python 3.11, pillow 13.0.0 (libjpeg-turbo 3.2.0, libwebp 1.6.0), numpy 2.4.6,
        transformers 5.23.0 (Qwen2VLImageProcessorPil)

photos/NAME.EXT   inputs
photos.json       per input: size, orientation, GPS, SHA-256 of what Pillow decodes to RGB, upright,
                  composited over white
resize.json       sizes with the SHA-256 of Pillow's result; inputs come from `noise`
smart_resize.json arguments and results of transformers' smart_resize
patches.json      processor settings, sizes, grid, SHA-256 of pixel_values and some of them in full

Not compared: ICC profiles (neither side applies them); 16-bit greyscale, which Pillow saturates
at 255 while we keep the high byte, so its expectation is computed here from the 16-bit samples.
"""

import hashlib, io, json, random, struct, zlib
from pathlib import Path

import numpy as np
import PIL
import transformers
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil, smart_resize

assert PIL.__version__ == "13.0.0" and transformers.__version__ == "5.23.0"
HERE = Path(__file__).parent
PHOTOS = HERE / "photos"


def noise(width, height, seed):
    """Bytes of a 32-bit linear congruential generator; the Rust tests repeat it."""
    state, out = seed, bytearray()
    for _ in range(width * height * 3):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out.append(state >> 24)
    return np.frombuffer(bytes(out), np.uint8).reshape(height, width, 3)


def scene(width, height):
    """Smooth colour with a few edges, like a photo: JPEG and WebP stay small and close to it."""
    y, x = np.mgrid[0:height, 0:width].astype(float)
    r = 128 + 100 * np.sin(x / 7) * np.cos(y / 9)
    g = 255 * x / max(width - 1, 1)
    b = 255 * y / max(height - 1, 1)
    rgb = np.stack([r, g, b], -1)
    rgb[height // 3 : height // 2, width // 4 : width // 2] = (250, 30, 60)
    return rgb.clip(0, 255).astype(np.uint8)


def save(name, image, **options):
    image.save(PHOTOS / name, **options)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(name, size, depth, color, rows, extra=b"", after=b""):
    """A PNG that Pillow cannot write: `rows` are packed rows without filter bytes."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *size, depth, color, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + bytes(r) for r in rows), 9))
    (PHOTOS / name).write_bytes(b"\x89PNG\r\n\x1a\n" + head + extra + data + after + chunk(b"IEND", b""))


def exif(orientation=None, lat=None, lon=None):
    block = Image.Exif()
    if orientation:
        block[0x0112] = orientation
    if lat is not None:
        dms = lambda v: (float(int(abs(v))), float(int(abs(v) * 60 % 60)), round(abs(v) * 3600 % 60, 4))
        gps = block.get_ifd(0x8825)
        gps[1], gps[2] = "S" if lat < 0 else "N", dms(lat)
        gps[3], gps[4] = "W" if lon < 0 else "E", dms(lon)
    return block.tobytes()


def make_jpegs():
    photo = Image.fromarray(scene(45, 35))
    save("444.jpg", photo, quality=92, subsampling=0)
    save("422.jpg", photo, quality=90, subsampling=1)
    save("420.jpg", photo, quality=90, subsampling=2)
    save("progressive.jpg", photo, quality=90, progressive=True)
    save("restart.jpg", photo, quality=90, restart_marker_blocks=2)
    save("grey.jpg", photo.convert("L"), quality=90)
    save("rgb.jpg", photo, quality=92, keep_rgb=True)
    cmyk = np.dstack([scene(45, 35), scene(45, 35)[::-1, ::-1, 0] // 2])
    save("cmyk.jpg", Image.fromarray(cmyk, "CMYK"), quality=92)
    # The same coefficients, declared as YCCK in the Adobe segment.
    data = bytearray((PHOTOS / "cmyk.jpg").read_bytes())
    data[data.index(b"Adobe") + 11] = 2
    (PHOTOS / "ycck.jpg").write_bytes(data)
    data = (PHOTOS / "cmyk.jpg").read_bytes()
    at = data.index(b"\xff\xee")
    (PHOTOS / "cmyk_no_adobe.jpg").write_bytes(data[:at] + data[at + 16 :])


def segments(data):
    """(marker, start, end) of every segment of a JPEG; entropy-coded data is skipped."""
    pos, out = 2, []
    while True:
        pos = next(at for at in range(pos, len(data)) if data[at] == 0xFF and data[at + 1] not in (0, 0xFF))
        marker = data[pos + 1]
        if marker == 0xD9:
            return out
        if 0xD0 <= marker <= 0xD7:
            pos += 2
            continue
        end = pos + 2 + int.from_bytes(data[pos + 2 : pos + 4], "big")
        out.append((marker, pos, end))
        pos = end


def encode(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **{"optimize": True, "quality": 75, **options})
    return bytearray(file.getvalue())


def declare(data, size, factors):
    """Another frame over the same blocks: sampling factors that Pillow cannot write. The picture
    is scrambled, but every coefficient comes from an encoder."""
    units = lambda w, h, f: -(-w // (8 * max(v >> 4 for v in f))) * -(-h // (8 * max(v & 15 for v in f)))
    blocks = lambda w, h, f: units(w, h, f) * sum((v >> 4) * (v & 15) for v in f)
    frame = next(start for marker, start, _ in segments(data) if marker in (0xC0, 0xC1, 0xC2))
    height, width, count = struct.unpack(">HHB", data[frame + 5 : frame + 10])
    old = [data[frame + 11 + 3 * idx] for idx in range(count)]
    assert blocks(*size, factors) == blocks(width, height, old), (size, factors)
    data[frame + 5 : frame + 9] = struct.pack(">HH", size[1], size[0])
    for idx, factor in enumerate(factors):
        data[frame + 11 + 3 * idx] = factor
    return data


def separate_scans(width, height):
    """A sequential JPEG with one scan per component, made of three grey ones."""
    files = [encode(Image.fromarray(scene(width, height)[:, :, c]), optimize=False) for c in range(3)]
    first = {marker: (start, end) for marker, start, end in segments(files[0])}
    frame, scan = first[0xC0], first[0xDA]
    head, tables = files[0][: frame[0] + 9], files[0][frame[1] : scan[0]]
    parts = b"".join(bytes([idx, 0x11, 0]) for idx in (1, 2, 3))
    head[frame[0] + 2 : frame[0] + 4] = struct.pack(">H", 17)
    out = head + b"\3" + parts + tables
    for idx, data in enumerate(files):
        start, end = next((s, e) for marker, s, e in segments(data) if marker == 0xDA)
        out += b"\xff\xda\0\x08\1" + bytes([idx + 1, 0, 0, 63, 0]) + data[end:-2]
    return out + b"\xff\xd9"


def wide_quantisation(data):
    """The same JPEG with quantisation tables of 16 bits, as extended sequential."""
    out = bytearray(data[:2])
    copied = 2
    for marker, start, end in segments(data):
        out += data[copied:start]
        body = data[start + 4 : end]
        if marker == 0xDB:
            assert len(body) == 65
            body = bytes([body[0] | 0x10]) + b"".join(bytes([0, v]) for v in body[1:])
        marker = 0xC1 if marker == 0xC0 else marker
        out += bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
        copied = end
    return out + data[copied:]


def without_codes(data):
    """Motion JPEG: the standard's Huffman codes are understood."""
    for marker, start, end in reversed(segments(data)):
        if marker == 0xC4:
            del data[start:end]
    return data


def make_jpeg_shapes():
    """What steers a JPEG decoder: sampling, sizes around block edges, scans, tables."""
    write = lambda name, data: (PHOTOS / f"{name}.jpg").write_bytes(data)
    for width, height in [(1, 1), (2, 2), (3, 5), (7, 9), (15, 17), (16, 16), (17, 33), (65, 63)]:
        photo = Image.fromarray(scene(width, height))
        for name, subsampling in [("444", 0), ("422", 1), ("420", 2)]:
            write(f"{name}_{width}x{height}", encode(photo, subsampling=subsampling))
        write(f"progressive_{width}x{height}", encode(photo, progressive=True))
        write(f"grey_{width}x{height}", encode(photo.convert("L")))
        y422 = encode(photo, subsampling=1)
        write(f"440_{height}x{width}", declare(y422, (height, width), [0x12, 0x11, 0x11]))
    photo = Image.fromarray(scene(48, 32))
    y420 = encode(photo, subsampling=2)
    write("411_70x15", declare(bytearray(y420), (70, 15), [0x41, 0x11, 0x11]))
    write("141_13x90", declare(bytearray(y420), (13, 90), [0x14, 0x11, 0x11]))
    rgb = encode(Image.fromarray(scene(40, 24)), keep_rgb=True, subsampling=0)
    write("mixed_sampling", declare(rgb, (47, 45), [0x11, 0x21, 0x12]))
    grainy = Image.fromarray(noise(33, 35, 5))
    write("coarse", encode(grainy, quality=1))
    write("fine", encode(grainy, quality=100))
    write("progressive_fine", encode(grainy, quality=100, subsampling=0, progressive=True))
    write("progressive_restart", encode(grainy, progressive=True, restart_marker_blocks=1))
    write("restart_rows", encode(photo, restart_marker_rows=1))
    write("progressive_grey", encode(photo.convert("L"), progressive=True))
    cmyk = Image.fromarray(np.dstack([scene(33, 17), scene(33, 17)[::-1, ::-1, 0] // 2]), "CMYK")
    write("progressive_cmyk", encode(cmyk, progressive=True))
    write("separate_scans", separate_scans(21, 19))
    write("wide_quantisation", wide_quantisation(encode(photo)))
    # Wrong bits and a lost restart marker: libjpeg warns and goes on, and Pillow accepts that.
    damaged = encode(photo, restart_marker_blocks=2)
    at = damaged.index(b"\xff\xda") + 14
    damaged[at + 9 : at + 12] = b"\x5a\x12\xfe"
    lost = damaged.index(b"\xff\xd1")
    del damaged[lost : lost + 2]
    write("damaged", damaged)
    write("motion_jpeg", without_codes(encode(photo, optimize=False)))


def make_pngs():
    rgb = scene(19, 13)
    photo = Image.fromarray(rgb)
    alpha = np.linspace(0, 255, 19 * 13).astype(np.uint8).reshape(13, 19)
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    save("rgb.png", photo)
    save("rgba.png", rgba)
    save("grey.png", photo.convert("L"))
    save("grey_alpha.png", rgba.convert("LA"))
    save("bilevel.png", photo.convert("1"))
    save("palette.png", photo.quantize(16))
    save("palette_alpha.png", rgba.quantize(12, method=Image.Quantize.FASTOCTREE))
    save("palette_key.png", photo.quantize(8), transparency=3)
    save("grey_key.png", photo.convert("L").point(lambda v: v // 32 * 32), transparency=64)
    grey4 = rgb[:, :18, 1] >> 4
    png("grey4.png", (18, 13), 4, 0, (grey4[:, ::2] << 4) | grey4[:, 1::2])
    wide = (rgb.astype(np.uint16) << 8) | rgb[::-1, :, ::-1]
    png("rgb16.png", (19, 13), 16, 2, [row.astype(">u2").tobytes() for row in wide])
    wide_alpha = np.dstack([wide, alpha.astype(np.uint16) << 8 | 0x5A])
    png("rgba16.png", (19, 13), 16, 6, [row.astype(">u2").tobytes() for row in wide_alpha])
    png("grey16.png", (19, 13), 16, 0, [row.astype(">u2").tobytes() for row in wide[:, :, 0]])
    late = chunk(b"eXIf", exif(6, 10.5, 20.25).removeprefix(b"Exif\0\0"))
    rows = [row.tobytes() for row in rgb]
    png("exif_after_pixels.png", (19, 13), 8, 2, rows, after=late)


def make_others():
    photo = Image.fromarray(scene(45, 35))
    alpha = np.linspace(0, 255, 45 * 35).astype(np.uint8).reshape(35, 45)
    rgba = Image.fromarray(np.dstack([scene(45, 35), alpha]))
    save("lossless.webp", photo, lossless=True)
    save("lossless_alpha.webp", rgba, lossless=True, exact=True)
    save("lossy.webp", photo, quality=85)
    save("lossy_alpha.webp", rgba, quality=85)
    save("plain.gif", photo.quantize(32))
    save("animated.gif", photo.quantize(16), save_all=True, append_images=[photo.rotate(90).quantize(16)])
    save("animated.webp", photo, save_all=True, append_images=[photo.rotate(90)], lossless=True)
    clear = photo.quantize(16)
    clear.info["transparency"] = 5
    save("transparent.gif", clear, transparency=5)


def make_exif():
    photo = Image.fromarray(scene(11, 7))
    for orientation in range(1, 9):
        save(f"turn{orientation}.png", photo, exif=exif(orientation))
    save("gps_north_east.jpg", photo, exif=exif(6, 48.858222, 2.2945), quality=90)
    save("gps_south_west.jpg", photo, exif=exif(3, -22.951916, -43.210487), quality=90)
    save("gps.png", photo, exif=exif(8, 35.658581, 139.745433))
    save("gps.webp", photo, exif=exif(5, 0.5, -0.25), lossless=True)
    save("orientation_only.jpg", photo, exif=exif(2), quality=90)


def reference(path):
    image = Image.open(path)
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, -1)
    image.load()
    return convert_to_rgb(ImageOps.exif_transpose(image), return_numpy=True)


def photos():
    PHOTOS.mkdir(exist_ok=True)
    for old in PHOTOS.iterdir():
        old.unlink()
    for make in (make_jpegs, make_jpeg_shapes, make_pngs, make_others, make_exif):
        make()
    out = {}
    for path in sorted(PHOTOS.iterdir()):
        rgb = reference(path)
        image = Image.open(path)
        gps = image.getexif().get_ifd(0x8825)
        position = None
        if gps:
            degrees = lambda v, ref: float(v[0] + v[1] / 60 + v[2] / 3600) * (-1 if ref in "SW" else 1)
            position = [degrees(gps[2], gps[1]), degrees(gps[4], gps[3])]
        out[path.name] = {
            "width": rgb.shape[1], "height": rgb.shape[0], "stored_size": list(image.size),
            "orientation": image.getexif().get(0x0112, 1), "gps": position, "sha256": hashlib.sha256(rgb.tobytes()).hexdigest(),
        }
    return out


def resize():
    rng = random.Random(7)
    edges = [1, 2, 3, 5, 8, 13, 28, 31, 56, 64, 97, 140, 211]
    sizes = [tuple(rng.choice(edges) for _ in range(4)) for _ in range(160)]
    sizes += [(rng.randint(1, 90), rng.randint(1, 90), rng.randint(1, 90), rng.randint(1, 90)) for _ in range(80)]
    sizes += [(640, 480, 84, 56), (480, 640, 476, 644), (200, 1, 196, 28), (1, 200, 28, 196), (33, 40, 33, 40)]
    out = []
    for idx, (w, h, nw, nh) in enumerate(sizes):
        number = Image.Resampling.BILINEAR if idx % 4 == 3 else Image.Resampling.BICUBIC
        got = Image.fromarray(noise(w, h, idx)).resize((nw, nh), number)
        out.append([w, h, nw, nh, int(number), hashlib.sha256(got.tobytes()).hexdigest()])
    return out


def smart_resizes():
    rng = random.Random(11)
    limits = [(28, 3136, 1003520), (28, 3136, 12845056), (32, 65536, 16777216), (28, 784, 50176), (16, 100000, 200000)]
    cases = [(h, w, *limits[0]) for h in (14, 28, 42, 70, 98, 126) for w in (42, 70, 98, 154)]
    cases += [(1, 200, *limits[0]), (200, 1, *limits[0]), (5, 7, *limits[0]), (8000, 6000, *limits[0])]
    cases += [(rng.randint(1, 9000), rng.randint(1, 9000), *rng.choice(limits)) for _ in range(300)]
    cases += [(rng.randint(1, 120), rng.randint(1, 120), *rng.choice(limits)) for _ in range(200)]
    ok = [c for c in cases if max(c[:2]) / min(c[:2]) <= 200]
    return [[*c, *smart_resize(*c)] for c in ok]


def patches():
    small = dict(patch_size=4, temporal_patch_size=2, merge_size=2, size={"shortest_edge": 64, "longest_edge": 4096})
    plain = dict(size={"shortest_edge": 3136, "longest_edge": 100352})
    cases = [
        ("full values, no resize", small, 16, 24, True),
        ("full values, resize", small, 13, 9, True),
        ("default model, no resize", plain, 84, 56, False),
        ("default model, shrink", plain, 640, 480, False),
        ("default model, enlarge", plain, 30, 41, False),
        ("odd sizes", plain, 333, 217, False),
        ("window padding", plain, 140, 196, False),
        ("merge 1", dict(small, merge_size=1), 20, 12, False),
        ("merge 3, three frames", dict(small, merge_size=3, temporal_patch_size=3), 30, 50, False),
        ("no normalisation", dict(small, do_normalize=False), 16, 24, False),
        ("no rescaling", dict(small, do_rescale=False), 16, 24, False),
        ("no rescaling, no normalisation", dict(small, do_rescale=False, do_normalize=False), 16, 24, False),
        ("no resizing", dict(small, do_resize=False), 32, 40, False),
        ("bilinear", dict(small, resample=2), 50, 31, False),
        ("one mean", dict(small, image_mean=[0.5] * 3, image_std=[0.5] * 3), 16, 24, False),
    ]
    out = []
    for seed, (name, settings, w, h, full) in enumerate(cases):
        processor = Qwen2VLImageProcessorPil(**settings)
        got = processor(images=[Image.fromarray(noise(w, h, seed))], return_tensors="np")
        values = got["pixel_values"].astype("<f4")
        case = {
            "name": name, "config": settings, "width": w, "height": h, "seed": seed,
            "grid_thw": got["image_grid_thw"][0].tolist(), "shape": list(values.shape),
            "sha256": hashlib.sha256(values.tobytes()).hexdigest(),
        }
        if full:
            case["values"] = [float(f"{v:.9g}") for v in values.flatten()[: 8 * values.shape[1]]]
        out.append(case)
    return out


def write(name, value):
    rows = value.items() if isinstance(value, dict) else value
    dump = lambda v: json.dumps(v, separators=(",", ":"))
    lines = [f"{dump(r[0])}:{dump(r[1])}" if isinstance(value, dict) else dump(r) for r in rows]
    open_close = "{}" if isinstance(value, dict) else "[]"
    (HERE / name).write_text(f"{open_close[0]}\n" + ",\n".join(lines) + f"\n{open_close[1]}\n")


if __name__ == "__main__":
    write("photos.json", photos())
    write("resize.json", resize())
    write("smart_resize.json", smart_resizes())
    write("patches.json", patches())
