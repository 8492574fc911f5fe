use super::*;
use crate::trainer::AnswerReport;

fn sample(id: &str, text: &str) -> SampleReport {
    let answer = |text: &str, total: Option<f64>| AnswerReport {
        text: text.into(),
        parts: vec![total, None],
        total,
        advantage: total.unwrap_or(0.0) - 0.5,
        truncated: false,
        tokens: 7,
    };
    SampleReport {
        id: id.into(),
        truth: "Paris, France".into(),
        image: b"\x89PNG rest".to_vec(),
        names: vec!["geo".into(), "visual".into()],
        answers: vec![answer("plain", Some(0.25)), answer(text, Some(1.0)), answer("none", None)],
    }
}

fn start(step: u64) -> TrainEvent<'static> {
    TrainEvent::Started { step, total: 9, weights: &[] }
}

#[test]
fn the_page_shows_answers_as_text_and_each_photo_once() {
    let temp = tempfile::tempdir().unwrap();
    let metrics = temp.path().join("metrics.jsonl");
    fs::write(&metrics, "{\"step\":1,\"reward\":0.5}\n{\"step\":2,\"reward\":0.75}\n").unwrap();
    let mut report = Report::new(temp.path().join("report"), &metrics);
    report.on(&start(0)).unwrap();
    let attack = "</pre><script>alert(1)</script><img src=x onerror='y'>";
    let samples = [sample("a & b", attack), sample("c", "second")];
    report.on(&TrainEvent::Samples { step: 0, samples: &samples }).unwrap();
    let page = fs::read_to_string(report.path()).unwrap();
    assert_eq!(page.matches("<script>").count(), 1, "only our own");
    assert!(page.contains("&lt;/pre&gt;&lt;script&gt;alert(1)") && page.contains("a &amp; b"));
    assert!(page.contains("reward <b>0.750</b>") && page.contains("visual none"));
    let best = page.find("&lt;/pre").unwrap();
    assert!(best < page.rfind("<pre>plain").unwrap(), "the best answer comes first");
    assert!(!page.contains("http"), "nothing comes from elsewhere");
    assert_eq!(fs::read_dir(temp.path().join("report/photos")).unwrap().count(), 1);
}

#[test]
fn going_on_keeps_what_was_sampled_before() {
    let temp = tempfile::tempdir().unwrap();
    let new = || Report::new(temp.path(), temp.path().join("absent"));
    let mut first = new();
    first.on(&start(0)).unwrap();
    for step in [0, 10, 20] {
        let samples = [sample(&format!("at-{step}"), "x")];
        first.on(&TrainEvent::Samples { step, samples: &samples }).unwrap();
    }
    // From the checkpoint of step 10: its generation is made again.
    let mut second = new();
    second.on(&start(10)).unwrap();
    second.on(&TrainEvent::Samples { step: 10, samples: &[sample("again", "x")] }).unwrap();
    second.on(&TrainEvent::Ended { step: 10, complete: true }).unwrap();
    let page = fs::read_to_string(second.path()).unwrap();
    assert!(page.contains("at-0") && page.contains("again"));
    assert!(!page.contains("at-10") && !page.contains("at-20"));
    let before = fs::read(second.path()).unwrap();
    rewrite(temp.path(), &temp.path().join("absent")).unwrap();
    assert_eq!(fs::read(second.path()).unwrap(), before);
}

#[test]
fn escaping_leaves_no_markup() {
    assert_eq!(
        html::escape("<a href=\"x\">'&'</a>"),
        "&lt;a href=&quot;x&quot;&gt;&#39;&amp;&#39;&lt;/a&gt;"
    );
}
