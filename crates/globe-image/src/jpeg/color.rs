//! Components to RGB: the colour space a file means, and libjpeg's and Pillow's arithmetic.

use super::frame::{Frame, Plane};
use super::upsample::Upsampler;

/// What the components are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Space {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    /// CMYK whose first three channels are coded as YCbCr.
    Ycck,
}

impl Space {
    /// JPEG files do not say; this is libjpeg's guess.
    pub(super) fn guess(frame: &Frame, jfif: bool, adobe_transform: Option<u8>) -> Self {
        let ids: Vec<u8> = frame.components.iter().map(|component| component.id).collect();
        match (&ids[..], adobe_transform) {
            ([_], _) => Self::Grey,
            ([_, _, _], _) if jfif => Self::YCbCr,
            ([_, _, _], Some(0)) | (b"RGB", None) => Self::Rgb,
            ([_, _, _], _) => Self::YCbCr,
            (_, None | Some(0)) => Self::Cmyk,
            _ => Self::Ycck,
        }
    }
}

/// RGB of the whole image, `[height, width, 3]`.
pub(super) fn to_rgb(space: Space, frame: &Frame, planes: &[Plane]) -> Vec<u8> {
    let mut upsamplers: Vec<_> = std::iter::zip(&frame.components, planes)
        .map(|(component, plane)| Upsampler::new(frame, component, plane))
        .collect();
    let mut rgb = vec![0; frame.width * frame.height * 3];
    for (y, out) in rgb.chunks_mut(frame.width * 3).enumerate() {
        let rows: Vec<&[u8]> = upsamplers.iter_mut().map(|part| part.row(y)).collect();
        let (out, _) = out.as_chunks_mut::<3>();
        match (space, &rows[..]) {
            (Space::Grey, [grey]) => out.iter_mut().zip(*grey).for_each(|(out, &l)| *out = [l; 3]),
            (Space::Rgb, &[r, g, b]) => fill(out, [r, g, b], |rgb| rgb),
            (Space::YCbCr, &[y, cb, cr]) => fill(out, [y, cb, cr], from_ycbcr),
            // Pillow takes every CMYK file as inverted, which Adobe's are.
            (Space::Cmyk, &[c, m, y, k]) => fill(out, [c, m, y, k], |[c, m, y, k]| {
                from_cmyk([255 - c, 255 - m, 255 - y, 255 - k])
            }),
            (Space::Ycck, &[y, cb, cr, k]) => fill(out, [y, cb, cr, k], |[y, cb, cr, k]| {
                // YCbCr of the inverted channels: two inversions that cancel out.
                let [c, m, y] = from_ycbcr([y, cb, cr]);
                from_cmyk([c, m, y, 255 - k])
            }),
            _ => unreachable!("the space is guessed from the number of components"),
        }
    }
    rgb
}

fn fill<const N: usize>(
    out: &mut [[u8; 3]],
    rows: [&[u8]; N],
    convert: impl Fn([u8; N]) -> [u8; 3],
) {
    let rows = rows.map(|row| &row[..out.len()]);
    for (x, out) in out.iter_mut().enumerate() {
        *out = convert(rows.map(|row| row[x]));
    }
}

/// libjpeg's conversion: constants with 16 fraction bits; red and blue are rounded on their own,
/// green's two terms together.
#[inline(always)]
fn from_ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    const HALF: i32 = 1 << 15;
    let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
    let red = (91_881 * cr + HALF) >> 16;
    let green = (-22_554 * cb - 46_802 * cr + HALF) >> 16;
    let blue = (116_130 * cb + HALF) >> 16;
    [red, green, blue].map(|offset| (y + offset).clamp(0, 255) as u8)
}

/// Pillow's conversion.
#[inline(always)]
fn from_cmyk([c, m, y, k]: [u8; 4]) -> [u8; 3] {
    let white = u32::from(255 - k);
    [c, m, y].map(|ink| {
        let product = u32::from(ink) * white + 128;
        (white - (((product >> 8) + product) >> 8)) as u8
    })
}
