//! How workgroups add up.

use std::sync::OnceLock;

use burn::backend::wgpu::CubeTensor;
use globe_shaders::Reduce;

use crate::replay::asked;
use crate::{Adapter, Result};

/// Environment variable that forces one, by [`Reduce::name`].
const REDUCE_VARIABLE: &str = "GLOBE_REDUCE";

/// What an adapter can do, the fastest first. Only software has subgroups of one size that small, of which a workgroup is
/// one; it pays for every barrier.
fn choices(subgroup_size: (u32, u32)) -> &'static [Reduce] {
    match subgroup_size {
        (4, 4) => &[Reduce::Four, Reduce::Wide],
        (8, 8) => &[Reduce::Eight, Reduce::Wide],
        _ => &[Reduce::Wide],
    }
}

/// What an adapter can do, the fastest first.
pub fn reduce_choices(adapter: &Adapter) -> &'static [Reduce] {
    choices(adapter.subgroup_size)
}

/// The first of its choices, unless the environment asks for another.
///
/// # Errors
/// [`crate::Error::Variant`] if that is none of them.
pub fn reduce_of(adapter: &Adapter) -> Result<Reduce> {
    let choices = reduce_choices(adapter);
    Ok(asked(REDUCE_VARIABLE, choices, Reduce::name, adapter)?.unwrap_or(choices[0]))
}

/// How they add up on the device of a tensor.
pub(crate) fn reduce(tensor: &CubeTensor) -> Reduce {
    // Read once: it was checked when the device was opened.
    static FORCED: OnceLock<String> = OnceLock::new();
    let forced = FORCED.get_or_init(|| std::env::var(REDUCE_VARIABLE).unwrap_or_default());
    let hardware = &tensor.client.properties().hardware;
    // CubeCL hides the operations of software adapters, but one that names the size of its subgroups has them.
    let choices = choices((hardware.plane_size_min, hardware.plane_size_max));
    *choices.iter().find(|choice| choice.name() == forced).unwrap_or(&choices[0])
}
