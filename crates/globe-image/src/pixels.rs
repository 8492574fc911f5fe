//! Decoded pixels of any kind to upright 8-bit RGB, by Pillow's arithmetic.

use image::DynamicImage;
use image::metadata::Orientation;

/// 8-bit RGB, `[height, width, 3]`; transparent pixels are composited over `background`.
///
/// 16-bit samples keep their high byte, as Pillow reads 16-bit RGB. (Pillow saturates 16-bit
/// greyscale at 255 instead, which turns almost any photo white.)
pub(crate) fn to_rgb(image: DynamicImage, background: [u8; 3]) -> Vec<u8> {
    use DynamicImage as D;
    let high = |sample: u16| (sample >> 8) as u8;
    match image {
        D::ImageRgb8(image) => image.into_raw(),
        D::ImageLuma8(image) => image.as_raw().iter().flat_map(|&l| [l; 3]).collect(),
        D::ImageLuma16(image) => image.as_raw().iter().flat_map(|&l| [high(l); 3]).collect(),
        D::ImageRgb16(image) => image.as_raw().iter().map(|&s| high(s)).collect(),
        D::ImageLumaA8(image) => {
            flatten(image.as_raw().as_chunks::<2>().0, background, |&[l, a]| ([l; 3], a))
        }
        D::ImageLumaA16(image) => {
            flatten(image.as_raw().as_chunks::<2>().0, background, |&[l, a]| {
                ([high(l); 3], high(a))
            })
        }
        D::ImageRgba8(image) => {
            flatten(image.as_raw().as_chunks::<4>().0, background, |&[r, g, b, a]| ([r, g, b], a))
        }
        D::ImageRgba16(image) => {
            flatten(image.as_raw().as_chunks::<4>().0, background, |&[r, g, b, a]| {
                ([high(r), high(g), high(b)], high(a))
            })
        }
        // None of our four decoders yields floats.
        other => other.into_rgb8().into_raw(),
    }
}

fn flatten<P>(pixels: &[P], background: [u8; 3], split: impl Fn(&P) -> ([u8; 3], u8)) -> Vec<u8> {
    let mut rgb = Vec::with_capacity(pixels.len() * 3);
    for pixel in pixels {
        let (color, alpha) = split(pixel);
        rgb.extend(composite(color, alpha, background));
    }
    rgb
}

/// Pillow's `alpha_composite` over an opaque background: 7 extra bits, divisions rounded.
fn composite(color: [u8; 3], alpha: u8, background: [u8; 3]) -> [u8; 3] {
    let weight = u32::from(alpha) << 7;
    let rest = (255 << 7) - weight;
    std::array::from_fn(|c| {
        let sum = u32::from(color[c]) * weight + u32::from(background[c]) * rest + (0x80 << 7);
        ((((sum >> 8) + sum) >> 8) >> 7) as u8
    })
}

/// Turns `rgb: [height, width, 3]` upright; returns the new width and height with it.
pub(crate) fn upright(
    rgb: Vec<u8>,
    width: u32,
    height: u32,
    orientation: u8,
) -> (u32, u32, Vec<u8>) {
    let turn = Orientation::from_exif(orientation).unwrap_or(Orientation::NoTransforms);
    if turn == Orientation::NoTransforms {
        return (width, height, rgb);
    }
    let image = image::RgbImage::from_raw(width, height, rgb)
        .expect("to_rgb returns width * height * 3 bytes");
    let mut image = DynamicImage::ImageRgb8(image);
    image.apply_orientation(turn);
    (image.width(), image.height(), image.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn composite_keeps_opaque_and_drops_transparent() {
        for value in 0..=255 {
            assert_eq!(composite([value; 3], 255, [9, 8, 7]), [value; 3]);
            assert_eq!(composite([value; 3], 0, [9, 8, 7]), [9, 8, 7]);
        }
        // Halfway between black and white rounds as Pillow rounds it.
        assert_eq!(composite([0; 3], 128, [255; 3]), [127; 3]);
    }
}
