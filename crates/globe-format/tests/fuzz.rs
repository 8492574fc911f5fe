//! No bytes, however wrong, may panic; what is accepted must be readable.

use std::{borrow::Cow, collections::BTreeMap};

use globe_format::{Checkpoint, Dtype, INDEX_FILE, MemoryFiles, OutTensor, write_safetensors};
use pollster::block_on;
use proptest::prelude::*;

/// Opens and reads everything; errors are fine, panics are not.
fn exercise(bytes: Vec<u8>) {
    let size = bytes.len() as u64;
    let Ok(w) = block_on(Checkpoint::from_source("fuzz", bytes)) else {
        return;
    };
    assert!(w.total_bytes() <= size, "declared more than the file holds");
    for name in w.names() {
        let info = w.info(name).expect("listed");
        match block_on(w.read_f32(name)) {
            Ok(values) => assert_eq!(values.len(), info.n_elements()),
            Err(error) => assert!(error.to_string().contains(name)),
        }
    }
}

fn with_header(json: &str, data: &[u8]) -> Vec<u8> {
    [&(json.len() as u64).to_le_bytes(), json.as_bytes(), data].concat()
}

fn dtype() -> impl Strategy<Value = Dtype> {
    prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::Bf16), Just(Dtype::U8)]
}

prop_compose! {
    fn out_tensor()(
        dtype in dtype(),
        shape in prop::collection::vec(0_usize..4, 0..4),
        seed in any::<u8>(),
    ) -> OutTensor<'static> {
        let size = dtype.size_bytes() * shape.iter().product::<usize>();
        let data: Vec<u8> = (0..size).map(|i| (i as u8).wrapping_mul(31) ^ seed).collect();
        OutTensor { name: String::new(), dtype, shape, data: Cow::Owned(data) }
    }
}

fn out_tensors() -> impl Strategy<Value = Vec<OutTensor<'static>>> {
    prop::collection::btree_map("[a-z.]{1,12}", out_tensor(), 0..5).prop_map(|tensors| {
        tensors.into_iter().map(|(name, tensor)| OutTensor { name, ..tensor }).collect()
    })
}

/// JSON close to a header: right keys with values of any size and sometimes any type.
fn header_json() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        (0_u64..64).prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| n.to_string()),
        any::<i32>().prop_map(|n| n.to_string()),
        Just("1e999".to_string()),
        Just("null".to_string()),
    ];
    let numbers = prop::collection::vec(number, 0..4).prop_map(|n| format!("[{}]", n.join(",")));
    let name = prop_oneof!["[a-c]", Just("__metadata__".to_string())];
    let dtype = prop_oneof![Just("F32"), Just("BF16"), Just("F99"), Just("F64")];
    let entry =
        (name, dtype, numbers.clone(), numbers).prop_map(|(name, dtype, shape, offsets)| {
            format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
        });
    prop::collection::vec(entry, 0..4).prop_map(|entries| format!("{{{}}}", entries.join(",")))
}

proptest! {
    #[test]
    fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        exercise(bytes);
    }

    #[test]
    fn arbitrary_headers(json in ".{0,200}", data in prop::collection::vec(any::<u8>(), 0..32)) {
        exercise(with_header(&json, &data));
    }

    #[test]
    fn plausible_headers(json in header_json(), n_data in 0_usize..64) {
        exercise(with_header(&json, &vec![0; n_data]));
    }

    #[test]
    fn written_files_round_trip(tensors in out_tensors()) {
        let bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
        exercise(bytes.clone());
        let w = block_on(Checkpoint::from_source("m", bytes)).unwrap();
        prop_assert_eq!(w.names().len(), tensors.len());
        for tensor in &tensors {
            let info = w.info(&tensor.name).unwrap();
            prop_assert_eq!((info.dtype, &info.shape), (tensor.dtype, &tensor.shape));
        }
    }

    #[test]
    fn mutated_files(
        tensors in out_tensors(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let mut bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        exercise(bytes);
    }

    #[test]
    fn cut_files_are_refused(tensors in out_tensors(), cut in any::<prop::sample::Index>()) {
        let bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
        let cut = bytes[..cut.index(bytes.len())].to_vec();
        prop_assert!(block_on(Checkpoint::from_source("m", cut)).is_err());
    }

    #[test]
    fn extended_files_are_refused(tensors in out_tensors(), extra in 1_usize..16) {
        let mut bytes = write_safetensors(&tensors, &BTreeMap::new()).unwrap();
        bytes.extend(vec![0; extra]);
        prop_assert!(block_on(Checkpoint::from_source("m", bytes)).is_err());
    }

    #[test]
    fn arbitrary_indices(json in "[{}\\[\\]\":,a-z_./ 0-9]{0,120}", shard in ".{0,20}") {
        let shard = serde_json::to_string(&shard).unwrap();
        for json in [json, format!(r#"{{"weight_map":{{"a":{shard}}}}}"#)] {
            let files = MemoryFiles::from_iter([(INDEX_FILE, json.into_bytes())]);
            prop_assert!(block_on(Checkpoint::open(&files)).is_err());
        }
    }
}
