//! Reading, checking and shuffling of data; `rows.parquet` is written by pyarrow, see `golden/make.py`.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{collections::BTreeSet, fs, path::Path};

use globe_geo::Gazetteer;
use globe_train::{
    Error,
    data::{Dataset, ImageSource, Part, Stream, StreamOptions, check},
};

fn golden(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The photo of a row that decodes.
fn photo() -> Vec<u8> {
    let data = Dataset::open(&golden("rows.parquet"), None).unwrap();
    data.read_block(0).unwrap().remove(0).unwrap().image.bytes().unwrap().into_owned()
}

fn options(seed: u64) -> StreamOptions {
    StreamOptions { seed, ..StreamOptions::default() }
}

#[test]
fn parquet_rows_come_with_photo_place_and_clues() {
    let data = Dataset::open(&golden("rows.parquet"), None).unwrap();
    assert_eq!((data.len(), data.block_rows()), (7, vec![3, 3, 1]));
    let row = data.read_block(1).unwrap().remove(0).unwrap();
    assert_eq!(row.id, "rows.parquet:4");
    assert_eq!((row.country.as_deref(), row.city.as_deref()), (Some("France"), Some("Paris")));
    assert_eq!(row.clues, ["palm tree", "sign 3"]);
    assert_eq!(row.response.as_deref(), Some("<think>Row 3.</think>"));
    assert!(matches!(&row.image, ImageSource::Bytes(b) if b.starts_with(b"\x89PNG")));
    assert_eq!(data.clues().unwrap().len(), 8);
}

#[test]
fn bad_rows_name_file_row_and_column() {
    let data = Dataset::open(&golden("bad.parquet"), None).unwrap();
    let rows = data.read_block(0).unwrap();
    let error = rows[1].as_ref().unwrap_err().to_string();
    let want = "bad.parquet, row 2, column `solution`: no <country>…</country> in `Japan`";
    assert!(rows[0].is_ok() && error.ends_with(want), "{error}");

    let temp = tempfile::tempdir().unwrap();
    for (name, text, want) in [
        (
            "a.jsonl",
            "{\"image\": \"x.png\", \"lat\": 91, \"lon\": 0}\n",
            "row 1, column `lat`: expected a number of degrees up to 90, got the number 91",
        ),
        ("b.jsonl", "\n{\"image\": \"x.png\"\n", "row 2: EOF"),
        (
            "c.jsonl",
            "{\"image\": 7}\n",
            "row 1, column `image`: expected a photo, got the number 7",
        ),
        (
            "d.jsonl",
            "{\"country\": \"x\"}\n",
            "row 1, column `images`: missing or empty; the columns are country",
        ),
        (
            "e.csv",
            "image,lat\nx.png,abc\n",
            "row 1, column `lat`: expected a number of degrees up to 90, got `abc`",
        ),
        ("f.csv", "image,city\nx.png\n", "row 1"),
        (
            "g.jsonl",
            "{\"image\": \"x.png\", \"lat\": 1}\n",
            "column `LON`: latitude without longitude",
        ),
        (
            "h.jsonl",
            "{\"image\": \"x.png\", \"label\": \"maybe\"}\n",
            "column `label`: expected yes or no, got `maybe`",
        ),
        ("i.jsonl", "[]\n", "the line is no JSON object"),
    ] {
        let path = temp.path().join(name);
        fs::write(&path, text).unwrap();
        let error = Dataset::open(&path, None).unwrap_err().to_string();
        assert!(error.contains(want) && error.contains(name), "{name}: {error}");
    }
}

#[test]
fn unusable_paths_say_why() {
    let temp = tempfile::tempdir().unwrap();
    fs::write(temp.path().join("notes.txt"), "x").unwrap();
    fs::write(temp.path().join("not.parquet"), "PAR1 and nothing").unwrap();
    fs::write(temp.path().join("empty.jsonl"), "\n").unwrap();
    let open = |name: &str| Dataset::open(&temp.path().join(name), None).unwrap_err();
    assert!(matches!(open("notes.txt"), Error::DataFormat { .. }));
    assert!(matches!(open("absent.csv"), Error::Io { .. }));
    assert!(matches!(open("not.parquet"), Error::Parquet { .. }));
    assert!(matches!(open("empty.jsonl"), Error::EmptyData { .. }));
}

/// `n` rows with photos in files.
fn table(folder: &Path, n: usize) -> std::path::PathBuf {
    fs::write(folder.join("photo.png"), photo()).unwrap();
    let row =
        |i| format!("{{\"id\": \"{i}\", \"image\": \"photo.png\", \"country\": \"France\"}}\n");
    let path = folder.join("rows.jsonl");
    fs::write(&path, (0..n).map(row).collect::<String>()).unwrap();
    path
}

fn ids(stream: &mut Stream, n: usize) -> Vec<String> {
    (0..n).map(|_| stream.next_sample().unwrap().id).collect()
}

#[test]
fn the_order_depends_on_the_seed_and_goes_on_from_any_point() {
    let temp = tempfile::tempdir().unwrap();
    let path = table(temp.path(), 20);
    let open = |seed| Stream::new(Dataset::open(&path, None).unwrap(), options(seed));
    let all = ids(&mut open(1), 50);
    assert_eq!(all, ids(&mut open(1), 50));
    assert_ne!(all, ids(&mut open(2), 50));
    assert_ne!(all[..20], all[20..40], "every epoch has its own order");
    for epoch in [&all[..20], &all[20..40]] {
        assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 20);
    }
    for cut in [0, 7, 20, 33] {
        let mut first = open(1);
        ids(&mut first, cut);
        let mut second = open(1);
        second.seek(first.cursor());
        assert_eq!(ids(&mut second, 10), all[cut..cut + 10], "cut at {cut}");
    }
    let plain = StreamOptions { shuffle: false, ..options(1) };
    let mut stream = Stream::new(Dataset::open(&path, None).unwrap(), plain);
    assert_eq!(ids(&mut stream, 3), ["0", "1", "2"]);
}

#[test]
fn parquet_streams_leave_out_bad_photos_and_name_them() {
    for window_blocks in [1, 2, 9] {
        let options = StreamOptions { window_blocks, ..options(3) };
        let open = || Stream::new(Dataset::open(&golden("rows.parquet"), None).unwrap(), options);
        let mut stream = open();
        let twice = ids(&mut stream, 12);
        for epoch in twice.chunks(6) {
            assert_eq!(epoch.iter().collect::<BTreeSet<_>>().len(), 6);
            assert!(!epoch.contains(&"rows.parquet:5".into()));
        }
        let mut later = open();
        ids(&mut later, 8);
        let cursor = later.cursor();
        later.seek(cursor);
        assert_eq!(ids(&mut later, 4), twice[8..]);
        let (bad, count) = stream.bad_images();
        assert!(count >= 1 && bad[0].id == "rows.parquet:5", "{bad:?}");
    }
}

#[test]
fn the_split_parts_the_rows() {
    let temp = tempfile::tempdir().unwrap();
    let path = table(temp.path(), 200);
    let all = |part| {
        let options = StreamOptions { eval_fraction: 0.2, part, ..options(5) };
        let mut stream = Stream::new(Dataset::open(&path, None).unwrap(), options);
        let n = stream.epoch_len() as usize;
        ids(&mut stream, n).into_iter().collect::<BTreeSet<_>>()
    };
    let (train, eval) = (all(Part::Train), all(Part::Eval));
    assert!(train.is_disjoint(&eval) && train.len() + eval.len() == 200);
    assert!((20..60).contains(&eval.len()), "{}", eval.len());
}

#[test]
fn no_photo_at_all_is_an_error_and_not_an_endless_loop() {
    let temp = tempfile::tempdir().unwrap();
    let path = table(temp.path(), 3);
    fs::remove_file(temp.path().join("photo.png")).unwrap();
    let mut stream = Stream::new(Dataset::open(&path, None).unwrap(), options(1));
    let error = stream.next_sample().unwrap_err().to_string();
    assert!(
        error.starts_with("none of 3 photos can be used; first: ") && error.contains("photo.png"),
        "{error}"
    );
}

#[test]
fn check_reads_everything_and_counts() {
    let gazetteer = Gazetteer::full().unwrap();
    let got = check(&golden("rows.parquet"), None, &gazetteer).unwrap();
    assert_eq!((got.rows, got.bad_rows.count, got.bad_images.count), (7, 0, 1));
    assert_eq!(got.bad_images.listed[0].at, "rows.parquet:5");
    assert_eq!((got.fields["clues"], got.fields["label"], got.countries["France"]), (7, 0, 3));
    assert_eq!(got.pixels, Some((48, 84)));
    assert!(!got.is_clean() && got.to_string().contains("bad photos (left out): 1"));

    let temp = tempfile::tempdir().unwrap();
    let csv = "IMG_ID,LAT,LON,city,country\nphoto.png,48.8,2.3,Paris,France\nphoto.png,1,1,Xyzzyville,France\nphoto.png,1,200,,\n";
    fs::write(temp.path().join("photo.png"), photo()).unwrap();
    fs::write(temp.path().join("test.csv"), csv).unwrap();
    let got = check(temp.path(), None, &gazetteer).unwrap();
    assert_eq!((got.rows, got.bad_rows.count, got.duplicates.count), (3, 1, 1));
    assert_eq!(got.unknown_places.listed[0].what, "Xyzzyville, France");
    assert!(got.bad_rows.listed[0].what.contains("test.csv, row 3, column `LON`"));
}
