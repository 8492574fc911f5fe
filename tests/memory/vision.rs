//! The vision tower: run once per photo, and its memory given back.

use globe_engine::{Cancel, Engine, Error, FeatureCache, LocateOptions, SampleResult, locate};
use globe_geo::Gazetteer;
use globe_image::Photo;
use globe_ops::dispatch_count;
use globe_tests::{Golden, gpu};
use globe_text::Prompt;
use pollster::block_on;

use crate::Alone;

/// Asks one question; the answers and the kernels that were dispatched.
fn ask(engine: &Engine, photo: &Photo, user: &str, features: &FeatureCache) -> (Vec<String>, u64) {
    let options = LocateOptions {
        prompt: Prompt { system: None, user: user.into() },
        samples: 2,
        max_tokens: 6,
        ..LocateOptions::default()
    };
    let gazetteer = Gazetteer::full().unwrap();
    engine.release_kept().unwrap(); // every answer records its steps, and so launches as many kernels
    let before = dispatch_count();
    let (cancel, mut quiet) = (Cancel::default(), |_: globe_engine::Event| {});
    let located = locate(engine, &gazetteer, photo, &options, features, &cancel, &mut quiet);
    let text = |answer: SampleResult| answer.text.unwrap();
    let answers = block_on(located).unwrap().answers.into_iter().map(text).collect();
    (answers, dispatch_count() - before)
}

#[test]
fn a_second_question_about_a_photo_does_not_run_the_tower() {
    let _alone = Alone::new();
    let golden = Golden::open("window56");
    let engine = block_on(Engine::load(&golden.folder, gpu().clone(), &mut |_, _| {})).unwrap();
    let photo = &golden.photos()[0];
    let kept = FeatureCache::new(1 << 20);
    let (first, with_tower) = ask(&engine, photo, "Where is this?", &kept);
    let (second, without) = ask(&engine, photo, "Name the city.", &kept);
    let (expected, alone) = ask(&engine, photo, "Name the city.", &FeatureCache::new(0));
    assert_eq!(second, expected);
    assert_ne!(first, second);
    // Five blocks of the tower, each with several kernels.
    assert!(without + 5 * 4 <= alone, "{without} dispatches, {alone} with the tower");
    assert_eq!(with_tower, alone);

    // Another photo is another entry.
    let turned: Vec<u8> = photo.rgb.iter().rev().copied().collect();
    let turned = Photo::from_rgb(photo.width, photo.height, turned).unwrap();
    assert_eq!(ask(&engine, &turned, "Where is this?", &kept).1, with_tower);
    assert_eq!(
        kept.size_bytes(),
        2 * engine.feature_bytes([photo.height, photo.width], None).unwrap()
    );
}

#[test]
fn a_released_tower_gives_its_memory_back() {
    let alone = Alone::new();
    let golden = Golden::open("window112");
    let mut engine = block_on(Engine::load(&golden.folder, gpu().clone(), &mut |_, _| {})).unwrap();
    let weights = engine.model().weights();
    let kept = FeatureCache::new(1 << 20);
    let photo = &golden.photos()[0];
    let (answers, _) = ask(&engine, photo, "Where is this?", &kept);
    let before = alone.in_use();
    engine.release_vision().unwrap();
    assert!(weights.vision > 100_000, "{weights:?}");
    let freed = before - alone.in_use();
    assert!(freed >= weights.vision, "{freed} bytes freed of {}", weights.vision);
    assert_eq!(engine.model().weights().vision, 0);

    // A photo that was read before can still be asked about, another one cannot.
    assert_eq!(ask(&engine, photo, "Where is this?", &kept).0, answers);
    let mut prepared = engine.prepare(&[photo], &golden.prompt(), None).unwrap();
    let refused = engine.encode(&mut prepared);
    let released = matches!(refused, Err(Error::Model(globe_model::Error::VisionReleased)));
    assert!(released, "{:?}", refused.err());
}
