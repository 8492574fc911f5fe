//! `globe compare` as its users see it.

use std::fs;
use std::path::Path;

use globe_tests::golden_root;
use serde_json::Value;

use crate::cli::globe;

fn converted(folder: &Path, bits: u32) -> String {
    let out = folder.join(bits.to_string()).display().to_string();
    let vision = bits.max(8);
    let line = format!(
        "convert --from tied --adapter training/weak --out {out} --bits {bits} --vision-bits {vision} \
         --quiet"
    );
    globe(&line).expect(0);
    out
}

#[test]
fn quantization_is_measured_whatever_the_model_says() {
    let temp = tempfile::tempdir().unwrap();
    let [full, q8, q4] = [16, 8, 4].map(|bits| converted(temp.path(), bits));
    let images = temp.path().join("images");
    fs::create_dir(&images).unwrap();
    // To the first of them the model answers with an image token, which must not be read as an image.
    for name in ["alpha_100x76.png", "plain_56x84.png"] {
        fs::copy(golden_root().join("images").join(name), images.join(name)).unwrap();
    }
    let question = temp.path().join("question.txt");
    fs::write(&question, "Which country and city is this?").unwrap();
    let (images, question) = (images.display(), question.display());
    let measure = |b: &str, more: &str| -> Value {
        let line = format!(
            "compare {full} {b} --images {images} --max-pixels 9408 --tokens 32 --json{more}"
        );
        serde_json::from_str(&globe(&line).expect(0).stdout).unwrap()
    };
    let number = |report: &Value, name: &str| report[name].as_f64().unwrap();

    let same = measure(&full, "");
    assert_eq!(number(&same, "top1_agreement"), 1.0, "{same}");
    assert!(number(&same, "mean_kl").abs() < 1e-9, "{same}");
    assert_eq!(same["images"].as_array().unwrap().len(), 2);

    // Asked what it was trained on, the model is sure, and rounding turns none of its tokens.
    let asked = format!(" --prompt {question}");
    let (fine, coarse) = (measure(&q8, &asked), measure(&q4, &asked));
    assert!(number(&fine, "top1_agreement") >= 0.99, "{fine}");
    assert!(number(&fine, "mean_kl") < number(&coarse, "mean_kl"), "{fine} {coarse}");
}
