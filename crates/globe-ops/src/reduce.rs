//! How workgroups add up.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use burn::backend::wgpu::CubeTensor;
use globe_shaders::Reduce;

use crate::replay::asked;
use crate::{Adapter, Result};

/// Environment variable that forces one, by [`Reduce::name`].
const REDUCE_VARIABLE: &str = "GLOBE_REDUCE";

/// Whether the device that was opened last computes on the host. Which sums suit it is all that hangs on it: each choice is
/// right wherever subgroups have its size.
static IS_SOFTWARE: AtomicBool = AtomicBool::new(false);

/// Notes what is opened.
pub(crate) fn note_opened(is_software: bool) {
    IS_SOFTWARE.store(is_software, Relaxed);
}

/// What an adapter can do, the fastest first. Software pays for every barrier, so a workgroup of one subgroup is best there;
/// a graphics processor with subgroups as small has many more of them.
fn choices(is_software: bool, subgroup_size: (u32, u32)) -> &'static [Reduce] {
    match subgroup_size {
        (4, 4) if is_software => &[Reduce::Four, Reduce::Wide],
        (8, 8) if is_software => &[Reduce::Eight, Reduce::Wide],
        _ => &[Reduce::Wide],
    }
}

/// What an adapter can do, the fastest first.
pub fn reduce_choices(adapter: &Adapter) -> &'static [Reduce] {
    choices(adapter.software, adapter.subgroup_size)
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
    let choices =
        choices(IS_SOFTWARE.load(Relaxed), (hardware.plane_size_min, hardware.plane_size_max));
    *choices.iter().find(|choice| choice.name() == forced).unwrap_or(&choices[0])
}
