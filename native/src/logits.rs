//! `globe logits`.

use anyhow::Context;
use globe_engine::{Cancel, Demand, Engine, Generation, Sampling, Session};
use globe_image::Photo;
use globe_model::ImageGrid;
use globe_text::Prompt;
use serde::Serialize;

use crate::args::LogitsArgs;
use crate::console::{print, printable};
use crate::exit::{Exit, Fail, OrUsage};
use crate::input::{load_engine, open_folder, read_photo};

/// Most likely tokens in the summary.
const N_SHOWN: usize = 5;

/// What another implementation is compared with.
#[derive(Serialize)]
struct Logits {
    input_ids: Vec<u32>,
    image_grid_thw: Option<Grids>,
    last_logits: Vec<f32>,
    greedy: Vec<u32>,
}

/// Frames, rows and columns of patches.
#[derive(Serialize)]
#[serde(untagged)]
enum Grids {
    One([usize; 3]),
    Many(Vec<[usize; 3]>),
}

impl Grids {
    fn new(grids: &[ImageGrid]) -> Option<Self> {
        match grids {
            [] => None,
            [one] => Some(Self::One(one.0)),
            many => Some(Self::Many(many.iter().map(|grid| grid.0).collect())),
        }
    }
}

/// Prints token ids, logits and greedy tokens.
pub fn run(args: &LogitsArgs) -> Result<Exit, Fail> {
    let folder = open_folder(args.model.model.as_deref())?;
    let photos = args
        .images
        .iter()
        .map(|path| read_photo(path).with_context(|| format!("cannot read {}", path.display())));
    let photos = photos.collect::<anyhow::Result<Vec<Photo>>>().or_usage()?;
    let document = pollster::block_on(async {
        let largest = photos.iter().map(|photo| [photo.height, photo.width]);
        let demand = Demand {
            prompt: Prompt { system: args.system.clone(), user: args.prompt.clone() },
            photo: largest.max_by_key(|[height, width]| height * width),
            photos: photos.len(),
            max_tokens: args.tokens,
            ..Demand::default()
        };
        let engine = load_engine(&folder, &args.model, demand, args.json).await?;
        let logits = compute(&engine, &photos, args).await?;
        match args.json {
            true => Ok(serde_json::to_string(&logits)? + "\n"),
            false => text(&engine, &logits),
        }
    });
    print(&document?).context("cannot write to standard output")?;
    Ok(Exit::Success)
}

async fn compute(engine: &Engine, photos: &[Photo], args: &LogitsArgs) -> Result<Logits, Fail> {
    let prompt = Prompt { system: args.system.clone(), user: args.prompt.clone() };
    let photos: Vec<&Photo> = photos.iter().collect();
    let mut prepared = engine.prepare(&photos, &prompt, None).or_usage()?;
    let features = engine.encode(&mut prepared).or_usage()?;
    let mut session = engine.prefill(&prepared, features, args.tokens).or_usage()?;
    Ok(Logits {
        last_logits: session.logits().await?,
        greedy: greedy(engine, &mut session, args.tokens).await?,
        input_ids: prepared.ids,
        image_grid_thw: Grids::new(&prepared.grids),
    })
}

async fn greedy(engine: &Engine, session: &mut Session, n: usize) -> Result<Vec<u32>, Fail> {
    let sampling = Sampling::greedy();
    let generation = Generation { sampling, seed: 0, sample: 0, max_tokens: n, ignore_stop: true };
    Ok(engine.generate(session, &generation, &Cancel::default(), &mut |_| {}).await?.ids)
}

fn text(engine: &Engine, logits: &Logits) -> Result<String, Fail> {
    let mut text = format!("prompt   {} tokens\n", logits.input_ids.len());
    match &logits.image_grid_thw {
        None => {}
        Some(Grids::One(grid)) => text += &format!("patches  {}\n", product(grid)),
        Some(Grids::Many(grids)) => {
            let grids: Vec<String> = grids.iter().map(product).collect();
            text += &format!("patches  {}\n", grids.join(", "));
        }
    }
    text += "next token, most likely first\n";
    for id in most_likely(&logits.last_logits) {
        let token = engine.tokenizer().decode(&[id], false)?;
        let logit = logits.last_logits[id as usize];
        text += &format!("  {logit:9.4}  {id:6}  \"{}\"\n", one_line(&token));
    }
    let greedy = engine.tokenizer().decode(&logits.greedy, false)?;
    Ok(text + &format!("{} greedy tokens\n  {}\n", logits.greedy.len(), one_line(&greedy)))
}

fn product([frames, rows, columns]: &[usize; 3]) -> String {
    format!("{frames} x {rows} x {columns}")
}

fn one_line(text: &str) -> String {
    printable(&text.replace('\n', "\\n"))
}

/// Ids of the largest logits, largest first; of equals the lower id first.
fn most_likely(logits: &[f32]) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]));
    ids.truncate(N_SHOWN);
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(grids: &[ImageGrid]) -> String {
        let logits = Logits {
            input_ids: vec![1, 2],
            image_grid_thw: Grids::new(grids),
            last_logits: vec![0.1, -1.0e-7, f32::MIN_POSITIVE],
            greedy: vec![3],
        };
        serde_json::to_string(&logits).unwrap()
    }

    #[test]
    fn one_grid_is_flat_and_several_are_nested() {
        assert!(json(&[]).contains("\"image_grid_thw\":null"));
        assert!(json(&[ImageGrid([1, 2, 4])]).contains("\"image_grid_thw\":[1,2,4]"));
        let two = json(&[ImageGrid([1, 2, 4]), ImageGrid([1, 6, 8])]);
        assert!(two.contains("\"image_grid_thw\":[[1,2,4],[1,6,8]]"));
    }

    #[test]
    fn floats_survive_json() {
        let json: serde_json::Value = serde_json::from_str(&json(&[])).unwrap();
        let logits = json["last_logits"].as_array().unwrap();
        let logits: Vec<f32> = logits.iter().map(|x| x.as_f64().unwrap() as f32).collect();
        assert_eq!(logits, [0.1, -1.0e-7, f32::MIN_POSITIVE]);
    }

    #[test]
    fn the_summary_starts_with_the_largest_logit() {
        assert_eq!(most_likely(&[0.5, 2.0, -1.0, 2.0]), [1, 3, 0, 2]);
    }
}
