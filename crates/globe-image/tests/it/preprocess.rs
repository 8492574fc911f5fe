//! Patches against transformers' Qwen2-VL processor, and its configuration files.

use globe_image::{DecodeLimits, Error, Filter, Photo, PreprocessorConfig, decode, preprocess};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::golden;

/// Golden values are printed with nine digits, which identify an f32.
#[derive(Deserialize)]
struct Case {
    name: String,
    config: Value,
    width: usize,
    height: usize,
    seed: u32,
    grid_thw: [usize; 3],
    shape: [usize; 2],
    sha256: String,
    values: Option<Vec<f32>>,
}

fn config(json: &Value) -> PreprocessorConfig {
    PreprocessorConfig::from_json(json.to_string().as_bytes()).unwrap()
}

#[test]
fn patches_are_bit_exact() {
    for case in golden::json::<Vec<Case>>("patches.json") {
        let name = &case.name;
        let rgb = golden::noise(case.width, case.height, case.seed);
        let photo = Photo::from_rgb(case.width, case.height, rgb).unwrap();
        let patches = preprocess(&photo, &config(&case.config), None).unwrap();
        assert_eq!(patches.grid_thw, case.grid_thw, "{name}");
        assert_eq!([patches.rows(), patches.row_len()], case.shape, "{name}");
        for (idx, (got, expected)) in
            patches.pixel_values.iter().zip(case.values.iter().flatten()).enumerate()
        {
            assert_eq!(got, expected, "{name}: value {idx} of shape {:?}", case.shape);
        }
        let bytes: Vec<u8> = patches.pixel_values.iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(golden::sha256(&bytes), case.sha256, "{name}");
    }
}

#[test]
fn file_to_patches() {
    let bytes = golden::photo("gps_north_east.jpg");
    let photo = decode(&bytes, &DecodeLimits::default()).unwrap();
    let patches = preprocess(&photo, &PreprocessorConfig::default(), None).unwrap();
    // 11x7 stored, 7x11 upright, enlarged to at least 56 * 56 pixels.
    assert_eq!(patches.grid_thw, [1, 6, 4]);
    assert_eq!(patches.pixel_values.len(), 24 * 3 * 2 * 14 * 14);
    assert!(patches.pixel_values.iter().all(|value| value.is_finite()));
}

#[test]
fn caller_can_lower_max_pixels() {
    let photo = Photo::from_rgb(560, 280, golden::noise(560, 280, 1)).unwrap();
    let config = PreprocessorConfig::default();
    let area = |limit| {
        let [_, h, w] = preprocess(&photo, &config, limit).unwrap().grid_thw;
        h * w * 14 * 14
    };
    assert_eq!(area(None), 560 * 280);
    assert!((56 * 56..=40_000).contains(&area(Some(40_000))));
    let got = preprocess(&photo, &config, Some(3000));
    assert!(
        matches!(got, Err(Error::PixelLimits { max_pixels: 3000, floor: 3136, .. })),
        "{got:?}"
    );
}

#[test]
fn wrong_photos_are_errors() {
    let config = PreprocessorConfig { do_resize: false, ..PreprocessorConfig::default() };
    let photo = Photo::from_rgb(30, 28, vec![0; 30 * 28 * 3]).unwrap();
    let got = preprocess(&photo, &config, None);
    assert!(matches!(got, Err(Error::NotDivisible { factor: 28, .. })), "{got:?}");

    let cut = Photo { height: 29, ..photo };
    let got = preprocess(&cut, &PreprocessorConfig::default(), None);
    assert!(matches!(got, Err(Error::PhotoSize { .. })), "{got:?}");
    let got = Photo::from_rgb(0, 0, Vec::new());
    assert!(matches!(got, Err(Error::PhotoSize { .. })), "{got:?}");
}

#[test]
fn pixel_limits_in_every_layout() {
    let layouts = [
        json!({"min_pixels": 6272, "max_pixels": 200704}),
        json!({"size": {"shortest_edge": 6272, "longest_edge": 200704}}),
        json!({"size": {"min_pixels": 6272, "max_pixels": 200704}}),
        json!({"min_pixels": 6272.0, "max_pixels": 200704, "size": {"shortest_edge": 1, "longest_edge": 2}}),
        json!({"image_processor": {"min_pixels": 6272, "max_pixels": 200704}, "processor_class": "x"}),
        json!({"min_pixels": null, "size": {"shortest_edge": 6272, "max_pixels": 200704}}),
    ];
    for layout in layouts {
        let config = config(&layout);
        assert_eq!((config.min_pixels, config.max_pixels), (6272, 200_704), "{layout}");
    }
    let default = config(&json!({"image_processor_type": "Qwen2VLImageProcessor"}));
    assert_eq!(default, PreprocessorConfig::default());
    assert_eq!((default.min_pixels, default.max_pixels), (3136, 1_003_520));
}

#[test]
fn published_config_is_read() {
    let config = config(&json!({
        "min_pixels": 3136, "max_pixels": 12845056, "patch_size": 14, "temporal_patch_size": 2,
        "merge_size": 2, "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711], "resample": 2,
        "image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2_5_VLProcessor"
    }));
    let expected = PreprocessorConfig {
        max_pixels: 12_845_056,
        resample: Filter::Bilinear,
        ..PreprocessorConfig::default()
    };
    assert_eq!(config, expected);
}

#[test]
fn bad_config_names_the_field() {
    let cases = [
        (json!({"patch_size": 0}), "patch_size"),
        (json!({"patch_size": -14}), "patch_size"),
        (json!({"patch_size": "14"}), "patch_size"),
        (json!({"merge_size": 1e9}), "merge_size"),
        (json!({"temporal_patch_size": 1.5}), "temporal_patch_size"),
        (json!({"image_std": [0.5, 0.0, 0.5]}), "image_std"),
        (json!({"image_std": [0.5, -0.5, 0.5]}), "image_std"),
        (json!({"image_std": 1e-60}), "image_std"),
        (json!({"image_mean": [0.5, 0.5]}), "image_mean"),
        (json!({"rescale_factor": 0}), "rescale_factor"),
        (json!({"resample": 1}), "resample"),
        (json!({"do_resize": 1}), "do_resize"),
        (json!({"min_pixels": 0}), "min_pixels"),
        (json!({"min_pixels": 1e15}), "min_pixels"),
        (json!({"max_pixels": 100}), "max_pixels"),
        (json!({"size": 448}), "size"),
        (json!({"size": {"shortest_edge": -1}}), "shortest_edge"),
        (json!([1]), "image_processor"),
    ];
    for (json, expected) in cases {
        match PreprocessorConfig::from_json(json.to_string().as_bytes()) {
            Err(Error::Config { field, problem }) => {
                // 1e15 pixels also exceed the default maximum; either field may be blamed.
                assert!(
                    field == expected || json == json!({"min_pixels": 1e15}),
                    "{json}: {field} {problem}"
                );
            }
            other => panic!("{json}: {other:?}"),
        }
    }
    let got = PreprocessorConfig::from_json(b"{");
    assert!(matches!(got, Err(Error::ConfigJson(_))), "{got:?}");
}
