//! Errors as JavaScript sees them: an `Error` with a `code`, and a sentence for a visitor.

use globe_engine::Error;
use globe_model::Error as ModelError;
use globe_ops::Error as OpsError;
use js_sys::Reflect;
use wasm_bindgen::prelude::JsValue;

/// A failed call.
pub(crate) struct Failure {
    code: &'static str,
    message: String,
}

impl Failure {
    /// An option that cannot be used.
    pub(crate) fn option(message: impl Into<String>) -> Self {
        Self { code: "Option", message: message.into() }
    }
}

impl From<Failure> for JsValue {
    fn from(failure: Failure) -> Self {
        let error = js_sys::Error::new(&failure.message);
        error.set_name("GlobeError");
        // Setting a property of a fresh object cannot fail.
        let _ = Reflect::set(&error, &"code".into(), &failure.code.into());
        error.into()
    }
}

impl From<globe_geo::Error> for Failure {
    fn from(error: globe_geo::Error) -> Self {
        Self { code: "Integrity", message: format!("gazetteer: {error}") }
    }
}

impl From<globe_image::Error> for Failure {
    fn from(error: globe_image::Error) -> Self {
        use globe_image::Error as E;
        // Limits are the page's own: a visitor cannot raise them.
        let message = match &error {
            E::TooManyPixels { width, height, .. } | E::TooMuchMemory { width, height, .. } => {
                format!(
                    "{width} x {height} pixels are more than this page takes; make the photo smaller"
                )
            }
            E::DecoderMemory { .. } => {
                "the photo takes more memory than this page has; make it smaller".into()
            }
            _ => error.to_string(),
        };
        Self { code: "Image", message }
    }
}

impl From<OpsError> for Failure {
    fn from(error: OpsError) -> Self {
        Error::Ops(error).into()
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match &error {
            Error::Sampling { .. } | Error::Option { .. } => Self::option(error.to_string()),
            Error::ContextTooLong { prompt, max_tokens, limit, .. } => Self::option(format!(
                "the prompt of {prompt} tokens and {max_tokens} for the answer exceed the \
                 {limit} this model reads; choose a smaller image or a shorter answer"
            )),
            Error::Cancelled => Self { code: "Aborted", message: "stopped".into() },
            Error::Image(_) => Self { code: "Image", message: error.to_string() },
            Error::NotFinite => Self {
                code: "Engine",
                message: "the model returned numbers that are not finite; verify the model files, \
                          or try another browser or graphics driver"
                    .into(),
            },
            Error::Ops(error) | Error::Model(ModelError::Ops(error)) => ops(error),
            Error::Model(ModelError::TensorTooLarge { size_bytes, limit_bytes, .. }) => {
                too_large(*size_bytes, *limit_bytes)
            }
            Error::BatchBeyondPlan { .. } | Error::Model(ModelError::OverBudget { .. }) => {
                let message = "the model and this question need more memory than there is; choose \
                               a smaller image, a shorter answer or a smaller model";
                Self { code: "DoesNotFit", message: message.into() }
            }
            Error::Mismatch { .. }
            | Error::Differ { .. }
            | Error::Text(_)
            | Error::Model(_)
            | Error::Format(_) => Self { code: "Model", message: error.to_string() },
        }
    }
}

fn ops(error: &OpsError) -> Failure {
    match error {
        OpsError::NoAdapter { reason, .. } => Failure {
            code: "NoWebGpu",
            message: format!("no graphics processor can be used here ({reason})"),
        },
        OpsError::Device { reason } => Failure {
            code: "DeviceLost",
            message: format!("the graphics processor stopped ({reason}); try again"),
        },
        OpsError::TooLarge { size_bytes, limit_bytes } => too_large(*size_bytes, *limit_bytes),
        other => Failure { code: "Engine", message: other.to_string() },
    }
}

fn too_large(size_bytes: u64, limit_bytes: u64) -> Failure {
    let message = format!(
        "a part of {} MB exceeds what this graphics processor takes at once ({} MB); use a smaller model",
        size_bytes.div_ceil(1_000_000),
        limit_bytes / 1_000_000
    );
    Failure { code: "DoesNotFit", message }
}
