//! The whole model against transformers in float32, on the adapter and on the oracle.

use globe_engine::{Cancel, Engine, Event, Generation, Sampling};
use globe_model::{Model, Precision, TraceStage, VisionLayout};
use globe_ops::{Compute, Device, Tensor};
use globe_tests::{GOLDENS, Golden, assert_close, assert_close_scaled, gpu, values};
use globe_text::Prompt;

/// Of the largest logit; the reference itself is uncertain by up to 6e-6 of it.
const LOGIT_TOL: f32 = 1e-4;
/// Of the largest activation of the same tensor.
const LAYER_TOL: f32 = 1e-4;
/// Patches are table look-ups on both sides.
const PIXEL_TOL: f32 = 1e-6;

fn engine(golden: &Golden, compute: &Compute) -> Engine {
    engine_as(golden, compute, Precision::Stored)
}

fn engine_as(golden: &Golden, compute: &Compute, precision: Precision) -> Engine {
    let (folder, compute) = (&golden.folder, compute.clone());
    pollster::block_on(Engine::load_as(folder, compute, precision, &mut |_, _| {})).unwrap()
}

fn check(golden: &Golden, what: &str, got: &[f32], tolerance: f32) {
    let named = format!("{}: {what}", golden.name);
    assert_close_scaled(&named, got, &golden.floats(what), tolerance);
}

fn greedy(engine: &Engine, session: &mut globe_engine::Session) -> Vec<i32> {
    let sampling = Sampling::greedy();
    let generation = Generation { sampling, seed: 0, sample: 0, max_tokens: 32, ignore_stop: true };
    let (cancel, mut on_event) = (Cancel::default(), |_: Event| {});
    let answer = engine.generate(session, &generation, &cancel, &mut on_event);
    pollster::block_on(answer).unwrap().ids.iter().map(|id| *id as i32).collect()
}

fn check_prompt(golden: &Golden, engine: &Engine, prefix: &str, prompt: &Prompt, images: bool) {
    let photos = if images { golden.photos() } else { vec![] };
    let mut prepared = engine.prepare(&photos.iter().collect::<Vec<_>>(), prompt, None).unwrap();
    let ids: Vec<i32> = prepared.ids.iter().map(|id| *id as i32).collect();
    assert_eq!(ids, golden.ints(&format!("{prefix}input_ids")), "{}: ids", golden.name);
    if images {
        let grids: Vec<i32> = prepared.grids.iter().flat_map(|g| g.0.map(|n| n as i32)).collect();
        assert_eq!(grids, golden.ints("image_grid_thw"), "{}: grids", golden.name);
    }
    let features = engine.encode(&mut prepared).unwrap();
    let mut session = engine.prefill(&prepared, features, 32).unwrap();
    let logits = pollster::block_on(session.logits()).unwrap();
    check(golden, &format!("{prefix}last_logits"), &logits, LOGIT_TOL);
    for run in ["first", "again, from the same session"] {
        let expected = golden.ints(&format!("{prefix}greedy"));
        assert_eq!(greedy(engine, &mut session), expected, "{}: {run}", golden.name);
    }
}

fn check_all(compute: &Compute, precision: Precision) {
    for name in GOLDENS {
        let golden = Golden::open(name);
        let engine = engine_as(&golden, compute, precision);
        check_prompt(&golden, &engine, "", &golden.prompt(), true);
        check_prompt(&golden, &engine, "text_only.", &golden.text_only_prompt(), false);
    }
}

#[test]
fn tokens_and_logits_match_on_the_adapter() {
    for &variant in globe_tests::variants().iter().filter(|variant| !variant.rounds()) {
        check_all(&gpu().clone().with_variant(variant), Precision::Stored);
    }
}

#[test]
fn tokens_and_logits_match_on_the_adapter_by_reference() {
    check_all(gpu(), Precision::Reference);
}

#[test]
fn tokens_and_logits_match_on_the_oracle() {
    check_all(&Compute::cpu(), Precision::Reference);
}

/// Rows of `x: [rows, width]` in the order of `order`.
fn reorder(x: &[f32], order: &[i32]) -> Vec<f32> {
    let width = x.len() / order.len();
    order.iter().flat_map(|row| x[*row as usize * width..][..width].to_vec()).collect()
}

fn check_vision(golden: &Golden, engine: &Engine) {
    let Model::Qwen2_5Vl(model) = engine.model();
    let photos = golden.photos();
    let prompt = golden.prompt();
    let prepared = engine.prepare(&photos.iter().collect::<Vec<_>>(), &prompt, None).unwrap();
    check_pixels(golden, &prepared.pixel_values);
    let layout = VisionLayout::new(&prepared.grids, &model.config().vision).unwrap();
    let mut seen = Vec::new();
    let mut trace = |stage, x: &Tensor<2>| seen.push((stage, values(x.clone())));
    let features = model.encode_images(prepared.pixel_values, &prepared.grids, &mut trace).unwrap();
    let n_blocks = model.config().vision.depth;
    assert_eq!(seen.len(), n_blocks + 2, "every block is traced");
    for (stage, x) in seen {
        match stage {
            TraceStage::PatchEmbed => {
                let expected = reorder(&golden.floats("vision.patch_embed"), &layout.patch_order);
                assert_close("vision.patch_embed", &x, &expected, LAYER_TOL);
            }
            TraceStage::VisionBlock(i) => {
                check(golden, &format!("vision.block.{i}"), &x, LAYER_TOL);
            }
            TraceStage::Merger => check(golden, "vision.merger", &x, LAYER_TOL),
            TraceStage::TextLayer(_) => unreachable!("the tower has no text layer"),
        }
    }
    check_text(golden, engine, &prepared.ids, &prepared.grids, features);
}

fn check_pixels(golden: &Golden, pixel_values: &[f32]) {
    if golden.has("pixel_values") {
        check(golden, "pixel_values", pixel_values, PIXEL_TOL);
    } else {
        let width = golden.floats("pixel_values.first_last").len() / 2;
        let first_last =
            [&pixel_values[..width], &pixel_values[pixel_values.len() - width..]].concat();
        check(golden, "pixel_values.first_last", &first_last, PIXEL_TOL);
    }
}

fn check_text(
    golden: &Golden,
    engine: &Engine,
    ids: &[u32],
    grids: &[globe_model::ImageGrid],
    features: Tensor<2>,
) {
    let Model::Qwen2_5Vl(model) = engine.model();
    let mut cache = model.cache(ids.len(), 0, 1);
    let mut n_layers = 0;
    let mut trace = |stage, x: &Tensor<2>| {
        let TraceStage::TextLayer(i) = stage else { unreachable!("the text model has no tower") };
        let [tokens, width] = x.dims();
        let last = values(x.clone()).split_off((tokens - 1) * width);
        check(golden, &format!("text.layer.{i}.last"), &last, LAYER_TOL);
        n_layers += 1;
    };
    model.prefill(ids, Some(features), grids, &mut cache, 1, &mut trace).unwrap();
    assert_eq!(n_layers, model.config().text.num_hidden_layers, "every layer is traced");
}

fn check_stages(compute: &Compute) {
    for name in GOLDENS {
        let golden = Golden::open(name);
        check_vision(&golden, &engine(&golden, compute));
    }
}

#[test]
fn every_block_matches_on_the_adapter() {
    check_stages(gpu());
}

#[test]
fn every_block_matches_on_the_oracle() {
    check_stages(&Compute::cpu());
}

#[test]
fn positions_match() {
    for name in GOLDENS {
        let golden = Golden::open(name);
        let config = pollster::block_on(Model::inspect(&golden.folder)).unwrap().config;
        let ids: Vec<u32> = golden.ints("input_ids").iter().map(|id| *id as u32).collect();
        let grids: Vec<_> = golden
            .ints("image_grid_thw")
            .chunks(3)
            .map(|g| globe_model::ImageGrid([g[0] as usize, g[1] as usize, g[2] as usize]))
            .collect();
        let merge = config.vision.spatial_merge_size;
        let positions =
            globe_model::mrope_positions(&ids, config.image_token_id, &grids, merge).unwrap();
        assert_eq!(positions.axes.concat(), golden.ints("position_ids"), "{name}");
        assert_eq!([positions.delta].to_vec(), golden.ints("rope_delta"), "{name}");
    }
}

#[test]
fn the_device_of_the_oracle_is_the_cpu() {
    assert_eq!(Compute::cpu().device, Device::flex());
}
