//! The engine as a JavaScript class.

use std::cell::{OnceCell, RefCell};

use globe_engine::{
    Cancel, Engine, Event, ExifGps, FeatureCache, Generation, LocateResult, SampleResult, Sampling,
    StopReason, locate,
};
use globe_geo::{Gazetteer, Precision};
use globe_image::Photo;
use globe_ops::{AdapterFeatures, Compute, DeviceChoice, open_device_with};
use globe_text::Prompt;
use js_sys::{Array, Function, Uint8Array};
use serde::Serialize;
use wasm_bindgen::prelude::{JsValue, wasm_bindgen};

use crate::error::Failure;
use crate::files::{Folder, JsFiles};
use crate::heap;
use crate::options::{self, LogitsOptions};
use crate::photo;
use crate::start::Stop;

/// Device memory for features of photos, which a page may ask about again.
const FEATURE_BYTES: u64 = 32 << 20;

/// A loaded model with its gazetteer.
#[wasm_bindgen]
pub struct WebEngine {
    engine: Engine,
    /// Read while kernels are compiled.
    gazetteer: OnceCell<Gazetteer>,
    compute: Compute,
    /// Of the last photos: another question about one of them does not read it again.
    features: FeatureCache,
    /// The last result at full precision: it can be shown more coarsely without a second run.
    last: RefCell<Option<LocateResult>>,
}

#[wasm_bindgen]
impl WebEngine {
    /// Loads a model folder. `device` is `gpu` or `cpu`; `subgroups` says that the page asks for
    /// them whenever a device is requested; `progress(done, all)` counts tensors.
    ///
    /// # Errors
    /// What the folder threw, or an error with a code and a sentence.
    pub async fn load(
        files: JsFiles,
        device: String,
        subgroups: bool,
        progress: Function,
    ) -> Result<WebEngine, JsValue> {
        let choice: DeviceChoice = device.parse().map_err(Failure::option)?;
        let granted = AdapterFeatures { subgroups, ..AdapterFeatures::default() };
        let compute = open_device_with(choice, granted).await.map_err(Failure::from)?;
        let folder = Folder::new(files);
        let mut report = |done: usize, all: usize| {
            // A page that throws while it draws progress must not end the load.
            let _ = progress.call2(&JsValue::NULL, &(done as f64).into(), &(all as f64).into());
        };
        let loaded = Engine::load(&folder, compute.clone(), &mut report).await;
        let engine =
            loaded.map_err(|e| folder.thrown().unwrap_or_else(|| Failure::from(e).into()))?;
        let features = FeatureCache::new(FEATURE_BYTES);
        let (gazetteer, last) = Default::default();
        Ok(Self { engine, gazetteer, compute, features, last })
    }

    /// Reads a `.gaz` file, which locating needs, and says which version it is.
    ///
    /// # Errors
    /// Code `Integrity` if the file is damaged.
    #[wasm_bindgen(js_name = readGazetteer)]
    pub fn read_gazetteer(&self, bytes: &[u8]) -> Result<String, JsValue> {
        let gazetteer = Gazetteer::from_bytes(bytes).map_err(Failure::from)?;
        Ok(self.gazetteer.get_or_init(|| gazetteer).version().to_owned())
    }

    /// Name of the adapter that computes.
    pub fn adapter(&self) -> String {
        self.engine.adapter().to_owned()
    }

    /// Which kernels multiply by packed matrices: `lanes`, `quads`, `subgroups` or `teams`.
    pub fn kernels(&self) -> String {
        self.compute.variant().name().to_owned()
    }

    /// Architecture of the model.
    pub fn architecture(&self) -> String {
        self.engine.model().architecture().to_owned()
    }

    /// Runs a little text through the model, so that the driver compiles its kernels now.
    ///
    /// # Errors
    /// As [`WebEngine::locate`].
    pub async fn warm(&self) -> Result<(), JsValue> {
        let mut prepared =
            self.engine.prepare(&[], &Prompt::direct(), None).map_err(Failure::from)?;
        prepared.ids.truncate(self.compute.variant().prompt_rows());
        let mut session = self.engine.prefill(&prepared, None, 2).map_err(Failure::from)?;
        let generation = greedy(2);
        let generated =
            self.engine.generate(&mut session, &generation, &Cancel::default(), &mut |_| {}).await;
        generated.map_err(Failure::from)?;
        Ok(())
    }

    /// Locates an image file; the result is the JSON of `globe locate --format json`.
    /// `on_event(kind, sample, id, text)` hears of every step.
    ///
    /// # Errors
    /// Code `Image`, `Option`, `Aborted`, `DeviceLost` or `Engine`.
    pub async fn locate(
        &self,
        image: Vec<u8>,
        options: String,
        stop: &Stop,
        on_event: Function,
    ) -> Result<String, JsValue> {
        let (options, precision) = options::locate(&options)?;
        let cancel = stop.0.clone();
        let photo = photo::read(&image)?;
        drop(image);
        let mut report = |event: Event| report(&on_event, event);
        let (engine, gazetteer, features) = (&self.engine, self.gazetteer()?, &self.features);
        let located =
            locate(engine, gazetteer, &photo, &options, features, &cancel, &mut report).await;
        let result = located.map_err(Failure::from)?;
        let shown = json(&at(&result, precision, gazetteer));
        self.last.replace(Some(result));
        shown
    }

    /// The last result at another precision, as JSON; none before the first.
    ///
    /// # Errors
    /// Code `Option` if the precision is not `country`, `region` or `city`.
    pub fn rounded(&self, precision: &str) -> Result<Option<String>, JsValue> {
        let precision: Precision =
            precision.parse().map_err(|e: globe_geo::Error| Failure::option(e.to_string()))?;
        let (gazetteer, last) = (self.gazetteer()?, self.last.borrow());
        last.as_ref().map(|result| json(&at(result, precision, gazetteer))).transpose()
    }

    /// Forgets the last result and what was computed of the photos.
    pub fn forget(&self) {
        self.features.clear();
        self.last.take();
    }

    /// Token ids, logits and greedy tokens of a prompt, as the JSON of `globe logits --json`.
    ///
    /// # Errors
    /// As [`WebEngine::locate`].
    pub async fn logits(&self, images: Array, options: String) -> Result<String, JsValue> {
        let options: LogitsOptions = options::parse(&options)?;
        let photos = images.iter().map(|bytes| photo::read(&Uint8Array::new(&bytes).to_vec()));
        let photos = photos.collect::<Result<Vec<Photo>, Failure>>()?;
        json(&self.compare(&photos, options).await.map_err(Failure::from)?)
    }

    fn gazetteer(&self) -> Result<&Gazetteer, Failure> {
        let missing = || Failure::option("no gazetteer was read; call readGazetteer first");
        self.gazetteer.get().ok_or_else(missing)
    }

    async fn compare(
        &self,
        photos: &[Photo],
        options: LogitsOptions,
    ) -> globe_engine::Result<Logits> {
        let prompt = Prompt { system: options.system, user: options.prompt };
        let photos: Vec<&Photo> = photos.iter().collect();
        let engine = &self.engine;
        let mut prepared = engine.prepare(&photos, &prompt, None)?;
        let features = engine.encode(&mut prepared)?;
        let mut session = engine.prefill(&prepared, features, options.tokens)?;
        let last_logits = session.logits().await?;
        let (generation, cancel) = (greedy(options.tokens), Cancel::default());
        let generated = engine.generate(&mut session, &generation, &cancel, &mut |_| {}).await?;
        let image_grid_thw = prepared.grids.iter().map(|grid| grid.0).collect();
        Ok(Logits { input_ids: prepared.ids, image_grid_thw, last_logits, greedy: generated.ids })
    }

    /// What the model holds, as JSON: bytes by place.
    ///
    /// # Errors
    /// Never in practice: numbers are always JSON.
    pub fn memory(&self) -> Result<String, JsValue> {
        let device = self.compute.memory();
        json(&Memory {
            heap_bytes: heap::held(),
            heap_peak_bytes: heap::peak(),
            device_bytes: device.in_use,
            device_reserved_bytes: device.reserved,
        })
    }

    /// Gives the memory of the adapter back at once.
    pub fn dispose(self) {
        self.compute.destroy();
    }
}

/// Bytes by place.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Memory {
    heap_bytes: usize,
    heap_peak_bytes: usize,
    device_bytes: u64,
    device_reserved_bytes: u64,
}

/// What another implementation is compared with.
#[derive(Serialize)]
struct Logits {
    input_ids: Vec<u32>,
    image_grid_thw: Vec<[usize; 3]>,
    last_logits: Vec<f32>,
    greedy: Vec<u32>,
}

fn greedy(max_tokens: usize) -> Generation {
    let sampling = Sampling::greedy();
    Generation { sampling, seed: 0, sample: 0, max_tokens, ignore_stop: true }
}

fn report(on_event: &Function, event: Event) {
    let (kind, sample, id, text) = match event {
        Event::Prepared { prompt_tokens, image_tokens } => {
            ("prepared", prompt_tokens as f64, image_tokens as f64, "")
        }
        Event::Encoded => ("encoded", 0.0, 0.0, ""),
        Event::Prefilled => ("prefilled", 0.0, 0.0, ""),
        Event::Token { sample, id, text } => ("token", f64::from(sample), f64::from(id), text),
        Event::Ended { sample, text, stop } => {
            let limit = f64::from(u8::from(stop == StopReason::MaxTokens));
            ("ended", f64::from(sample), limit, text)
        }
    };
    let arguments = Array::of4(&kind.into(), &sample.into(), &id.into(), &text.into());
    // A page that throws while it draws a token must not end the answer.
    let _ = on_event.apply(&JsValue::NULL, &arguments);
}

/// The result at a precision. Free text may name anything, so it is withheld below a city.
fn at(result: &LocateResult, precision: Precision, gazetteer: &Gazetteer) -> LocateResult {
    let mut shown = result.clone();
    if precision == Precision::City {
        return shown;
    }
    shown.outcome = result.outcome.rounded(precision, gazetteer);
    for answer in &mut shown.answers {
        *answer = SampleResult { city: None, reasoning: None, text: None, ..answer.clone() };
    }
    let steps = if precision == Precision::Region { 10.0 } else { 1.0 };
    let round = |degrees: f64| (degrees * steps).round() / steps;
    shown.exif_gps = shown.exif_gps.map(|at| ExifGps { lat: round(at.lat), lon: round(at.lon) });
    shown
}

/// A value as JSON text.
pub(crate) fn json(value: &impl Serialize) -> Result<String, JsValue> {
    serde_json::to_string(value).map_err(|error| js_sys::Error::new(&error.to_string()).into())
}
