//! Subsampled components to full width and height, row by row.
//!
//! Factors of two interpolate with a triangle filter: 3/4 of the nearer sample and 1/4 of the
//! further one. Halves are rounded up and down in turn, so that the image does not get brighter.
//! All other factors repeat samples.

use super::frame::{Component, Frame, Plane};

/// Narrower components are not interpolated horizontally by two.
const MIN_FANCY_WIDTH: usize = 3;

#[derive(Clone, Copy)]
enum Method {
    None,
    Horizontal,
    Vertical,
    Both,
    Repeat([usize; 2]),
}

/// Yields full rows of one component.
pub(super) struct Upsampler<'a> {
    plane: &'a Plane,
    /// Size in samples.
    size: [usize; 2],
    method: Method,
    /// The last interpolated row.
    row: Vec<u8>,
    /// Sums of a row and the next one, for [`Method::Both`].
    sums: Vec<u16>,
}

impl<'a> Upsampler<'a> {
    /// Chooses the method as libjpeg does.
    pub(super) fn new(frame: &Frame, component: &Component, plane: &'a Plane) -> Self {
        let [horizontal, vertical] =
            [0, 1].map(|axis| frame.max_sampling[axis] / component.sampling[axis]);
        let wide = component.size[0] >= MIN_FANCY_WIDTH;
        let method = match (horizontal, vertical) {
            (1, 1) => Method::None,
            (2, 1) if wide => Method::Horizontal,
            (1, 2) => Method::Vertical,
            (2, 2) if wide => Method::Both,
            factors => Method::Repeat(factors.into()),
        };
        Self {
            plane,
            size: component.size,
            method,
            row: vec![0; component.size[0] * horizontal],
            sums: vec![0; component.size[0]],
        }
    }

    /// Row `y` of the full image; at least as wide as that.
    pub(super) fn row(&mut self, y: usize) -> &[u8] {
        let width = self.size[0];
        match self.method {
            Method::None => return self.plane.row(y),
            Method::Horizontal => interpolate_row(&self.plane.row(y)[..width], &mut self.row),
            Method::Vertical => {
                let [near, far] = self.vertical_neighbours(y);
                let bias = 1 + (y & 1) as u16;
                for ((out, &near), &far) in self.row.iter_mut().zip(near).zip(far) {
                    *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
                }
            }
            Method::Both => {
                let [near, far] = self.vertical_neighbours(y);
                for ((sum, &near), &far) in self.sums.iter_mut().zip(near).zip(far) {
                    *sum = 3 * u16::from(near) + u16::from(far);
                }
                interpolate_sums(&self.sums, &mut self.row);
            }
            Method::Repeat([horizontal, vertical]) => {
                let source = self.plane.row(y / vertical);
                for (out, &sample) in self.row.chunks_mut(horizontal).zip(source) {
                    out.fill(sample);
                }
            }
        }
        &self.row
    }

    /// The nearer and the further row of samples; beyond the edges, the edge row is repeated.
    fn vertical_neighbours(&self, y: usize) -> [&'a [u8]; 2] {
        let near = y / 2;
        let far = if y.is_multiple_of(2) { near.saturating_sub(1) } else { near + 1 };
        [near, far.min(self.size[1] - 1)].map(|row| self.plane.row(row))
    }
}

fn interpolate_row(samples: &[u8], out: &mut [u8]) {
    let mix =
        |near: u8, far: u8, bias: u16| ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
    let last = samples.len() - 1;
    let (pairs, _) = out.as_chunks_mut::<2>();
    pairs[0] = [samples[0], mix(samples[0], samples[1], 2)];
    for (pair, window) in pairs[1..].iter_mut().zip(samples.windows(3)) {
        *pair = [mix(window[1], window[0], 1), mix(window[1], window[2], 2)];
    }
    pairs[last] = [mix(samples[last], samples[last - 1], 1), samples[last]];
}

/// As [`interpolate_row`], from column sums of four times the level.
fn interpolate_sums(sums: &[u16], out: &mut [u8]) {
    let mix = |near: u16, far: u16, bias: u16| ((3 * near + far + bias) >> 4) as u8;
    let last = sums.len() - 1;
    let (pairs, _) = out.as_chunks_mut::<2>();
    pairs[0] = [mix(sums[0], sums[0], 8), mix(sums[0], sums[1], 7)];
    for (pair, window) in pairs[1..].iter_mut().zip(sums.windows(3)) {
        *pair = [mix(window[1], window[0], 8), mix(window[1], window[2], 7)];
    }
    pairs[last] = [mix(sums[last], sums[last - 1], 8), mix(sums[last], sums[last], 7)];
}
