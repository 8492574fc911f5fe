//! `preprocessor_config.json` of the Qwen2-VL family, in every layout in use.

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::resize::Filter;
use crate::smart_resize::smart_resize;

/// How a photo becomes patches. The defaults are those of `transformers`' Qwen2-VL processor.
///
/// `do_convert_rgb` is accepted in the file and has no effect: a [`crate::Photo`] is always RGB.
#[derive(Debug, Clone, PartialEq)]
pub struct PreprocessorConfig {
    /// Edge of a patch in pixels.
    pub patch_size: usize,
    /// Frames per patch; a still image is repeated.
    pub temporal_patch_size: usize,
    /// Edge in patches of the square that becomes one language-model token.
    pub merge_size: usize,
    /// Smallest `height * width` after resizing, in pixels.
    pub min_pixels: usize,
    /// Largest `height * width` after resizing, in pixels.
    pub max_pixels: usize,
    /// Whether to resize; otherwise the photo must fit the patch grid as it is.
    pub do_resize: bool,
    /// Resampling filter.
    pub resample: Filter,
    /// Whether to multiply samples by `rescale_factor`.
    pub do_rescale: bool,
    /// Usually 1/255.
    pub rescale_factor: f64,
    /// Whether to subtract `image_mean` and divide by `image_std`.
    pub do_normalize: bool,
    /// Mean per channel (R, G, B), after rescaling.
    pub image_mean: [f64; 3],
    /// Standard deviation per channel (R, G, B), after rescaling.
    pub image_std: [f64; 3],
}

impl Default for PreprocessorConfig {
    fn default() -> Self {
        Self {
            patch_size: 14,
            temporal_patch_size: 2,
            merge_size: 2,
            min_pixels: 56 * 56,
            max_pixels: 28 * 28 * 1280,
            do_resize: true,
            resample: Filter::Bicubic,
            do_rescale: true,
            rescale_factor: 1.0 / 255.0,
            do_normalize: true,
            image_mean: [0.481_454_66, 0.457_827_5, 0.408_210_73],
            image_std: [0.268_629_54, 0.261_302_58, 0.275_777_11],
        }
    }
}

/// Patches are small squares; anything beyond is a damaged file, and products stay in range.
const MAX_EDGE: u64 = 64;
/// Every image is enlarged to `min_pixels`, so a damaged value would exhaust the memory.
const MAX_MIN_PIXELS: usize = 1 << 26;

impl PreprocessorConfig {
    /// Reads `preprocessor_config.json`, or a `processor_config.json` that nests the same fields
    /// under `image_processor`. Absent and null fields take the defaults.
    ///
    /// The pixel limits come from, in this order: `min_pixels` and `max_pixels`; `size` with
    /// `shortest_edge` and `longest_edge`; `size` with `min_pixels` and `max_pixels`.
    ///
    /// # Errors
    /// [`Error::ConfigJson`] or [`Error::Config`], which names the field.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let value: Value = serde_json::from_slice(json)?;
        let nested = value.get("image_processor").filter(|nested| nested.is_object());
        let object = nested.unwrap_or(&value).as_object().ok_or_else(|| {
            invalid("image_processor", "or the whole file must be a JSON object".into())
        })?;
        let config = Self::from_fields(&Fields(object))?;
        config.validate()?;
        Ok(config)
    }

    fn from_fields(fields: &Fields<'_>) -> Result<Self> {
        let default = Self::default();
        let size = fields.object("size")?;
        let limit = |name: &'static str, edge: &'static str, default: usize| -> Result<usize> {
            let named =
                |found: Option<u64>| found.map(|n| usize::try_from(n).unwrap_or(usize::MAX));
            if let Some(n) = named(fields.count(name, u64::MAX)?) {
                return Ok(n);
            }
            let Some(size) = &size else { return Ok(default) };
            let found = size.count(edge, u64::MAX)?.or(size.count(name, u64::MAX)?);
            Ok(named(found).unwrap_or(default))
        };
        let edge = |name, default: usize| -> Result<usize> {
            Ok(fields.count(name, MAX_EDGE)?.map_or(default, |n| n as usize))
        };
        Ok(Self {
            patch_size: edge("patch_size", default.patch_size)?,
            temporal_patch_size: edge("temporal_patch_size", default.temporal_patch_size)?,
            merge_size: edge("merge_size", default.merge_size)?,
            min_pixels: limit("min_pixels", "shortest_edge", default.min_pixels)?,
            max_pixels: limit("max_pixels", "longest_edge", default.max_pixels)?,
            do_resize: fields.flag("do_resize", default.do_resize)?,
            resample: fields.filter("resample", default.resample)?,
            do_rescale: fields.flag("do_rescale", default.do_rescale)?,
            rescale_factor: fields.number("rescale_factor")?.unwrap_or(default.rescale_factor),
            do_normalize: fields.flag("do_normalize", default.do_normalize)?,
            image_mean: fields.channels("image_mean", default.image_mean)?,
            image_std: fields.channels("image_std", default.image_std)?,
        })
    }

    /// Checks every field, also after a caller has changed some.
    ///
    /// # Errors
    /// [`Error::Config`] with the first field that cannot work.
    pub fn validate(&self) -> Result<()> {
        let edges = [
            ("patch_size", self.patch_size),
            ("temporal_patch_size", self.temporal_patch_size),
            ("merge_size", self.merge_size),
        ];
        for (field, edge) in edges {
            if edge == 0 || edge as u64 > MAX_EDGE {
                return Err(invalid(field, format!("is {edge}: expected 1 to {MAX_EDGE}")));
            }
        }
        if self.min_pixels == 0 || self.min_pixels > MAX_MIN_PIXELS {
            let problem = format!("is {}: expected 1 to {MAX_MIN_PIXELS}", self.min_pixels);
            return Err(invalid("min_pixels", problem));
        }
        if self.max_pixels < self.min_pixels {
            let (min, max) = (self.min_pixels, self.max_pixels);
            return Err(invalid("max_pixels", format!("is {max}, below min_pixels {min}")));
        }
        if !(self.rescale_factor.is_finite() && self.rescale_factor > 0.0) {
            let problem = format!("is {}: expected a positive number", self.rescale_factor);
            return Err(invalid("rescale_factor", problem));
        }
        if self.image_mean.iter().any(|mean| !mean.is_finite()) {
            let problem = format!("is {:?}: expected finite numbers", self.image_mean);
            return Err(invalid("image_mean", problem));
        }
        // Checked as f32, the type it divides in.
        if self.image_std.iter().any(|&std| !((std as f32).is_normal() && std > 0.0)) {
            let problem = format!("is {:?}: expected positive numbers", self.image_std);
            return Err(invalid("image_std", problem));
        }
        Ok(())
    }

    /// Edge in pixels of the square that becomes one language-model token.
    pub fn factor(&self) -> usize {
        self.patch_size * self.merge_size
    }

    /// `[height, width]` in pixels that a photo of this size is resized to. `max_pixels`, if given,
    /// replaces the configured limit.
    ///
    /// # Errors
    /// Those of [`smart_resize`]; [`Error::PixelLimits`] if `max_pixels` is below `min_pixels`;
    /// [`Error::NotDivisible`] if resizing is off and the size does not fit.
    pub fn target_size(
        &self,
        height: usize,
        width: usize,
        max_pixels: Option<usize>,
    ) -> Result<[usize; 2]> {
        let factor = self.factor();
        if !self.do_resize {
            if height == 0
                || width == 0
                || !height.is_multiple_of(factor)
                || !width.is_multiple_of(factor)
            {
                return Err(Error::NotDivisible { width, height, factor });
            }
            return Ok([height, width]);
        }
        let max_pixels = max_pixels.unwrap_or(self.max_pixels);
        if max_pixels < self.min_pixels {
            let why = "min_pixels of the preprocessor config";
            return Err(Error::PixelLimits { max_pixels, floor: self.min_pixels, why });
        }
        smart_resize(height, width, factor, self.min_pixels, max_pixels)
    }
}

fn invalid(field: &'static str, problem: String) -> Error {
    Error::Config { field, problem }
}

/// Typed access to a JSON object; every error names the field. Null counts as absent.
struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    fn get(&self, field: &str) -> Option<&'a Value> {
        self.0.get(field).filter(|value| !value.is_null())
    }

    fn read<T>(
        &self,
        field: &'static str,
        expected: &str,
        convert: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>> {
        self.get(field)
            .map(|value| {
                convert(value)
                    .ok_or_else(|| invalid(field, format!("is {value}: expected {expected}")))
            })
            .transpose()
    }

    /// A whole number from 1 to `max`. Some files write pixel counts as `3136.0`.
    fn count(&self, field: &'static str, max: u64) -> Result<Option<u64>> {
        self.read(field, "a positive whole number", |value| {
            let whole =
                |n: f64| (n >= 1.0 && n < 2f64.powi(53) && n.fract() == 0.0).then_some(n as u64);
            let count = value.as_u64().or_else(|| value.as_f64().and_then(whole))?;
            (1..=max).contains(&count).then_some(count)
        })
    }

    fn number(&self, field: &'static str) -> Result<Option<f64>> {
        self.read(field, "a number", Value::as_f64)
    }

    fn flag(&self, field: &'static str, default: bool) -> Result<bool> {
        Ok(self.read(field, "true or false", Value::as_bool)?.unwrap_or(default))
    }

    fn object(&self, field: &'static str) -> Result<Option<Self>> {
        self.read(field, "an object", |value| value.as_object().map(Fields))
    }

    /// Three numbers, or one for all channels.
    fn channels(&self, field: &'static str, default: [f64; 3]) -> Result<[f64; 3]> {
        let found = self.read(field, "three numbers or one", |value| {
            if let Some(number) = value.as_f64() {
                return Some([number; 3]);
            }
            let numbers: Option<Vec<f64>> = value.as_array()?.iter().map(Value::as_f64).collect();
            numbers?.try_into().ok()
        })?;
        Ok(found.unwrap_or(default))
    }

    fn filter(&self, field: &'static str, default: Filter) -> Result<Filter> {
        let found =
            self.read(field, "2 (bilinear) or 3 (bicubic)", |value| match value.as_u64()? {
                2 => Some(Filter::Bilinear),
                3 => Some(Filter::Bicubic),
                _ => None,
            })?;
        Ok(found.unwrap_or(default))
    }
}
