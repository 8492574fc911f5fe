//! `model.safetensors.index.json`: which shard holds which tensor.

use std::{collections::BTreeMap, fmt, marker::PhantomData};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, Visitor},
};

use crate::{
    error::{Error, Result},
    source::is_plain_name,
};

/// Tensor names by shard, both sorted.
pub(crate) type ShardMap = BTreeMap<String, Vec<String>>;

#[derive(Deserialize)]
struct RawIndex {
    weight_map: Pairs<String>,
}

/// Parses an index; `file` is its name, for errors.
pub(crate) fn parse_index(file: &str, json: &[u8]) -> Result<ShardMap> {
    let raw: RawIndex = serde_json::from_slice(json)
        .map_err(|error| Error::IndexJson { file: file.into(), reason: error.to_string() })?;
    if raw.weight_map.0.is_empty() {
        return Err(Error::IndexJson { file: file.into(), reason: "weight_map is empty".into() });
    }
    let mut shards = ShardMap::new();
    for (tensor, shard) in unique(file, raw.weight_map)? {
        if !is_plain_name(&shard) {
            return Err(Error::ShardName { file: file.into(), shard });
        }
        shards.entry(shard).or_default().push(tensor);
    }
    Ok(shards)
}

/// Sorted pairs, or the first name that stands twice.
pub(crate) fn unique<T>(file: &str, pairs: Pairs<T>) -> Result<BTreeMap<String, T>> {
    let mut map = BTreeMap::new();
    for (name, value) in pairs.0 {
        if map.contains_key(&name) {
            return Err(Error::Duplicate { file: file.into(), name });
        }
        map.insert(name, value);
    }
    Ok(map)
}

/// A JSON object as written. Maps would keep one of two equal names in silence.
pub(crate) struct Pairs<T>(pub Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Pairs<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for PairsVisitor<T> {
    type Value = Pairs<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(
        self,
        mut map: M,
    ) -> std::result::Result<Self::Value, M::Error> {
        let mut pairs = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            let value = map.next_value().map_err(|e| M::Error::custom(format!("`{name}`: {e}")))?;
            pairs.push((name, value));
        }
        Ok(Pairs(pairs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        parse_index("i.json", json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn groups_tensors_by_shard() {
        let json = r#"{"metadata":{"total_size":8},"weight_map":{"c":"2","b":"1","a":"2"}}"#;
        let shards = parse_index("i.json", json.as_bytes()).unwrap();
        assert_eq!(shards["1"], ["b"]);
        assert_eq!(shards["2"], ["a", "c"]);
    }

    #[test]
    fn errors_name_the_field() {
        assert!(error("{").starts_with("i.json: bad index: EOF"));
        assert!(error("{}").contains("missing field `weight_map`"));
        assert!(error(r#"{"weight_map":{}}"#).contains("weight_map is empty"));
        assert!(error(r#"{"weight_map":{"a":1}}"#).contains("`a`: invalid type: integer"));
        assert!(error(r#"{"weight_map":{"a":"x","a":"y"}}"#).contains("`a` is listed twice"));
        let escape = error(r#"{"weight_map":{"a":"../../x.safetensors"}}"#);
        assert!(escape.contains("`../../x.safetensors` is not a plain file name"));
    }
}
