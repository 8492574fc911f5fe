//! How recorded steps run again.

use crate::{Adapter, Error, Result, vulkan};

/// Environment variable that forces one, by [`Replay::name`].
const REPLAY_VARIABLE: &str = "GLOBE_REPLAY";

/// What hands a recorded step to the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replay {
    /// One command buffer, recorded once: the host does the same little for every step.
    Vulkan,
    /// wgpu, which encodes the step every time: runs everywhere.
    Wgpu,
}

impl Replay {
    /// Its name, as in `GLOBE_REPLAY`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Vulkan => "vulkan",
            Self::Wgpu => "wgpu",
        }
    }

    /// What the adapter can do, the fastest first.
    pub fn choices(adapter: &Adapter) -> &'static [Self] {
        match vulkan::IS_DRIVEN && adapter.api == "vulkan" {
            true => &[Self::Vulkan, Self::Wgpu],
            false => &[Self::Wgpu],
        }
    }

    /// The first of its choices, unless the environment asks for another.
    ///
    /// # Errors
    /// [`Error::Variant`] if that is none of them.
    pub fn of(adapter: &Adapter) -> Result<Self> {
        let choices = Self::choices(adapter);
        let asked = asked(REPLAY_VARIABLE, choices, Self::name, adapter)?;
        Ok(asked.unwrap_or(choices[0]))
    }
}

/// The one of `choices` that an environment variable names, if it is set.
///
/// # Errors
/// [`Error::Variant`] if it names none of them.
pub(crate) fn asked<T: Copy>(
    variable: &'static str,
    choices: &[T],
    name: impl Fn(T) -> &'static str,
    adapter: &Adapter,
) -> Result<Option<T>> {
    let wanted = std::env::var(variable).unwrap_or_default();
    if wanted.is_empty() {
        return Ok(None);
    }
    let asked = choices.iter().find(|choice| name(**choice) == wanted);
    asked.copied().map(Some).ok_or_else(|| Error::Variant {
        variable,
        wanted,
        adapter: adapter.name.clone(),
        choices: choices.iter().map(|choice| name(*choice)).collect::<Vec<_>>().join(", "),
    })
}
