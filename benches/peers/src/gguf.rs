//! GGUF version 3: a header of metadata and tensor names, then the tensors, each aligned.

use std::io::{Result, Write};

/// Bytes that the data and each tensor start at a multiple of.
pub const ALIGNMENT: u64 = 32;
/// Values per block of Q4_0.
pub const Q4_0_BLOCK: usize = 32;
/// Bytes per block of Q4_0: a scale in f16, then two values a byte.
pub const Q4_0_BYTES: usize = 18;
/// Values per block of Q8_0.
pub const Q8_0_BLOCK: usize = 32;
/// Bytes per block of Q8_0: a scale in f16, then a value a byte.
pub const Q8_0_BYTES: usize = 34;

/// A value of the metadata.
#[derive(Clone, Debug)]
pub enum Value {
    /// A number.
    U32(u32),
    /// A number.
    F32(f32),
    /// UTF-8.
    Text(String),
    /// Yes or no.
    Bool(bool),
    /// Numbers.
    I32s(Vec<i32>),
    /// Numbers.
    F32s(Vec<f32>),
    /// UTF-8, each.
    Texts(Vec<String>),
}

/// How the values of a tensor are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// As they are.
    F32,
    /// As they are, in half precision.
    F16,
    /// Blocks of 32 along a row, of 4 bits each and one scale: `(nibble - 8) * scale`.
    Q4_0,
    /// Blocks of 32 along a row, of 8 bits each and one scale: `byte * scale`.
    Q8_0,
}

impl Storage {
    /// The number that ggml knows it by.
    fn code(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 8,
        }
    }

    /// Bytes of a row; that of blocks is whole blocks.
    fn row_bytes(self, cols: usize) -> usize {
        match self {
            Self::F32 => cols * size_of::<f32>(),
            Self::F16 => cols * 2,
            Self::Q4_0 => cols / Q4_0_BLOCK * Q4_0_BYTES,
            Self::Q8_0 => cols / Q8_0_BLOCK * Q8_0_BYTES,
        }
    }
}

/// What a file says about a tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// As llama.cpp calls it.
    pub name: String,
    /// 1 to 4 sizes, the slowest first.
    pub shape: Vec<usize>,
    /// How it is stored.
    pub storage: Storage,
}

impl Tensor {
    /// Values per row.
    pub fn cols(&self) -> usize {
        self.shape.last().copied().unwrap_or(0)
    }

    /// Values that one output is computed from: a row of a matrix, a kernel of a convolution.
    pub fn inputs(&self) -> usize {
        self.shape[1.min(self.shape.len() - 1)..].iter().product()
    }

    /// Rows; a vector is one.
    fn rows(&self) -> usize {
        self.shape[..self.shape.len().saturating_sub(1)].iter().product()
    }

    /// Bytes of all rows.
    fn bytes(&self) -> u64 {
        (self.rows() * self.storage.row_bytes(self.cols())) as u64
    }
}

/// Writes a file row by row: `fill` is called with a tensor's number and a row of zeros, in order.
/// Returns how many bytes were written.
///
/// # Errors
/// Those of `out`.
pub fn write(
    out: &mut impl Write,
    metadata: &[(String, Value)],
    tensors: &[Tensor],
    mut fill: impl FnMut(usize, &mut [u8]),
) -> Result<u64> {
    let head = header(metadata, tensors);
    out.write_all(&head)?;
    let mut written = head.len() as u64;
    for (i, tensor) in tensors.iter().enumerate() {
        let mut row = vec![0; tensor.storage.row_bytes(tensor.cols())];
        for _ in 0..tensor.rows() {
            row.fill(0);
            fill(i, &mut row);
            out.write_all(&row)?;
        }
        let padding = padded(tensor.bytes()) - tensor.bytes();
        out.write_all(&[0; ALIGNMENT as usize][..padding as usize])?;
        written += padded(tensor.bytes());
    }
    Ok(written)
}

/// Everything in front of the data.
fn header(metadata: &[(String, Value)], tensors: &[Tensor]) -> Vec<u8> {
    let mut head = Vec::from(*b"GGUF");
    head.extend(3u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend((metadata.len() as u64).to_le_bytes());
    for (key, value) in metadata {
        text(&mut head, key);
        match value {
            Value::U32(x) => number(&mut head, 4, x.to_le_bytes()),
            Value::F32(x) => number(&mut head, 6, x.to_le_bytes()),
            Value::Text(x) => {
                head.extend(8u32.to_le_bytes());
                text(&mut head, x);
            }
            Value::Bool(x) => {
                head.extend(7u32.to_le_bytes());
                head.push(u8::from(*x));
            }
            Value::I32s(all) => array(&mut head, 5, all, |head, x| head.extend(x.to_le_bytes())),
            Value::F32s(all) => array(&mut head, 6, all, |head, x| head.extend(x.to_le_bytes())),
            Value::Texts(all) => array(&mut head, 8, all, |head, x| text(head, x)),
        }
    }
    let mut offset = 0;
    for tensor in tensors {
        text(&mut head, &tensor.name);
        head.extend((tensor.shape.len() as u32).to_le_bytes());
        for size in tensor.shape.iter().rev() {
            head.extend((*size as u64).to_le_bytes());
        }
        head.extend(tensor.storage.code().to_le_bytes());
        head.extend(u64::to_le_bytes(offset));
        offset += padded(tensor.bytes());
    }
    head.resize(padded(head.len() as u64) as usize, 0);
    head
}

fn number(head: &mut Vec<u8>, code: u32, bytes: [u8; 4]) {
    head.extend(code.to_le_bytes());
    head.extend(bytes);
}

fn array<T>(head: &mut Vec<u8>, code: u32, all: &[T], one: impl Fn(&mut Vec<u8>, &T)) {
    head.extend(9u32.to_le_bytes());
    head.extend(code.to_le_bytes());
    head.extend((all.len() as u64).to_le_bytes());
    all.iter().for_each(|x| one(head, x));
}

fn text(head: &mut Vec<u8>, text: &str) {
    head.extend((text.len() as u64).to_le_bytes());
    head.extend(text.as_bytes());
}

fn padded(bytes: u64) -> u64 {
    bytes.next_multiple_of(ALIGNMENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, shape: &[usize], storage: Storage) -> Tensor {
        Tensor { name: name.into(), shape: shape.to_vec(), storage }
    }

    #[test]
    fn bytes_stand_where_the_format_says() {
        let metadata =
            [("k".to_string(), Value::U32(7)), ("t".to_string(), Value::Text("v".into()))];
        let tensors = [tensor("a", &[3], Storage::F32), tensor("b", &[2, 32], Storage::Q4_0)];
        let mut file = Vec::new();
        let mut calls = Vec::new();
        let n = write(&mut file, &metadata, &tensors, |i, row| {
            calls.push((i, row.len()));
            row.fill(1 + calls.len() as u8);
        })
        .unwrap();
        assert_eq!(calls, [(0, 12), (1, 18), (1, 18)]);

        let mut expected = Vec::new();
        expected.extend(b"GGUF\x03\0\0\0\x02\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0k\x04\0\0\0\x07\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0t\x08\0\0\0\x01\0\0\0\0\0\0\0v");
        expected.extend(b"\x01\0\0\0\0\0\0\0a\x01\0\0\0\x03\0\0\0\0\0\0\0");
        expected.extend(b"\0\0\0\0\0\0\0\0\0\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0b\x02\0\0\0\x20\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0");
        expected.extend(b"\x02\0\0\0\x20\0\0\0\0\0\0\0");
        let data = expected.len().next_multiple_of(32);
        expected.resize(data, 0);
        expected.extend([2; 12]);
        expected.resize(data + 32, 0); // where the second tensor says that it starts
        expected.extend([3; 18]);
        expected.extend([4; 18]);
        expected.resize(data + 96, 0);
        assert_eq!(file, expected);
        assert_eq!(n, file.len() as u64);
    }

    #[test]
    fn arrays_and_flags_stand_where_the_format_says() {
        let metadata = [
            ("b".to_string(), Value::Bool(true)),
            ("i".to_string(), Value::I32s(vec![-1, 2])),
            ("f".to_string(), Value::F32s(vec![0.5])),
            ("s".to_string(), Value::Texts(vec!["x".into(), "yz".into()])),
        ];
        let mut expected: Vec<u8> = Vec::new();
        expected.extend(b"\x01\0\0\0\0\0\0\0b\x07\0\0\0\x01");
        expected.extend(b"\x01\0\0\0\0\0\0\0i\x09\0\0\0\x05\0\0\0\x02\0\0\0\0\0\0\0");
        expected.extend(b"\xff\xff\xff\xff\x02\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0f\x09\0\0\0\x06\0\0\0\x01\0\0\0\0\0\0\0");
        expected.extend(b"\0\0\0\x3f");
        expected.extend(b"\x01\0\0\0\0\0\0\0s\x09\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0");
        expected.extend(b"\x01\0\0\0\0\0\0\0x\x02\0\0\0\0\0\0\0yz");
        let head = header(&metadata, &[]);
        assert_eq!(head[24..24 + expected.len()], expected);
    }

    #[test]
    fn a_row_is_filled_from_zeros() {
        let tensors = [tensor("a", &[2, 2], Storage::F32)];
        let mut file = Vec::new();
        write(&mut file, &[], &tensors, |_, row| {
            assert!(row.iter().all(|b| *b == 0));
            row[0] = 9;
        })
        .unwrap();
        assert_eq!(file[file.len() - 32..][..16], [9, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn a_full_disk_is_an_error() {
        let mut small = [0u8; 40];
        let tensors = [tensor("a", &[64], Storage::F32)];
        let error = write(&mut small.as_mut_slice(), &[], &tensors, |_, _| ()).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::WriteZero);
    }
}
