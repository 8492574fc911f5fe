//! Weights reach their rooms whole and in order, whatever pieces they come in.

use globe_ops::{Compute, Error, PackedMatrix, Uploads, WeightFormat, read_f32, read_i32};
use globe_tests::{gpu, random};
use pollster::block_on;

fn bytes(n: usize, seed: u64) -> Vec<u8> {
    random(n / 4, seed).iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn words(bytes: &[u8]) -> Vec<i32> {
    bytes.as_chunks().0.iter().map(|word| i32::from_le_bytes(*word)).collect()
}

#[test]
fn rooms_keep_what_is_written_by_turns() {
    let sizes = [4, (5 << 20) + 12, 3 << 20, 252];
    let contents: Vec<_> = sizes.iter().zip(1..).map(|(n, seed)| bytes(*n, seed)).collect();
    for compute in [gpu().clone(), Compute::cpu()] {
        let mut uploads = Uploads::begin(&sizes, &compute).unwrap();
        // Longer and shorter than what is handed over at once, by turns.
        let mut pieces: Vec<_> =
            contents.iter().map(|all| all.chunks(all.len() / 12 * 4 + 4)).collect();
        for _ in 0..3 {
            for (room, pieces) in pieces.iter_mut().enumerate() {
                if let Some(piece) = pieces.next() {
                    uploads.write(room, piece).unwrap();
                }
            }
        }
        for (room, expected) in contents.iter().enumerate() {
            let got = block_on(read_i32(uploads.words(room).unwrap())).unwrap();
            assert_eq!(got, words(expected), "room {room}");
        }
    }
}

#[test]
fn values_are_f32() {
    let expected = random(1000, 7);
    let mut uploads = Uploads::begin(&[4000], gpu()).unwrap();
    uploads.write(0, &bytes(4000, 7)).unwrap();
    let got = uploads.values(0).unwrap();
    assert_eq!(block_on(read_f32(got)).unwrap(), expected);
}

#[test]
fn too_much_and_too_little_are_refused() {
    let mut uploads = Uploads::begin(&[8, 8], gpu()).unwrap();
    uploads.write(0, &[0; 4]).unwrap();
    let refused = |result: Result<(), Error>, bytes: usize| {
        let Err(Error::Shape { op: "upload", got, expected, .. }) = result else {
            panic!("{bytes} bytes of 8 are taken")
        };
        assert_eq!((got, expected), (vec![bytes], vec![8]));
    };
    refused(uploads.write(0, &[0; 8]), 12);
    refused(uploads.write(1, &[0; 3]), 3);
    refused(uploads.words(0).map(drop), 4);
    refused(uploads.words(1).map(drop), 0);

    let limit = gpu().max_binding_bytes;
    let result = Uploads::begin(&[4, limit as usize + 4], gpu()).map(drop);
    let Err(Error::TooLarge { size_bytes, limit_bytes }) = result else {
        panic!("a room that cannot be bound is made")
    };
    assert_eq!((size_bytes, limit_bytes), (limit + 4, limit));
}

#[test]
fn rows_and_rooms_must_agree() {
    let sizes = PackedMatrix::room_bytes(WeightFormat::Q4, 64, 3);
    let mut uploads = Uploads::begin(&sizes, gpu()).unwrap();
    for (room, n_bytes) in sizes.iter().enumerate() {
        uploads.write(room, &bytes(*n_bytes, 1)).unwrap();
    }
    let mut matrix = PackedMatrix::new(WeightFormat::Q4, 64, gpu());
    let result = matrix.push_rooms(4, &mut uploads, 0);
    assert!(matches!(result, Err(Error::Shape { op: "push_part", .. })), "{result:?}");
    assert_eq!(matrix.dims(), [0, 64]);

    let result = matrix.push_part(3, bytes(sizes[0], 1).into(), Vec::new().into(), gpu());
    assert!(matches!(result, Err(Error::Shape { what: "scales", .. })), "{result:?}");
}
